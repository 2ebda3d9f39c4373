"""The Wilcoxon rank-sum test of every gene at once, for cells that are mostly zeros."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.stats import norm

from scjepa._types import FloatArray, Matrix

_SIGN = np.uint32(0x80000000)
_VALUE = np.uint64(0xFFFFFFFF)


class RankSum(NamedTuple):
    """Result of :func:`rank_sum_test`, one entry per gene; NaN for genes that are equal in all cells."""

    z: FloatArray
    """Normal approximation of the statistic, above 0 where ``cells`` are higher."""
    p_value: FloatArray
    """Two-sided."""


class SortedCells(NamedTuple):
    """Cells whose values were put in order by :func:`sort_cells`, to be compared with several sets of cells."""

    values: np.ndarray
    n: int
    genes: int


def sort_cells(x: Matrix) -> SortedCells:
    """Sort the values of each gene of ``(n, genes)`` cells."""
    return SortedCells(np.sort(_stored(x, "control") << np.uint64(1)), *x.shape)


def rank_sum_test(cells: Matrix, control: Matrix | SortedCells) -> RankSum:
    r"""Test every gene of two sets of cells by the Wilcoxon rank-sum (Mann-Whitney) test with its correction for ties.

    .. math:: z = \frac{W - n (n + m + 1) / 2}{\sqrt{\frac{n m}{12} \left(n + m + 1 - \frac{\sum_t t^3 - t}{(n+m)(n+m-1)}\right)}}

    with :math:`W` the sum of the ranks of the :math:`n` ``cells`` among all :math:`n + m`, and :math:`t` the sizes of
    ties. Without continuity correction, as in scanpy (``tie_correct=True``), whose scores it reproduces; only stored
    values are sorted, all zeros of a gene being one tie, so sparse cells take a fraction of the time.

    Parameters
    ----------
    cells, control
        ``(n, genes)`` and ``(m, genes)`` arrays or sparse matrices; values are compared in single precision. Controls
        of many tests can be sorted once (``sort_cells`` of the same module).

    Returns
    -------
    z-scores and two-sided p-values.

    Raises
    ------
    ValueError
        If the two differ in genes, one has no cells, or a value is NaN.

    References
    ----------
    Mann and Whitney, *Annals of Mathematical Statistics* 18, 50-60 (1947). The same as
    ``scipy.stats.mannwhitneyu(method="asymptotic", use_continuity=False)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.metrics import rank_sum_test
    >>> test = rank_sum_test(np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]))
    >>> test.z.round(3), test.p_value.round(3)
    (array([1.732,   nan]), array([0.083,   nan]))
    """
    if len(cells.shape) != 2:
        raise ValueError(f"cells has shape {cells.shape}: expected a matrix, cells x genes.")
    base = control if isinstance(control, SortedCells) else sort_cells(control)
    n, m, genes = cells.shape[0], base.n, base.genes
    if cells.shape[1] != genes:
        raise ValueError(
            f"cells has {cells.shape[1]} genes and control has {genes}: expected the same genes, in one order."
        )
    if not (n and m):
        raise ValueError(f"cells has {n} rows and control has {m}: expected at least one cell on each side.")
    # one number per stored value that sorts by gene, then value, and says in its last bit whose it is;
    # a stable sort merges two runs that are in order
    own = np.sort((_stored(cells, "cells") << np.uint64(1)) | np.uint64(1))
    key = np.sort(np.concatenate([base.values, own]), kind="stable")
    mine = (key & np.uint64(1)).astype(np.int64)
    key >>= np.uint64(1)
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, dtype=np.int64)
    size = np.diff(np.append(first, len(key)))
    gene = (key[first] >> np.uint64(32)).astype(np.int64)
    positive = (key[first] & _VALUE) >= _SIGN
    members = np.add.reduceat(mine, first) if len(first) else np.zeros(0, dtype=np.int64)

    # runs are in the order of genes: sums over slices, several times faster than counting into bins
    begin = np.flatnonzero(np.diff(gene, prepend=-1))
    present = gene[begin]

    def count(weights: np.ndarray) -> FloatArray:
        out = np.zeros(genes)
        if len(present):
            out[present] = np.add.reduceat(weights, begin, dtype=np.float64)
        return out

    stored = count(size)
    zeros = n + m - stored  # values that are not stored: one tie per gene, between negative and positive values
    below = np.concatenate([[0], np.cumsum(stored)])[gene]  # stored values of the genes before
    rank = first - below + (size + 1) / 2 + np.where(positive, zeros[gene], 0)
    total = count(members * rank) + (n - count(members)) * (count(size * ~positive) + (zeros + 1) / 2)
    cube = lambda t: t * (t * t - 1.0)
    ties = count(cube(size.astype(np.float64))) + cube(zeros)
    both = float(n + m)
    variance = n * m / 12 * (both + 1 - ties / (both * (both - 1)))
    variance = np.where(variance > 1e-9 * n * m, variance, np.nan)  # equal in all cells
    z = (total - n * (both + 1) / 2) / np.sqrt(variance)
    return RankSum(z, 2 * norm.sf(np.abs(z)))


def _stored(x: Matrix, name: str) -> np.ndarray:
    """Return one unsigned integer per value other than zero: gene in the upper half, value in order in the lower."""
    if sp.issparse(x):
        coo = sp.csr_matrix(x).tocoo()
        columns, values = coo.col, coo.data.astype(np.float32)
    else:
        dense = np.asarray(x, dtype=np.float32)
        columns = np.nonzero(dense)[1]
        values = dense[dense != 0]
    if np.isnan(values).any():
        raise ValueError(f"{name} has {int(np.isnan(values).sum())} NaN values: ranks need numbers.")
    kept = values != 0
    bits = values[kept].view(np.uint32)
    # bit patterns of floats sort like numbers once negative ones are turned round
    order = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (columns[kept].astype(np.uint64) << np.uint64(32)) | order.astype(np.uint64)
