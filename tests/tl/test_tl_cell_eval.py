"""tl.to_cell_eval: the rules of cell-eval are met, and (where it is installed) cell-eval runs on the files."""

from __future__ import annotations

import importlib.util

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scjepa.tl import to_cell_eval

KEY = {"perturbation_key": "perturbation"}


def written(arguments):
    return ad.read_h5ad(arguments["adata_pred"]), ad.read_h5ad(arguments["adata_real"])


def test_files_meet_the_rules(screen, prediction, tmp_path):
    prediction.X[0, 0] = -0.25
    prediction.obs["perturbation"] = prediction.obs["perturbation"].astype(str).replace({"A+B": "B+A"})
    mixed = screen[:, screen.var_names[::-1]].copy()
    arguments = to_cell_eval(prediction, mixed, tmp_path / "new" / "folder", **KEY)
    assert (arguments["pert_col"], arguments["control_pert"]) == ("perturbation", "control")
    pred, real = written(arguments)
    assert pred.var_names.tolist() == real.var_names.tolist() == prediction.var_names.tolist()
    counts = {"control": 30, "A+B": 30, "A+C": 30}
    assert pred.obs["perturbation"].value_counts().to_dict() == counts
    assert real.obs["perturbation"].value_counts().to_dict() == counts
    assert pred.obs_names.is_unique and real.obs_names.is_unique
    assert pred.X.dtype == real.X.dtype == np.float32
    assert pred.X.min() == 0 and max(pred.X.max(), real.X.max()) < 15
    # values are those given, apart from the one below zero
    expected = prediction[prediction.obs["perturbation"] == "B+A"].X.clip(0)
    np.testing.assert_allclose(pred[pred.obs["perturbation"] == "A+B"].X, expected, rtol=1e-6)
    np.testing.assert_allclose(
        real[real.obs["perturbation"] == "A+C"].X, screen[screen.obs["perturbation"] == "A+C"].X, rtol=1e-6
    )
    np.testing.assert_array_equal(
        pred[pred.obs["perturbation"] == "control"].X, real[real.obs["perturbation"] == "control"].X
    )


def test_own_controls_stay_and_missing_ones_are_lent_per_context(make_screen, tmp_path):
    real = make_screen(("x", "y"))
    keep = (real.obs["perturbation"] == "A") | (
        (real.obs["perturbation"] == "control") & (real.obs["cell_type"] == "x")
    )
    pred = real[keep].copy()
    pred.X[(pred.obs["perturbation"] == "control").to_numpy()] += 0.125
    got, truth = written(to_cell_eval(pred, real, tmp_path, **KEY, context_key="cell_type"))
    control = got[got.obs["perturbation"] == "control"]
    expected = {"x": 4.125, "y": 5.0}
    assert control.obs["cell_type"].value_counts().to_dict() == {"x": 30, "y": 30}
    for context, value in expected.items():
        np.testing.assert_allclose(control[control.obs["cell_type"] == context].X.mean(0), value, rtol=1e-5)
    assert truth.obs.value_counts().to_dict() == got.obs.value_counts().to_dict()


def test_only_contexts_that_were_predicted_are_written(make_screen, tmp_path):
    real = make_screen(("x", "y"))
    pred = real[(real.obs["perturbation"] == "A") & (real.obs["cell_type"] == "y")].copy()
    got, truth = written(to_cell_eval(pred, real, tmp_path, **KEY, context_key="cell_type"))
    assert set(got.obs["cell_type"]) == set(truth.obs["cell_type"]) == {"y"}


def test_counts_of_real_are_normalised_with_all_their_genes(tmp_path):
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(3.0, size=(6, 5)).astype(np.float32))
    real = ad.AnnData(counts, obs={"p": ["control"] * 3 + ["A"] * 3})
    pred = ad.AnnData(np.log1p(rng.uniform(1, 5, (3, 2))), obs={"p": ["A"] * 3})
    pred.var_names = ["3", "1"]
    _, truth = written(to_cell_eval(pred, real, tmp_path, perturbation_key="p"))
    dense = counts.toarray()
    expected = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4)[:, [3, 1]]
    np.testing.assert_allclose(sp.csr_matrix(truth.X).toarray(), expected, rtol=1e-5)


def test_one_profile_is_warned_of(screen, tmp_path, caplog):
    pred = screen[screen.obs["perturbation"] == "A"][:1].copy()
    to_cell_eval(pred, screen, tmp_path, **KEY)
    assert "1 of 1 predicted conditions are one profile" in caplog.text


def test_conditions_that_are_not_real_are_refused_and_nothing_is_written(screen, prediction, tmp_path):
    prediction.obs["perturbation"] = prediction.obs["perturbation"].astype(str).replace({"A+B": "A+Q"})
    with pytest.raises(ValueError, match="1 of 2 predicted conditions have no cells in real"):
        to_cell_eval(prediction, screen, tmp_path, **KEY)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("cell_eval") is None, reason="cell-eval is not installed")
def test_cell_eval_runs_on_the_files(screen, prediction, tmp_path):
    import cell_eval

    arguments = to_cell_eval(prediction, screen, tmp_path, **KEY)
    evaluator = cell_eval.MetricsEvaluator(**arguments, outdir=str(tmp_path / "out"), num_threads=1)
    results, _ = evaluator.compute(profile="minimal", write_csv=False)
    scores = {row["perturbation"]: row for row in results.to_dicts()}
    assert scores["A+C"]["mse"] == pytest.approx(0, abs=1e-10) and scores["A+C"]["pearson_delta"] == pytest.approx(1)
    assert scores["A+B"]["mse"] == pytest.approx(0.3**2 / 6, rel=1e-4)  # 0.3 too high in one of six genes
