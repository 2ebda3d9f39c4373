"""Metrics of two sets of cells, compared as distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from scjepa._types import FloatArray
from scjepa.metrics._effects import pearson_delta
from scjepa.metrics._shapes import matrix_pair

BLOCK = 256
"""Rows of distances held at a time, so that memory is ``BLOCK`` x cells however many cells there are."""


MANY = 40_000
"""Pairs of cells from which distances are computed by a matrix product."""


def _mean_over_pairs(x: FloatArray, y: FloatArray, kind: str, total: Callable[[FloatArray], float]) -> float:
    """Mean over all pairs of a row of ``x`` and a row of ``y``; ``total`` sums what it makes of a table of distances."""
    out = 0.0
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        if x is y:  # symmetric: what lies right of the diagonal counts twice, which halves the work
            out += total(cdist(rows, rows, kind)) + 2 * total(cdist(rows, x[start + len(rows) :], kind))
        else:
            out += total(cdist(rows, y, kind))
    return out / (len(x) * len(y))


def _mean_distance(x: FloatArray, y: FloatArray) -> float:
    """Mean Euclidean distance over all pairs."""
    if len(x) * len(y) < MANY:
        return _mean_over_pairs(x, y, "euclidean", lambda distances: float(distances.sum()))
    # by a matrix product, several times faster; centered, so that little is lost in differences of large numbers
    center = x.mean(0)
    a, b = x - center, y - center
    sizes = (a**2).sum(1), (b**2).sum(1)
    total = 0.0
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        squared = a[rows] @ b.T
        squared *= -2
        squared += sizes[0][rows, None]
        squared += sizes[1]
        if x is y:
            np.fill_diagonal(squared[:, start:], 0)  # rounding leaves a cell a little away from itself
        total += float(np.sqrt(np.maximum(squared, 0, out=squared), out=squared).sum())
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
    Székely & Rizzo, J Stat Plan Inference 2013; for perturbations Peidli et al., scPerturb, Nat Methods 2024. The same
    as pertpy 1.0.3 (``edistance``) and as inside cell-eval's ``pearson_edistance``.

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


def pearson_edistance(
    pred_cells: Sequence[npt.ArrayLike],
    true_cells: Sequence[npt.ArrayLike],
    pred_control: npt.ArrayLike,
    true_control: npt.ArrayLike,
) -> float:
    """Pearson correlation over conditions of energy distances to control, predicted and true. Best is 1.

    It asks whether strong and weak perturbations are told apart, not whether an effect is right.

    Parameters
    ----------
    pred_cells, true_cells
        One ``(cells, d)`` array per condition, in the same order on both sides.
    pred_control, true_control
        ``(cells, d)`` control cells of each side.

    Returns
    -------
    The correlation; NaN with fewer than two conditions or when a side is constant.

    Raises
    ------
    ValueError
        If the numbers of conditions differ, or arrays are no matrices with the same number of columns.

    References
    ----------
    ``pearson_edistance`` of cell-eval 0.8.2, which takes all genes as coordinates.

    Examples
    --------
    >>> from scjepa.metrics import pearson_edistance
    >>> true = [[[1.0]], [[2.0]], [[4.0]]]
    >>> round(pearson_edistance([[[2.0]], [[4.0]], [[8.0]]], true, [[0.0]], [[0.0]]), 6)
    1.0
    """
    if len(pred_cells) != len(true_cells):
        raise ValueError(
            f"pred_cells has {len(pred_cells)} conditions and true_cells has {len(true_cells)}: expected the same ones, "
            "in the same order."
        )
    if len(true_cells) < 2:
        return float("nan")
    sides = []
    for cells, control in ((pred_cells, pred_control), (true_cells, true_control)):
        pairs = [matrix_pair(x, control, ("cells of a condition", "control")) for x in cells]
        spread = _mean_distance(pairs[0][1], pairs[0][1])  # the costly part, shared by all conditions
        sides.append([2 * _mean_distance(x, c) - _mean_distance(x, x) - spread for x, c in pairs])
    return float(pearson_delta(*sides))


def mmd(x: npt.ArrayLike, y: npt.ArrayLike, gammas: Sequence[float] = (2.0, 1.0, 0.5, 0.1, 0.01, 0.005)) -> float:
    r"""Squared maximum mean discrepancy of two sets of cells, averaged over Gaussian kernels. Lower is better.

    .. math::
        \frac{1}{|\Gamma|} \sum_{\gamma \in \Gamma} \left( \overline{k_\gamma(x, x')} + \overline{k_\gamma(y, y')}
        - 2\, \overline{k_\gamma(x, y)} \right), \quad k_\gamma(u, v) = e^{-\gamma \|u - v\|^2}

    Means run over all pairs, cells with themselves included: never negative, with a positive floor for small sets.

    Parameters
    ----------
    x, y
        ``(n, d)`` and ``(m, d)`` cells in the same coordinates.
    gammas
        Inverse squared widths of the kernels. They only see distances near :math:`\gamma^{-1/2}`: scale the coordinates
        to fit, or give gammas that do.

    Returns
    -------
    The squared discrepancy; NaN if a coordinate is NaN.

    Raises
    ------
    ValueError
        If the inputs are not matrices with the same number of columns, or a gamma is not positive.

    References
    ----------
    Gretton et al., JMLR 2012. One gamma: pertpy 1.0.3 (``mmd`` with ``kernel="rbf"``); the mean over these gammas:
    CellFlow (Klein et al. 2025).

    Examples
    --------
    >>> from scjepa.metrics import mmd
    >>> round(mmd([[0.0]], [[1.0]], gammas=[1.0]), 6)  # 2 (1 - 1/e)
    1.264241
    """
    a, b = matrix_pair(x, y, ("x", "y"))
    if not len(gammas) or not min(gammas) > 0:
        raise ValueError(f"gammas={tuple(gammas)!r}: expected one or more positive numbers.")
    return _mean_kernel(a, a, gammas) + _mean_kernel(b, b, gammas) - 2 * _mean_kernel(a, b, gammas)


def _mean_kernel(x: FloatArray, y: FloatArray, gammas: Sequence[float]) -> float:
    """Mean of the kernels over all pairs."""

    def total(squared: FloatArray) -> float:
        return sum(float(np.exp(-gamma * squared).sum()) for gamma in gammas)

    return _mean_over_pairs(x, y, "sqeuclidean", total) / len(gammas)


def sliced_wasserstein(x: npt.ArrayLike, y: npt.ArrayLike, n_projections: int = 100, seed: int = 0) -> float:
    r"""Sliced 2-Wasserstein distance of two sets of cells. Zero if and only if they are the same; lower is better.

    .. math:: \Big( \frac1L \sum_{l=1}^L W_2^2(\theta_l^\top x, \theta_l^\top y) \Big)^{1/2}, \quad
        W_2^2 = \int_0^1 (F_x^{-1}(q) - F_y^{-1}(q))^2\, dq

    over L directions drawn uniformly from the sphere; the sets may differ in size.

    Parameters
    ----------
    x, y
        ``(n, d)`` and ``(m, d)`` cells in the same coordinates.
    n_projections
        Number of directions L.
    seed
        Seed of the directions: compare numbers of one seed only.

    Returns
    -------
    The distance, in units of the coordinates; NaN if a coordinate is NaN.

    Raises
    ------
    ValueError
        If the inputs are not matrices with the same number of columns, or ``n_projections`` is not positive.

    References
    ----------
    Bonneel et al., J Math Imaging Vis 2015.

    Examples
    --------
    >>> from scjepa.metrics import sliced_wasserstein
    >>> sliced_wasserstein([[0.0], [1.0]], [[3.0], [2.0], [2.0], [3.0]])
    2.0
    """
    a, b = matrix_pair(x, y, ("x", "y"))
    if n_projections < 1:
        raise ValueError(f"n_projections={n_projections!r}: expected a positive number.")
    if np.isnan(a).any() or np.isnan(b).any():
        return float("nan")
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], n_projections))
    directions /= np.linalg.norm(directions, axis=0)
    n, m = len(a), len(b)
    p, q = np.sort(a @ directions, axis=0), np.sort(b @ directions, axis=0)
    # both quantile functions are steps: integrate between all their jumps, counted in units of 1 / (n m) to be exact
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    squared = (p[starts // m] - q[starts // n]) ** 2
    return float(np.sqrt(((ends - starts) @ squared).mean() / (n * m)))
