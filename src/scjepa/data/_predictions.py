"""Counterfactual cells: control cells moved to a predicted mean, with as many zeros as real cells of that mean have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scjepa._types import FloatArray, Matrix
from scjepa.data._groups import CellGroups

LIFTED = 2 / 3
"""Share of the zeros that Poisson counts would lose which are lifted: counts of cells vary more than Poisson's."""
BLOCK = 2**22
"""Values that are moved at once."""
FEW = 5
"""Conditions of fewer rows (in the median) are profiles: their largest row says nothing of what cells can show."""


def largest_values(x: Matrix, groups: CellGroups) -> FloatArray:
    """Return what cells of a gene can show: the largest value of each gene in controls and perturbed cells.

    Where conditions are single profiles instead of cells (fewer than 5 rows in the median), a combination may well lie
    beyond every row of a gene: there it is the largest value of any gene.

    Parameters
    ----------
    x
        Log-normalised, cells x genes.
    groups
        The cells that count: rows that it does not name are not read.

    Returns
    -------
    ``(genes,)`` float32.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import group_cells, largest_values
    >>> labels = np.repeat(["control", "A", "B"], 5)
    >>> x = np.where(labels[:, None] == "A", [[2.0, 0.0]], [[1.0, 3.0]])
    >>> largest_values(x, group_cells(labels)).tolist()
    [2.0, 3.0]
    """
    named = np.zeros(x.shape[0], dtype=bool)
    for cells in (*groups.cells, *groups.controls.values()):
        named[cells] = True
    rows, most = np.flatnonzero(named), np.zeros(x.shape[1], dtype=np.float32)
    step = max(1, BLOCK // max(x.shape[1], 1))
    for part in (rows[i : i + step] for i in range(0, len(rows), step)):
        block = x[part]
        if sp.issparse(block):
            block = sp.csr_matrix(block)
            np.maximum.at(most, block.indices, block.data.astype(np.float32, copy=False))
        else:
            np.maximum(most, np.asarray(block).max(0), out=most, casting="same_kind")
    if len(groups) and np.median([len(cells) for cells in groups.cells]) < FEW:
        most[:] = most.max()
    return most


def shift_cells(cells: FloatArray, shift: FloatArray, upper: FloatArray | None = None) -> FloatArray:
    r"""Move cells to the mean that a shift asks for, and keep zeros where counts would have them.

    Adding a shift to a gene that most cells do not express turns all its zeros into the same small number: no real cell
    looks like that, and every test of genes finds it. So a gene's zeros stay zeros, except for those that must go: when
    the mean rises ``f`` times (on the scale of counts), a share :math:`p_0` of zeros falls to :math:`p_0^f` if counts
    are Poisson, and two thirds of that many are lifted to one count, because counts vary more than that. All values
    above zero are then moved alike so that the mean is exact; values that would fall below zero become zero, and those
    beyond ``upper`` become ``upper`` (the Euclidean projection onto possible values of that mean). Where the mean does
    not fit below ``upper`` with so many zeros, all zeros are lifted. A mean below zero becomes zero, one beyond
    ``upper`` becomes ``upper``.

    Parameters
    ----------
    cells
        ``(n, genes)`` log-normalised control cells.
    shift
        ``(genes,)`` or ``(n, genes)``.
    upper
        ``(genes,)`` the largest possible value of each gene, or None. Where one of ``cells`` is beyond it, the largest of
        ``cells`` takes its place: what was measured is possible, and a shift of zero changes nothing.

    Returns
    -------
    ``(n, genes)`` float32 between 0 and ``upper``, of mean ``mean(cells + shift)`` clipped to that range. Which zeros are
    lifted depends on the values of the cells only, not on their order or a random state.

    References
    ----------
    Projection: Duchi, Shalev-Shwartz, Singer and Chandra (2008). Efficient projections onto the l1-ball. *ICML*.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import shift_cells
    >>> shift_cells(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([-0.5, 1.0])).tolist()
    [[0.0, 2.0], [1.0, 2.0]]
    >>> shift_cells(np.array([[1.0], [3.0]]), np.array([1.0]), upper=np.array([3.5])).tolist()
    [[2.5], [3.5]]
    """
    start, by = np.asarray(cells, dtype=np.float32), np.asarray(shift, dtype=np.float32)
    moved = start + by
    touched = np.flatnonzero((start <= 0).any(0) | (moved < 0).any(0))
    if not len(start) or not (len(touched) or upper is not None):
        return moved
    unit, key = _one_count(start), _bits(start.sum(1, dtype=np.float64))
    step = max(1, BLOCK // len(start))
    for genes in (touched[i : i + step] for i in range(0, len(touched), step)):
        moved[:, genes] = _move(start[:, genes], moved[:, genes], unit, key).T
    if upper is None:
        return moved
    most, peak = np.broadcast_to(np.asarray(upper, dtype=np.float32), start.shape[1:]), moved.max(0)
    beyond = np.flatnonzero(peak > most)  # few genes: no others are looked at again
    bound = np.maximum(most[beyond], start[:, beyond].max(0))
    truly = peak[beyond] > bound * np.float32(1 + 1e-6)  # the others are at their bound, but for rounding
    moved[:, beyond] = np.minimum(moved[:, beyond], bound)
    genes, bound, step = beyond[truly], bound[truly], max(1, step // 4)
    for i in range(0, len(genes), step):
        part = genes[i : i + step]
        again = start[:, part] + by[..., part]
        moved[:, part] = _move(start[:, part], again, unit, key, bound[i : i + step]).T
    return moved


def _one_count(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the smallest value above zero of each cell: what one count is worth in it."""
    least = np.where(cells > 0, cells, np.inf).min(1)
    known = np.isfinite(least)
    return np.where(known, least, np.median(least[known]) if known.any() else 1.0).astype(np.float32)


def _move(
    start: npt.NDArray,
    moved: npt.NDArray,
    unit: npt.NDArray,
    key: npt.NDArray[np.uint64],
    upper: npt.NDArray | None = None,
) -> npt.NDArray:
    """Return ``(genes, n)`` values for ``(n, genes)`` cells before and after the shift."""
    start, moved = np.ascontiguousarray(start.T), np.ascontiguousarray(moved.T, dtype=np.float64)
    n = start.shape[1]
    total = np.maximum(moved.sum(1), 0)
    expressed = start > 0
    lifted = _lift(start, expressed, total, unit, key)
    if upper is not None:
        upper = upper.astype(np.float64)
        lifted[(expressed | lifted).sum(1) * upper < total] = True  # no room: every cell must express the gene
    # expressed cells keep what distinguishes their shift from the mean shift
    change = moved - start
    value = np.where(expressed, start + (change - change.mean(1, keepdims=True)), unit)
    value[~(expressed | lifted)] = -np.inf
    if upper is not None:
        return _within(value, total, upper)
    # the projection: value - t where that is above zero, with the one t that gives the mean
    ordered = -np.sort(-value, axis=1)
    excess = (np.cumsum(ordered, axis=1) - total[:, None]) / np.arange(1, n + 1)
    kept = np.maximum((ordered > excess).sum(1), 1)
    threshold = np.where(total > 0, excess[np.arange(len(excess)), kept - 1], np.inf)
    return np.maximum(value - threshold[:, None], 0)


def _within(value: npt.NDArray, total: npt.NDArray, upper: npt.NDArray) -> npt.NDArray:
    """Return ``(genes, n)`` projections ``clip(value - t, 0, upper)`` with the one t that gives ``total``.

    Going up in t, the sum falls one for one with every value between the bounds: a value comes in at ``t = value - upper``
    and goes out at ``t = value``. Between two such points the sum is a line.
    """
    free = np.isfinite(value)
    high = np.where(free, value, 0.0)  # those that stay zero come in and go out at once
    at = np.concatenate([high - free * upper[:, None], high], axis=1)
    order = np.argsort(at, axis=1)
    at = np.take_along_axis(at, order, axis=1)
    slope = np.cumsum(np.where(order < value.shape[1], -1, 1), axis=1)[:, :-1]
    fall = np.cumsum(slope * np.diff(at, axis=1), axis=1)
    most = free.sum(1) * upper
    total = np.minimum(total, most)
    sums = np.concatenate([most[:, None], most[:, None] + fall], axis=1)
    last = np.clip((sums >= total[:, None]).sum(1) - 1, 0, at.shape[1] - 2)
    row = np.arange(len(at))
    line = np.minimum(slope[row, last], -1)
    t = at[row, last] + (total - sums[row, last]) / line
    return np.clip(value - t[:, None], 0, upper[:, None])


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
