"""Tests of genes for evaluation: fold changes and false discovery rates of cells against controls, and their scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from scjepa._types import FloatArray, Matrix
from scjepa.metrics import (
    de_count,
    de_direction_match,
    de_overlap,
    de_pr_auc,
    de_precision,
    de_recall,
    de_roc_auc,
    de_spearman_lfc,
)
from scjepa.metrics._rank_sum import SortedCells, rank_sum_test, sort_cells

PSEUDOCOUNT = 1e-9
"""Added to both means of a fold change, as in scanpy."""


class GeneTests(NamedTuple):
    """``(conditions, genes)`` each; NaN for conditions with fewer than two cells."""

    lfc: FloatArray
    fdr: FloatArray

    @classmethod
    def empty(cls, conditions: int, genes: int) -> GeneTests:
        """Return tests of nothing, to be filled."""
        return cls(*np.full((2, conditions, genes), np.nan))

    def fill(self, i: int, cells: Matrix, controls: Controls) -> None:
        """Test condition ``i``, if there are cells enough."""
        found = compare(cells, controls)
        if found is not None:
            self.lfc[i], self.fdr[i] = found


class Controls(NamedTuple):
    """Controls of a context, ready to be compared with the cells of many conditions."""

    ranks: SortedCells
    log2_mean: FloatArray


def prepare_controls(control: Matrix) -> Controls:
    """Sort and average ``(n, genes)`` log-normalised control cells."""
    return Controls(sort_cells(control), _linear(control))


def compare(cells: Matrix, controls: Controls) -> tuple[FloatArray, FloatArray] | None:
    """Return log2 fold changes and false discovery rates, ``(genes,)`` each; None with fewer than two cells on a side.

    Wilcoxon test with its correction for ties; Benjamini-Hochberg.
    """
    if cells.shape[0] < 2 or controls.ranks.n < 2:
        return None
    p = rank_sum_test(cells, controls.ranks).p_value
    # genes that are equal everywhere are tested, and not found
    return _linear(cells) - controls.log2_mean, false_discovery_control(np.nan_to_num(p, nan=1.0))


def _linear(cells: Matrix) -> FloatArray:
    """Return log2 of the mean on the scale of counts, as scanpy does for its fold changes."""
    mean = np.asarray(cells.mean(0), dtype=np.float64).ravel()
    return np.log2(np.maximum(np.expm1(mean), 0) + PSEUDOCOUNT)


def score_genes(metrics: Iterable[str], pred: GeneTests, true: GeneTests) -> dict[str, FloatArray]:
    """Return scores of differential expression per condition; NaN where a side could not be tested."""
    possible = ~(np.isnan(pred.fdr).all(1) | np.isnan(true.fdr).all(1))
    called = {
        "de_recall": lambda: de_recall(pred.fdr, true.fdr),
        "de_direction_match": lambda: de_direction_match(pred.lfc, true.lfc, true.fdr),
        "de_spearman_lfc": lambda: de_spearman_lfc(pred.lfc, true.lfc, true.fdr),
        "de_pr_auc": lambda: de_pr_auc(pred.fdr, true.fdr),
        "de_roc_auc": lambda: de_roc_auc(pred.fdr, true.fdr),
        "de_count_ratio": lambda: _ratio(de_count(pred.fdr), de_count(true.fdr)),
    }
    out = {}
    for metric in metrics:
        if metric in called:
            values = called[metric]()
        else:
            name, _, length = metric.partition("_at_")
            score = de_overlap if name == "de_overlap" else de_precision
            values = score(pred.lfc, pred.fdr, true.lfc, true.fdr, None if length == "N" else int(length))
        out[metric] = np.where(possible, values, np.nan)
    return out


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
