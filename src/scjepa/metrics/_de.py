"""Metrics of differential expression (DE): genes called, their order and the direction of their change.

They take log fold changes and false discovery rates, per condition and gene, of a test run on true cells and of the same
test on predicted cells (pdex, scanpy's ``rank_genes_groups``). NaN means that a gene was not tested. The number of
predicted cells sets the power of the test: predict as many cells as were measured, with their variance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from scjepa._types import FloatArray
from scjepa.metrics._shapes import Scores, divide, profiles, scores


def de_count(fdr: npt.ArrayLike, max_fdr: float = 0.05) -> Scores:
    """Number of significant genes (FDR < ``max_fdr``). Compare the count of a prediction with that of the truth.

    Parameters
    ----------
    fdr
        ``(genes,)`` or ``(conditions, genes)`` false discovery rates.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The number, an array for several conditions.

    Raises
    ------
    ValueError
        If ``fdr`` is no vector or matrix or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``de_nsig_counts`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_count
    >>> de_count([[0.01, 0.2, 0.04], [1.0, 1.0, 1.0]])
    array([2., 0.])
    """
    (values,) = profiles(fdr=fdr)
    return scores(significant(values, max_fdr).sum(-1).astype(np.float64))


def de_overlap(
    pred_lfc: npt.ArrayLike,
    pred_fdr: npt.ArrayLike,
    true_lfc: npt.ArrayLike,
    true_fdr: npt.ArrayLike,
    k: int | None = None,
    *,
    max_fdr: float = 0.05,
) -> Scores:
    r"""Share of the strongest true DE genes that are among the strongest predicted ones. Best is 1.

    .. math:: |top_{k'}(true) \cap top_{k'}(pred)| / k', \quad k' = \min(k, n_{true})

    :math:`top_k` are the k significant genes (FDR < ``max_fdr``) with the largest absolute log fold change, ties in the
    order of genes; :math:`n_{true}` is the number of significant true genes.

    Parameters
    ----------
    pred_lfc, pred_fdr, true_lfc, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` log fold changes and false discovery rates.
    k
        Number of genes; None for all significant true genes (the DE score of the Virtual Cell Challenge).
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The share, an array for several conditions; 0 where no gene is significant on one of the sides.

    Raises
    ------
    ValueError
        If shapes differ, ``k`` is not positive, or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``overlap_at_k`` and ``overlap_at_N`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_overlap
    >>> de_overlap([3.0, 0.1, -2.0], [0.01, 0.9, 0.01], [2.0, -1.0, 0.2], [0.01, 0.01, 0.5])
    0.5
    """
    return _top_overlap(pred_lfc, pred_fdr, true_lfc, true_fdr, k, max_fdr, of_pred=False)


def de_precision(
    pred_lfc: npt.ArrayLike,
    pred_fdr: npt.ArrayLike,
    true_lfc: npt.ArrayLike,
    true_fdr: npt.ArrayLike,
    k: int | None = None,
    *,
    max_fdr: float = 0.05,
) -> Scores:
    r"""Share of the strongest predicted DE genes that are among the strongest true ones. Best is 1.

    :func:`de_overlap` with :math:`k' = \min(k, n_{pred})`, the number of significant predicted genes.

    Parameters
    ----------
    pred_lfc, pred_fdr, true_lfc, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` log fold changes and false discovery rates.
    k
        Number of genes; None for all significant predicted genes.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The share, an array for several conditions; 0 where no gene is significant on one of the sides.

    Raises
    ------
    ValueError
        If shapes differ, ``k`` is not positive, or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``precision_at_k`` and ``precision_at_N`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_precision
    >>> de_precision([3.0, 0.1, -2.0], [0.01, 0.9, 0.9], [2.0, -1.0, 0.2], [0.01, 0.01, 0.5])
    1.0
    """
    return _top_overlap(pred_lfc, pred_fdr, true_lfc, true_fdr, k, max_fdr, of_pred=True)


def de_recall(pred_fdr: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05) -> Scores:
    r"""Share of significant true genes that are significant in the prediction, :math:`|S \cap \hat S| / |S|`. Best is 1.

    Calling every gene significant scores 1: read it beside :func:`de_precision`.

    Parameters
    ----------
    pred_fdr, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` false discovery rates.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The share, an array for several conditions; NaN where no true gene is significant.

    Raises
    ------
    ValueError
        If shapes differ or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``de_sig_genes_recall`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_recall
    >>> de_recall([0.01, 0.9, 0.01], [0.01, 0.01, 0.5])
    0.5
    """
    pred, true = (significant(v, max_fdr) for v in profiles(pred_fdr=pred_fdr, true_fdr=true_fdr))
    return scores(divide((pred & true).sum(-1), true.sum(-1)))


def de_direction_match(
    pred_lfc: npt.ArrayLike, true_lfc: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05
) -> Scores:
    r"""Share of significant true genes whose predicted change has the true sign. Best is 1, chance 0.5.

    Parameters
    ----------
    pred_lfc, true_lfc, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` log fold changes, and false discovery rates of the truth.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The share, an array for several conditions. A prediction of exactly 0 is no match; genes with a NaN don't count; NaN
    where none are left.

    Raises
    ------
    ValueError
        If shapes differ or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``de_direction_match`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_direction_match
    >>> de_direction_match([0.1, 0.5, -9.0], [2.0, -1.0, 1.0], [0.01, 0.01, 0.5])
    0.5
    """
    pred, true, fdr = profiles(pred_lfc=pred_lfc, true_lfc=true_lfc, true_fdr=true_fdr)
    counted = significant(fdr, max_fdr) & ~np.isnan(pred) & ~np.isnan(true)
    return scores(divide((counted & (np.sign(pred) == np.sign(true))).sum(-1), counted.sum(-1)))


def de_spearman_lfc(
    pred_lfc: npt.ArrayLike, true_lfc: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05
) -> Scores:
    """Spearman correlation of log fold changes over the significant true genes. Best is 1.

    Parameters
    ----------
    pred_lfc, true_lfc, true_fdr
        ``(genes,)`` or ``(conditions, genes)`` log fold changes, and false discovery rates of the truth.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The correlation, an array for several conditions; a missing prediction (NaN) counts as no change. NaN with fewer
    than two significant genes or when a side is constant on them.

    Raises
    ------
    ValueError
        If shapes differ or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``de_spearman_lfc_sig`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_spearman_lfc
    >>> round(de_spearman_lfc([1.0, 2.0, 9.0, 7.0], [1.0, 3.0, 2.0, 0.0], [0.01, 0.01, 0.01, 0.9]), 6)
    0.5
    """
    pred, true, fdr = profiles(pred_lfc=pred_lfc, true_lfc=true_lfc, true_fdr=true_fdr)
    counted = significant(fdr, max_fdr) & ~np.isnan(true)
    return by_condition(_spearman, np.nan_to_num(pred, posinf=np.inf, neginf=-np.inf), true, counted)


def de_spearman_count(pred_fdr: npt.ArrayLike, true_fdr: npt.ArrayLike, max_fdr: float = 0.05) -> float:
    """Spearman correlation over conditions of the numbers of significant genes, predicted and true. Best is 1.

    Parameters
    ----------
    pred_fdr, true_fdr
        ``(conditions, genes)`` false discovery rates.
    max_fdr
        FDR below which a gene is significant.

    Returns
    -------
    The correlation over the conditions that have at least one significant true gene; NaN with fewer than two of them or
    when a side is constant (cell-eval says 1 when there is none).

    Raises
    ------
    ValueError
        If the two are no matrices of one shape or ``max_fdr`` is not between 0 and 1.

    References
    ----------
    ``de_spearman_sig`` of cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import de_spearman_count
    >>> true = [[0.01, 0.01, 0.9], [0.01, 0.9, 0.9], [0.9, 0.9, 0.9]]
    >>> round(de_spearman_count([[0.01, 0.01, 0.01], [0.9, 0.9, 0.9], [0.01, 0.01, 0.01]], true), 6)
    1.0
    """
    pred, true = profiles(pred_fdr=pred_fdr, true_fdr=true_fdr)
    if true.ndim != 2:
        raise ValueError(f"true_fdr has shape {true.shape}: expected conditions x genes, the score is over conditions.")
    counts = [significant(v, max_fdr).sum(-1) for v in (pred, true)]
    return _spearman(*(c[counts[1] > 0].astype(np.float64) for c in counts))


def significant(fdr: FloatArray, max_fdr: float) -> npt.NDArray[np.bool_]:
    """Return True for genes below ``max_fdr``; untested genes (NaN) are not."""
    if not 0 < max_fdr <= 1:
        raise ValueError(f"max_fdr={max_fdr!r}: expected a number above 0 and at most 1.")
    return fdr < max_fdr


def _top_overlap(
    pred_lfc: npt.ArrayLike,
    pred_fdr: npt.ArrayLike,
    true_lfc: npt.ArrayLike,
    true_fdr: npt.ArrayLike,
    k: int | None,
    max_fdr: float,
    *,
    of_pred: bool,
) -> Scores:
    """Genes shared by the tops of both sides over the length of the top, which one of the sides limits."""
    arrays = profiles(pred_lfc=pred_lfc, pred_fdr=pred_fdr, true_lfc=true_lfc, true_fdr=true_fdr)
    if k is not None and k < 1:
        raise ValueError(f"k={k!r}: expected a positive number of genes, or None for all significant ones.")
    pred, true = significant(arrays[1], max_fdr), significant(arrays[3], max_fdr)
    size = (pred if of_pred else true).sum(-1, keepdims=True)
    size = size if k is None else np.minimum(size, k)
    shared = (_top(arrays[0], pred, size) & _top(arrays[2], true, size)).sum(-1)
    return scores(shared / np.maximum(size[..., 0], 1))


def _top(lfc: FloatArray, significant: npt.NDArray[np.bool_], k: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return True for the k significant genes with the largest absolute change (NaN last), ties in the order of genes."""
    size = np.where(significant, np.nan_to_num(np.abs(lfc), nan=-0.5, posinf=np.inf), -1.0)
    order = np.argsort(-size, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1)
    return significant & (rank < k)


def _spearman(a: FloatArray, b: FloatArray) -> float:
    """Spearman correlation; NaN, without a warning, where it is undefined."""
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    return float(spearmanr(a, b).statistic)


def by_condition(score: Callable[..., float], a: npt.NDArray, b: npt.NDArray, counted: npt.NDArray[np.bool_]) -> Scores:
    """Return the score of the counted genes of each condition."""
    if a.ndim == 1:
        return score(a[counted], b[counted])
    return np.array([score(p[c], t[c]) for p, t, c in zip(a, b, counted, strict=True)], dtype=np.float64)
