"""The dip: how far a sample is from having one mode, and how often a sample with one mode is as far."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import isotonic_regression

from scjepa._types import FloatArray

DRAWS = 500
"""Uniform samples of each size that the null is made of."""
SIZES = (4, 5, 6, 8, 10, 13, 17, 22, 28, 36, 46, 60, 80, 110, 150, 220, 330, 500)
"""Sizes whose null is simulated; between them, and above, the dip times the root of the size hardly changes."""


def dip(x: FloatArray) -> float:
    r"""Return the dip of a sample: the least distance of its distribution function to one with a single mode.

    .. math:: \mathrm{dip} = \min_{G\ \mathrm{unimodal}} \sup_x |F_n(x) - G(x)|

    Computed by shrinking the modal interval between the greatest convex minorant on its left and the least concave majorant on
    its right until they agree; both are isotonic regressions of the slopes.

    Parameters
    ----------
    x
        ``(n,)`` numbers; ties may occur.

    Returns
    -------
    A number from ``1 / (2 n)`` (equally spaced points) to 1/4 (two points of equal mass).

    Raises
    ------
    ValueError
        If ``x`` is empty, not one row of numbers, or not finite.

    References
    ----------
    Hartigan & Hartigan 1985, *Annals of Statistics* 13(1).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import dip
    >>> dip(np.arange(10)), dip(np.array([0, 0, 0, 1, 1, 1]))
    (0.05, 0.25)
    """
    values = _checked(x)
    n = len(values)
    points, counts = np.unique(values, return_counts=True)
    upper = np.cumsum(counts) / n
    lower = upper - counts / n
    low, high, widest = 0, len(points) - 1, 1.0 / n
    while high > low:
        part = slice(low, high + 1)
        below, above = _minorant(points[part], lower[part]), -_minorant(points[part], -upper[part])
        # both are straight between their corners, so they are farthest apart at a corner of one of them
        left, right = _corners(below, lower[part]), _corners(above, upper[part])
        gap = np.where(left | right, above - below, -np.inf)
        if gap.max() <= widest + 1e-12:
            break
        at = int(gap.argmax())
        if left[at]:
            first, last = at, at + int(right[at:].argmax())
        else:
            first, last = at - int(left[at::-1].argmax()), at
        # a jump at the mode itself is allowed, so the ends of the modal interval don't count yet
        outside = np.concatenate([(upper[part] - below)[:first], (above - lower[part])[last + 1 :]])
        widest = max(widest, outside.max(initial=0.0))
        low, high = low + first, low + last
    return float(widest / 2)


def dip_pvalue(x: FloatArray, *, draws: int = DRAWS) -> float:
    """Return how often a uniform sample, the hardest one with a single mode, has a dip as large.

    Parameters
    ----------
    x
        ``(n,)`` numbers; fewer than four are never evidence (1.0).
    draws
        Uniform samples per size; they are drawn once and kept.

    Returns
    -------
    A p-value, not below ``1 / (draws + 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import dip_pvalue
    >>> rng = np.random.default_rng(0)
    >>> one, two = rng.normal(size=200), np.concatenate([rng.normal(size=100), rng.normal(6, 1, 100)])
    >>> dip_pvalue(one) > 0.2, dip_pvalue(two) < 0.01
    (True, True)
    """
    values = _checked(x)
    n = len(values)
    if n < SIZES[0]:
        return 1.0
    statistic = np.sqrt(n) * dip(values)
    after = int(np.searchsorted(SIZES, n))
    if after == len(SIZES) or SIZES[after] == n:
        return _tail(statistic, SIZES[min(after, len(SIZES) - 1)], draws)
    small, large = SIZES[after - 1], SIZES[after]
    weight = np.log(n / small) / np.log(large / small)
    return float((1 - weight) * _tail(statistic, small, draws) + weight * _tail(statistic, large, draws))


def _checked(x: FloatArray) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"x has shape {values.shape}: expected one row of numbers, at least one.")
    if not np.isfinite(values).all():
        raise ValueError(f"x has {int((~np.isfinite(values)).sum())} missing or infinite values: expected numbers.")
    return np.sort(values)


def _minorant(points: FloatArray, heights: FloatArray) -> FloatArray:
    """Return the greatest convex function below the heights at ascending points."""
    width = np.diff(points)
    slopes = isotonic_regression(np.diff(heights) / width, weights=width).x
    return heights[0] + np.concatenate([[0.0], np.cumsum(slopes * width)])


def _corners(envelope: FloatArray, heights: FloatArray) -> np.ndarray:
    """Return where an envelope touches what it envelops; at its ends it does."""
    touches = np.abs(envelope - heights) < 1e-10
    touches[[0, -1]] = True
    return touches


@cache
def _null(n: int, draws: int) -> FloatArray:
    rng = np.random.default_rng(n)
    return np.sort([np.sqrt(n) * dip(rng.random(n)) for _ in range(draws)])


def _tail(statistic: float, n: int, draws: int) -> float:
    null = _null(n, draws)
    return float((1 + len(null) - np.searchsorted(null, statistic - 1e-12)) / (1 + len(null)))
