"""Counterfactual cells: control cells moved to a predicted mean, with as many zeros as real cells of that mean have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray

LIFTED = 2 / 3
"""Share of the zeros that Poisson counts would lose which are lifted: counts of cells vary more than Poisson's."""
BLOCK = 2**22
"""Values that are moved at once."""


def shift_cells(cells: FloatArray, shift: FloatArray) -> FloatArray:
    r"""Move cells to the mean that a shift asks for, and keep zeros where counts would have them.

    Adding a shift to a gene that most cells do not express turns all its zeros into the same small number: no real cell
    looks like that, and every test of genes finds it. So a gene's zeros stay zeros, except for those that must go: when
    the mean rises ``f`` times (on the scale of counts), a share :math:`p_0` of zeros falls to :math:`p_0^f` if counts
    are Poisson, and two thirds of that many are lifted to one count, because counts vary more than that. All values
    above zero are then moved alike so that the mean is exact; values that would fall below zero become zero (the
    Euclidean projection onto non-negative values of that mean). A mean below zero becomes zero.

    Parameters
    ----------
    cells
        ``(n, genes)`` log-normalised control cells.
    shift
        ``(genes,)`` or ``(n, genes)``.

    Returns
    -------
    ``(n, genes)`` float32, non-negative, of mean ``max(mean(cells + shift), 0)``. Which zeros are lifted depends on the
    values of the cells only, not on their order or a random state.

    References
    ----------
    Projection: Duchi, Shalev-Shwartz, Singer and Chandra (2008). Efficient projections onto the l1-ball. *ICML*.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import shift_cells
    >>> shift_cells(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([-0.5, 1.0])).tolist()
    [[0.0, 2.0], [1.0, 2.0]]
    """
    start = np.asarray(cells, dtype=np.float32)
    moved = start + np.asarray(shift, dtype=np.float32)
    touched = np.flatnonzero((start <= 0).any(0) | (moved < 0).any(0))
    if not len(touched) or not len(start):
        return moved
    unit, key = _one_count(start), _bits(start.sum(1, dtype=np.float64))
    step = max(1, BLOCK // len(start))
    for genes in (touched[i : i + step] for i in range(0, len(touched), step)):
        moved[:, genes] = _move(start[:, genes], moved[:, genes], unit, key).T
    return moved


def _one_count(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the smallest value above zero of each cell: what one count is worth in it."""
    least = np.where(cells > 0, cells, np.inf).min(1)
    known = np.isfinite(least)
    return np.where(known, least, np.median(least[known]) if known.any() else 1.0).astype(np.float32)


def _move(start: npt.NDArray, moved: npt.NDArray, unit: npt.NDArray, key: npt.NDArray[np.uint64]) -> npt.NDArray:
    """Return ``(genes, n)`` values for ``(n, genes)`` cells before and after the shift."""
    start, moved = np.ascontiguousarray(start.T), np.ascontiguousarray(moved.T, dtype=np.float64)
    n = start.shape[1]
    total = np.maximum(moved.sum(1), 0)
    expressed = start > 0
    lifted = _lift(start, expressed, total, unit, key)
    # expressed cells keep what distinguishes their shift from the mean shift
    change = moved - start
    value = np.where(expressed, start + (change - change.mean(1, keepdims=True)), unit)
    value[~(expressed | lifted)] = -np.inf
    # the projection: value - t where that is above zero, with the one t that gives the mean
    ordered = -np.sort(-value, axis=1)
    excess = (np.cumsum(ordered, axis=1) - total[:, None]) / np.arange(1, n + 1)
    kept = np.maximum((ordered > excess).sum(1), 1)
    threshold = np.where(total > 0, excess[np.arange(len(excess)), kept - 1], np.inf)
    return np.maximum(value - threshold[:, None], 0)


def _lift(
    start: npt.NDArray,
    expressed: npt.NDArray[np.bool_],
    total: npt.NDArray,
    unit: npt.NDArray,
    key: npt.NDArray[np.uint64],
) -> npt.NDArray[np.bool_]:
    """Choose which zeros are lifted, ``(genes, n)``."""
    n = start.shape[1]
    before = start.sum(1, dtype=np.float64)
    zeros = n - expressed.sum(1)
    with np.errstate(all="ignore"):
        fold = np.maximum(np.expm1(total / n) / np.expm1(before / n), 1)
    fewer = LIFTED * (zeros - n * (zeros / n) ** np.where(zeros < n, fold, 1))
    # a gene that no control expresses: as many single counts as the mean is worth, at least one cell
    fewer = np.where((zeros == n) & (total > 0), np.maximum(total / np.median(unit), 1), fewer)
    count = np.minimum(np.rint(fewer).astype(np.int64), zeros)
    lifted = np.zeros(start.shape, dtype=bool)
    some = np.flatnonzero(count)
    if len(some):
        draw = np.where(expressed[some], np.uint64(2**64 - 1), _draws(_bits(before[some]), key))
        last = np.sort(draw, axis=1)[np.arange(len(some)), count[some] - 1]
        lifted[some] = (draw <= last[:, None]) & ~expressed[some]
    return lifted


def _bits(values: npt.NDArray) -> npt.NDArray[np.uint64]:
    """Return numbers in single precision, which forgets in what order they were summed, as integers."""
    return values.astype(np.float32).view(np.uint32).astype(np.uint64)


def _draws(genes: npt.NDArray[np.uint64], cells: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return ``(genes, n)`` numbers that look random, made from what genes and cells sum to (splitmix64)."""
    x: npt.NDArray[np.uint64] = np.left_shift(genes[:, None], np.uint64(32)) + cells
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
