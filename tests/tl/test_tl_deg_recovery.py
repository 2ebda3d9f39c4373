"""tl.deg_recovery: hand-counted genes, and agreement with scanpy's own results."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scjepa import tl
from scjepa.baselines import Additive, NoChange
from scjepa.data import shift_cells
from scjepa.metrics import de_overlap
from scjepa.tl.evaluation._ceiling import split_in_halves


def deg_recovery(pred, real, **kwargs):
    """Without baselines and ceiling, unless they are asked for."""
    return tl.deg_recovery(pred, real, **{"baselines": None, "ceiling": False, **kwargs})


def profiles(rows: dict[str, list[float]]) -> ad.AnnData:
    """One log profile per label, from linear means."""
    obs = pd.DataFrame({"p": list(rows)}, index=[f"c{i}" for i in range(len(rows))])
    return ad.AnnData(np.log1p(np.array(list(rows.values()), dtype=float)), obs=obs)


def values(table, definition="fold_change", perturbation="A", method="model") -> dict[str, float]:
    rows = table[(table.definition == definition) & (table.perturbation == perturbation) & (table.method == method)]
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


@pytest.mark.parametrize("method", ["wilcoxon", "t-test", "t-test_overestim_var"])
def test_test_definition_counts_what_scanpy_finds(cells, method):
    table = deg_recovery(cells[60:].copy(), cells, perturbation_key="p", test=method, top_k=[5])
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
        ({"test": "wilcox"}, "test='wilcox'.*Did you mean 'wilcoxon'"),
        ({"top_k": [0]}, "top_k=0: expected a whole number"),
    ],
)
def test_errors(cells, kwargs, match):
    with pytest.raises(ValueError, match=match):
        deg_recovery(cells[60:].copy(), cells, perturbation_key="p", **kwargs)


def test_controls_only_are_no_prediction(cells):
    with pytest.raises(ValueError, match="pred has no predicted cells"):
        deg_recovery(cells[:60].copy(), cells, perturbation_key="p")


@pytest.fixture
def additive(make_screen) -> tuple[ad.AnnData, ad.AnnData]:
    """A prediction of A+B without any effect, and the screen, where singles add up."""
    real = make_screen()
    label = real.obs["perturbation"].to_numpy()
    pred = real[label == "control"].copy()
    pred.obs["perturbation"] = "A+B"
    pred.obs_names = [f"p{i}" for i in range(pred.n_obs)]
    return pred, real


def test_baselines_stand_beside_the_prediction(additive):
    table = deg_recovery(*additive, perturbation_key="perturbation", baselines=[Additive(), NoChange()], top_k=[4])
    assert list(table.columns) == ["method", "kind", "perturbation", "context", "definition", "metric", "value"]
    kinds = table.drop_duplicates("method").set_index("method")["kind"].to_dict()
    assert kinds == {"model": "model", "additive": "baseline", "no change": "baseline"}
    for definition, n_true in (("fold_change", 4), ("test", 4)):
        good = values(table, definition, "A+B", "additive")
        assert (good["recall"], good["precision"], good["overlap_at_4"], good["n_true"]) == (1, 1, 1, n_true)
        for method in ("model", "no change"):
            bad = values(table, definition, "A+B", method)
            assert (bad["recall"], bad["n_pred"], bad["direction_match"]) == (0, 0, 0) and np.isnan(bad["precision"])


def test_auto_baselines_are_those_of_evaluate(additive):
    pred, real = additive
    table = deg_recovery(pred, real, perturbation_key="perturbation", baselines="auto", definitions="fold_change")
    expected = tl.evaluate(pred, real, perturbation_key="perturbation", metrics="l2", ceiling=False)
    assert list(table["method"].unique()) == list(expected["method"].unique())


def test_a_baseline_is_tested_on_moved_controls(additive):
    pred, real = additive
    label = real.obs["perturbation"].to_numpy()
    start = real.X[label == "control"]
    effect = sum(real.X[label == p].mean(0) - start.mean(0) for p in "AB")
    pred.X = shift_cells(start, effect)
    table = deg_recovery(pred, real, perturbation_key="perturbation", baselines=[Additive()], fdr=1e-6)
    model, baseline = (table[table.method == m].drop(columns=["method", "kind"]) for m in ("model", "additive"))
    pd.testing.assert_frame_equal(model, baseline.set_axis(model.index))


def test_conditions_that_a_baseline_cannot_predict_have_no_rows(make_screen):
    real = make_screen()
    pred = real[real.obs["perturbation"].isin(["A+B", "C"])].copy()
    table = deg_recovery(pred, real, perturbation_key="perturbation", baselines=[Additive()], definitions="fold_change")
    assert set(table.loc[table.method == "model", "perturbation"]) == {"A+B", "C"}
    assert set(table.loc[table.method == "additive", "perturbation"]) == {"A+B"}  # C was never seen alone


def test_ceiling_is_half_against_half(cells):
    pred = cells[60:].copy()
    table = deg_recovery(pred, cells, perturbation_key="p", ceiling=True, top_k=[3], fdr=0.01)
    found = []
    for r in range(2):
        parts = []
        for start in (60, 120):
            here = cells[start : start + 60]
            first = split_in_halves(here.obs_names.to_numpy(), 0)[r]
            halves = (here[first], here[~first])
            real = ad.concat([cells[:60], halves[1]])
            parts.append(deg_recovery(halves[0].copy(), real, perturbation_key="p", top_k=[3], fdr=0.01))
        found.append(pd.concat(parts)["value"].to_numpy())
    ceiling = table[table.kind == "ceiling"]
    assert ceiling["method"].unique().tolist() == ["replicate ceiling"]
    np.testing.assert_allclose(ceiling["value"], np.nanmean(found, axis=0))
    assert values(table, "test", "A", "replicate ceiling")["recall"] == 1


def test_no_ceiling_for_few_cells(cells):
    few = cells[np.r_[0:63, 120:180]].copy()
    pred = cells[60:].copy()
    table = deg_recovery(pred, few, perturbation_key="p", ceiling=True, definitions="fold_change")
    assert table.loc[table.kind == "ceiling", "perturbation"].unique().tolist() == ["B"]


def test_fold_change_lists_agree_with_the_metric(cells):
    """The overlap is that of the metrics of genes, with being called for being significant."""
    pred = cells[60:].copy()
    pred.X = pred.X[np.random.default_rng(0).permutation(120)]
    table = deg_recovery(pred, cells, perturbation_key="p", definitions="fold_change", top_k=[2, 5, 9], threshold=1.3)
    log2 = lambda x: np.log2(np.expm1(np.asarray(x.mean(0)).ravel()) + 1e-9)
    base = log2(cells.X[:60])
    for j, name in enumerate("AB"):
        rows = slice(60 * j, 60 * j + 60)
        guess, true = log2(pred.X[rows]) - base, log2(cells.X[60:][rows]) - base
        rate = lambda x: np.where(np.abs(x) > np.log2(1.3), 0.0, 1.0)
        for k in (2, 5, 9):
            expected = de_overlap(guess, rate(guess), true, rate(true), k)
            assert values(table, perturbation=name)[f"overlap_at_{k}"] == pytest.approx(expected)
