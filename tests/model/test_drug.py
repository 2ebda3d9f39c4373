"""DrugJEPA: structures, doses and times at the door, unseen molecules, and what follows from mean effects."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import DrugJEPA
from scjepa.baselines import DrugEffect
from scjepa.model._drug_structures import WIDTH, Structures, smiles_of

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}
FAMILIES = {
    "alcohol": ["CCO", "CCCO", "CCCCO", "CCCCCO"],
    "ring": ["c1ccccc1N", "Cc1ccccc1N", "CCc1ccccc1N", "c1ccccc1NC"],
}
SMILES = {f"{name} {i}": text for name, rows in FAMILIES.items() for i, text in enumerate(rows)}
DOSES, EC50, GENES = (0.1, 1.0, 10.0, 100.0), 3.0, 40


def screen(contexts: int = 5, *, times: bool = False, seed: int = 0) -> ad.AnnData:
    """Cells whose effect is that of the family (not of the molecule), by a Hill curve of EC50 3; contexts respond alike."""
    rng = np.random.default_rng(seed)
    effects = {family: rng.normal(size=GENES) * (rng.random(GENES) < 0.5) for family in FAMILIES}
    base = rng.uniform(1.0, 3.0, GENES)
    rows, obs = [], []
    for context in range(contexts):
        shift = rng.normal(scale=0.2, size=GENES)
        for label in ("DMSO", *SMILES):
            for dose in (0.0,) if label == "DMSO" else DOSES:
                for time in (0.0,) if label == "DMSO" else ((6.0, 24.0, 72.0) if times else (24.0,)):
                    share = dose / (dose + EC50) * {6.0: 1.0, 24.0: 0.8, 72.0: 0.2, 0.0: 0.0}[time]
                    effect = 0.0 if label == "DMSO" else share * effects[label.split()[0]]
                    n = 30 if label == "DMSO" else 6
                    rows.append(np.maximum(base + shift + effect + rng.normal(scale=0.2, size=(n, GENES)), 0))
                    obs += [(label, dose, time, f"patient {context}", SMILES.get(label, ""))] * n
    frame = pd.DataFrame(
        obs, columns=["drug", "dose", "time", "patient", "smiles"], index=[f"c{i}" for i in range(len(obs))]
    )
    adata = ad.AnnData(
        np.vstack(rows).astype(np.float32), obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    )
    adata.uns["truth"] = effects
    return adata


def set_up(adata: ad.AnnData, **options) -> ad.AnnData:
    keys = {"smiles_key": "smiles", "dose_key": "dose", "patient_key": "patient", "input_scale": "lognorm"}
    DrugJEPA.setup_anndata(adata, "drug", **{**keys, **options})
    return adata


@pytest.fixture(scope="module")
def model() -> DrugJEPA:
    pytest.importorskip("rdkit")
    model = DrugJEPA(set_up(screen()), n_latent=4, n_pcs=8)
    model.train(holdout=["alcohol 2", ("ring 1", "patient 3")], **QUIET)
    return model


def effect_of(model: DrugJEPA, drug: str, **options) -> np.ndarray:
    cells = model.predict_drug_response(drug, context="patient 1", include_control=True, **options)
    control = (cells.obs["jepa_prediction"] == "control").to_numpy()
    return cells.X[~control].mean(0) - cells.X[control].mean(0)


# ---------------------------------------------------------------- prediction
def test_the_anchor_reads_structures_and_the_network_does(model: DrugJEPA) -> None:
    assert isinstance(model.anchor_, DrugEffect) and set(model.anchor_.structure.names) == set(SMILES)
    encoder = model.module.predictors[0].action_encoder
    assert encoder.features.shape == (len(SMILES), WIDTH) and encoder.gate is not None and encoder.time is None


def test_a_drug_seen_elsewhere_and_a_molecule_never_seen(model: DrugJEPA) -> None:
    truth = model.adata.uns["truth"]
    for drug, context, most in (("ring 1", "patient 3", 0.4), ("alcohol 2", "patient 1", 0.6)):
        family = truth[drug.split()[0]] * 100 / (100 + EC50)
        cells = model.predict_drug_response(drug, context=context, dose=100.0, include_control=True)
        control = (cells.obs["jepa_prediction"] == "control").to_numpy()
        effect = cells.X[~control].mean(0) - cells.X[control].mean(0)
        assert np.linalg.norm(effect - family) < most * np.linalg.norm(family), drug
    assert set(cells.obs) >= {"drug", "dose", "patient", "source"}


def test_new_structures_are_known_while_they_are_asked_for(model: DrugJEPA) -> None:
    new = {"new": "CCCCCCO"}
    cells = model.predict_drug_response(["new", "ring 0"], smiles=new, dose=10.0, context="patient 1", n_cells=4)
    assert cells.obs["drug"].tolist() == ["new"] * 4 + ["ring 0"] * 4
    support = cells.uns["jepa"]["prediction"]["conditions"].set_index("perturbation")["support"]
    assert support["ring 0"] == "trained" and support["new"] in ("near", "far")
    assert "new" not in model.anchor_.structure.names and not model.anchors_.unseen
    with pytest.raises(
        ValueError, match="'new' in 'new' was not given in any training cell and has no features.*SMILES"
    ):
        model.predict_drug_response("new", dose=10.0)
    alike, other = (effect_of(model, "x", smiles={"x": s}, dose=100.0) for s in ("CCCCCCCO", "CCCc1ccccc1N"))
    truth = model.adata.uns["truth"]
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine(alike, truth["alcohol"]) > cosine(alike, truth["ring"])
    assert cosine(other, truth["ring"]) > cosine(other, truth["alcohol"])


def test_without_structures_drugs_are_learned_vectors() -> None:
    model = DrugJEPA(set_up(screen(2), smiles_key=None), n_latent=4, n_pcs=8)
    model.train(**QUIET)
    assert model.module.predictors[0].action_encoder.features is None
    assert model.predict_drug_response("ring 0", dose=1.0, n_cells=3).n_obs == 6
    with pytest.raises(ValueError, match=r"smiles was given for \['new'\], but this model knows no structures"):
        model.predict_drug_response("new", smiles={"new": "CCO"})
    with pytest.raises(ValueError, match="screen_drugs needs structures"):
        model.screen_drugs(["CCO"], context="patient 0")


# ---------------------------------------------------------------- questions
def test_dose_response_finds_the_half_effect(model: DrugJEPA) -> None:
    table = model.dose_response("ring 0", np.geomspace(0.1, 100, 9), context=["patient 1", "patient 2"])
    assert table["patient"].tolist() == ["patient 1", "patient 2"]
    assert (table["ec50"] / EC50).between(0.5, 2).all() and (table["r2"] > 0.9).all() and not table["flat"].any()
    curve = table.attrs["curve"]
    assert len(curve) == 18 and (np.diff(curve["response"][:9]) > -0.15).all()


def test_screening_finds_what_reverses_a_signature(model: DrugJEPA) -> None:
    disease = pd.Series(-model.adata.uns["truth"]["ring"], index=model.var_names)
    options = {"context": "patient 1", "dose": 100.0, "signature": disease}
    ranked = model.screen_drugs(list(model.known_.items), **options)
    assert set(ranked["name"][:4]) == {name for name in SMILES if name.startswith("ring")}
    library = {"a": "CCCCCCCO", "b": "CCCc1ccccc1N", "c": "CCCCCCCCO"}
    whole = model.screen_drugs(library, **options)
    assert whole["name"][0] == "b" and whole["rank"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(model.screen_drugs(library, batch_size=1, top_k=2, **options), whole[:2])
    by_size = model.screen_drugs(
        ["ring 0", "ring 2"], context="patient 1", dose=100.0, score=lambda e: np.abs(e).sum(1)
    )
    assert len(by_size) == 2
    target = model.adata[(model.adata.obs["drug"] == "ring 2") & (model.adata.obs["dose"] == 100.0)]
    reached = model.screen_drugs(list(model.known_.items), context="patient 1", dose=100.0, target=target.copy())
    assert reached["name"][0].startswith("ring") and reached["score"][0] > 0.5


def test_resistance_is_seen_where_the_response_fades() -> None:
    pytest.importorskip("rdkit")
    model = DrugJEPA(set_up(screen(3, times=True), time_key="time"), n_latent=4, n_pcs=8)
    model.train(**QUIET)
    table = model.resistance_emergence("ring 0", [6, 24, 48, 72], dose=100.0)
    assert table["onset"].between(24, 72).all() and (table["peak"] > 0).all()
    assert model.predict_effect("ring 0", context="patient 0", dose=10.0, time=[6.0, 72.0])["time"].nunique() == 2


def test_patients_are_grouped_by_their_response() -> None:
    pytest.importorskip("rdkit")
    adata = screen(8)
    weak = adata.obs["patient"].isin([f"patient {i}" for i in (0, 2, 5, 7)]).to_numpy()
    treated = (adata.obs["drug"] != "DMSO").to_numpy()
    x = adata.X.copy()
    for patient in adata.obs["patient"].unique():  # half of them hardly respond, and lack gene 3
        own = (adata.obs["patient"] == patient).to_numpy()
        if weak[own][0]:
            mean = x[own & ~treated].mean(0)
            x[own & treated] = mean + 0.1 * (x[own & treated] - mean)
            x[own, 3] = 0.1 * x[own, 3]
    adata.X = x
    model = DrugJEPA(set_up(adata), n_latent=4, n_pcs=8)
    model.train(**QUIET)
    table = model.stratify_patients("ring 0", dose=100.0)
    responders = set(table.loc[table["group"] == table["group"].max(), "patient"])
    assert table["group"].nunique() == 2 and responders == {"patient 1", "patient 3", "patient 4", "patient 6"}
    assert table["response"].is_monotonic_decreasing
    assert table.attrs["biomarkers"]["gene"][0] == "g3"


# ---------------------------------------------------------------- at the door
@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"smiles_key": "smile"}, KeyError, "smiles_key='smile' is not a column.*Did you mean 'smiles'"),
        (lambda o: o.__setitem__("dose", -1.0), {}, ValueError, "dose_key='dose'.*below 0"),
        (lambda o: o.__setitem__("time", np.nan), {"time_key": "time"}, ValueError, "time_key='time'"),
        (
            lambda o: o.__setitem__("smiles", [f"C{'C' * (i % 3)}" for i in range(len(o))]),
            {},
            ValueError,
            "more than one SMILES",
        ),
        (
            lambda o: o.__setitem__("line", "one"),
            {"context_key": "line"},
            ValueError,
            "contexts have cells of several patients",
        ),
        (lambda o: o.__setitem__("drug", "DMSO"), {}, ValueError, "drug_key='drug': all cells are controls"),
    ],
)
def test_bad_setups(spoil, options: dict, error: type, message: str) -> None:
    pytest.importorskip("rdkit")
    adata = screen(2)
    if spoil is not None:
        spoil(adata.obs)
    with pytest.raises(error, match=message):
        set_up(adata, **options)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.dose_response("ring 0", [1.0, 2.0]), "expected at least four different ones above 0"),
        (lambda m: m.resistance_emergence("ring 0", [1, 2, 3]), "set up without time_key"),
        (
            lambda m: m.predict_drug_response("ring 0", time=3.0),
            "time was given, but the model was set up without time_key",
        ),
        (lambda m: m.predict_drug_response("ring 0", dose=-1.0), "dose=-1.0: expected numbers of at least 0"),
        (lambda m: m.screen_drugs(["CCO"]), "the cells are of 5 contexts"),
        (lambda m: m.screen_drugs(["CCO"], context="patient 0", signature={"g0": 1.0}, target=m.adata), "Give one"),
        (
            lambda m: m.screen_drugs(["CCO"], context="patient 0", signature={"nogene": 1.0}),
            "names none of the model's genes",
        ),
        (lambda m: m.screen_drugs(["CCO"], context="patient 0", score="cosin"), "score='cosin' is not among.*'cosine'"),
        (
            lambda m: m.stratify_patients("ring 0", "patient", m.adata[m.adata.obs["patient"] == "patient 1"].copy()),
            "1 patients",
        ),
    ],
)
def test_bad_questions(model: DrugJEPA, ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(model)


def test_questions_need_what_the_setup_names() -> None:
    adata = screen(2)
    DrugJEPA.setup_anndata(adata, "drug", input_scale="lognorm")
    model = DrugJEPA(adata, n_latent=4, n_pcs=8)
    with pytest.raises(RuntimeError, match="dose_response needs a trained model"):
        model.dose_response("ring 0", DOSES)
    model.train(**QUIET)
    with pytest.raises(ValueError, match="set up without dose_key"):
        model.dose_response("ring 0", DOSES)
    with pytest.raises(ValueError, match="stratify_patients needs patients"):
        model.stratify_patients("ring 0")


def test_structures_are_read_and_kept() -> None:
    pytest.importorskip("rdkit")
    frame = pd.DataFrame({"d": ["a", "a+b", "b", "DMSO", "c", "n"], "s": ["CCO", "C", "CCN", "", None, "-666"]})
    assert smiles_of(frame, "d", "s", "DMSO", "+") == {"a": "CCO", "b": "CCN"}
    known = Structures({"a": "CCO.Cl", "bad": "nonsense"}, pd.DataFrame({"t": [1.0, 2.0]}, index=["a", "z"]))
    assert known.smiles == {"a": "CCO"} and set(known.tables()) == {"structure", "features"}
    values = known.of_network(["z", "a"])
    assert values.shape == (2, WIDTH + 1) and not values[0, :WIDTH].any() and values[:, -1].tolist() == [1.0, -1.0]
    again = Structures.from_state(known.state())
    np.testing.assert_array_equal(again.of_network(["a"]), known.of_network(["a"]))
    assert known.joined({"a": "CC", "b": "CCN"}).smiles == {"a": "CCO", "b": "CCN"}
    assert not Structures() and Structures().of_network(["a"]) is None
