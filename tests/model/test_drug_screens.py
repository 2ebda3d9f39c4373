"""Screens: every form of library, the same scores as questions asked one by one, bounds, and what is said of the result."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa import DrugJEPA
from scjepa.baselines.drugs import Screener
from scjepa.model._drug_scores import Aim, Scorer
from scjepa.pharma import effect_size, fingerprints, reversal, target_progress

pytest.importorskip("rdkit")

GENES = 30
SMILES = {
    "alcohol 0": "CCO", "alcohol 1": "CCCO", "alcohol 2": "CCCCO", "alcohol 3": "CCCCCO",
    "ring 0": "c1ccccc1N", "ring 1": "Cc1ccccc1N", "ring 2": "CCc1ccccc1N", "ring 3": "c1ccccc1NC",
}  # fmt: skip
LIBRARY = {"a": "CCCCCCCO", "b": "CCCc1ccccc1N", "same": "CCO", "c": "c1ccncc1", "d": "CC(C)CO", "e": "CNc1ccccc1C"}
QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}


def cells(seed: int = 0) -> ad.AnnData:
    """Cells of two contexts whose effect is the family's; a third of the genes is hardly there, so that bounds are met."""
    rng = np.random.default_rng(seed)
    effect = {family: rng.normal(size=GENES) for family in ("alcohol", "ring")}
    base = np.where(np.arange(GENES) % 3 == 0, 0.05, rng.uniform(1.0, 3.0, GENES))
    rows, obs = [], []
    for context in ("x", "y"):
        for drug in ("DMSO", *SMILES):
            n = 40 if drug == "DMSO" else 8
            mean = base + (0 if drug == "DMSO" else effect[drug.split()[0]])
            rows.append(np.maximum(mean + rng.normal(scale=0.2, size=(n, GENES)), 0))
            obs += [(drug, context, SMILES.get(drug, ""))] * n
    frame = pd.DataFrame(obs, columns=["drug", "context", "smiles"], index=[f"c{i}" for i in range(len(obs))])
    return ad.AnnData(
        np.vstack(rows).astype(np.float32), obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    )


def trained(features: pd.DataFrame | None = None, smiles_key: str | None = "smiles") -> DrugJEPA:
    adata = cells()
    DrugJEPA.setup_anndata(adata, "drug", smiles_key=smiles_key, context_key="context", input_scale="lognorm")
    model = DrugJEPA(adata, features, n_latent=4, n_pcs=6)
    model.train(**QUIET)
    return model


@pytest.fixture(scope="module")
def model() -> DrugJEPA:
    return trained()


@pytest.fixture(scope="module")
def signature(model: DrugJEPA) -> pd.Series:
    return pd.Series(np.random.default_rng(1).normal(size=GENES), index=model.var_names)


def predicted(model: DrugJEPA, drugs: list[str], smiles: dict[str, str] | None = None) -> np.ndarray:
    """Return effects as :meth:`predict_effect` gives them, one row a drug."""
    if smiles is None:
        table = model.predict_effect(drugs, context="x")
    else:
        with model._knowing(smiles):
            table = model.predict_effect(drugs, context="x")
    return (
        table.pivot(index="perturbation", columns="gene", values="effect").loc[drugs, list(model.var_names)].to_numpy()
    )


