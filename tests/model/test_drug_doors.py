"""What the questions to DrugJEPA refuse at the door, what their tables have in common, and intervals of curves."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import DrugJEPA, tl
from scjepa.baselines import NoChange
from scjepa.data import ConditionTable
from scjepa.model._drug_parts import least_sure
from scjepa.model._drug_structures import smiles_of
from scjepa.model._drug_widths import half_width, response_widths

pytest.importorskip("rdkit")

GENES = 20
SMILES = {"a0": "CCO", "a1": "CCCO", "a2": "CCCCO", "r0": "c1ccccc1N", "r1": "Cc1ccccc1N", "r2": "CCc1ccccc1N"}
LEVELS = (0.1, 1.0, 10.0, 100.0)


def cells() -> ad.AnnData:
    """Four lines, two times; the effect of a family grows with the log of the dose; a2 was not given to line w."""
    rng = np.random.default_rng(0)
    effect = {family: rng.normal(size=GENES) for family in "ar"}
    base = rng.uniform(2.0, 4.0, GENES)
    rows, obs = [], []
    for line in "xyzw":
        for time in (6.0, 24.0):
            for drug, dose in [("DMSO", 0.0), *((d, x) for d in SMILES for x in LEVELS if (d, line) != ("a2", "w"))]:
                n = 30 if drug == "DMSO" else 6
                mean = base + (0 if drug == "DMSO" else effect[drug[0]] * (np.log10(dose) + 2) / 4)
                rows.append(np.maximum(mean + rng.normal(scale=0.2, size=(n, GENES)), 0))
                obs += [(drug, dose, time, line, SMILES.get(drug, ""))] * n
    frame = pd.DataFrame(
        obs, columns=["drug", "dose", "time", "line", "smiles"], index=[f"c{i}" for i in range(len(obs))]
    )
    x = np.vstack(rows).astype(np.float32)
    return ad.AnnData(x, obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


@pytest.fixture(scope="module")
def model() -> DrugJEPA:
    adata = cells()
    DrugJEPA.setup_anndata(adata, "drug", smiles_key="smiles", dose_key="dose", time_key="time", context_key="line",
                           input_scale="lognorm")  # fmt: skip
    model = DrugJEPA(adata, n_latent=4, n_pcs=6, residual=False)
    model.train(max_epochs=1, embed=False, enable_progress_bar=False, accelerator="cpu")
    return model


HARM = pd.Series(1.0, index=[f"g{i}" for i in range(5)])
X: dict[str, Any] = {"context": "x"}
WRONG = [
    ("predict_drug_response", ("new",), {"smiles": "CCO"}, TypeError, "smiles is str: expected names with their SMILES"),
    ("predict_drug_response", ("a0",), {"dose": True}, ValueError, "dose=True: expected numbers"),
    ("dose_response", (["a0", "a1"], LEVELS), X, TypeError, "expected one drug, or a combination"),
    ("dose_response", ("a0", ["much", 1, 2, 3]), X, ValueError, "doses=.'much', 1, 2, 3.: expected numbers of at least 0"),
    ("dose_response", ("a0", None), X, ValueError, "doses=None: expected numbers"),
    ("dose_response", ("a0", LEVELS), {"time": [6, 24]}, ValueError, "time=.6, 24.: expected one time"),
    ("resistance_emergence", ("a0", [6, 12, 24]), {"dose": [1, 10]}, ValueError, "dose=.1, 10.: expected one dose"),
    ("synergy", (["a0"], "a1", [1], [1]), X, TypeError, "a=.'a0'.: expected one drug"),
    ("synergy", ("a0", "a1", ["x"], [1]), X, ValueError, "doses_a=.'x'.: expected numbers of at least 0"),
    ("synergy", ("a0", "a1", [1], [1]), {"time": [6, 24]}, ValueError, "time=.6, 24.: expected one time"),
    ("optimal_dose", ("a0", [1, 10], HARM), {"time": [6, 24]}, ValueError, "time=.6, 24.: expected one time"),
    ("treatment_window", ("a0", HARM), {"times": [6, 24], "time": 3, "min_benefit": 0, "max_toxicity": 1}, ValueError,
     "looks along times: leave time out"),
    ("treatment_window", ("a0", HARM), {"times": [6, 24], "dose": [1, 2], "min_benefit": 0, "max_toxicity": 1}, ValueError,
     "dose=.1, 2.: expected one dose"),
    ("stratify_patients", ("a0",), {"dose": [1, 2]}, ValueError, "dose=.1, 2.: expected one dose"),
    ("stratify_patients", ("a0", "smiles"), {}, ValueError, "4 contexts have cells of several patients"),
    ("stratify_patients", ("a0", "patient"), {}, KeyError, "patient_key='patient' is not a column"),
    ("stratify_patients", ("a0",), {"max_groups": 0}, ValueError, "max_groups=0: expected a whole number"),
    ("dose_response", ("a0", LEVELS), {"signature": [1.0]}, TypeError, "signature is list: expected a pandas Series"),
    ("dose_response", ("a0", LEVELS), {"signature": {"g0": np.nan, "g1": 1.0}}, ValueError, "signature.dropna"),
    ("dose_response", ("a0", LEVELS), {"signature": {"g0": 0.0}}, ValueError, "signature is 0 for all"),
    ("dose_response", ("a0", LEVELS), {"signature": pd.Series([1.0, 2.0], index=["g0", "g0"])}, ValueError,
     "signature has genes twice: 'g0'"),
    ("screen_drugs", (["a0", "CCO"],), X, ValueError, "1 of 2 names of the library are no drugs of training: 'CCO'"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments", "more", "kind", "message"), WRONG)
def test_wrong_questions_are_refused(model, method, arguments, more, kind, message) -> None:
    with pytest.raises(kind, match=message):
        getattr(model, method)(*arguments, **more)


def test_a_column_of_the_users_that_tables_need_is_refused() -> None:
    adata = cells()
    adata.obs["support"] = adata.obs["line"]
    DrugJEPA.setup_anndata(adata, "drug", dose_key="dose", context_key="support", input_scale="lognorm")
    model = DrugJEPA(adata, n_latent=4, n_pcs=6, residual=False)
    model.train(max_epochs=1, embed=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match="context_key='support': the result has a column of its own by this name"):
        model.dose_response("a0", LEVELS)


def test_a_name_with_the_separator_in_brackets_is_no_combination() -> None:
    adata = cells()
    adata.obs["drug"] = adata.obs["drug"].replace({"a0": "(+)-a0"})
    with pytest.raises(ValueError, match=r"'\(\+\)-a0' would be read as a combination of '\(' and '\)-a0'"):
        DrugJEPA.setup_anndata(adata, "drug", input_scale="lognorm")


def test_names_may_be_the_smiles() -> None:
    obs = pd.DataFrame({"smiles": ["CCO", "DMSO", "CCN", "CCO"]})
    assert smiles_of(obs, "smiles", "smiles", "DMSO", "+") == {"CCO": "CCO", "CCN": "CCN"}


def test_tables_have_the_same_words(model) -> None:
    tables = [
        model.dose_response("a0", LEVELS, **X),
        model.resistance_emergence("a0", [6, 12, 24], **X),
        model.optimal_dose("a0", LEVELS, HARM, **X),
        model.treatment_window("a0", HARM, times=[6, 24], min_benefit=-9, max_toxicity=9, **X),
        model.synergy("a0", "a1", [1], [1], **X),
        model.stratify_patients("a0"),
    ]
    for table in tables:
        assert list(table.columns[:2]) == ["perturbation", "line"] and {"support", "abstain"} <= set(table)
        assert set(table["perturbation"]) <= {"a0", "a0+a1"}
    assert model.dose_response("a0", [0.1, 1, 10, 1000], time=24, **X)["support"].tolist() == ["dose beyond"]
    assert least_sure(["near", "far", "trained"]) == "far"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_screens_say_how_near_training_is(model) -> None:
    known = model.screen_drugs({"a0", "a2"}, context="w", dose=1, time=24).set_index("name")
    assert known["support"].to_dict() == {"a0": "trained", "a2": "near"} and not known["abstain"].any()
    new = model.screen_drugs({"like": "CCCCCO", "odd": "O=S(=O)(F)F"}, context="x", dose=1, time=24).set_index("name")
    assert new["support"].to_dict() == {"like": "near", "odd": "structure uninformative"}


def test_effects_of_new_molecules_by_their_smiles(model) -> None:
    found = model.predict_effect("new", smiles={"new": "CCCCCO"}, dose=1.0, time=24.0, genes="g0", **X)
    assert found[["perturbation", "gene", "support"]].to_numpy().tolist() == [["new", "g0", "near"]]
    with pytest.raises(ValueError, match="'new' was not given"):
        model.predict_effect("new", dose=1.0, **X)


def test_intervals_of_a_curve_cover_what_is_measured(model) -> None:
    true = cells()
    along = pd.Series(
        true[true.obs["drug"] == "a1"].X.mean(0) - true[true.obs["drug"] == "DMSO"].X.mean(0), true.var_names
    )
    curve = model.dose_response("a2", LEVELS, time=24, signature=along, level=0.9, context="w").attrs["curve"]
    assert (curve["lower"] < curve["response"]).all() and (curve["response"] < curve["upper"]).all()
    wide = model.dose_response("a2", LEVELS, time=24, signature=along, level=0.99, context="w").attrs["curve"]
    assert (wide["upper"] > curve["upper"]).all()
    # a2 does what its family does, also in line w
    unit = along / np.linalg.norm(along)
    start = true[true.obs["drug"] == "DMSO"].X.mean(0)
    family = true[(true.obs["drug"] == "a1") & (true.obs["time"] == 24)]
    real = [float((family[family.obs["dose"] == d].X.mean(0) - start) @ unit) for d in LEVELS]
    assert ((curve["lower"] < real) & (real < curve["upper"])).all()


def test_widths_are_those_of_errors_along_the_signature(model) -> None:
    anchor, along = model.anchor_, np.eye(GENES)[3]
    table = anchor.table_
    asked = ConditionTable((("a0",),), np.array(["x"]), table.control[:1], dose=np.array([1.0]), time=np.array([6.0]))
    left = anchor.left_out_effects("single")
    ok = np.isfinite(left).all(1)
    units = np.array(["+".join(a) for a in table.actions])[ok]
    expected = half_width((table.effects - left)[ok, 3], units, 0.9)
    np.testing.assert_allclose(response_widths(anchor, asked, along, 0.9), [expected])
    assert np.isnan(response_widths(NoChange(), asked, along, 0.9)).all()


def test_doses_scored_together_are_warned_of(model) -> None:
    adata = cells()
    pred = model.predict_drug_response("a0", dose=[1.0, 10.0], time=24, context="x", n_cells=10)
    with pytest.warns(
        UserWarning, match=r"1 predicted conditions have cells of several doses in obs\['dose'\].*a0 in x"
    ):
        tl.evaluate(pred, adata, metrics=["l2"], ceiling=False, baselines=None)
    one = pred[pred.obs["dose"] == 1].copy()
    real = adata[((adata.obs["dose"] == 1) & (adata.obs["time"] == 24)) | (adata.obs["drug"] == "DMSO")].copy()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tl.evaluate(one, real, metrics=["l2"], ceiling=False, baselines=None)
    assert not [w for w in said if "several" in str(w.message)]
