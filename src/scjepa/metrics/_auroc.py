"""Area under the ROC curve with weights, for many sets of weights at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray

AT_ONCE = 4_000_000
"""Weights that are held at a time."""


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float | FloatArray:
    r"""Probability that a positive case has a higher score than a negative one, ties counted half. Best is 1, chance .5.

    Parameters
    ----------
    labels
        ``(n,)`` true for positive cases.
    scores
        ``(n,)``.
    weights
        ``(n,)``, or ``(b, n)`` for b areas at once, as a bootstrap needs them; 1 by default.

    Returns
    -------
    The area, or ``(b,)`` of them; NaN where one side has no weight or a score is NaN.

    Raises
    ------
    ValueError
        For shapes that don't fit and weights below 0.

    References
    ----------
    Equal to ``roc_auc_score`` of scikit-learn.

    Examples
    --------
    >>> from scjepa.metrics import auroc
    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    y, s = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    w = np.ones((1, len(y))) if weights is None else np.asarray(weights, dtype=np.float64)
    single = w.ndim == 1 or weights is None
    w = np.atleast_2d(w)
    if y.ndim != 1 or s.shape != y.shape or w.ndim != 2 or w.shape[1] != len(y):
        raise ValueError(
            f"labels have shape {y.shape}, scores {s.shape}, weights {w.shape}: expected (n,), (n,), and (n,) or (b, n)."
        )
    if not np.isfinite(w).all() or (w < 0).any():
        raise ValueError("weights: expected finite numbers of at least 0.")
    if not len(y) or np.isnan(s).any():
        out = np.full(len(w), np.nan)
        return float(out[0]) if single else out
    order = np.argsort(s, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(s[order]) > 0])  # cases of one score count half against each other
    y = y[order]
    out = np.empty(len(w))
    step = max(1, AT_ONCE // len(y))
    for i in range(0, len(w), step):
        part = w[i : i + step][:, order]
        positive = np.add.reduceat(part * y, starts, axis=1)
        negative = np.add.reduceat(part * ~y, starts, axis=1)
        below = np.cumsum(negative, 1) - 0.5 * negative
        total = positive.sum(1) * negative.sum(1)
        area = np.divide((positive * below).sum(1), total, out=np.full(len(part), np.nan), where=total > 0)
        out[i : i + step] = area
    return float(out[0]) if single else out
