"""Metrics of whether a prediction is told apart from those of other conditions, or groups conditions as the truth does."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_mutual_info_score

from scjepa._types import FloatArray
from scjepa.metrics._shapes import condition_pair

Distance = Literal["l1", "l2", "cosine"]

TIE = 1e-12
"""Distances that differ by less than this share of the largest are tied: only rounding tells them apart."""


def discrimination_score(
    pred_effects: npt.ArrayLike,
    true_effects: npt.ArrayLike,
    metric: Distance = "l1",
    *,
    exclude: npt.ArrayLike | None = None,
) -> FloatArray:
    r"""One minus the rank of a condition's own truth among all truths by distance to its prediction. Best is 1.

    .. math:: PDS_p = 1 - \frac{1}{P} \#\{q \ne p : d(\hat\delta_p, \delta_q) < d(\hat\delta_p, \delta_p)\}

    Predictions at random, or the same for all conditions, score about 0.5 + 1/(2 P) on average. L1 and L2 depend on the
    size of effects, cosine on their direction only: predictions that are right but too small differ between them.

    Parameters
    ----------
    pred_effects, true_effects
        ``(conditions, genes)`` predicted and true perturbed minus control means.
    metric
        ``"l1"`` (the score of the Virtual Cell Challenge), ``"l2"`` or ``"cosine"``.
    exclude
        ``(conditions, genes)``, True for genes to leave out of the comparisons of a condition's prediction: its
        perturbed genes, whose own change is no merit. None uses all genes. The perturbed genes of the other conditions
        stay in and push these away: with strong knock-downs every prediction scores near 1. Exclude the genes perturbed
        anywhere in all conditions then.

    Returns
    -------
    ``(conditions,)`` scores; tied truths count half. NaN for a single condition or when the prediction has a NaN.

    Raises
    ------
    ValueError
        If shapes differ or the metric is unknown.

    References
    ----------
    ``discrimination_score_*`` of cell-eval 0.8.2, which leaves out the gene named as the perturbation and breaks ties
    in the order of a sort; Roohani et al., Virtual Cell Challenge, Cell 2025.

    Examples
    --------
    >>> from scjepa.metrics import discrimination_score
    >>> true = [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]
    >>> discrimination_score([[0.9, 0.2], [1.0, 0.1], [2.0, 1.0]], true)
    array([1.        , 0.66666667, 1.        ])
    """
    pred, true = condition_pair(pred_effects, true_effects, ("pred_effects", "true_effects"))
    mask = None if exclude is None else np.asarray(exclude, dtype=bool)
    if mask is not None and mask.shape != pred.shape:
        raise ValueError(
            f"exclude has shape {mask.shape}: expected {pred.shape}, conditions x genes, True for genes to leave out."
        )
    return 1.0 - _rank_of_own(_distances(pred, true, metric, mask)) / len(pred)


def perturbench_rank(pred: npt.ArrayLike, true: npt.ArrayLike, metric: Distance = "l2") -> FloatArray:
    r"""Rank of a condition's own prediction among all predictions by distance to its truth. Best is 0.

    .. math:: rank_p = \frac{1}{P} \#\{q \ne p : d(\hat x_q, x_p) < d(\hat x_p, x_p)\}

    It ranks predictions against one truth, where :func:`discrimination_score` ranks truths against one prediction.
    Predictions at random, or the same for all conditions, score about 0.5.

    Parameters
    ----------
    pred, true
        ``(conditions, genes)`` mean profiles (``"l2"``, which ranks like PerturBench's RMSE) or log fold changes
        (``"cosine"``, see :func:`log_fold_change`). PerturBench ranks conditions of one context among themselves.
    metric
        ``"l2"``, ``"cosine"`` or ``"l1"``.

    Returns
    -------
    ``(conditions,)`` ranks; tied predictions count half (PerturBench shuffles them). NaN for a single condition or
    when a prediction has a NaN.

    Raises
    ------
    ValueError
        If shapes differ or the metric is unknown.

    References
    ----------
    Wu et al., PerturBench, arXiv:2408.10609.

    Examples
    --------
    >>> from scjepa.metrics import perturbench_rank
    >>> perturbench_rank([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])  # one prediction for all
    array([0.25, 0.25])
    >>> perturbench_rank([[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])  # swapped
    array([0.5, 0.5])
    """
    p, t = condition_pair(pred, true, ("pred", "true"))
    return _rank_of_own(_distances(p, t, metric).T) / len(p)


def centroid_accuracy(pred_means: npt.ArrayLike, true_means: npt.ArrayLike) -> FloatArray:
    r"""Share of other true centroids that lie farther from a prediction than its own. Best is 1, chance 0.5.

    .. math:: \frac{1}{P - 1} \sum_{q \ne p} [\|\hat\mu_p - \mu_p\| < \|\hat\mu_p - \mu_q\|]

    Parameters
    ----------
    pred_means, true_means
        ``(conditions, genes)`` mean profiles of one context (or effects, if all share their controls).

    Returns
    -------
    ``(conditions,)`` shares; tied centroids count as not farther. NaN for a single condition or when the prediction has
    a NaN.

    Raises
    ------
    ValueError
        If shapes differ.

    References
    ----------
    Viñas Torné et al., Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> from scjepa.metrics import centroid_accuracy
    >>> centroid_accuracy([[0.0], [5.0], [4.0]], [[0.0], [1.0], [5.0]])
    array([1. , 0.5, 1. ])
    """
    pred, true = condition_pair(pred_means, true_means, ("pred_means", "true_means"))
    if len(pred) < 2:
        return np.full(len(pred), np.nan)
    distances = _distances(pred, true, "l2")
    own = np.diag(distances)[:, None]
    # worded so that a tie, which includes the condition itself, does not count
    farther = (distances > own + TIE * distances.max(1, keepdims=True)).sum(1) / (len(pred) - 1)
    return np.where(np.isnan(distances).any(1), np.nan, farther)


def normalized_inverse_rank(
    pred_means: npt.ArrayLike, true_means: npt.ArrayLike, contexts: npt.ArrayLike | None = None
) -> FloatArray:
    """Centroid accuracy among the conditions of the same context (NIR). Best is 1, chance 0.5.

    Parameters
    ----------
    pred_means, true_means
        ``(conditions, genes)`` mean profiles.
    contexts
        ``(conditions,)`` labels of cell types, cell lines or donors; None for one context.

    Returns
    -------
    ``(conditions,)`` values of :func:`centroid_accuracy`; NaN for the only condition of a context.

    Raises
    ------
    ValueError
        If shapes differ or there is not one context per condition.

    References
    ----------
    CellSimBench, bioRxiv 2025.10.20.683304.

    Examples
    --------
    >>> from scjepa.metrics import normalized_inverse_rank
    >>> normalized_inverse_rank([[0.0], [5.0], [4.0]], [[0.0], [1.0], [5.0]], ["a", "b", "b"])
    array([nan,  0.,  1.])
    """
    pred, true = condition_pair(pred_means, true_means, ("pred_means", "true_means"))
    labels = np.zeros(len(pred)) if contexts is None else np.asarray(contexts)
    if labels.shape != (len(pred),):
        raise ValueError(f"contexts has shape {labels.shape}: expected ({len(pred)},), one label per condition.")
    out = np.full(len(pred), np.nan)
    for label in np.unique(labels):
        rows = labels == label
        out[rows] = centroid_accuracy(pred[rows], true[rows])
    return out


def centroid_ami(pred_means: npt.ArrayLike, true_means: npt.ArrayLike, n_clusters: int | None = None) -> float:
    """Whether predicted centroids form the same groups as true ones: mutual information of clusters. Best is 1.

    Both sides are clustered by Ward linkage into the same number of groups; the adjusted mutual information of the two
    groupings is 0 on average for groups at random. cell-eval's ``clustering_agreement`` asks the same of Leiden clusters,
    but takes the best of seven resolutions, so that noise scores above 0 there: the numbers differ.

    Parameters
    ----------
    pred_means, true_means
        ``(conditions, genes)`` mean profiles or effects, without the control.
    n_clusters
        Number of groups, by default the rounded square root of the number of conditions, at least 2.

    Returns
    -------
    A number of at most 1; 0 when all predictions are equal. NaN with fewer than three conditions or a NaN.

    Raises
    ------
    ValueError
        If shapes differ or ``n_clusters`` is not between 2 and the number of conditions minus 1.

    References
    ----------
    Vinh, Epps, Bailey, JMLR 2010, as in :func:`sklearn.metrics.adjusted_mutual_info_score`; cell-eval 0.8.2.

    Examples
    --------
    >>> from scjepa.metrics import centroid_ami
    >>> centroid_ami([[0.0], [1.0], [9.0], [8.0]], [[5.0], [6.0], [-1.0], [-2.0]])
    1.0
    """
    pred, true = condition_pair(pred_means, true_means, ("pred_means", "true_means"))
    if n_clusters is not None and not 2 <= n_clusters < len(pred):
        raise ValueError(f"n_clusters={n_clusters!r}: expected 2 to {len(pred) - 1} for {len(pred)} conditions.")
    if len(pred) < 3 or not (np.isfinite(pred).all() and np.isfinite(true).all()):
        return float("nan")
    k = n_clusters or max(2, round(len(pred) ** 0.5))
    return float(adjusted_mutual_info_score(_groups(true, k), _groups(pred, k)))


def _groups(centroids: FloatArray, k: int) -> npt.NDArray[np.integer]:
    """Ward clusters of rows; one cluster when rows are equal up to rounding, which Ward would split by their order."""
    if np.ptp(centroids, axis=0).max() <= 1e-6 * np.abs(centroids).max():
        return np.zeros(len(centroids), dtype=np.int64)
    return AgglomerativeClustering(n_clusters=k, linkage="ward").fit_predict(centroids)


def _distances(
    pred: FloatArray, true: FloatArray, metric: Distance, exclude: npt.NDArray[np.bool_] | None = None
) -> FloatArray:
    """Distances, predictions x truths (squared for ``"l2"``, which ranks alike), without each prediction's excluded genes."""
    if metric == "cosine":
        # like scikit-learn's: a vector of zeros is at distance 1 from all
        kept = np.ones_like(pred) if exclude is None else (~exclude).astype(np.float64)
        norms = np.sqrt((kept * pred**2).sum(1))[:, None] * np.sqrt(kept @ (true**2).T)
        product = (kept * pred) @ true.T
        return 1.0 - np.divide(product, norms, out=np.zeros_like(product), where=~(norms == 0))
    if metric not in ("l1", "l2"):
        raise ValueError(f"metric={metric!r}: expected 'l1', 'l2' or 'cosine'.")
    distances = cdist(pred, true, "cityblock" if metric == "l1" else "sqeuclidean")
    if exclude is not None:
        rows, genes = np.nonzero(exclude)  # few: taking their part away is cheaper than a table per prediction
        parts = np.abs(pred[rows, genes][:, None] - true[:, genes].T)
        np.subtract.at(distances, rows, parts if metric == "l1" else parts**2)
    return distances


def _rank_of_own(distances: FloatArray) -> FloatArray:
    """Row by row, number of other columns closer than the diagonal, ties counting half."""
    if len(distances) < 2:
        return np.full(len(distances), np.nan)
    own = np.diag(distances)[:, None]
    tolerance = TIE * np.abs(distances).max(1, keepdims=True)
    tied = np.abs(distances - own) <= tolerance
    rank = ((distances < own) & ~tied).sum(1) + 0.5 * (tied.sum(1) - 1)
    return np.where(np.isnan(distances).any(1), np.nan, rank)
