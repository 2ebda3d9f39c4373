"""Predictions with controls go straight into cell-eval, whose scores are those of tl.evaluate."""

from __future__ import annotations

import numpy as np
import pytest

import scjepa
from scjepa import PerturbJEPA, tl

cell_eval = pytest.importorskip("cell_eval", reason="cell-eval is not installed: pip install 'cell-eval>=0.8'")


def test_predictions_need_no_fix_up(tmp_path) -> None:
    adata = scjepa.datasets.simulate_perturbseq(
        n_genes=60, n_regulators=10, n_single=6, n_double=6, n_cells=40, n_control=80, seed=1
    )
    held = sorted(p for p in adata.obs["perturbation"].unique() if "+" in p)[:3]
    PerturbJEPA.setup_anndata(adata, "perturbation")
    model = PerturbJEPA(adata, n_pcs=10, n_latent=6)
    model.train(max_epochs=1, holdout=held, enable_progress_bar=False, accelerator="cpu")
    pred = model.predict_perturbation(held, include_control=True)

    real = adata[adata.obs["perturbation"].isin([*held, "control"])].copy()
    if real.X.max() > 15:  # the simulator gives counts, which cell-eval wants log-normalised
        import scanpy as sc

        sc.pp.normalize_total(real, target_sum=1e4)
        sc.pp.log1p(real)
    evaluator = cell_eval.MetricsEvaluator(
        adata_pred=pred, adata_real=real, control_pert="control", pert_col="perturbation", outdir=str(tmp_path),
        num_threads=1,
    )  # fmt: skip
    theirs = evaluator.compute(profile="minimal", write_csv=False)[0].to_pandas().set_index("perturbation").loc[held]
    ours = tl.evaluate(pred, real, profile="full", baselines=None, ceiling=False)
    ours = ours.pivot_table(index="perturbation", columns="metric", values="value").loc[held]
    for name in ("pearson_delta", "mse", "mae", "discrimination_score_l1"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, err_msg=name)
    assert theirs[["overlap_at_N", "precision_at_N"]].notna().all(axis=None)
