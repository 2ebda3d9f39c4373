"""Cells as the models read them: log-normalised CSR rows, what one count is worth, and count-split views."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from scjepa._scale import count_unit, lognormalise
from scjepa._types import FloatArray, InputScale, Matrix


def aligned(array: np.ndarray) -> torch.Tensor:
    """Copy ``array`` into memory that torch aligns: matrix products round differently at other alignments.

    Without it the same seed gives numbers that differ in the last digit from run to run.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import aligned
    >>> aligned(np.ones((2, 3), np.float32)[1:]).data_ptr() % 64
    0
    """
    return torch.tensor(array)


class ExpressionMatrix:
    """Log-normalised expression of cells, with the counts still recoverable where there were counts.

    Parameters
    ----------
    x
        Cells x genes, dense or sparse: counts or log-normalised values.
    scale
        ``"counts"``, ``"lognorm"`` or ``"signature"`` (see :func:`scjepa._scale.check_scale`).
    target_sum
        Library size that counts are scaled to before log1p.
    library
        ``(n,)`` total counts of the cells; by default the row sums of ``x``.

    Attributes
    ----------
    values
        ``(n, genes)`` float32 CSR, log-normalised. Column indices are shared with a sparse ``x``.
    unit
        ``(n,)`` what one count is worth on the normalised scale, or None when ``x`` holds no multiples of a count.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import ExpressionMatrix
    >>> cells = ExpressionMatrix(np.array([[1, 3], [2, 0]]), "counts", target_sum=4)
    >>> np.expm1(cells.rows([1])).tolist(), cells.unit.tolist()
    ([[4.0, 0.0]], [1.0, 2.0])
    """

    def __init__(
        self, x: Matrix, scale: InputScale, *, target_sum: float = 1e4, library: FloatArray | None = None
    ) -> None:
        x = sp.csr_matrix(x)
        self.values: sp.csr_matrix
        self.unit: FloatArray | None
        if scale == "counts":
            totals = np.asarray(x.sum(1), dtype=np.float64).ravel() if library is None else np.asarray(library)
            self.values = lognormalise(x, target_sum, totals)
            self.unit = np.divide(target_sum, totals, out=np.zeros(x.shape[0]), where=totals > 0).astype(np.float32)
        else:
            self.values = x.astype(np.float32, copy=False)
            self.unit = None if scale == "signature" else count_unit(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.values.shape

    def reference_unit(self, cells: np.ndarray) -> float:
        """Median worth of a count over ``cells``: log1p of values divided by it are at median depth (1.0 if unknown)."""
        if self.unit is None:
            return 1.0
        known = self.unit[cells]
        known = known[known > 0]
        return float(np.median(known)) if len(known) else 1.0

    def rows(self, cells: np.ndarray | list[int] | slice, reference: float = 1.0) -> np.ndarray:
        """Return ``cells`` as dense float32 rows; with ``reference`` rescaled to ``log1p(expm1(x) / reference)``."""
        return self.at_depth(reference, cells).toarray()

    def at_depth(self, reference: float = 1.0, cells: np.ndarray | list[int] | slice | None = None) -> sp.csr_matrix:
        """Return rows as CSR on the scale ``log1p(expm1(x) / reference)``."""
        block = self.values if cells is None else self.values[cells]
        if reference == 1.0:
            return block
        data = np.log1p(np.expm1(block.data) / np.float32(reference))
        return sp.csr_matrix((data, block.indices, block.indptr), shape=block.shape)

    def views(
        self,
        cells: np.ndarray,
        rng: np.random.Generator,
        *,
        reference: float = 1.0,
        low: float = 0.3,
        high: float = 0.7,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Split the counts of ``cells`` binomially into two complementary views.

        Every count goes to the first view with probability p ~ U(low, high), drawn per cell, else to the second, so
        the count noise of the views is independent. Each view is scaled by its share of the library and log1p'd at
        the depth of ``reference``. Without recoverable counts both views are the cell itself.

        Returns
        -------
        Two dense float32 arrays ``(len(cells), genes)``.
        """
        if self.unit is None:
            full = self.rows(cells, reference)
            return full, full.copy()
        block = self.values[cells]
        per_row = np.diff(block.indptr)
        unit = np.repeat(self.unit[cells], per_row)
        count = np.rint(np.expm1(block.data) / np.maximum(unit, 1e-12)).astype(np.int64)
        p = rng.uniform(low, high, block.shape[0])
        chance = np.repeat(p, per_row)
        first = (rng.random(len(count)) < chance).astype(np.int64)  # most stored counts are 1: a coin is enough
        many = count > 1
        first[many] = rng.binomial(count[many], chance[many])
        first[count == 0] = 0
        worth = (unit / reference).astype(np.float32)

        def dense(part: np.ndarray, share: np.ndarray) -> np.ndarray:
            data = np.log1p(part.astype(np.float32) * worth / share.astype(np.float32))
            return sp.csr_matrix((data, block.indices, block.indptr), shape=block.shape).toarray()

        return dense(first, chance), dense(count - first, 1 - chance)
