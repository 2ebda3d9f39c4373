"""Critical transitions: a moment at which a module of genes fluctuates more, and more together, than before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from scjepa._checks import require_positive_int
from scjepa._scale import check_scale
from scjepa._types import FloatArray, InputScale, Matrix
from scjepa.dynamics._branching import check_snapshots

TARGET_SUM = 1e3
"""Counts are scaled to this total: near that of shallow cells, so that single counts don't become large values."""
UNEQUAL = 1.2
"""Medians of depth that differ by more than this factor are unequal."""
ITERATIONS = 12
SHRINK = 0.1
"""Share of the mean variance in the covariance over all times, which fluctuations are measured by."""


@dataclass(frozen=True)
class CriticalTransition:
    """What :func:`critical_transitions` found.

    Attributes
    ----------
    p
        How often fluctuations that have nothing to do with time have as high a peak.
    time, step
        Time of the peak, and its index among the distinct times. Meaningless where ``p`` is not small.
    times, index
        ``(T,)`` distinct times and the index of each.
    prominence
        ``(T,)`` how far the index of each time stands above the lowest before and after it, whichever is higher; NaN at the ends.
    module
        Indices of the genes that fluctuate together at the peak, the strongest first.
    loadings
        ``(len(module),)`` how much, and in which direction.
    null
        ``(2, T)`` 2.5 and 97.5 % quantiles of each time's index where fluctuations have nothing to do with time.
    """

    p: float
    time: float
    step: int
    times: FloatArray
    index: FloatArray
    prominence: FloatArray
    module: np.ndarray
    loadings: FloatArray
    null: FloatArray


def critical_transitions(
    x: Matrix,
    times: FloatArray,
    *,
    scale: InputScale = "auto",
    n_genes: int = 60,
    n_permutations: int = 199,
    n_splits: int = 4,
    off_path: bool = True,
    max_cells: int = 500,
    seed: int = 0,
) -> CriticalTransition:
    r"""Find the moment at which a system is about to tip: fluctuations that grow and get correlated, and calm down again.

    The index of a time is the log variance along the leading axis of cells about their mean (the axis from one half of
    the cells, the variance from the other), minus the log mean variance of a gene. The statistic is the largest prominence:
    the index over the higher of the lowest values before and after, so that a steady rise is no peak. Its null permutes the cells' residuals
    over times. Directions in which the mean moves are projected out: cells that are early or late spread along them, and
    would fake a peak in the middle of any fast change.

    Parameters
    ----------
    x
        ``(n, genes)`` raw counts, which are thinned to one depth over times (:func:`thin_counts`), or log-normalised expression
        of equal depth; dense or sparse.
    times
        ``(n,)`` time of each cell, three distinct ones or more.
    scale
        ``"counts"``, ``"lognorm"``, or ``"auto"`` to find out.
    n_genes
        The most variable genes, which the index is computed of.
    n_permutations, n_splits
        Permutations of the null; random halves that are averaged over.
    off_path
        Whether to project out the path of the mean.
    max_cells
        Cells of each time that are used; all times count with the same number.
    seed
        Of thinning, samples, halves and permutations.

    Returns
    -------
    p-value, time of the peak, index and prominence of each time, and the genes of the module.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, fewer than three times, fewer than 20 cells at a time, and normalised
        expression whose depth differs between times.

    Notes
    -----
    What is seen are strong tips away from the path of the mean. Tips along the path can't be told from asynchrony, and
    are not seen. Of 1,000 simulated systems without one 6 % had p <= .05 and 3.5 % p <= .03 (6 % of those whose
    fates part or whose genes all switch at once), at which 99 and 92 % of two kinds of tips were seen (``trajectory_events.py``).

    References
    ----------
    Chen et al. 2012, *Scientific Reports* 2:342 (dynamic network biomarkers); Mojtahedi et al. 2016, *PLoS Biology*
    14(12):e2000640.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import critical_transitions
    >>> rng = np.random.default_rng(0)
    >>> times = np.repeat(np.arange(5.0), 60)
    >>> x = 9 + rng.normal(size=(300, 30))
    >>> x[:, :8] += (times == 2)[:, None] * 1.5 * rng.normal(size=(300, 1))
    >>> found = critical_transitions(x, times)
    >>> found.p <= 0.01, found.time, sorted(found.module.tolist())
    (True, 2.0, [0, 1, 2, 3, 4, 5, 6, 7])
    """
    for value, name, least in ((n_genes, "n_genes", 3), (n_permutations, "n_permutations", 19), (n_splits, "n_splits", 1),
                               (max_cells, "max_cells", 20)):  # fmt: skip
        require_positive_int(value, name, minimum=least)
    matrix = sp.csr_matrix(x) if sp.issparse(x) else np.asarray(x)
    _, moments, levels = check_snapshots(np.zeros((matrix.shape[0], 1)), times, least=20)
    if len(levels) < 3:
        raise ValueError(f"times has {len(levels)} distinct values: a peak needs a time before and one after it.")
    rng = np.random.default_rng(seed)
    if check_scale(matrix, scale, name="x") == "counts":
        values = _lognorm(thin_counts(matrix, moments, seed=seed))
    else:
        _check_depth(matrix, moments, levels)
        values = matrix
    sets = [np.flatnonzero(moments == t) for t in levels]
    chosen, deviation = _variable(values, sets, n_genes)
    dense = _columns(values, chosen) / deviation
    means = np.stack([dense[i].mean(0) for i in sets])
    n = min(max_cells, *(len(i) for i in sets))
    shots = [dense[rng.permutation(i)[:n]] for i in sets]
    rest = plain = np.concatenate([s - s.mean(0) for s in shots])
    if off_path:
        steps = np.diff(means, axis=0)
        path, size, _ = np.linalg.svd(steps.T, full_matrices=False)
        path = path[:, size > 1e-9 * max(size.max(), 1e-12)][:, : max(dense.shape[1] - 2, 0)]
        rest = rest - rest @ path @ path.T

    covariance = rest.T @ rest / len(rest)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    eigenvalue, vector = np.linalg.eigh(covariance)
    rest = rest @ (vector / np.sqrt(eigenvalue)) @ vector.T

    index = _index(rest, len(levels), n_splits, rng)
    prominence = _prominence(index)
    peak = 1 + int(prominence.argmax())
    permuted = np.array(
        [_index(rest[rng.permutation(len(rest))], len(levels), n_splits, rng) for _ in range(n_permutations)]
    )
    null = np.array([_prominence(row).max() for row in permuted])
    p = (1 + int((null >= prominence.max()).sum())) / (1 + n_permutations)
    # genes by how they go along with the fluctuation; a gene's weight in the axis itself is noisier
    there = np.split(rest, len(levels))[peak]
    axis = np.split(plain, len(levels))[peak].T @ (there @ _leading(there))
    axis = axis / np.linalg.norm(axis)
    strong = np.flatnonzero(np.abs(axis) > 1 / np.sqrt(len(axis)))
    strong = strong[np.argsort(-np.abs(axis[strong]))]
    return CriticalTransition(
        p, float(levels[peak]), peak, levels, index, np.concatenate([[np.nan], prominence, [np.nan]]),
        chosen[strong], axis[strong], np.quantile(permuted, [0.025, 0.975], axis=0),
    )  # fmt: skip


