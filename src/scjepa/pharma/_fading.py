"""Does a measured response fade, or is it noise? Courses that rise and then fall to a level, of least squares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from scjepa._types import FloatArray

SURPLUS = 6.0
"""By so much (twice a log-likelihood) a course that fades must fit better than all that only rise: several times are tried."""


class FadingCourse(NamedTuple):
    """Result of :func:`fading_course`."""

    fades: bool
    course: FloatArray
    """``(times,)`` the course that fits best: of those that fade if it does, else of the others."""
    surplus: float
    """How much better than all rising courses the best one that fades fits, in twice the log-likelihood."""


def fading_course(responses: npt.ArrayLike, variance: npt.ArrayLike, *, share: float = 0.5) -> FadingCourse:
    r"""Tell whether a measured response fades, given how noisy it is.

    A noisy response falls below a share of its maximum by chance: the maximum of noise is large. Two kinds of courses are
    fitted by weighted least squares: those that rise (from 0 or more) up to some time and stay from the next one on at one
    level of at most ``share`` of the top, and those that only rise, or stay at a level of at least ``share``. A response fades
    when one of the first kind fits better than all of the second, and better by ``SURPLUS`` than all that only rise.

    Parameters
    ----------
    responses
        ``(times,)`` in order, at least two.
    variance
        ``(times,)`` or one for all: sampling variance of each, above 0.
    share
        Of the top, between 0 and 1.

    Returns
    -------
    Whether it fades, and the course; :func:`fade_time` of the course tells when.

    Raises
    ------
    ValueError
        If shapes don't fit, a value is missing, a variance is not above 0, or the share is out of range.

    Examples
    --------
    >>> from scjepa.pharma import fading_course
    >>> fading_course([1.8, 4.2, 3.9, 0.9, 1.1], 0.04)[:2]
    (True, array([1.8 , 4.05, 4.05, 1.  , 1.  ]))
    >>> fading_course([1.8, 4.2, 3.9, 0.9, 1.1], 4.0).fades
    False
    """
    y, nu = np.asarray(responses, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if y.ndim != 1 or len(y) < 2 or nu.shape not in ((), y.shape):
        raise ValueError(
            f"responses has shape {y.shape} and variance {nu.shape}: expected (times,), two or more, and one or (times,)."
        )
    if not np.isfinite(y).all() or not np.isfinite(nu).all() or not (nu > 0).all():
        raise ValueError("expected finite responses, and variances above 0.")
    if not 0 < share < 1:
        raise ValueError(f"share={share!r}: expected a number between 0 and 1, for example 0.5.")
    w = 1 / np.broadcast_to(nu, y.shape)
    rising = np.maximum(isotonic_regression(y, weights=w).x, 0.0)
    loss = lambda f: float(((y - f) ** 2 * w).sum())
    stays = [rising, *(_then_level(y, w, k, share, fades=False) for k in range(1, len(y)))]
    falls = [_then_level(y, w, k, share, fades=True) for k in range(1, len(y))]
    kept, faded = min(stays, key=loss), min(falls, key=loss)
    surplus = loss(rising) - loss(faded)
    fades = loss(faded) < loss(kept) and surplus >= SURPLUS
    return FadingCourse(bool(fades), faded if fades else kept, surplus)


def _then_level(y: FloatArray, w: FloatArray, k: int, share: float, *, fades: bool) -> FloatArray:
    """Return the best course that rises over the first ``k`` and has one level after, below a share of the top or above it."""
    after = float(w[k:].sum())
    level = float((y[k:] * w[k:]).sum()) / after
    rise = np.maximum(isotonic_regression(y[:k], weights=w[:k]).x, 0.0)
    limit = share * rise[-1]
    if level <= limit if fades else level >= limit:
        return np.r_[rise, np.full(len(y) - k, max(level, 0.0))]
    # on the border the level is the share of the top, and stands for a top of level / share
    value, weight = np.r_[y[:k], level / share], np.r_[w[:k], after * share**2]
    best, least = np.zeros_like(y), np.inf
    for start in range(k):  # from where on the top is reached
        top = max(float((value[start:] * weight[start:]).sum() / weight[start:].sum()), 0.0)
        head = np.maximum(isotonic_regression(y[:start], weights=w[:start]).x, 0.0) if start else np.zeros(0)
        course = np.r_[np.minimum(head, top), np.full(k - start, top), np.full(len(y) - k, share * top)]
        loss = float(((y - course) ** 2 * w).sum())
        if loss < least:
            best, least = course, loss
    return best
