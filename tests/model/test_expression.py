"""ExpressionJEPA: starts as PCA, keeps cell states under dropout, removes batches only when asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import scjepa
from scjepa import ExpressionJEPA

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def cells(**options):
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 80, "n_regulators": 8, "n_single": 4, "n_double": 2, "n_cells": 40, "n_control": 80, **options}
    )


def fitted(adata, *, setup: dict | None = None, train: dict | None = None, **init) -> ExpressionJEPA:
    ExpressionJEPA.setup_anndata(adata, **(setup or {}))
    model = ExpressionJEPA(adata, **{"n_latent": 8, **init})
    model.train(**{"max_epochs": 1, **QUIET, **(train or {})})
    return model


def test_it_starts_as_whitened_pca() -> None:
    adata = cells()
    model = fitted(adata, train={"plan_kwargs": {"lr": 1e-12}})
    x = model._read(adata).rows(slice(None), model.reference_unit_)
    scores = PCA(8, svd_solver="full").fit_transform(x)
    z = model.get_latent()
    match = np.abs(np.corrcoef(z.T, scores.T)[:8, 8:]).diagonal()
    np.testing.assert_allclose(match, 1, atol=1e-3)


def test_the_encoder_reads_cells_at_median_depth() -> None:
    adata = cells()
    model = fitted(adata)
    totals = np.asarray(adata.X.sum(1)).ravel()
    assert model.reference_unit_ == pytest.approx(float(np.median(1e4 / totals)), rel=1e-5)


def test_batches_stay_unless_the_encoder_is_batch_aware() -> None:
    adata = cells(batch_effect=0.5, n_genes=120, n_cells=60)
    batch, context = adata.obs["batch"].to_numpy(), adata.obs["context"].to_numpy()
    score = {}
    for aware in (False, True):
        z = fitted(adata, setup={"batch_key": "batch"}, batch_aware=aware, train={"max_epochs": 10}).get_latent()
        probe = LogisticRegression(max_iter=500)
        score[aware] = [cross_val_score(probe, z, y, cv=3).mean() for y in (batch, context)]
    assert score[False][0] > 0.95
    assert score[True][0] < 0.8
    assert score[True][1] > 0.95


def test_batch_aware_encoding_without_the_column_uses_the_mean_batch() -> None:
    adata = cells(batch_effect=0.5)
    model = fitted(adata, setup={"batch_key": "batch"}, batch_aware=True)
    bare = adata.copy()
    del bare.obs["batch"]
    assert np.isfinite(model.get_latent(bare)).all()
    with pytest.raises(ValueError, match="batch_aware=True needs a batch_key"):
        fitted(cells(), batch_aware=True)


def test_batches_that_are_missing_or_unknown_are_refused_by_the_batch_aware_encoder() -> None:
    adata = cells()
    model = fitted(adata, setup={"batch_key": "batch"}, batch_aware=True)
    strange = adata.copy()
    strange.obs["batch"] = ["elsewhere", *adata.obs["batch"].astype(object)[1:]]
    with pytest.raises(ValueError, match=r"has 1 batches that the model does not know: 'elsewhere'.*mean batch"):
        model.get_latent(strange)
    for kind in (object, "category"):
        strange.obs["batch"] = pd.Series([None, *adata.obs["batch"].astype(object)[1:]], adata.obs_names, dtype=kind)
        with pytest.raises(ValueError, match=r"'batch'\] is missing for 1 of 5 cells. Label these cells, or drop"):
            model.get_latent(strange, indices=range(5))
        np.testing.assert_allclose(
            model.get_latent(strange, indices=[1, 2]), model.get_latent(indices=[1, 2]), atol=1e-6
        )


def test_gene_sets_become_modules() -> None:
    adata = cells()
    sets = {"first": list(adata.var_names[:10]), "second": list(adata.var_names[8:20])}
    model = fitted(adata, encoder="modules", gene_sets=sets)
    assert model.module_names_ == ["first", "second", "remainder"]
    assert model.get_latent(give_tokens=True).shape == (adata.n_obs, 3, 64)
    membership = model.module.encoder.membership.numpy()
    np.testing.assert_array_equal(membership.sum(1), [10, 12, 60])
    with pytest.raises(ValueError, match="nowhere"):
        fitted(cells(), gene_sets={"nowhere": ["none", "of", "these"]})


@pytest.mark.parametrize("regularizer", ["visreg", "sigreg", "vicreg", "ema"])
def test_no_regularizer_lets_the_embedding_collapse(regularizer: str) -> None:
    model = fitted(cells(), regularizer=regularizer, train={"max_epochs": 8})
    table = model.get_diagnostics()
    assert table.loc["RankMe", "value"] > 4
    assert table.loc["mean std", "verdict"] == "ok"


def test_training_goes_on_from_where_it_was() -> None:
    adata = cells()
    model = fitted(adata)
    before = model.module.encoder.head.weight.detach().clone()
    model.train(max_epochs=1, **QUIET)
    after = model.module.encoder.head.weight.detach()
    assert not np.allclose(before, after)
    assert float((after - before).norm()) < float(after.norm())  # not started anew from zero


def test_holdout_needs_a_column() -> None:
    adata = cells()
    ExpressionJEPA.setup_anndata(adata)
    model = ExpressionJEPA(adata)
    with pytest.raises(ValueError, match="holdout='state B' names no category"):
        model.train(max_epochs=1, holdout=["state B"], **QUIET)
    with pytest.raises(ValueError, match="split_by='condition' needs perturbations"):
        model.train(max_epochs=1, split_by="condition", **QUIET)


def test_too_few_cells() -> None:
    adata = cells()[:2].copy()
    ExpressionJEPA.setup_anndata(adata)
    model = ExpressionJEPA(adata, n_latent=2)
    with pytest.raises(ValueError, match="2 training cells: at least 3 are needed"):
        model.train(max_epochs=1, **QUIET)
