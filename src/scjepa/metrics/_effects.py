"""Metrics of mean profiles, mean effects and embeddings that compare their size and direction, condition by condition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from scjepa._types import FloatArray
from scjepa.metrics._shapes import Scores, divide, profiles, scores

ROUNDING = 1e-6
"""Spread, relative to the values themselves, below which a vector counts as constant (float32 rounding)."""


def l2(pred_mean: npt.ArrayLike, true_mean: npt.ArrayLike) -> Scores:
    r"""Euclidean distance of two mean profiles, :math:`\sqrt{\sum_g (\hat\mu_g - \mu_g)^2}`. Lower is better.

    Parameters
    ----------
    pred_mean, true_mean
        ``(genes,)`` or ``(conditions, genes)`` mean log-normalised profiles, or embeddings.

    Returns
    -------
    The distance, on the scale of the values, summed (not averaged) over genes; an array for several conditions.

    Raises
    ------
    ValueError
        If the two differ in shape.

    References
    ----------
    The main score of Ahlmann-Eltze, Huber, Anders, Nat Methods 2025,
    doi:10.1038/s41592-025-02772-6.

    Examples
    --------
    >>> from scjepa.metrics import l2
    >>> l2([1.0, 4.0], [4.0, 0.0])
    5.0
    """
    pred, true = profiles(pred_mean=pred_mean, true_mean=true_mean)
    return scores(np.linalg.norm(pred - true, axis=-1))


def pearson_delta(
    pred_effect: npt.ArrayLike, true_effect: npt.ArrayLike, reference: npt.ArrayLike | None = None
) -> Scores:
    r"""Pearson correlation over genes of predicted and true effects. Higher is better.

    An effect is perturbed minus control mean. With ``reference`` the effects are taken against that effect instead:
    :math:`r(\hat\delta - \delta_{ref}, \delta - \delta_{ref})`. With the mean of the training effects as reference a
    model gains nothing from what all perturbations share (Systema).

    Parameters
    ----------
    pred_effect, true_effect
        ``(genes,)`` or ``(conditions, genes)`` predicted and true perturbed minus control means.
    reference
        ``(genes,)``, or one row per condition: effect to subtract from both, or None.

    Returns
    -------
    The correlation, an array for several conditions; NaN when one side is constant up to rounding, as for the
    prediction "no effect".

    Raises
    ------
    ValueError
        If the shapes don't fit.

    References
    ----------
    Against control: all genes, as in GEARS (Roohani et al., Nat Biotechnol 2023) and cell-eval. Against the training
    mean: Viñas Torné et al., Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> from scjepa.metrics import pearson_delta
    >>> round(pearson_delta([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    1.0
    >>> round(pearson_delta([1.0, 2.0, 3.0], [2.0, 2.0, 5.0], reference=[1.0, 1.0, 3.0]), 6)
    -0.5
    """
    pred, true = profiles(pred_effect=pred_effect, true_effect=true_effect)
    shared = np.zeros(true.shape[-1]) if reference is None else np.asarray(reference, dtype=np.float64)
    if shared.shape not in (true.shape, true.shape[-1:]):
        raise ValueError(
            f"reference has shape {shared.shape}: expected {true.shape[-1:]}, one value per gene, or the shape of "
            f"true_effect, {true.shape}."
        )
    size = np.linalg.norm(shared, axis=-1)
    sizes = [np.maximum(np.linalg.norm(v, axis=-1), size) for v in (pred, true)]
    return scores(_correlation(pred - shared, true - shared, *sizes))


def shift_magnitude_ratio(pred_effect: npt.ArrayLike, true_effect: npt.ArrayLike) -> Scores:
    r"""Size of the predicted effect over that of the true one, :math:`\|\hat\delta\| / \|\delta\|`. Best is 1.

    Values well below 1 are the signature of effects shrunk toward no change. Noise lengthens the mean of few cells,
    so that even a perfect prediction stays a little below 1.

    Parameters
    ----------
    pred_effect, true_effect
        ``(genes,)`` or ``(conditions, genes)`` predicted and true perturbed minus control means.

    Returns
    -------
    The ratio of Euclidean norms, an array for several conditions; NaN when the true effect is zero.

    Raises
    ------
    ValueError
        If the two differ in shape.

    Examples
    --------
    >>> from scjepa.metrics import shift_magnitude_ratio
    >>> shift_magnitude_ratio([3.0, 0.0], [0.0, 6.0])
    0.5
    """
    pred, true = profiles(pred_effect=pred_effect, true_effect=true_effect)
    return scores(divide(np.linalg.norm(pred, axis=-1), np.linalg.norm(true, axis=-1)))


def cosine(pred: npt.ArrayLike, true: npt.ArrayLike) -> Scores:
    r"""Cosine of the angle between prediction and truth, :math:`\hat x \cdot x / (\|\hat x\| \|x\|)`. Best is 1.

    On log fold changes (:func:`log_fold_change`) this is PerturBench's "cosine logFC"; on embeddings center first,
    since coordinates far from the origin have a cosine near 1 whatever they say.

    Parameters
    ----------
    pred, true
        ``(genes,)`` or ``(conditions, genes)`` log fold changes or effects, or embeddings.

    Returns
    -------
    A number between -1 and 1, an array for several conditions; NaN when one side is all zero.

    Raises
    ------
    ValueError
        If the two differ in shape.

    References
    ----------
    Wu et al., PerturBench, arXiv:2408.10609.

    Examples
    --------
    >>> from scjepa.metrics import cosine
    >>> cosine([[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0], [6.0, 8.0]])
    array([0., 1.])
    """
    p, t = profiles(pred=pred, true=true)
    # of unit vectors, since the product of two small norms may underflow
    p, t = (divide(v, np.linalg.norm(v, axis=-1, keepdims=True)) for v in (p, t))
    return scores(np.clip((p * t).sum(-1), -1.0, 1.0))


def spearman(pred: npt.ArrayLike, true: npt.ArrayLike) -> Scores:
    """Spearman correlation of prediction and truth: Pearson's of their ranks, ties sharing a mean rank. Best is 1.

    Parameters
    ----------
    pred, true
        ``(genes,)`` or ``(conditions, genes)`` effects or log fold changes, or embeddings.

    Returns
    -------
    A number between -1 and 1, an array for several conditions; NaN when one side is constant or has a NaN.

    Raises
    ------
    ValueError
        If the two differ in shape.

    References
    ----------
    Spearman, Am J Psychol 1904; the same as scipy.stats.spearmanr, row by row.

    Examples
    --------
    >>> from scjepa.metrics import spearman
    >>> round(spearman([1.0, 2.0, 9.0], [1.0, 3.0, 2.0]), 6)
    0.5
    """
    p, t = profiles(pred=pred, true=true)
    ranks = [rankdata(v, axis=-1) for v in (p, t)]
    sizes = [np.linalg.norm(r, axis=-1) for r in ranks]
    return scores(_correlation(*ranks, *sizes))


def log_fold_change(mean: npt.ArrayLike, control_mean: npt.ArrayLike, pseudocount: float = 0.1) -> FloatArray:
    r"""Log fold change of mean profiles against control, :math:`\log_2(\mu + c) - \log_2(\mu_{ctrl} + c)`.

    PerturBench puts means of **log1p** expression in, without undoing the log: its fold changes are smaller than those
    of counts. With means of normalised counts the result is the usual log fold change.

    Parameters
    ----------
    mean
        ``(genes,)`` or ``(conditions, genes)`` non-negative mean profiles.
    control_mean
        ``(genes,)`` or of the shape of ``mean``: control profile of each condition.
    pseudocount
        The c of the formula.

    Returns
    -------
    Log2 fold changes, shaped as ``mean``.

    Raises
    ------
    ValueError
        If the shapes don't fit, the pseudocount is not positive, or a mean is negative.

    References
    ----------
    Wu et al., PerturBench, arXiv:2408.10609, whose pseudocount is 0.1.

    Examples
    --------
    >>> from scjepa.metrics import log_fold_change
    >>> log_fold_change([0.3, 0.0], [0.1, 0.1])
    array([ 1., -1.])
    """
    (values,) = profiles(mean=mean)
    control = np.asarray(control_mean, dtype=np.float64)
    if control.shape not in (values.shape, values.shape[-1:]):
        raise ValueError(
            f"control_mean has shape {control.shape}: expected {values.shape[-1:]}, one value per gene, or the shape "
            f"of mean, {values.shape}."
        )
    if not pseudocount > 0:
        raise ValueError(f"pseudocount={pseudocount!r}: expected a positive number.")
    lowest = min(float(np.nanmin(v, initial=0.0)) for v in (values, control))
    if lowest < 0:
        raise ValueError(
            f"found a mean of {lowest:g}: expected means of non-negative expression. Give means, not effects; clip "
            "predictions below zero."
        )
    return np.log2(values + pseudocount) - np.log2(control + pseudocount)


def _correlation(a: FloatArray, b: FloatArray, size_a: FloatArray, size_b: FloatArray) -> FloatArray:
    """Pearson correlation along the last axis; NaN where the spread is within rounding of values of these sizes."""
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    spread_a, spread_b = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    defined = (spread_a > ROUNDING * size_a) & (spread_b > ROUNDING * size_b)  # worded so that NaN in is NaN out
    norm = np.where(defined, spread_a * spread_b, np.nan)
    return np.clip(divide((a * b).sum(-1), norm), -1.0, 1.0)
