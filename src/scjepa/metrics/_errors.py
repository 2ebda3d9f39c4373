"""Errors of mean profiles or effects per gene, plain and weighted towards the genes that respond."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray
from scjepa.metrics._shapes import Scores, divide, profiles, scores


def mse(pred: npt.ArrayLike, true: npt.ArrayLike) -> Scores:
    r"""Mean squared error over genes, :math:`\frac1G \sum_g (\hat x_g - x_g)^2`. Lower is better.

    Give mean profiles for cell-eval's ``mse``, effects for its ``mse_delta``: the two differ when prediction and truth
    are taken against different controls. Over all genes it rewards predicting no change or the mean, since most genes
    don't respond: read it beside :func:`weighted_mse`.

    Parameters
    ----------
    pred, true
        ``(genes,)`` or ``(conditions, genes)`` mean profiles or effects.

    Returns
    -------
    The error, an array for several conditions.

    Raises
    ------
    ValueError
        If the two differ in shape.

    References
    ----------
    cell-eval 0.8.2, ``mse`` and ``mse_delta``; pertpy's ``mse`` distance.

    Examples
    --------
    >>> from scjepa.metrics import mse
    >>> mse([1.0, 2.0], [3.0, 2.0])
    2.0
    """
    p, t = profiles(pred=pred, true=true)
    return scores(((p - t) ** 2).mean(-1))


def mae(pred: npt.ArrayLike, true: npt.ArrayLike) -> Scores:
    r"""Mean absolute error over genes, :math:`\frac1G \sum_g |\hat x_g - x_g|`. Lower is better.

    Parameters
    ----------
    pred, true
        ``(genes,)`` or ``(conditions, genes)`` mean profiles (cell-eval's ``mae``) or effects (its ``mae_delta``).

    Returns
    -------
    The error, an array for several conditions.

    Raises
    ------
    ValueError
        If the two differ in shape.

    References
    ----------
    cell-eval 0.8.2, ``mae`` and ``mae_delta``, one of the three scores of the Virtual Cell Challenge; pertpy's
    ``mean_absolute_error`` distance.

    Examples
    --------
    >>> from scjepa.metrics import mae
    >>> mae([[1.0, 2.0], [0.0, 0.0]], [[3.0, 2.0], [0.0, 0.0]])
    array([1., 0.])
    """
    p, t = profiles(pred=pred, true=true)
    return scores(np.abs(p - t).mean(-1))


def de_weights(de_scores: npt.ArrayLike) -> FloatArray:
    r"""Weight of each gene by how strongly it responds, for :func:`weighted_mse` and :func:`weighted_r2`.

    .. math:: w_g = \left( \frac{|s_g| - \min_h |s_h|}{\max_h |s_h| - \min_h |s_h|} \right)^2

    Weights must come from measured cells alone, best from others than the ones that the prediction is compared with
    (CellSimBench halves the cells): else the noise that picks the genes is also what they are scored on.

    Parameters
    ----------
    de_scores
        ``(genes,)`` or ``(conditions, genes)`` test statistics of differential expression against all other
        perturbations, such as ``scores`` of scanpy's ``rank_genes_groups``, in the order of genes.

    Returns
    -------
    Weights between 0 and 1, not normalised; 0 where a score is NaN, and everywhere when all are equal.

    Raises
    ------
    ValueError
        If the scores are no vector or matrix.

    References
    ----------
    CellSimBench, bioRxiv 2025.10.20.683304; Mejia et al., Diversity by Design, arXiv:2506.22641.

    Examples
    --------
    >>> from scjepa.metrics import de_weights
    >>> de_weights([1.0, -3.0, 2.0])
    array([0.  , 1.  , 0.25])
    """
    (values,) = profiles(de_scores=de_scores)
    size = np.abs(values)
    low = np.nanmin(size, axis=-1, keepdims=True, initial=np.inf)
    high = np.nanmax(size, axis=-1, keepdims=True, initial=-np.inf)
    return np.nan_to_num(divide(size - low, high - low)) ** 2


def weighted_mse(pred: npt.ArrayLike, true: npt.ArrayLike, weights: npt.ArrayLike) -> Scores:
    r"""Squared error weighted by gene, :math:`\sum_g w_g (\hat x_g - x_g)^2 / \sum_g w_g`. Lower is better.

    Parameters
    ----------
    pred, true
        ``(genes,)`` or ``(conditions, genes)`` mean profiles or effects.
    weights
        Non-negative, of the same shape, such as :func:`de_weights`.

    Returns
    -------
    The error, an array for several conditions; NaN where all weights are 0.

    Raises
    ------
    ValueError
        If shapes differ or a weight is negative or NaN.

    References
    ----------
    WMSE of CellSimBench, bioRxiv 2025.10.20.683304; Mejia et al., arXiv:2506.22641.

    Examples
    --------
    >>> from scjepa.metrics import weighted_mse
    >>> weighted_mse([1.0, 2.0], [3.0, 3.0], [1.0, 3.0])
    1.75
    """
    p, t, w = _weighted(pred, true, weights)
    return scores(divide((w * (p - t) ** 2).sum(-1), w.sum(-1)))


def weighted_r2(pred_effect: npt.ArrayLike, true_effect: npt.ArrayLike, weights: npt.ArrayLike) -> Scores:
    r"""Weighted share of the variance of a true effect over genes that the prediction explains. Best is 1.

    .. math::
        R^2_w = 1 - \frac{\sum_g w_g (\delta_g - \hat\delta_g)^2}{\sum_g w_g (\delta_g - \bar\delta_w)^2},
        \quad \bar\delta_w = \frac{\sum_g w_g \delta_g}{\sum_g w_g}

    Take both effects against the mean of all perturbations, not against control, as the source recommends: the mean
    prediction then scores at most 0.

    Parameters
    ----------
    pred_effect, true_effect
        ``(genes,)`` or ``(conditions, genes)`` effects.
    weights
        Non-negative, of the same shape, such as :func:`de_weights`.

    Returns
    -------
    A number of at most 1, negative for predictions worse than a constant; an array for several conditions. NaN where
    all weights are 0 (CellSimBench leaves weights out there) or the weighted true effect is constant.

    Raises
    ------
    ValueError
        If shapes differ or a weight is negative or NaN.

    References
    ----------
    CellSimBench, bioRxiv 2025.10.20.683304; Mejia et al., arXiv:2506.22641. The same as
    ``sklearn.metrics.r2_score(sample_weight=)``, condition by condition.

    Examples
    --------
    >>> from scjepa.metrics import weighted_r2
    >>> weighted_r2([1.0, 2.0, 7.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0])
    0.5
    """
    p, t, w = _weighted(pred_effect, true_effect, weights)
    total = w.sum(-1, keepdims=True)
    center = divide((w * t).sum(-1, keepdims=True), total)
    spread = (w * (t - center) ** 2).sum(-1)
    # effects that are equal up to rounding have no variance to explain
    spread = np.where(spread > 1e-12 * (w * t**2).sum(-1), spread, np.nan)
    return scores(1.0 - divide((w * (p - t) ** 2).sum(-1), spread))


def _weighted(pred: npt.ArrayLike, true: npt.ArrayLike, weights: npt.ArrayLike) -> list[FloatArray]:
    """Return the three as float64 of one shape; check weights."""
    arrays = profiles(pred=pred, true=true, weights=weights)
    bad = int((~(arrays[2] >= 0)).sum())
    if bad:
        raise ValueError(f"{bad} of {arrays[2].size} weights are negative or NaN: expected weights of 0 or more.")
    return arrays
