"""Metrics of differential expression over all thresholds: areas under precision-recall and ROC curves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from scjepa._types import FloatArray
from scjepa.metrics._de import by_condition, significant
from scjepa.metrics._shapes import Scores, profiles

MIN_FDR = 1e-10
"""Predicted FDRs are raised to this, as in cell-eval."""


def de_pr_auc(pred_fdr: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05) -> Scores:
    r"""Average precision of finding the significant true genes by predicted significance. Best is 1.

    :math:`\sum_n (R_n - R_{n-1}) P_n` over the thresholds of the score :math:`-\log_{10}` predicted FDR, with precision P
    and recall R. Chance is the share of significant true genes.

    Parameters
    ----------
    pred_fdr, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` false discovery rates. A predicted NaN counts as 1, genes without a true
        value are left out.
    max_fdr
        FDR below which a true gene is significant.

    Returns
    -------
    The area, an array for several conditions; NaN where no or all true genes are significant.

    Raises
    ------
    ValueError
        If shapes differ or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``pr_auc`` of cell-eval 0.8.2; :func:`sklearn.metrics.average_precision_score`.

    Examples
    --------
    >>> from scjepa.metrics import de_pr_auc
    >>> round(de_pr_auc([0.001, 0.01, 0.1, 1.0], [0.01, 0.9, 0.01, 0.9]), 6)
    0.833333
    """
    return _area(average_precision_score, pred_fdr, true_fdr, max_fdr)


def de_roc_auc(pred_fdr: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05) -> Scores:
    """Chance that a significant true gene has a smaller predicted FDR than another gene, ties half. Best is 1.

    Parameters
    ----------
    pred_fdr, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` false discovery rates. A predicted NaN counts as 1, genes without a true
        value are left out.
    max_fdr
        FDR below which a true gene is significant.

    Returns
    -------
    The area under the ROC curve, an array for several conditions; chance is 0.5. NaN where no or all true genes are
    significant.

    Raises
    ------
    ValueError
        If shapes differ or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``roc_auc`` of cell-eval 0.8.2; :func:`sklearn.metrics.roc_auc_score`.

    Examples
    --------
    >>> from scjepa.metrics import de_roc_auc
    >>> de_roc_auc([0.001, 0.01, 0.1, 1.0], [0.01, 0.9, 0.01, 0.9])
    0.75
    """
    return _area(roc_auc_score, pred_fdr, true_fdr, max_fdr)


def _area(score: Callable[..., float], pred_fdr: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float) -> Scores:
    """Area under a curve of scikit-learn, condition by condition."""
    pred, true = profiles(pred_fdr=pred_fdr, true_fdr=true_fdr)
    label = significant(true, max_fdr)
    strength = -np.log10(np.nan_to_num(pred, nan=1.0).clip(MIN_FDR, 1.0))

    def area(s: FloatArray, y: npt.NDArray[np.bool_]) -> float:
        return float(score(y, s)) if 0 < y.sum() < len(y) else float("nan")

    return by_condition(area, strength, label, ~np.isnan(true))