def scores(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    return table.set_index("name")["score"].loc[names].to_numpy()


# ---------------------------------------------------------------- the same as one by one
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_are_those_of_predicted_effects(model, signature):
    names = list(LIBRARY)
    effects = predicted(model, names, LIBRARY)
    start = model.adata[(model.adata.obs["drug"] == "DMSO") & (model.adata.obs["context"] == "x")].X.mean(0)
    aim = model.adata[model.adata.obs["drug"] == "ring 2"].copy()
    assert np.ptp(effects, axis=0).max() > 0.1 and (np.abs(start + effects) < 1e-6).any(), (
        "some means are stopped at zero"
    )
    cases = [
        ({"signature": signature}, reversal(signature, effects)),
        ({"signature": signature, "score": "ks"}, reversal(signature, effects, "ks")),
        ({"signature": signature, "score": "extreme"}, reversal(signature, effects, "extreme")),
        ({"target": aim}, target_progress(start + effects, aim.X.mean(0), start)),
        ({"score": lambda e: np.abs(e).sum(1)}, np.abs(effects).sum(1)),
        ({}, effect_size(effects)),
    ]
    for options, expected in cases:
        table = model.screen_drugs(LIBRARY, context="x", **options)
        np.testing.assert_allclose(
            scores(table, names), expected, rtol=0, atol=2e-6
        )  # effects are moved in single precision
        assert table["name"].tolist() == [names[i] for i in np.argsort(-expected, kind="stable")] or options.get(
            "score"
        )
        assert table["rank"].tolist() == list(range(1, 7)) and (np.diff(table["score"]) <= 0).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_drugs_of_training_are_predicted_with_the_network(model, signature):
    names = list(SMILES)
    table = model.screen_drugs(names, context="x", signature=signature, batch_size=3)
    np.testing.assert_allclose(scores(table, names), reversal(signature, predicted(model, names)), rtol=0, atol=1e-12)
    assert table["nearest_drug"].tolist() == table["name"].tolist() and (table["similarity"] == 1).all()


def test_all_forms_of_library_give_the_same(model, signature):
    prints = fingerprints(LIBRARY, counts=True)
    x, names = prints.to_numpy(), list(LIBRARY)
    options = {"context": "x", "signature": signature}
    whole = model.screen_drugs(LIBRARY, **options)
    assert list(whole) == ["rank", "name", "score", "similarity", "nearest_drug", "support"]
    forms = {
        "table of SMILES": (pd.DataFrame({"smiles": LIBRARY}), names),
        "pairs": (iter(LIBRARY.items()), names),
        "list": (list(LIBRARY.values()), list(LIBRARY.values())),
        "table": (prints, names),
        "columns in another order": (prints.iloc[:, ::-1].assign(price=1.0), names),
        "array": (x, list("012345")),
        "sparse": (sp.csc_matrix(x), list("012345")),
        "blocks": (iter([x[:4], sp.csr_array(x[4:].astype(float))]), list("012345")),
        "named blocks": (iter([(names[:1], x[:1]), (names[1:], x[1:])]), names),
    }
    for form, (library, called) in forms.items():
        found = model.screen_drugs(library, batch_size=2 if form == "blocks" else 4096, **options)
        back = dict(zip(called, names, strict=True))
        pd.testing.assert_frame_equal(found.assign(name=found["name"].map(back)), whole, rtol=1e-9, obj=form)
    best = model.screen_drugs(LIBRARY, top_k=2, batch_size=1, **options)
    pd.testing.assert_frame_equal(best, whole[:2], rtol=1e-9)


def test_the_nearest_drug_of_training_is_named(model):
    found = model.screen_drugs(LIBRARY, context="x").set_index("name")
    assert found.loc["same", ["similarity", "nearest_drug"]].tolist() == [1.0, "alcohol 0"]
    assert found.loc["a", "nearest_drug"] == "alcohol 3" and found.loc["b", "nearest_drug"] == "ring 2"
    assert found.loc["c", "similarity"] < 0.35 < found.loc["b", "similarity"] < 1


# ---------------------------------------------------------------- bounds
@pytest.mark.parametrize("k", [3, 24])
def test_bounds_are_met_exactly_where_they_are(k):
    rng = np.random.default_rng(k)
    genes, m = 300, 700
    axes = np.linalg.qr(rng.normal(size=(genes, k)))[0]
    made = Screener("unseen", (), 0.1 * rng.normal(size=genes), (), np.zeros((0, k)), axes, {}, {})
    y = 2 * rng.normal(size=(m, k)) / np.arange(1, k + 1)
    start = np.where(np.arange(genes) < 40, 0.1, 3.0)
    start[:5] = 0
    most = np.where(np.arange(genes) < 290, np.inf, 3.1)
    signature = rng.normal(size=genes)
    for options in (
        {"signature": signature},
        {"target": start + signature},
        {},
        {"score": lambda e: e[:, 0] - e[:, 295]},
    ):
        scorer = Scorer(made, Aim(start, **options), most, "")
        free, inside = scorer.effects(y)
        assert 0.01 < (np.abs(free - inside) > 1e-6).mean() < 0.15
        got = np.concatenate([scorer._scores(y[:400]), scorer._scores(y[400:])])
        np.testing.assert_allclose(got, scorer.aim(inside), rtol=0, atol=1e-12)
    touched = np.flatnonzero((free != inside).any(0) & (np.abs(free - inside).max(0) > 1e-12))
    doubtful = scorer._doubtful(y)
    assert set(touched) <= set(doubtful) and len(doubtful) < 150


def test_an_effect_that_bounds_take_away_is_none():
    axes = np.eye(4)[:, :2]
    made = Screener("unseen", (), np.zeros(4), (), np.zeros((0, 2)), axes, {}, {})
    y = np.array([[-1.0, -2.0], [-1.0, -1e-9], [0.0, 0.0]])
    start, most = np.array([0.0, 1e-9, 1.0, 1.0]), np.full(4, 5.0)
    got = Scorer(made, Aim(start), most, "")._scores(y)
    np.testing.assert_allclose(got, [1e-9, 1e-9, 0.0], rtol=1e-9, atol=0)
    aim = Aim(start, signature=np.array([0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(Scorer(made, aim, most, "")._scores(y), [1.0, 1.0, 0.0])


# ---------------------------------------------------------------- descriptions
def test_features_of_the_users_own(signature):
    rng = np.random.default_rng(0)
    ring = np.array([name.startswith("ring") for name in SMILES])
    own = pd.DataFrame(rng.normal(size=(8, 3)) + 4 * ring[:, None], index=list(SMILES), columns=list("pqr"))
    new = pd.DataFrame(
        rng.normal(size=(4, 3)) + 4 * np.array([[0], [1], [0], [1]]), index=list("stuv"), columns=list("pqr")
    )
    alone = trained(own, smiles_key=None)
    table = alone.screen_drugs(new[["r", "q", "p"]], context="x", signature=signature)
    assert (
        table.set_index("name").loc[list("stuv"), "nearest_drug"].str.split().str[0].tolist() == ["alcohol", "ring"] * 2
    )
    with pytest.raises(ValueError, match="screen_drugs needs structures.*or a table of the features"):
        alone.screen_drugs(["CCO"], context="x")
    both = trained(own)  # of the library only structures are known
    found = both.screen_drugs(LIBRARY, context="x", signature=signature)
    names = list(LIBRARY)
    with pytest.warns(UserWarning):
        expected = reversal(signature, predicted(both, names, LIBRARY))
    np.testing.assert_allclose(scores(found, names), expected, rtol=0, atol=2e-6)


# ---------------------------------------------------------------- what is said
def test_what_makes_a_screen_doubtful_is_said(model, monkeypatch):
    bits = fingerprints(LIBRARY).to_numpy()
    with pytest.warns(UserWarning, match="the library has bits, and the model compares counts"):
        model.screen_drugs(bits, context="x")
    pick = model.anchor_.picks_["unseen"]
    monkeypatch.setitem(pick, "weights", {"mean per context": 1.0})
    with pytest.warns(UserWarning, match="structure gets no weight for molecules never measured"):
        table = model.screen_drugs(LIBRARY, context="x")
    assert table["name"].tolist() == list(LIBRARY) and table["score"].nunique() == 1, "ties in the library's order"


def test_progress_is_shown(model, monkeypatch, capsys):
    monkeypatch.setattr("scjepa.pharma._screen.DELAY", 0)
    model.screen_drugs(LIBRARY, context="x")
    assert "6.00/6.00" in capsys.readouterr().err
    model.screen_drugs(LIBRARY, context="x", enable_progress_bar=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"library": 2 * np.ones((2, 5))}, r"structure: molecules have shape \(2, 5\), but 2048 features are known"),
        ({"library": np.array([[2.0] * 2047 + [-1.0]])}, "structure: negative values"),
        ({"time": [1.0, 2.0]}, "a screen is at one time"),
        ({"dose": 1.0}, "dose was given, but the model was set up without dose_key"),
        ({"signature": {"g0": 0.0}}, "signature is 0 for all"),
        ({"library": []}, "no drug of the library could be read"),
        ({"top_k": 0}, "k=0"),
    ],
)
def test_bad_screens(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.screen_drugs(**{"library": LIBRARY, "context": "x", **options})
