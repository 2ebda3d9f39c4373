"""Groups of patients by their response to a drug, and genes that tell the groups apart before treatment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import false_discovery_control, mannwhitneyu
from sklearn.metrics import adjusted_rand_score

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray, IntArray

COMPONENTS = 10
"""Principal components of response profiles that are clustered, at most."""
SHUFFLES = 20
"""Of the features against each other, to see how far chance stretches a component."""
STARTS, ITERATIONS = 5, 100
"""Of k-means."""


class ResponderGroups(NamedTuple):
    """Result of :func:`responder_groups`."""

    labels: IntArray
    """``(patients,)`` group of each: 0 responds least. All 0 when there are no groups."""
    n_groups: int
    """1 when there are no groups."""
    support: FloatArray
    """``(patients,)`` share of resamples in which a patient falls into its group; 1 when there are no groups."""
    table: pd.DataFrame
    """One row per number of groups: ``stability`` (mean ARI over resamples), ``separation`` (variance within groups over
    all), ``p_value`` (of a separation as small in one cloud), ``smallest`` (patients in the smallest group)."""


def responder_groups(
    responses: npt.ArrayLike,
    *,
    max_groups: int = 4,
    min_size: int = 2,
    min_stability: float = 0.8,
    alpha: float = 0.05,
    n_resamples: int = 200,
    seed: int = 0,
) -> ResponderGroups:
    """Find groups of patients that respond alike, or none.

    Patients are clustered by k-means, profiles in those of their first ten principal components
    that stand out of shuffled features. A number of groups is taken
    seriously if it is *stable* (patients are resampled, clustered again, and all assigned to the nearest center: the
    adjusted Rand index with the clusters of all patients) and *separate*: the variance within groups is smaller than in
    k-means clusters of a single Gaussian cloud of the same covariance, since k-means splits one cloud stably too. Of
    those left the most stable one is taken, the smallest of equals; p-values are multiplied by the numbers tried.

    Parameters
    ----------
    responses
        ``(patients,)`` or ``(patients, features)`` responses, predicted or measured.
    max_groups
        Largest number of groups to try, at least 2.
    min_size
        Patients that a group needs.
    min_stability
        Smallest mean ARI.
    alpha
        Largest corrected p-value.
    n_resamples
        Resamples, and Gaussian clouds, of each number of groups.
    seed
        Of both.

    Returns
    -------
    Labels, ordered by mean response (of profiles: by the mean size of the response), number of groups, support of each
    patient, and what was tried. One hump that is far from Gaussian may pass for groups: look at the responses.

    Raises
    ------
    ValueError
        If there are fewer than 4 patients, a response is missing, or an option is out of range.

    References
    ----------
    Hennig, *Computational Statistics & Data Analysis* 52, 258-271 (2007), for stability; Liu et al., *Journal of the
    American Statistical Association* 103, 1281-1293 (2008), for the test against one Gaussian.

    Examples
    --------
    >>> from scjepa.pharma import responder_groups
    >>> found = responder_groups([0.1, 0.0, 0.2, 0.1, 0.15, 3.0, 3.2, 2.9, 3.1, 3.05])
    >>> found.n_groups, found.labels.tolist()
    (2, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    x = np.asarray(responses, dtype=np.float64)
    if x.ndim not in (1, 2) or not x.size or len(x) < 4:
        raise ValueError(
            f"responses has shape {x.shape}: expected (patients,) or (patients, features), at least 4 patients."
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"responses has {int((~np.isfinite(x)).sum())} missing or infinite values: leave these patients out."
        )
    require_positive_int(max_groups, "max_groups", minimum=2)
    require_positive_int(min_size, "min_size")
    require_positive_int(n_resamples, "n_resamples", minimum=10)
    for value, name in ((min_stability, "min_stability"), (alpha, "alpha")):
        if not 0 < value <= 1:
            raise ValueError(f"{name}={value!r}: expected a number above 0 and at most 1.")
    rng = np.random.default_rng(seed)
    scores = _components(x.reshape(len(x), -1), rng)
    size = x if x.ndim == 1 else np.linalg.norm(x, axis=1)
    none = ResponderGroups(np.zeros(len(x), dtype=np.int64), 1, np.ones(len(x)), pd.DataFrame())
    tried = [k for k in range(2, max_groups + 1) if k * min_size <= len(x)]
    if not scores.shape[1] or not tried:
        return none
    # the same clouds for all numbers of groups
    clouds = rng.normal(size=(n_resamples, *scores.shape)) * scores.std(0, ddof=1)
    rows, found = [], {}
    for k in tried:
        if len(np.unique(scores, axis=0)) < k:
            continue
        (labels,), _, (separation,) = _cluster(scores[None], k, rng)
        null = _cluster(clouds, k, rng)[2]
        stability, support = _resampled(scores, labels, k, n_resamples, rng)
        smallest = int(np.bincount(labels, minlength=k).min())
        p_value = (1 + int((null <= separation).sum())) / (1 + n_resamples)
        rows.append((k, stability, separation, min(p_value * len(tried), 1.0), smallest))
        found[k] = labels, support
    table = pd.DataFrame(rows, columns=["groups", "stability", "separation", "p_value", "smallest"]).set_index("groups")
    fit = table[(table["stability"] >= min_stability) & (table["p_value"] <= alpha) & (table["smallest"] >= min_size)]
    if not len(fit):
        return none._replace(table=table)
    k = int(fit["stability"].round(6).idxmax())
    labels, support = found[k]
    order = np.argsort([size[labels == g].mean() for g in range(k)])
    return ResponderGroups(np.argsort(order)[labels], k, support, table)


def biomarkers(
    untreated: npt.ArrayLike | pd.DataFrame, groups: npt.ArrayLike, *, genes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Find genes that tell groups of patients apart before treatment, by the rank-sum test with its false discovery rate.

    Parameters
    ----------
    untreated
        ``(patients, genes)`` mean profiles of untreated cells, one row per patient (cells of a patient are no
        replicates); a DataFrame names the genes by its columns.
    groups
        ``(patients,)`` labels, for example of :func:`responder_groups`.
    genes
        Names of the genes; None for the columns, or numbers.

    Returns
    -------
    DataFrame, best first: ``gene``, ``group`` (of two the second against the first, of more each against the others),
    ``difference`` of the means, ``auc`` (probability that a patient of the group is higher), ``p_value``, ``q_value``
    (Benjamini-Hochberg over the table). Of 3 against 2 patients no p-value is below 0.2: such genes are candidates.

    Raises
    ------
    ValueError
        If shapes don't fit, a value is missing, or there is only one group.

    References
    ----------
    Mann and Whitney, *Annals of Mathematical Statistics* 18, 50-60 (1947); Benjamini and Hochberg, *Journal of the Royal
    Statistical Society B* 57, 289-300 (1995); scipy's ``mannwhitneyu`` and ``false_discovery_control``.

    Examples
    --------
    >>> from scjepa.pharma import biomarkers
    >>> untreated = [[5.0, 1.0], [6.0, 0.0], [7.0, 2.0], [1.0, 1.5], [2.0, 0.5], [0.0, 2.5]]
    >>> biomarkers(untreated, ["yes", "yes", "yes", "no", "no", "no"], genes=["IL6", "TNF"])[["gene", "group", "auc"]]
      gene group       auc
    0  IL6   yes  1.000000
    1  TNF   yes  0.333333
    """
    x, labels = np.asarray(untreated, dtype=np.float64), np.asarray(groups)
    if x.ndim != 2 or not x.size or labels.shape != (len(x),):
        raise ValueError(
            f"untreated has shape {x.shape} and groups has shape {labels.shape}: expected (patients, genes) and (patients,)."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"untreated has {int((~np.isfinite(x)).sum())} missing or infinite values: expected numbers.")
    if genes is None:
        genes = list(untreated.columns) if isinstance(untreated, pd.DataFrame) else [str(i) for i in range(x.shape[1])]
    if len(genes) != x.shape[1]:
        raise ValueError(
            f"genes has {len(genes)} names and untreated has {x.shape[1]} columns: expected one name each."
        )
    names = np.unique(labels)
    if len(names) < 2:
        raise ValueError(
            f"groups has only {names.tolist()}: expected at least 2 groups. Without groups nothing separates."
        )
    tables = []
    for name in names[1:] if len(names) == 2 else names:
        own, others = x[labels == name], x[labels != name]
        varied = x.min(0) < x.max(0)
        auc, p_value = np.full(x.shape[1], 0.5), np.ones(x.shape[1])
        if varied.any():
            test = mannwhitneyu(own[:, varied], others[:, varied], axis=0)
            auc[varied], p_value[varied] = test.statistic / (len(own) * len(others)), test.pvalue
        tables.append(
            pd.DataFrame(
                {
                    "gene": genes,
                    "group": name,
                    "difference": own.mean(0) - others.mean(0),
                    "auc": auc,
                    "p_value": p_value,
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table["q_value"] = false_discovery_control(table["p_value"])
    order = np.lexsort([-table["difference"].abs(), -(table["auc"] - 0.5).abs(), table["p_value"]])
    return table.iloc[order].reset_index(drop=True)


def _components(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return scores of the principal components that stand out of independent features, at least one if any varies."""
    s, U = _spectrum(x - x.mean(0))
    n = int((s > 1e-9 * max(float(np.abs(x).max()), 1e-300)).sum())
    if x.shape[1] > 1 and n > 1:
        shuffled = [_spectrum(v - v.mean(0))[0] for v in (rng.permuted(x, axis=0) for _ in range(SHUFFLES))]
        # the first below what shuffled features reach ends the list
        n = min(n, max(1, int(np.argmin(np.append(s > np.quantile(shuffled, 0.95, axis=0), False)))))
    n = min(n, COMPONENTS)
    return U[:, :n] * s[:n]


def _spectrum(centered: FloatArray) -> tuple[FloatArray, FloatArray]:
    U, s, _ = np.linalg.svd(centered, full_matrices=False)
    return s, U


def _cluster(x: FloatArray, k: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray, FloatArray]:
    """K-means of many small data sets at once, ``(sets, points, features)``; scikit-learn takes them one by one.

    Returns labels ``(sets, points)``, centers ``(sets, k, features)`` and variance within groups over all ``(sets,)``.
    """
    sets, n, d = x.shape
    points = np.repeat(x, STARTS, axis=0)
    squares = (points**2).sum(-1)

    def distances(centers: FloatArray) -> FloatArray:
        return np.maximum(squares[:, :, None] - 2 * points @ centers.swapaxes(1, 2) + (centers**2).sum(-1)[:, None], 0)

    # k-means++: the next center is drawn with the squared distance to those drawn
    rows = np.arange(len(points))
    centers = points[rows, rng.integers(n, size=len(points))][:, None]
    while centers.shape[1] < k:
        weight = np.cumsum(distances(centers).min(2), axis=1)
        drawn = (weight < rng.random((len(points), 1)) * weight[:, -1:]).sum(1)
        centers = np.concatenate([centers, points[rows, np.minimum(drawn, n - 1)][:, None]], axis=1)
    labels = np.full(points.shape[:2], -1)
    for _ in range(ITERATIONS):
        before, labels = labels, distances(centers).argmin(2)
        if (before == labels).all():
            break
        member = (labels[:, :, None] == np.arange(k)).astype(np.float64)
        count = member.sum(1)[:, :, None]
        centers = np.where(count > 0, member.swapaxes(1, 2) @ points / np.maximum(count, 1), centers)
    within = distances(centers).min(2).sum(1).reshape(sets, STARTS)
    best = within.argmin(1)
    pick = np.arange(sets) * STARTS + best
    total = ((x - x.mean(1, keepdims=True)) ** 2).sum((1, 2))
    return labels[pick], centers[pick], within[np.arange(sets), best] / np.maximum(total, 1e-300)


def _resampled(x: FloatArray, labels: IntArray, k: int, n: int, rng: np.random.Generator) -> tuple[float, FloatArray]:
    """Return the mean ARI over resamples, and how often each patient falls into the group that its group becomes."""
    drawn = x[rng.integers(len(x), size=(n, len(x)))]
    _, centers, _ = _cluster(drawn, k, rng)
    again = ((x[None, :, None] - centers[:, None]) ** 2).sum(-1).argmin(2)
    overlap = np.stack([[((labels == g) & (a == h)).sum() for g in range(k) for h in range(k)] for a in again])
    becomes = overlap.reshape(n, k, k).argmax(2)
    kept = again == becomes[:, labels]
    return float(np.mean([adjusted_rand_score(labels, a) for a in again])), kept.mean(0)
