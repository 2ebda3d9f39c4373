"""Large tables: designs that are mostly zeros, and effects of single perturbations solved part by part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from scjepa._types import FloatArray

LARGE = 2_000
"""Tables of more conditions than this are computed in the forms of this file and of :mod:`scjepa.baselines._landmarks`; below
it nothing is approximated."""
BATCHED = 64
"""Blocks up to this size are inverted together, larger ones one by one."""


def is_large(n: int) -> bool:
    """Return whether a table of ``n`` conditions is a large one."""
    return n > LARGE


Group = tuple[np.ndarray, FloatArray]
"""Blocks of one size: indices ``(blocks, size)`` and values ``(blocks, size, size)``."""


@dataclass(frozen=True)
class Blocks:
    """The inverse of a symmetric, positive definite matrix that falls into blocks.

    Perturbations that no combination connects share nothing, so a screen of singles is a diagonal, and one with a few
    combinations many small blocks. Where combinations connect everything there is one large block, which costs what a
    Cholesky decomposition of the whole costs.

    Attributes
    ----------
    small
        Pairs of indices ``(blocks, size)`` and inverses ``(blocks, size, size)``.
    large
        Pairs of indices ``(size,)`` and Cholesky factors.
    """

    small: list[Group]
    large: list[tuple[np.ndarray, tuple[FloatArray, bool]]]

    @classmethod
    def of(cls, values: list[Group], ridge: FloatArray) -> Blocks:
        """Invert a matrix of blocks ``values`` with ``ridge``, ``(n,)``, added to its diagonal."""
        small, large = [], []
        for index, dense in values:
            size = index.shape[1]
            dense = dense.copy()
            dense[:, np.arange(size), np.arange(size)] += ridge[index]
            if size > BATCHED:
                factor = lambda a: scipy.linalg.cho_factor(a.T, lower=True, overwrite_a=True)  # in place
                large += [(i, factor(d)) for i, d in zip(index, dense, strict=True)]
            else:
                small.append((index, 1 / dense if size == 1 else np.linalg.inv(dense)))
        return cls(small, large)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return sum(a.nbytes for _, a in self.small) + sum(f[0].nbytes for _, f in self.large)

    def solve(self, right: FloatArray) -> FloatArray:
        """Return the inverse times ``right``, ``(n, columns)``."""
        out = np.empty_like(right)
        for index, inverse in self.small:
            if index.shape[1] == 1:
                out[index[:, 0]] = inverse[:, 0] * right[index[:, 0]]
            else:
                out[index] = inverse @ right[index]
        for index, factor in self.large:
            out[index] = scipy.linalg.cho_solve(factor, right[index])
        return out

    def diagonals(self) -> tuple[FloatArray, FloatArray]:
        """Return the diagonals of the inverse and of its square, both ``(n,)``."""
        n = sum(index.size for index, _ in [*self.small, *self.large])
        first, second = np.empty(n), np.empty(n)
        dense = [(i[None], scipy.linalg.cho_solve(f, np.eye(len(i)))[None]) for i, f in self.large]
        for index, inverse in [*self.small, *dense]:
            first[index] = np.einsum("bii->bi", inverse)
            second[index] = np.einsum("bij,bij->bi", inverse, inverse)
        return first, second


def connected(design: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return which part each row and each column of a design belongs to: what shares a row or a column is one part.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from scjepa.baselines._large import connected
    >>> [part.tolist() for part in connected(sp.csr_array([[1, 0, 0], [0, 1, 0], [1, 0, 1]]))]
    [[0, 1, 0], [0, 1, 0]]
    """
    graph = sp.block_array([[None, design], [design.T, None]], format="csr")
    part = sp.csgraph.connected_components(graph, directed=False)[1]
    return part[: design.shape[0]], part[design.shape[0] :]


def grouped(part: np.ndarray) -> list[np.ndarray]:
    """Return the indices of every part, those of one size together as ``(parts, size)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._large import grouped
    >>> [index.tolist() for index in grouped(np.array([0, 1, 0, 2]))]
    [[[1], [3]], [[0, 2]]]
    """
    label = np.unique(part, return_inverse=True)[1]
    order, size = np.argsort(label, kind="stable"), np.bincount(label)
    start = np.cumsum(size) - size
    return [order[start[size == s][:, None] + np.arange(s)] for s in np.unique(size)]


def blocks_of(matrix: sp.csr_array, groups: list[np.ndarray]) -> list[Group]:
    """Return the blocks of a matrix, ``(n, n)``, that is zero outside them."""
    entries = matrix.tocoo()
    out: list[Group] = []
    for index in groups:
        count, size = index.shape
        block, place = (np.full(matrix.shape[0], -1) for _ in range(2))
        block[index], place[index] = np.arange(count)[:, None], np.arange(size)
        here = block[entries.row] >= 0
        dense = np.zeros((count, size, size))
        first, second = entries.row[here], entries.col[here]
        dense[block[first], place[first], place[second]] = entries.data[here]
        out.append((index, dense))
    return out


def column_effects(
    design: sp.csr_array, effects: FloatArray, weight: FloatArray, ridge: float
) -> tuple[FloatArray, FloatArray]:
    r"""Return ridge estimates of the effects of columns, and the squared length of the noise in them.

    .. math:: W = M^{-1} A^\top \Omega Y,\quad M = A^\top \Omega A + \rho I,\quad
        \nu = \mathrm{diag}(M^{-1} A^\top \Omega A M^{-1}) = \mathrm{diag}(M^{-1} - \rho M^{-2})

    for rows whose noise is one over their weight.

    Parameters
    ----------
    design, effects
        ``(n, columns)`` and ``(n, genes)``.
    weight
        ``(n,)`` weights of rows, the diagonal of :math:`\Omega`.
    ridge
        :math:`\rho`.

    Returns
    -------
    ``(columns, genes)`` and ``(columns,)``.
    """
    weighted = (sp.diags_array(weight) @ design).T.tocsr()
    values = blocks_of(weighted @ design, grouped(connected(design)[1]))
    inverse = Blocks.of(values, np.full(design.shape[1], ridge))
    first, second = inverse.diagonals()
    return inverse.solve(weighted @ effects), first - ridge * second


def large_components(design: sp.csr_array, effects: FloatArray, n_components: int) -> FloatArray:
    """Return :func:`scjepa.baselines._kernels.single_components`, found without anything of size rows x rows."""
    out = np.zeros((design.shape[1], n_components))
    seen = np.flatnonzero(np.asarray(abs(design).sum(0)) > 0)
    k = min(n_components, len(seen))
    if not k:
        return out
    single, _ = column_effects(design[:, seen], effects, np.ones(design.shape[0]), 1.0)
    single -= single.mean(0)
    side = min(single.shape)
    if side > 4 * k:
        axes, size, _ = sp.linalg.svds(single, k, v0=np.ones(side), random_state=0)
    else:
        axes, size, _ = np.linalg.svd(single, full_matrices=False)
    order = np.argsort(-size)[:k]
    scores = axes[:, order] * size[order]
    length = np.linalg.norm(scores, axis=1).mean()
    if length > 1e-9 * max(float(np.linalg.norm(effects)), 1e-150):
        out[seen[:, None], np.arange(len(order))] = scores / length
    return out
