"""The replicate ceiling: how well half of the real cells of a condition predict the other half."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray
from scjepa.data._conditions import weighted_means
from scjepa.metrics import de_spearman_count, pearson_edistance
from scjepa.tl.evaluation._contenders import Contenders, Project
from scjepa.tl.evaluation._gene_tests import GeneTests, prepare_controls, score_genes
from scjepa.tl.evaluation._profiles import REGISTRY
from scjepa.tl.evaluation._scoring import Profiles, Truth, score_cells, score_centroids, score_means, score_ranks

MIN_CELLS = 4
"""Fewest cells that are split: below, a half is a single cell."""
REPEATS = 10
"""Splits averaged."""
FEW_REPEATS = 2
"""Splits averaged for scores that take long: ranks among conditions, tests of genes."""

FAST = ("e_distance", "variance_ratio")
"""Scores of cells for which all splits are averaged."""

NOISE = ("l2", "mae", "mae_delta")
"""Scores that fall with the root of the number of cells; the squared ones with the number itself."""
SQUARED_NOISE = ("mse", "mse_delta", "weighted_mse")
CORRELATIONS = ("pearson_delta", "pearson_delta_systema", "cosine_logfc", "de_spearman_lfc")


def split_in_halves(names: npt.NDArray, seed: int) -> npt.NDArray[np.bool_]:
    """Return ``(REPEATS, n)``: which cells are in the first half (the smaller one if ``n`` is odd).

    Which cells go together depends on their names and the seed, not on the order of cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.tl.evaluation._ceiling import split_in_halves
    >>> first = split_in_halves(np.array(["a", "b", "c", "d", "e"]), seed=0)
    >>> first.shape, set(first.sum(1).tolist())
    ((10, 5), {2})
    """
    order = np.argsort(names, kind="stable")
    rng = np.random.default_rng(seed)
    first = np.zeros((REPEATS, len(order)), dtype=bool)
    for row in first:
        row[order[rng.permutation(len(order))[: len(order) // 2]]] = True
    return first


def ceiling_scores(
    who: Contenders, metrics: Sequence[str], truth: Truth, project: Project | None
) -> tuple[dict[str, FloatArray], npt.NDArray[np.bool_]]:
    r"""Score one half of each condition as the prediction of the other, corrected for the size of the halves.

    All effects are taken against the mean of all controls, those of predictions and of the truth alike: the noise of
    this mean is on both sides of every score. (With halves of the controls the ceiling would lack it, and the additive
    baseline would come out above.) Corrections: :func:`corrected`.

    Parameters
    ----------
    who
        Real cells and their conditions.
    metrics
        Names of scores.
    truth
        Reference and weights of genes; its mean profiles are not used.
    project
        Map of cells to principal components; None if no metric needs it.

    Returns
    -------
    By metric ``(conditions,)`` scores (one number for scores of all conditions), NaN where undefined; and which
    conditions have enough cells.
    """
    cells = [who.true_cells(i) for i in range(len(who.rows))]
    able = np.array([len(c) >= MIN_CELLS for c in cells])
    which = [int(i) for i in np.flatnonzero(able)]
    out = {m: np.full(1 if REGISTRY[m].source == "table" else len(cells), np.nan) for m in metrics}
    if not len(which):
        return out, able
    first = {i: split_in_halves(who.real_names[cells[i]], who.seed) for i in which}
    share = np.array([h[0].sum() * (~h[0]).sum() / h.shape[1] ** 2 for h in first.values()])
    control = who.truth.control[which]
    part = truth._replace(
        weights=truth.weights[which], exclude=truth.exclude[which], contexts=[truth.contexts[i] for i in which]
    )
    found: dict[str, list[FloatArray]] = {}
    from_means = [m for m in metrics if REGISTRY[m].source == "means"]
    from_ranks = [m for m in metrics if REGISTRY[m].source == "ranks"]
    from_centroids = "centroid_ami" in metrics
    for r in range(REPEATS if from_means else FEW_REPEATS if from_ranks or from_centroids else 0):
        groups = [cells[i][mask[r]] for i, mask in first.items()] + [cells[i][~mask[r]] for i, mask in first.items()]
        halves = weighted_means(who.measured.x, [(g, np.full(len(g), 1 / len(g))) for g in groups])
        a, b = (Profiles(m, m - control, control) for m in (halves[: len(which)], halves[len(which) :]))
        part = part._replace(profiles=b)
        for metric in from_means:
            found.setdefault(metric, []).append(score_means(metric, a, part))
        if r < FEW_REPEATS:
            for metric in from_ranks:
                found.setdefault(metric, []).append(score_ranks(metric, a, part))
            if from_centroids:
                found.setdefault("centroid_ami", []).append(np.array([score_centroids(a, part)]))
    for metric, values in found.items():
        mean = np.mean(values, axis=0)
        if REGISTRY[metric].source == "table":
            out[metric] = mean
        else:
            out[metric][which] = corrected(metric, mean, share)
    _cells(who, metrics, which, project, out)
    _genes(who, metrics, which, first, out)
    return out, able


def _cells(
    who: Contenders,
    metrics: Sequence[str],
    which: Sequence[int],
    project: Project | None,
    out: dict[str, FloatArray],
) -> None:
    """Add scores of cells in principal components; a subset of large conditions is what is split."""
    chosen = [m for m in metrics if REGISTRY[m].source == "cells"]
    if project is None or not (chosen or "pearson_edistance" in metrics):
        return
    sides: tuple[list, list, list] = [], [], []
    for i in which:
        subset = who.some(who.true_cells(i))
        z = project(who.measured.x[subset])
        if len(z) < MIN_CELLS:
            continue
        split = split_in_halves(who.real_names[subset], who.seed)
        share = split[0].sum() * (~split[0]).sum() / len(z) ** 2
        for metric in chosen:
            repeats = REPEATS if metric in FAST else FEW_REPEATS
            values = [score_cells(metric, z[m], z[~m], who.seed) for m in split[:repeats]]
            out[metric][i] = corrected(metric, np.mean(values, keepdims=True), np.array([share]))[0]
        for side, part in zip(sides, (z[split[0]], z[~split[0]], who.contexts[i]), strict=True):
            side.append(part)
    if "pearson_edistance" in metrics and len(set(sides[2])) == 1:
        control = project(who.controls(sides[2][0]))
        out["pearson_edistance"][0] = pearson_edistance(sides[0], sides[1], control, control)


def _genes(
    who: Contenders,
    metrics: Sequence[str],
    which: Sequence[int],
    first: dict[int, npt.NDArray[np.bool_]],
    out: dict[str, FloatArray],
) -> None:
    """Add scores of differential expression: each half is tested against the same controls."""
    chosen = [m for m in metrics if REGISTRY[m].source == "genes"]
    if not (chosen or "de_spearman_count" in metrics):
        return
    parts: dict[str, list[FloatArray]] = {}
    controls = {c: prepare_controls(who.controls(c)) for c in dict.fromkeys(who.contexts)}
    for r in range(FEW_REPEATS):
        sides = [GeneTests.empty(len(which), who.true_means.shape[1]) for _ in range(2)]
        for j, i in enumerate(which):
            cells = who.true_cells(i)
            for side, mask in zip(sides, (first[i][r], ~first[i][r]), strict=True):
                side.fill(j, who.measured.x[who.some(cells[mask])], controls[who.contexts[i]])
        for metric, values in score_genes(chosen, *sides).items():
            parts.setdefault(metric, []).append(values)
        if "de_spearman_count" in metrics:
            parts.setdefault("de_spearman_count", []).append(np.array([de_spearman_count(sides[0].fdr, sides[1].fdr)]))
    for metric, found in parts.items():
        if metric == "de_spearman_count":
            out[metric] = np.mean(found, axis=0)
        else:
            out[metric][which] = corrected(metric, np.mean(found, axis=0), np.full(len(which), 0.25))


def corrected(metric: str, halves: FloatArray, share: FloatArray) -> FloatArray:
    r"""Turn scores of halves into those to expect with all cells.

    With :math:`h_1, h_2` the means of halves of :math:`n_1 + n_2 = n` cells, :math:`\bar x` the mean of all
    and :math:`\mu` what it estimates:

    - **Errors**: the noise of a mean falls with the number of cells, so
      :math:`E\|h_1 - h_2\|^2 = (1/n_1 + 1/n_2)\,\sigma^2` and :math:`E\|\bar x - \mu\|^2 = \sigma^2/n` with
      :math:`\sigma^2` the variance of a cell. The squared error of the perfect prediction :math:`\mu` is therefore
      :math:`n_1 n_2/n^2` of that of the halves, and L2 and absolute errors the root of it: half for equal halves.
    - **Correlations**: :math:`2r/(1+r)` (Spearman and Brown), what to expect of a second experiment of full size. A
      correlation that is not positive stays as it is.
    - **E-distance, MMD**: of two sets of one distribution the V-statistic has the mean
      :math:`(1/n_1 + 1/n_2)\,E\|x - x'\|` (each cell is at distance zero from itself), so that of the halves times
      :math:`2 n_1 n_2/n^2` is the score of a perfect prediction of ``n`` cells.
    - **Weighted R2**: one minus the corrected error. All others are those of the halves, which is too low a ceiling.

    Parameters
    ----------
    metric
        Name of the score.
    halves
        Its values for halves.
    share
        :math:`n_1 n_2/n^2`, of the same length.

    References
    ----------
    Correction and use as a ceiling: cell-eval (Arc Institute). Spearman (1910) and Brown (1910), *British Journal of
    Psychology* 3, 271-295 and 296-322.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.tl.evaluation._ceiling import corrected
    >>> share = np.array([0.25])
    >>> corrected("l2", np.array([1.0]), share), corrected("pearson_delta", np.array([0.5]), share)
    (array([0.5]), array([0.66666667]))
    """
    if metric in NOISE:
        return halves * np.sqrt(share)
    if metric in SQUARED_NOISE:
        return halves * share
    if metric == "weighted_r2":
        return 1 - (1 - halves) * share
    if metric in ("e_distance", "mmd"):
        return halves * 2 * share
    if metric in CORRELATIONS:
        return np.where(halves > 0, 2 * halves / (1 + np.maximum(halves, 0)), halves)
    return halves
