"""Metrics of stated uncertainty: whether large errors are announced, and what leaving uncertain conditions out buys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray
from scjepa.metrics._effects import spearman


def uncertainty_spearman(uncertainty: npt.ArrayLike, error: npt.ArrayLike) -> float:
    """Spearman correlation over conditions of stated uncertainty and actual error. Best is 1, uninformative is 0.

    Parameters
    ----------
    uncertainty
        ``(conditions,)``, larger for less certain predictions: mean interval width, distance from training conditions.
    error
        ``(conditions,)`` errors, such as :func:`l2` of each condition; for scores where higher is better one minus the
        score.

    Returns
    -------
    The correlation over conditions without NaN; NaN with fewer than two of them or when a side is constant.

    Raises
    ------
    ValueError
        If the two are no vectors of one length.

    References
    ----------
    There is no accepted standard. PRESCRIBE, arXiv:2510.07964, asks the related question of how much accuracy grows when
    uncertain predictions are dropped: :func:`selective_risk_curve`.

    Examples
    --------
    >>> from scjepa.metrics import uncertainty_spearman
    >>> round(uncertainty_spearman([0.1, 0.5, 0.9], [1.0, 3.0, 2.0]), 6)
    0.5
    """
    u, e = _pair(uncertainty, error)
    return float(spearman(u, e)) if len(u) > 1 else float("nan")


def selective_risk_curve(error: npt.ArrayLike, uncertainty: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    r"""Mean error of the most certain conditions, by the share of conditions kept. Should rise from left to right.

    .. math:: risk(k / n) = \frac1k \sum_{i \le k} e_{(i)}, \quad u_{(1)} \le \dots \le u_{(n)}

    Conditions of equal uncertainty share their mean error, which is the curve's mean over the orders they could come in.
    The mean of the risks is the area under the curve; with the errors as uncertainties it is the best one possible.

    Parameters
    ----------
    error
        ``(conditions,)`` errors, lower is better.
    uncertainty
        ``(conditions,)``, larger for less certain predictions.

    Returns
    -------
    coverage, risk
        Two arrays of one value per condition without NaN: shares kept, from 1/n to 1, and mean errors of what is kept.

    Raises
    ------
    ValueError
        If the two are no vectors of one length.

    References
    ----------
    El-Yaniv & Wiener, JMLR 2010; Geifman & El-Yaniv, NeurIPS 2017.

    Examples
    --------
    >>> from scjepa.metrics import selective_risk_curve
    >>> coverage, risk = selective_risk_curve([4.0, 1.0, 2.0, 5.0], [0.3, 0.1, 0.2, 0.9])
    >>> coverage
    array([0.25, 0.5 , 0.75, 1.  ])
    >>> risk
    array([1.        , 1.5       , 2.33333333, 3.        ])
    """
    e, u = _pair(error, uncertainty, ("error", "uncertainty"))
    _, tie, count = np.unique(u, return_inverse=True, return_counts=True)
    shared = np.bincount(tie, weights=e, minlength=len(count)) / count if len(e) else e
    kept = np.arange(1, len(e) + 1)
    return kept / max(len(e), 1), np.cumsum(np.repeat(shared, count)) / kept


def _pair(
    a: npt.ArrayLike, b: npt.ArrayLike, names: tuple[str, str] = ("uncertainty", "error")
) -> tuple[FloatArray, FloatArray]:
    """Return two vectors of one length without the conditions that have a NaN in one of them."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(
            f"{names[0]} has shape {x.shape} and {names[1]} has shape {y.shape}: expected two vectors of one length, "
            "one value per condition."
        )
    kept = ~(np.isnan(x) | np.isnan(y))
    return x[kept], y[kept]
