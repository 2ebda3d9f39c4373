"""Signatures as data: rows of zeros, means of replicates, and models that predict of any sign what the closed form says."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa import DrugJEPA, PerturbJEPA, tl
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable, condition_table, signatures_to_conditions

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}


def signatures(n_drugs: int = 10, lines: str = "xyz", genes: int = 30) -> ad.AnnData:
    rng = np.random.default_rng(0)
    profile = 2 * rng.normal(size=(n_drugs, genes))
    pairs = [(d, c) for d in range(n_drugs) for c in lines]
    x = np.array([profile[d] + 0.5 * rng.normal(size=genes) for d, _ in pairs])
    obs = pd.DataFrame(
        [(f"D{d}", c) for d, c in pairs], columns=["drug", "line"], index=[f"s{i}" for i in range(len(x))]
    )
    return ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_rows_of_zeros_and_means_of_replicates(form) -> None:
    obs = pd.DataFrame(
        {
            "drug": pd.Categorical(["B", "A", "A", "A"]),
            "line": ["y", "x", "x", "x"],
            "dose": [1.0, 1.0, 1.0, 2.0],
            "h": [24, 24, 24, 24],
            "note": [*"klmn"],
        },
        index=[*"1234"],
    )
    data = ad.AnnData(form(np.array([[1.0, -1.0], [2.0, 0.0], [4.0, -2.0], [0.0, 5.0]])), obs=obs)
    ready = signatures_to_conditions(
        data, "drug", context_key="line", dose_key="dose", time_key="h", new_contexts=["z"]
    )
    x = ready.X.toarray() if sp.issparse(ready.X) else ready.X
    assert sp.issparse(ready.X) == (form is sp.csr_matrix) and x.dtype == np.float32
    assert x.tolist() == [[0, 0]] * 3 + [[1, -1], [3, -1], [0, 5]]
    assert ready.obs["drug"].tolist() == ["DMSO"] * 3 + ["B", "A", "A"]
    assert ready.obs["line"].tolist() == ["x", "y", "z", "y", "x", "x"]
    assert ready.obs["dose"].tolist() == [0, 0, 0, 1, 1, 2] and ready.obs["h"].tolist() == [0] * 3 + [24] * 3
    assert ready.obs["n_profiles"].tolist() == [0, 0, 0, 1, 2, 1] and ready.obs["note"][3:].tolist() == ["k", "l", "n"]
    assert data.obs.shape == (4, 5)  # the user's data stay as they are
    alone = signatures_to_conditions(data[1:2].copy(), "drug", control="none")
    assert alone.obs["drug"].tolist() == ["none", "A"]


def test_models_say_what_the_closed_form_says() -> None:
    data = signatures()
    held = ((data.obs["drug"].isin(["D0", "D1"])) & (data.obs["line"] == "y")).to_numpy()
    ready = signatures_to_conditions(data, "drug", context_key="line")
    DrugJEPA.setup_anndata(ready, "drug", context_key="line", input_scale="signature")
    model = DrugJEPA(ready, n_latent=4, n_pcs=8)
    model.train(holdout=[("D0", "y"), ("D1", "y")], **QUIET)
    known = data[~held]
    table = ConditionTable(
        tuple((d,) for d in known.obs["drug"]), known.obs["line"].to_numpy(dtype=object), np.zeros(known.shape), known.X
    )
    asked = ConditionTable((("D0",), ("D1",)), np.array(["y", "y"]), np.zeros((2, data.n_vars)))
    expected = DrugEffect().fit(table).effects(asked)
    assert (expected < 0).any()  # nothing is cut off at zero
    predicted = model.predict_drug_response(["D0", "D1"], context="y", include_control=True)
    treated = predicted[predicted.obs["drug"] != "DMSO"]
    np.testing.assert_allclose(treated.X, expected, atol=1e-5)
    effects = model.predict_effect(["D0", "D1"], context="y")
    np.testing.assert_allclose(effects["effect"].to_numpy().reshape(2, -1), expected, atol=1e-5)
    np.testing.assert_allclose(effects["effect"] - effects["lower"], effects["upper"] - effects["effect"], atol=1e-5)
    scores = tl.evaluate(predicted, ready)
    l2 = scores[(scores["metric"] == "l2") & (scores["kind"] == "model")].set_index("perturbation")["value"]
    by_hand = np.linalg.norm(expected - data.X[held], axis=1)
    np.testing.assert_allclose(l2[["D0", "D1"]], by_hand, rtol=1e-4)
    zero = scores[(scores["metric"] == "l2") & (scores["method"] == "no change")].set_index("perturbation")["value"]
    np.testing.assert_allclose(zero[["D0", "D1"]], np.linalg.norm(data.X[held], axis=1), rtol=1e-4)


def test_a_context_never_measured_is_asked_by_its_row_of_zeros(tmp_path) -> None:
    data = signatures(4)
    ready = signatures_to_conditions(data, "drug", context_key="line", new_contexts=["w"])
    DrugJEPA.setup_anndata(ready, "drug", context_key="line", input_scale="signature")
    model = DrugJEPA(ready, n_latent=4, n_pcs=8)
    model.train(**QUIET)
    table = condition_table(ready, "drug", "DMSO", context_key="line", input_scale="signature")
    asked = ConditionTable((("D2",),), np.array(["w"]), np.zeros((1, data.n_vars)))
    expected = DrugEffect().fit(table).effects(asked)[0]
    model.save(tmp_path / "model", save_anndata=True)
    for one in (model, DrugJEPA.load(tmp_path / "model")):
        effect = one.predict_effect("D2", context="w")["effect"]
        np.testing.assert_allclose(effect, expected, atol=1e-5)
    again = signatures_to_conditions(data[:3].copy(), "drug", context_key="line")
    only_zeros = again[again.obs["drug"] == "DMSO"].copy()  # other data, all of them zero
    assert model.predict_drug_response("D1", only_zeros).n_obs == 3


def test_genes_that_were_knocked_out_train_too() -> None:
    ready = signatures_to_conditions(signatures(6), "drug", context_key="line", control="control")
    PerturbJEPA.setup_anndata(ready, "drug", context_key="line", input_scale="signature")
    model = PerturbJEPA(ready, n_latent=4, n_pcs=8)
    model.train(holdout=[("D0", "x")], **QUIET)
    effect = model.predict_effect("D0", context="x")["effect"].to_numpy()
    true = np.asarray(ready[(ready.obs["drug"] == "D0") & (ready.obs["line"] == "x")].X)[0]
    assert np.corrcoef(effect, true)[0, 1] > 0.9 and effect.min() < -1


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"drug_key": "drugs"}, KeyError, "drug_key='drugs' is not a column.*Did you mean 'drug'"),
        (lambda a: a.obs.__setitem__("line", None), {}, ValueError, "context_key='line'"),
        (lambda a: a.obs.__setitem__("dose", -1.0), {"dose_key": "dose"}, ValueError, "dose_key='dose'.*below 0"),
        (lambda a: a.X.__setitem__((0, 0), np.nan), {}, ValueError, "1 NaN or infinite values"),
        (lambda a: a.obs.__setitem__("n_profiles", 1), {}, ValueError, "has a column 'n_profiles'"),
        (None, {"control": "D1"}, ValueError, "3 of 3 rows labelled 'D1' are not zero"),
        (None, {"new_contexts": ["x"]}, ValueError, "new_contexts: 'x' have signatures"),
        (None, {"context_key": None, "new_contexts": ["w"]}, ValueError, "name the column of contexts too"),
        (None, {"layer": "raw"}, ValueError, "layer='raw'"),
        (lambda a: setattr(a, "X", None), {}, ValueError, "adata.X is None"),
    ],
)
def test_bad_signatures(spoil, options: dict, error: type, message: str) -> None:
    data = signatures(3)
    if spoil is not None:
        spoil(data)
    with pytest.raises(error, match=message):
        signatures_to_conditions(data, **{"drug_key": "drug", "context_key": "line", **options})


def test_other_bad_signatures() -> None:
    with pytest.raises(TypeError, match="expected an AnnData, one signature a row; found DataFrame"):
        signatures_to_conditions(pd.DataFrame(), "drug")
    zeros = signatures(2)
    zeros.X[:], zeros.obs["drug"] = 0, "DMSO"
    with pytest.raises(ValueError, match="all rows are labelled 'DMSO'"):
        signatures_to_conditions(zeros, "drug", context_key="line")


def test_models_say_how_signatures_are_set_up() -> None:
    ready = signatures_to_conditions(signatures(3), "drug", context_key="line")
    with pytest.raises(ValueError, match="negative values.*input_scale='signature'"):
        DrugJEPA.setup_anndata(ready, "drug", context_key="line")
    ready.X[:] = 0
    with pytest.raises(ValueError, match="input_scale='signature', but all profiles are zero"):
        DrugJEPA.setup_anndata(ready, "drug", context_key="line", input_scale="signature")