def thin_counts(counts: Matrix, times: FloatArray, *, seed: int = 0) -> Matrix:
    """Thin counts so that cells of all times have the same distribution of depth.

    Every snapshot's cells are put in order of depth; a cell keeps the share of its counts that brings it to the shallowest
    snapshot's depth at that rank. Single counts are kept or lost at random (binomial).

    Parameters
    ----------
    counts
        ``(n, genes)`` whole numbers, dense or sparse.
    times
        ``(n,)`` snapshot of each cell.
    seed
        Of the draws.

    Returns
    -------
    Counts of the same kind, as floats.

    Raises
    ------
    ValueError
        If ``counts`` are no counts, or do not fit ``times``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import thin_counts
    >>> counts = np.random.default_rng(0).poisson(np.repeat([2.0, 20.0], 50)[:, None], (100, 40))
    >>> thin = thin_counts(counts, np.repeat([0, 1], 50)).sum(1)
    >>> bool(abs(thin[50:].mean() / thin[:50].mean() - 1) < 0.1)
    True
    """
    matrix: Any = (
        sp.csr_matrix(counts, dtype=np.float64) if sp.issparse(counts) else np.asarray(counts, dtype=np.float64)
    )
    _, moments, levels = check_snapshots(np.zeros((matrix.shape[0], 1)), times, least=1)
    check_scale(matrix, "counts", name="counts")
    depth = np.asarray(matrix.sum(1), dtype=np.float64).ravel()
    rank = np.empty(len(depth))
    for t in levels:
        at = np.flatnonzero(moments == t)
        rank[at[np.argsort(depth[at], kind="stable")]] = (np.arange(len(at)) + 0.5) / len(at)
    lowest = np.min([np.quantile(depth[moments == t], rank, method="hazen") for t in levels], axis=0)
    keep = np.clip(np.divide(lowest, depth, out=np.ones_like(depth), where=depth > 0), 0.0, 1.0)
    rng = np.random.default_rng(seed)
    if sp.issparse(matrix):
        thin = matrix.copy()
        thin.data = rng.binomial(np.rint(thin.data).astype(np.int64), np.repeat(keep, np.diff(thin.indptr))).astype(
            float
        )
        thin.eliminate_zeros()
        return thin
    return rng.binomial(np.rint(matrix).astype(np.int64), keep[:, None]).astype(np.float64)


