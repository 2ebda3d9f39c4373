"""The scores of one method: from mean profiles, from ranks among them, and from cells in principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scjepa._types import FloatArray
from scjepa.metrics import (
    centroid_accuracy,
    centroid_ami,
    cosine,
    de_weights,
    discrimination_score,
    energy_distance,
    l2,
    log_fold_change,
    mae,
    mmd,
    mse,
    normalized_inverse_rank,
    pearson_delta,
    perturbench_rank,
    shift_magnitude_ratio,
    sliced_wasserstein,
    variance_ratio,
    weighted_mse,
    weighted_r2,
)
from scjepa.tl.evaluation._contenders import Contenders, means

MMD_CELLS = 500
"""Cells of each side that the MMD uses: six kernels for all pairs cost more than all other scores together."""


class Profiles(NamedTuple):
    """Means, effects and the control means these are taken against, ``(conditions, genes)`` each."""

    mean: FloatArray
    effect: FloatArray
    control: FloatArray


class Truth(NamedTuple):
    """What mean profiles are compared with."""

    profiles: Profiles
    reference: FloatArray | None
    """``(genes,)`` mean training effect"""
    weights: FloatArray
    """``(conditions, genes)`` how strongly each gene responds"""
    exclude: np.ndarray
    """``(conditions, genes)`` the perturbed genes themselves"""
    contexts: Sequence[str]


def truth_of(who: Contenders, metrics: Sequence[str]) -> Truth:
    """Collect what predictions are compared with; weights of genes only if a metric reads them."""
    profiles = Profiles(who.true_means, who.true_means - who.truth.control, who.truth.control)
    weighted = {"weighted_mse", "weighted_r2"} & set(metrics)
    weights = de_weights(response(who)) if weighted else np.full(who.true_means.shape, np.nan)
    genes = {str(g): j for j, g in enumerate(who.truth.genes)}
    exclude = np.zeros(who.true_means.shape, dtype=bool)
    for i, (action, _) in enumerate(who.predicted.conditions):
        exclude[i, [genes[g] for g in action if g in genes]] = True
    return Truth(profiles, who.reference, weights, exclude, who.contexts)


def response(who: Contenders) -> FloatArray:
    r"""Return Welch's t of each predicted condition's real cells against those of all other perturbations.

    All perturbed cells of ``real`` in the same context are the others; where there are none, the controls. NaN where a
    side has fewer than two cells or a gene is constant.
    """
    cells, rows = who.measured, who.rows
    contexts = np.asarray(cells.groups.contexts).astype(str)
    used = np.flatnonzero(np.isin(contexts, list(set(who.contexts))))
    groups = [cells.groups.cells[i] for i in used]
    order = {c: len(groups) + j for j, c in enumerate(dict.fromkeys(who.contexts))}
    groups += [cells.groups.controls[c] for c in order]
    n = np.array([len(g) for g in groups], dtype=np.float64)[:, None]
    square = cells.x.multiply(cells.x).tocsr() if hasattr(cells.x, "multiply") else np.square(cells.x)
    sums, squares = n * means(cells.x, groups), n * means(square, groups)
    place = {int(i): j for j, i in enumerate(used)}
    out = np.full((len(rows), sums.shape[1]), np.nan)
    for k, (row, context) in enumerate(zip(rows, who.contexts, strict=True)):
        own = place[int(row)]
        others = np.flatnonzero((contexts[used] == context) & (used != row))
        rest = others if len(others) else np.array([order[context]])
        sides = [(v[own], v[rest].sum(0)) for v in (n, sums, squares)]
        (n1, n2), (s1, s2), (q1, q2) = sides
        if min(n1[0], n2[0]) < 2:
            continue
        variance = [np.maximum(q - s * s / m, 0) / (m - 1) / m for m, s, q in ((n1, s1, q1), (n2, s2, q2))]
        spread = variance[0] + variance[1]
        out[k] = np.divide(s1 / n1 - s2 / n2, np.sqrt(spread), out=np.full(len(spread), np.nan), where=spread > 1e-12)
    return out


def score_means(metric: str, pred: Profiles, truth: Truth) -> FloatArray:
    """Return one score of mean profiles per condition."""
    true = truth.profiles
    nothing = np.full(len(true.mean), np.nan)
    if metric == "l2":
        return l2(pred.mean, true.mean)
    if metric == "pearson_delta":
        return pearson_delta(pred.effect, true.effect)
    if metric == "pearson_delta_systema":
        return nothing if truth.reference is None else pearson_delta(pred.effect, true.effect, truth.reference)
    if metric == "shift_ratio":
        return shift_magnitude_ratio(pred.effect, true.effect)
    if metric in ("mse", "mae"):
        return (mse if metric == "mse" else mae)(pred.mean, true.mean)
    if metric in ("mse_delta", "mae_delta"):
        return (mse if metric == "mse_delta" else mae)(pred.effect, true.effect)
    if metric == "cosine_logfc":
        return cosine(*(_log_changes(side) for side in (pred, true)))
    weights = np.nan_to_num(truth.weights)
    return (weighted_mse if metric == "weighted_mse" else weighted_r2)(pred.effect, true.effect, weights)


def score_ranks(metric: str, pred: Profiles, truth: Truth) -> FloatArray:
    """Return one score per condition that depends on the others too: on those of its context, for most metrics."""
    true = truth.profiles
    if metric == "normalized_inverse_rank":
        return normalized_inverse_rank(pred.mean, true.mean, np.asarray(truth.contexts))
    if metric == "centroid_accuracy":
        return centroid_accuracy(pred.mean, true.mean)
    out = np.full(len(true.mean), np.nan)
    contexts = np.asarray(truth.contexts)
    for context in dict.fromkeys(truth.contexts):
        rows = contexts == context
        if metric == "perturbench_rank":
            out[rows] = perturbench_rank(pred.mean[rows], true.mean[rows])
        elif metric == "perturbench_rank_cosine":
            out[rows] = perturbench_rank(_log_changes(pred)[rows], _log_changes(true)[rows], metric="cosine")
        else:
            distance = metric.removeprefix("discrimination_score_")
            out[rows] = discrimination_score(
                pred.effect[rows],
                true.effect[rows],
                distance,  # type: ignore[arg-type]
                exclude=truth.exclude[rows],
            )
    return out


def _log_changes(side: Profiles) -> FloatArray:
    """Return log fold changes; linear readouts dip below zero, where there are none."""
    return log_fold_change(np.maximum(side.mean, 0), np.maximum(side.control, 0))


def score_centroids(pred: Profiles, truth: Truth) -> float:
    """Return the agreement of groups of conditions; NaN for a method that lacks some of them."""
    return centroid_ami(pred.effect, truth.profiles.effect)


def score_cells(metric: str, pred: FloatArray | None, true: FloatArray | None, seed: int) -> float:
    """Return a score of two sets of cells; NaN for single profiles, which say nothing about a distribution."""
    if pred is None or true is None or min(len(pred), len(true)) < 2:
        return float("nan")
    if metric == "mmd":
        rng = np.random.default_rng(seed)
        pred, true = (z if len(z) <= MMD_CELLS else rng.permutation(z)[:MMD_CELLS] for z in (pred, true))
        return mmd(pred, true)
    if metric == "sliced_wasserstein":
        return sliced_wasserstein(pred, true, seed=seed)
    return (energy_distance if metric == "e_distance" else variance_ratio)(pred, true)
