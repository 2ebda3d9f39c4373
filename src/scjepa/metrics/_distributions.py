"""Metrics of two sets of cells, compared as distributions."""

from __future__ import annotations

import numpy.typing as npt
from scipy.spatial.distance import cdist

from scjepa._types import FloatArray
from scjepa.metrics._shapes import matrix_pair

BLOCK = 1024
"""Rows of distances held at a time, so that memory is ``BLOCK`` x cells however many cells there are."""


def _mean_distance(x: FloatArray, y: FloatArray) -> float:
    """Mean Euclidean distance over all pairs of a row of ``x`` and a row of ``y``."""
    total = sum(float(cdist(x[start : start + BLOCK], y).sum()) for start in range(0, len(x), BLOCK))
    return total / (len(x) * len(y))


def energy_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    r"""Energy distance of two sets of cells. Zero if and only if they are the same distribution; lower is better.

    .. math:: 2\,E\|x - y\| - E\|x - x'\| - E\|y - y'\|

    The V-statistic: means run over all pairs, the zero distances of cells to themselves included, so the value is
    never negative and small sets keep a positive floor. Distances are Euclidean, not squared.

    Parameters
    ----------
    x, y
        ``(n, d)`` and ``(m, d)`` cells in the same coordinates, usually principal components.

    Returns
    -------
    The distance; NaN if a coordinate is NaN.

    Raises
    ------
    ValueError
        If the inputs are not matrices with the same number of columns.

    Notes
    -----
    Takes ``O((n + m)^2 d)`` time and ``O(n + m)`` memory (distances are made in blocks).

    References
    ----------
    Székely & Rizzo, J Stat Plan Inference 2013; for perturbations Peidli et al., scPerturb, Nat Methods 2024.

    Examples
    --------
    >>> from scjepa.metrics import energy_distance
    >>> energy_distance([[0.0], [2.0]], [[3.0]])
    3.0
    """
    a, b = matrix_pair(x, y, ("x", "y"))
    return 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)


def variance_ratio(pred_cells: npt.ArrayLike, true_cells: npt.ArrayLike) -> float:
    r"""Total variance of predicted over that of true cells, :math:`\sum_j Var(\hat x_j) / \sum_j Var(x_j)`. Best is 1.

    Near 0 the prediction has collapsed to one mean cell per condition, which scores of means do not show.

    Parameters
    ----------
    pred_cells, true_cells
        ``(n, d)`` and ``(m, d)`` cells in the same coordinates, which need a common scale.

    Returns
    -------
    The ratio (variances with divisor n); NaN with fewer than two cells on a side or true cells that are all equal.

    Raises
    ------
    ValueError
        If the inputs are not matrices with the same number of columns.

    Examples
    --------
    >>> from scjepa.metrics import variance_ratio
    >>> variance_ratio([[0.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [2.0, 4.0]])
    0.2
    """
    pred, true = matrix_pair(pred_cells, true_cells, ("pred_cells", "true_cells"))
    if min(len(pred), len(true)) < 2:
        return float("nan")
    total = float(true.var(0).sum())
    return float(pred.var(0).sum()) / total if total > 0 else float("nan")
