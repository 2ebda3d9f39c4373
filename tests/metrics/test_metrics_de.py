"""DE metrics: hand-computed values, set arithmetic, untested genes, empty sides, messages."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from scjepa.metrics import (
    de_count,
    de_direction_match,
    de_overlap,
    de_pr_auc,
    de_precision,
    de_recall,
    de_roc_auc,
    de_spearman_count,
    de_spearman_lfc,
)

YES, NO = 0.01, 0.5


@pytest.fixture
def tables():
    """Conditions x genes: log fold changes and FDRs, predicted then true."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(6, 50))
    pred = true + rng.normal(size=(6, 50))
    fdrs = [np.exp(-3 * np.abs(v)) * rng.uniform(size=v.shape) for v in (pred, true)]
    return pred, fdrs[0], true, fdrs[1]


@pytest.mark.parametrize("k", [None, 1, 5, 1000])
def test_overlap_and_precision_agree_with_sets(tables, k):
    pred_lfc, pred_fdr, true_lfc, true_fdr = tables

    def ranked(lfc, fdr):
        return [g for g in np.argsort(-np.abs(lfc)) if fdr[g] < 0.05]

    overlap, precision = [], []
    for i in range(6):
        pred, true = ranked(pred_lfc[i], pred_fdr[i]), ranked(true_lfc[i], true_fdr[i])
        for out, side in ((overlap, true), (precision, pred)):
            n = min(k or len(side), len(side))
            out.append(len(set(pred[:n]) & set(true[:n])) / n)
    assert de_overlap(*tables, k) == pytest.approx(overlap)
    assert de_precision(*tables, k) == pytest.approx(precision)
    assert de_overlap(*(t[0] for t in tables), k) == pytest.approx(overlap[0])
    if k is None:
        assert overlap != precision


def test_overlap_without_significant_genes_is_zero():
    lfc, yes, no = [1.0, 2.0], [YES, YES], [NO, NO]
    for metric in (de_overlap, de_precision):
        assert metric(lfc, yes, lfc, yes) == 1.0
        assert metric(lfc, no, lfc, yes) == 0.0 and metric(lfc, yes, lfc, no) == 0.0


def test_overlap_ties_and_infinite_changes():
    fdr = [YES] * 4
    assert de_overlap([1.0, 1.0, 1.0, 1.0], fdr, [9.0, 8.0, 1.0, 1.0], fdr, k=2) == 1.0  # ties in the order of genes
    assert de_overlap([0.1, np.inf, -np.inf, np.nan], fdr, [0.0, 5.0, 6.0, 0.1], fdr, k=2) == 1.0


def test_inflated_calls_raise_recall_not_precision(tables):
    pred_lfc, _, true_lfc, true_fdr = tables
    everything = np.zeros_like(pred_lfc)
    assert (de_recall(everything, true_fdr) == 1).all()
    assert (de_precision(pred_lfc, everything, true_lfc, true_fdr) < 1).all()


def test_counts_and_recall_by_hand():
    pred, true = [[YES, NO, YES, np.nan], [NO] * 4], [[YES, YES, NO, YES], [NO] * 4]
    assert de_count(pred).tolist() == [2, 0] and de_count(true[0]) == 3.0
    assert de_recall(pred, true) == pytest.approx([1 / 3, np.nan], nan_ok=True)
    assert de_count([0.05, 0.04]) == 1.0  # below, not at, the threshold
    assert de_count([0.05, 0.04], max_fdr=0.1) == 2.0


def test_direction_by_hand():
    fdr = [YES, YES, YES, YES, NO]
    assert de_direction_match([1.0, -2.0, 0.0, np.nan, 1.0], [3.0, -1.0, 1.0, 1.0, -1.0], fdr) == pytest.approx(2 / 3)
    assert np.isnan(de_direction_match([1.0], [1.0], [NO]))


def test_spearman_lfc_uses_true_significant_genes_and_fills_missing_predictions():
    fdr = [YES, YES, YES, YES, NO]
    true = [1.0, 2.0, 3.0, -1.0, 99.0]
    assert de_spearman_lfc([1.0, 2.0, 9.0, -5.0, -99.0], true, fdr) == pytest.approx(1.0)
    missing, zero = [1.0, 2.0, np.nan, -5.0, 0.0], [1.0, 2.0, 0.0, -5.0, 0.0]
    assert de_spearman_lfc(missing, true, fdr) == pytest.approx(de_spearman_lfc(zero, true, fdr)) != 1.0


def test_spearman_count_leaves_out_conditions_without_true_genes():
    pred = [[YES, YES, NO], [YES, NO, NO], [YES, YES, YES]]
    true = [[YES, YES, YES], [YES, NO, NO], [NO, NO, NO]]
    assert de_spearman_count(pred, true) == pytest.approx(1.0)
    assert np.isnan(de_spearman_count(pred[:1], true[:1])) and np.isnan(de_spearman_count(pred, [true[2]] * 3))


def test_areas_by_hand():
    """True genes at places 1 and 3 of 4: precisions 1 and 2/3; three of the four pairs are in order."""
    true = [YES, NO, YES, NO]
    assert de_pr_auc([1e-4, 1e-3, 1e-2, 0.9], true) == pytest.approx(5 / 6)
    assert de_roc_auc([1e-4, 1e-3, 1e-2, 0.9], true) == pytest.approx(0.75)
    assert de_roc_auc([0.5] * 4, true) == 0.5 and de_pr_auc([0.5] * 4, true) == 0.5
    # below 1e-10 all are tied, an untested gene is last, one without a truth is not there
    assert de_roc_auc([1e-20, 0.0, 1e-30, 1e-10], true) == 0.5
    assert de_roc_auc([0.1, np.nan, 0.2, 1.0], true) == 1.0
    assert de_roc_auc([0.1, 0.2, 0.0], [YES, NO, np.nan]) == 1.0


def test_undefined_is_nan_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (de_pr_auc, de_roc_auc):
            assert np.isnan(metric([[0.1, 0.2]] * 2, [[YES, YES], [NO, NO]])).all()
        assert np.isnan(de_spearman_lfc([1.0, 1.0], [1.0, 2.0], [YES, YES]))
        assert np.isnan(de_spearman_lfc([1.0, 1.0], [1.0, 2.0], [YES, NO]))
        assert np.isnan(de_recall([YES], [NO]))


def test_input_is_checked(tables):
    with pytest.raises(ValueError, match=r"true_fdr has shape \(2,\): expected vectors"):
        de_overlap([1.0], [YES], [1.0], [YES, NO])
    with pytest.raises(ValueError, match="k=0: expected a positive number of genes"):
        de_overlap(*tables, k=0)
    with pytest.raises(ValueError, match="max_fdr=5: expected a number above 0"):
        de_recall([YES], [YES], max_fdr=5)
    with pytest.raises(ValueError, match=r"true_fdr has shape \(1,\): expected conditions x genes"):
        de_spearman_count([YES], [YES])