def _lognorm(counts: Matrix) -> Matrix:
    total = np.maximum(np.asarray(counts.sum(1), dtype=np.float64).ravel(), 1.0)
    if sp.issparse(counts):
        out = sp.diags_array(TARGET_SUM / total).tocsr() @ counts
        return sp.csr_matrix(out).log1p()
    return np.log1p(counts * (TARGET_SUM / total)[:, None])


def _check_depth(x: Any, moments: FloatArray, levels: FloatArray) -> None:
    """Raise where normalised cells of some times were deeper: the smallest value above zero is that of one count."""
    smallest = np.full(x.shape[0], np.inf)
    if sp.issparse(x):
        rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
        np.minimum.at(smallest, rows[x.data > 0], x.data[x.data > 0])
        zeros = 1 - x.nnz / np.prod(x.shape)
    else:
        smallest = np.where(x > 0, x, np.inf).min(1)
        zeros = float((x == 0).mean())
    if zeros < 0.01:  # smooth values, for example imputed ones: nothing to tell depth by
        return
    depth = 1 / np.expm1(smallest[:, None].astype(np.float64))[:, 0]
    middle = np.array([np.median(depth[moments == t]) for t in levels])
    if middle.max() > UNEQUAL * middle.min():
        low, high = levels[middle.argmin()], levels[middle.argmax()]
        raise ValueError(
            f"Cells of time {high:g} were sequenced {middle.max() / max(middle.min(), 1e-12):.1f} times as deep as those of "
            f"time {low:g}: noise that differs by snapshot would be taken for fluctuations, and normalised values can't be thinned. "
            "Give raw counts, or normalise what thin_counts returns."
        )


def _variable(x: Any, sets: list[np.ndarray], n_genes: int) -> tuple[np.ndarray, FloatArray]:
    """Return the genes that vary most about their snapshots' means, and their standard deviations."""
    total = np.zeros(x.shape[1])
    for i in sets:
        part = x[i]
        mean = np.asarray(part.mean(0), dtype=np.float64).ravel()
        square = np.asarray(part.multiply(part).mean(0) if sp.issparse(part) else (part**2).mean(0)).ravel()
        total += np.maximum(square - mean**2, 0.0) / len(sets)
    chosen = np.argsort(-total, kind="stable")[:n_genes]
    chosen = chosen[total[chosen] > 0]
    if len(chosen) < 3:
        raise ValueError(f"{len(chosen)} genes vary between cells of one time: expected 3 or more.")
    return chosen, np.sqrt(total[chosen])


def _columns(x: Any, genes: np.ndarray) -> FloatArray:
    part = x[:, genes]
    return np.asarray(part.toarray() if sp.issparse(part) else part, dtype=np.float64)


def _leading(rest: FloatArray) -> FloatArray:
    """Return the leading axis of centred cells by power iteration, from the most variable gene's row."""
    covariance = rest.T @ rest
    axis = covariance[np.argmax(np.diag(covariance))]
    for _ in range(ITERATIONS):
        axis = covariance @ (axis / max(float(np.linalg.norm(axis)), 1e-300))
    return np.asarray(axis / max(float(np.linalg.norm(axis)), 1e-300))


def _index(rest: FloatArray, n_times: int, n_splits: int, rng: np.random.Generator) -> FloatArray:
    out = np.empty(n_times)
    for k, cells in enumerate(np.split(rest, n_times)):
        found = []
        for _ in range(n_splits):
            order = rng.permutation(len(cells))
            a, b = cells[order[: len(cells) // 2]], cells[order[len(cells) // 2 :]]
            # both ways: either half chooses the axis for the other
            found += [np.log(max((q @ _leading(p - p.mean(0))).var(), 1e-300)) for p, q in ((a, b), (b, a))]
        out[k] = np.mean(found) - np.log(max(cells.var(0).mean(), 1e-300))
    return out


def _prominence(index: FloatArray) -> FloatArray:
    """Return how far every inner time stands above the lowest before and after it, whichever is higher."""
    before, after = np.minimum.accumulate(index), np.minimum.accumulate(index[::-1])[::-1]
    return index[1:-1] - np.maximum(before[:-2], after[2:])
