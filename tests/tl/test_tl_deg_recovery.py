"""tl.deg_recovery: hand-counted genes, and agreement with scanpy's own results."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scjepa.tl import deg_recovery


def profiles(rows: dict[str, list[float]]) -> ad.AnnData:
    """One log profile per label, from linear means."""
    obs = pd.DataFrame({"p": list(rows)}, index=[f"c{i}" for i in range(len(rows))])
    return ad.AnnData(np.log1p(np.array(list(rows.values()), dtype=float)), obs=obs)


def values(table, definition="fold_change", perturbation="A") -> dict[str, float]:
    rows = table[(table.definition == definition) & (table.perturbation == perturbation)]
    return rows.set_index("metric")["value"].to_dict()


REAL = {"control": [2, 2, 2, 2, 2, 2], "A": [4, 8, 1, 2.9, 2, 1.4]}  # true: +2x, +4x, -2x; 1.45x and 1/1.43x are not
PRED = {"A": [3.2, 2, 3.2, 3.2, 2, 2]}  # called: 1.6x at genes 0, 2 (wrong direction) and 3 (false)


def test_fold_change_definition_by_hand():
    pred = profiles(PRED)
    got = values(
        deg_recovery(pred, profiles(REAL), perturbation_key="p", definitions=["fold_change"], top_k=[1, 2, 10])
    )
    assert got["recall"] == pytest.approx(2 / 3)
    assert got["precision"] == pytest.approx(2 / 3)
    assert got["direction_match"] == pytest.approx(1 / 3)
    assert (got["n_true"], got["n_pred"]) == (3, 3)
    # true order: gene 1, then 0 and 2 (ties keep the order of genes); predicted: 0, 2, 3
    assert (got["overlap_at_1"], got["overlap_at_2"], got["overlap_at_10"]) == (0, 0.5, pytest.approx(2 / 3))
    assert len(pred.uns["jepa"]["deg_recovery"]) == 8


@pytest.mark.parametrize(("threshold", "n_true"), [(1.4, 5), (3.0, 1), (5.0, 0)])
def test_threshold_moves_both_sides(threshold, n_true):
    table = deg_recovery(profiles(PRED), profiles(REAL), perturbation_key="p", definitions="fold_change",
                         threshold=threshold)  # fmt: skip
    got = values(table)
    assert got["n_true"] == n_true
    assert np.isnan(got["recall"]) == (n_true == 0)


def test_pseudocount_quiets_genes_that_are_hardly_expressed():
    real = profiles({"control": [0.001, 5], "A": [0.01, 10]})
    counts = [values(deg_recovery(real[1:].copy(), real, perturbation_key="p", definitions="fold_change",
                                  pseudocount=c))["n_true"] for c in (1e-9, 0.1)]  # fmt: skip
    assert counts == [2, 1]


def test_a_prediction_is_compared_with_its_own_controls():
    pred = profiles({"control": [1.0] * 6, "A": [2, 4, 0.5, 1.45, 1, 0.7]})  # all halved: the same fold changes
    got = values(deg_recovery(pred, profiles(REAL), perturbation_key="p", definitions="fold_change"))
    assert (got["recall"], got["precision"], got["direction_match"]) == (1, 1, 1)


@pytest.fixture
def cells() -> ad.AnnData:
    rng = np.random.default_rng(0)
    mean = {
        "control": 2 * np.ones(30),
        "A": np.r_[6 * np.ones(6), 2 * np.ones(24)],
        "B": np.r_[np.ones(24) * 2, [9.0] * 6],
    }
    x = np.vstack([rng.poisson(m, size=(60, 30)) for m in mean.values()])
    obs = pd.DataFrame({"p": np.repeat(list(mean), 60)}, index=[f"c{i}" for i in range(180)])
    return ad.AnnData(sp.csr_matrix(np.log1p(x.astype(np.float32)) * 0.9), obs=obs)


@pytest.mark.parametrize("method", ["wilcoxon", "t-test"])
def test_test_definition_counts_what_scanpy_finds(cells, method):
    table = deg_recovery(cells[60:].copy(), cells, perturbation_key="p", method=method, top_k=[5])
    sc.tl.rank_genes_groups(cells, "p", reference="control", method=method, tie_correct=method == "wilcoxon")
    for name in "AB":
        found = sc.get.rank_genes_groups_df(cells, name)
        got = values(table, "test", name)
        assert got["n_true"] == (found["pvals_adj"] < 0.05).sum() >= 6
        assert (got["recall"], got["precision"], got["overlap_at_5"]) == (1, 1, 1)
        changed = (found["logfoldchanges"].abs() > np.log2(1.5)).sum()
        assert values(table, "fold_change", name)["n_true"] == changed


def test_swapped_perturbations_are_found_out(cells):
    pred = cells[60:].copy()
    pred.obs["p"] = pred.obs["p"].map({"A": "B", "B": "A"})
    got = values(deg_recovery(pred, cells, perturbation_key="p"), "test")
    assert got["recall"] < 0.5 and got["overlap_at_20"] < 0.5


def test_one_profile_has_no_test(cells):
    pred = cells[[60, 120]].copy()
    table = deg_recovery(pred, cells, perturbation_key="p")
    assert table.loc[table.definition == "test", "value"].isna().all()
    assert table.loc[table.definition == "fold_change", "value"].notna().all()


def test_contexts_have_their_own_controls(make_screen):
    real = make_screen(("x", "y"))
    pred = real[real.obs["perturbation"] == "A"].copy()
    table = deg_recovery(
        pred, real, perturbation_key="perturbation", context_key="cell_type", definitions="fold_change"
    )
    for _, rows in table.groupby("context"):
        got = rows.set_index("metric")["value"]
        assert (got["n_true"], got["recall"], got["precision"]) == (2, 1, 1)  # g1 by e, g4 by sqrt(e), about


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"threshold": 1.0}, "threshold=1: expected a fold change above 1"),
        ({"pseudocount": 0.0}, "pseudocount=0: expected a number above 0"),
        ({"fdr": 1.0}, "fdr=1: expected a rate between 0 and 1"),
        ({"definitions": ["foldchange"]}, "definitions='foldchange'.*Did you mean 'fold_change'"),
        ({"method": "wilcox"}, "method='wilcox'.*Did you mean 'wilcoxon'"),
        ({"top_k": [0]}, "top_k=0: expected a whole number"),
    ],
)
def test_errors(cells, kwargs, match):
    with pytest.raises(ValueError, match=match):
        deg_recovery(cells[60:].copy(), cells, perturbation_key="p", **kwargs)


def test_controls_only_are_no_prediction(cells):
    with pytest.raises(ValueError, match="pred has no predicted cells"):
        deg_recovery(cells[:60].copy(), cells, perturbation_key="p")
