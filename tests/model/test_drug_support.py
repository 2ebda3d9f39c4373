"""What DrugJEPA says of predictions: words of support, the note, nearest drugs, and the network's share by class."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import DrugJEPA
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable
from scjepa.model.conditions._gate import Evidence, Gate, classes_of
from scjepa.model.conditions._known import Known

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}
SMILES = {"a1": "CCCO", "a2": "CCCCO", "a3": "CCCCCO", "r1": "c1ccccc1N", "r2": "Cc1ccccc1N", "r3": "CCc1ccccc1N"}


def screen() -> ad.AnnData:
    rng = np.random.default_rng(0)
    effect = {family: rng.normal(size=30) for family in "ar"}
    rows, obs = [], []
    for context in ("x", "y", "z"):
        for drug in ("DMSO", *SMILES):
            for dose in (0.0,) if drug == "DMSO" else (1.0, 4.0, 10.0):
                shift = 0.0 if drug == "DMSO" else effect[drug[0]] * dose / (dose + 1)
                n = 20 if drug == "DMSO" else 8
                rows.append(np.maximum(3 + shift + 0.3 * rng.normal(size=(n, 30)), 0))
                obs += [(drug, dose, context, SMILES.get(drug, ""))] * n
    frame = pd.DataFrame(obs, columns=["drug", "dose", "line", "smiles"]).rename(index=str)
    return ad.AnnData(np.concatenate(rows).astype(np.float32), obs=frame)


@pytest.fixture(scope="module")
def model() -> DrugJEPA:
    pytest.importorskip("rdkit")
    adata = screen()
    DrugJEPA.setup_anndata(
        adata, "drug", smiles_key="smiles", dose_key="dose", context_key="line", input_scale="lognorm"
    )
    model = DrugJEPA(adata, n_latent=4, n_pcs=6, residual=False)
    model.train(holdout=["a2", ("r1", "z")], **QUIET)
    return model


def asked(model: DrugJEPA, drugs: str | list[str], **options) -> tuple[pd.DataFrame, str, ad.AnnData]:
    """Return what was recorded of predictions, the one warning, and the predictions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.predict_drug_response(drugs, context="z", n_cells=2, **options)
    said = [str(w.message) for w in caught if w.category is UserWarning]
    record = found.uns["jepa"]["prediction"]
    assert said == ([record["note"]] if record["note"] else [])
    return record["conditions"], record["note"], found


def test_a_molecule_unlike_all_others_gets_the_mean_and_says_so(model: DrugJEPA) -> None:
    told, note, _ = asked(model, "new", smiles={"new": "O=S(=O)(F)F"}, dose=10.0)
    assert told["support"].tolist() == ["structure uninformative"] and told["similarity"][0] < 0.35
    assert "ean response, structure uninformative (no training molecule is more alike than 0.35) ('new')" in note
    effects = model.predict_effect("r1", context="z", dose=10.0)
    assert set(effects["support"]) <= {"near", "far"}


def test_a_molecule_like_others_names_the_nearest(model: DrugJEPA) -> None:
    told, note, _ = asked(model, "a2", dose=10.0)
    assert told.loc["0", ["class", "nearest_drug", "support"]].tolist() == ["unseen", "a3", "near"]
    assert told["similarity"][0] > 0.5 and "uninformative" not in note


def test_doses_between_are_near_and_doses_beyond_are_flagged(model: DrugJEPA) -> None:
    told, note, _ = asked(model, ["r2", "r3"], dose=[2.0, 10.0, 30.0])
    by = told.set_index(["perturbation", "dose"])["support"]
    assert by[("r2", 2.0)] == "near" and by[("r2", 10.0)] == "trained" and by[("r3", 30.0)] == "dose beyond"
    assert "ose 30 is above the highest measured, 10 ('r2', 'r3')" in note
    with pytest.warns(UserWarning, match="Dose 30 is above the highest measured, 10"):
        effects = model.predict_effect("r2", context="z", dose=[2.0, 30.0])
    assert effects.groupby("dose")["support"].first().tolist() == ["near", "dose beyond"]


def test_the_curve_of_doses_carries_the_words(model: DrugJEPA) -> None:
    curve = model.dose_response("r2", [1.0, 2.0, 10.0, 100.0], context="z").attrs["curve"]
    assert curve["support"].tolist() == ["trained", "near", "trained", "dose beyond"]


def test_the_record_can_be_written(model: DrugJEPA, tmp_path) -> None:
    _, note, found = asked(model, "new", smiles={"new": "O=S(=O)(F)F"}, dose=30.0)
    found.write_h5ad(tmp_path / "p.h5ad")
    again = ad.read_h5ad(tmp_path / "p.h5ad").uns["jepa"]["prediction"]
    assert again["note"] == note and again["conditions"]["support"].tolist() == ["structure uninformative"]


# ---------------------------------------------------------------- the network's share
def table(rows: list[tuple[str, str, float]]) -> ConditionTable:
    y = np.random.default_rng(1).normal(size=(len(rows), 5))
    drug, where, dose = zip(*rows, strict=True)
    return ConditionTable(tuple((d,) for d in drug), np.array(where), np.zeros_like(y), y, dose=np.array(dose))


def test_shares_are_those_of_the_anchors_own_classes() -> None:
    anchor = DrugEffect().fit(
        table([(d, c, x) for d in "ABC" for c in "xy" for x in (1.0, 10.0) if (d, c) != ("C", "y")])
    )
    known = Known(
        pd.DataFrame([(d, "x", 9) for d in "ABC"] + [("A", "y", 9)], columns=["perturbation", "context", "n"])
    )
    rows = table(
        [("A", "x", 10.0), ("A", "x", 3.0), ("A", "x", 90.0), ("C", "y", 1.0), ("A", "w", 1.0), ("D", "x", 1.0)]
    )
    assert classes_of(rows, "xy", "ABC", anchor).tolist() == [
        "single",
        "dose",
        "dose above",
        "elsewhere",
        "context",
        "",
    ]
    added = np.random.default_rng(0).normal(size=(8, 20))
    gate = Gate.fit(
        [Evidence("dose", str(i), 0.5 * row, row) for i, row in enumerate(added)], dict.fromkeys(anchor.picks_, False)
    )
    # trained at this dose; judged by left-out doses; not judged: closed
    np.testing.assert_allclose(gate.share(rows, known, anchor), [1, 0.5, 0, 0, 0, 0], atol=1e-3)
    np.testing.assert_allclose(gate.share(rows, known), [1, 1, 1, 0, 0, 0])  # without a judge doses are not looked at


def test_a_fixed_share_holds_for_all_classes() -> None:
    anchor = DrugEffect().fit(table([("A", "x", 1.0), ("B", "x", 10.0), ("A", "y", 10.0)]))
    known = Known(pd.DataFrame([("A", "x", 9), ("B", "x", 9)], columns=["perturbation", "context", "n"]))
    gate = Gate.fixed(0.4, anchor.picks_)
    assert gate.share(table([("A", "x", 90.0), ("B", "y", 1.0)]), known, anchor).tolist() == [0.4, 0.4]
