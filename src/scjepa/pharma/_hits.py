"""How many of the drugs known to be active a ranking finds early: enrichment, BEDROC, ROC area, hit rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray


def enrichment_factor(scores: npt.ArrayLike, active: npt.ArrayLike, fraction: float = 0.01) -> Any:
    r"""Share of active drugs among the best, over their share in the library. Chance is 1.

    .. math:: EF_f = \frac{a_{top} / \lceil f N \rceil}{A / N}

    Parameters
    ----------
    scores
        ``(drugs,)`` or ``(rankings, drugs)``, high is good.
    active
        ``(drugs,)`` or of the shape of ``scores``, True for active drugs.
    fraction
        Part of the library that counts as the best, above 0 and at most 1.

    Returns
    -------
    The factor, one per ranking, at most ``min(1 / share of active drugs, N / ceil(f N))``; tied drugs count by their
    mean over all orders. NaN without active drugs.

    Raises
    ------
    ValueError
        If shapes don't fit, a score is NaN, labels are not True or False, or the fraction is out of range.

    References
    ----------
    ``rdkit.ML.Scoring.Scoring.CalcEnrichment``, whose values it equals where no scores are tied.

    Examples
    --------
    >>> from scjepa.pharma import enrichment_factor
    >>> enrichment_factor([5.0, 4.0, 3.0, 2.0], [True, False, False, True], fraction=0.25)
    2.0
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: expected a number above 0 and at most 1, for example 0.01.")
    hits, single = _ranked(scores, active)
    top = int(np.ceil(hits.shape[1] * fraction - 1e-9))
    return _number(_divide(hits[:, :top].mean(1), hits.mean(1)), single)


def hit_rate(scores: npt.ArrayLike, active: npt.ArrayLike, k: int = 10) -> Any:
    """Share of active drugs among the ``k`` best.

    Parameters
    ----------
    scores, active
        As in :func:`enrichment_factor`.
    k
        How many drugs would be tested; all if there are fewer.

    Returns
    -------
    A number between 0 and 1, one per ranking; tied drugs count by their mean over all orders.

    Raises
    ------
    ValueError
        As in :func:`enrichment_factor`, or if ``k`` is below 1.

    Examples
    --------
    >>> from scjepa.pharma import hit_rate
    >>> hit_rate([5.0, 4.0, 3.0, 2.0], [True, False, True, True], k=2)
    0.5
    """
    hits, single = _ranked(scores, active)
    return _number(hits[:, : require_positive_int(k, "k")].mean(1), single)


def bedroc(scores: npt.ArrayLike, active: npt.ArrayLike, alpha: float = 20.0) -> Any:
    r"""Boltzmann-enhanced discrimination of ROC: how early active drugs come, from 0 (last) to 1 (first).

    .. math:: RIE = \frac{\sum_i e^{-\alpha r_i / N} / A}{\frac{1}{N} \frac{1 - e^{-\alpha}}{e^{\alpha / N} - 1}}, \qquad
        BEDROC = \frac{RIE - RIE_{min}}{RIE_{max} - RIE_{min}}

    with :math:`r_i` the ranks of the A active drugs among all N. Chance is not 0.5; compare with shuffled scores.

    Parameters
    ----------
    scores, active
        As in :func:`enrichment_factor`.
    alpha
        How early: with 20 the first 8 % of the library make 80 % of the score.

    Returns
    -------
    The score, one per ranking; tied drugs count by their mean over all orders. NaN without active drugs, 1 if all are.

    Raises
    ------
    ValueError
        As in :func:`enrichment_factor`, or if ``alpha`` is not above 0.

    References
    ----------
    Truchon and Bayly, *Journal of Chemical Information and Modeling* 47, 488-508 (2007);
    ``rdkit.ML.Scoring.Scoring.CalcBEDROC``, whose values it equals where no scores are tied.

    Examples
    --------
    >>> from scjepa.pharma import bedroc
    >>> round(bedroc([5.0, 4.0, 3.0, 2.0], [True, False, False, False]), 6)
    1.0
    """
    if not 0 < alpha <= 500:
        raise ValueError(f"alpha={alpha!r}: expected a number above 0 and at most 500, for example 20.")
    hits, single = _ranked(scores, active)
    n = hits.shape[1]
    found = hits.sum(1)
    # of sums of weights, which is the formula with its common factors left out
    weights = np.exp(-alpha * np.arange(1, n + 1) / n)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    a = np.round(found).astype(int)
    best, worst = total[a], total[n] - total[n - a]
    score = _divide(hits @ weights - worst, best - worst)
    return _number(np.where(a == n, 1.0, np.where(a == 0, np.nan, score)), single)


def roc_auc(scores: npt.ArrayLike, active: npt.ArrayLike) -> Any:
    r"""Probability that an active drug scores above an inactive one, ties counting half. Best is 1, chance 0.5.

    Parameters
    ----------
    scores, active
        As in :func:`enrichment_factor`.

    Returns
    -------
    The area under the ROC curve, one per ranking; NaN when all drugs are active or none is.

    Raises
    ------
    ValueError
        As in :func:`enrichment_factor`.

    References
    ----------
    Hanley and McNeil, *Radiology* 143, 29-36 (1982); ``rdkit.ML.Scoring.Scoring.CalcAUC``.

    Examples
    --------
    >>> from scjepa.pharma import roc_auc
    >>> roc_auc([5.0, 4.0, 3.0, 2.0], [True, False, True, False])
    0.75
    """
    hits, single = _ranked(scores, active)
    n, found = hits.shape[1], hits.sum(1)
    mean_rank = _divide(hits @ np.arange(1.0, n + 1), found)
    return _number(1 - _divide(mean_rank - (found + 1) / 2, n - found), single)


def _ranked(scores: npt.ArrayLike, active: npt.ArrayLike) -> tuple[FloatArray, bool]:
    """Return ``(rankings, drugs)``: the share of active drugs at each rank, averaged over ties; and if one was given."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(active)
    if x.ndim not in (1, 2) or not x.size or y.shape not in (x.shape, x.shape[-1:]):
        raise ValueError(
            f"scores has shape {x.shape} and active has shape {y.shape}: expected (drugs,) or (rankings, drugs), one "
            "label per drug."
        )
    if np.isnan(x).any():
        raise ValueError(
            f"scores has {int(np.isnan(x).sum())} NaN values: expected numbers. Leave drugs without one out."
        )
    if y.dtype.kind not in "buif" or not np.isin(y, (0, 1)).all():
        raise ValueError(f"active has values of type {y.dtype} other than 0 and 1: expected True for active drugs.")
    rows = np.atleast_2d(x)
    order = np.argsort(-rows, axis=1, kind="stable")
    values = np.take_along_axis(rows, order, axis=1)
    hits = np.take_along_axis(np.broadcast_to(y.astype(np.float64), rows.shape), order, axis=1)
    # one number for each run of ties, over all rankings
    starts = np.column_stack([np.ones(len(rows), dtype=bool), values[:, 1:] != values[:, :-1]])
    run = np.cumsum(starts.ravel()) - 1
    means = np.bincount(run, hits.ravel()) / np.bincount(run)
    return means[run].reshape(rows.shape), x.ndim == 1


def _divide(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _number(values: FloatArray, single: bool) -> Any:
    return float(values[0]) if single else values
