"""Similarity of many molecules to the drugs of training, as matrix products; the same numbers as one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.baselines.drugs._structure import Description, nearness, tanimoto

MANY = 256
"""Features with more different values than this are no counts; they are compared one molecule at a time."""
EXACT = 2**24
"""Whole numbers up to this one are exact in single precision."""
SPARSE = 8
"""Where fewer than one value in so many is other than zero, the products are sparse."""


@dataclass(frozen=True)
class Compared:
    r"""The drugs of one description, made ready to be compared with.

    Tanimoto similarity of counts needs :math:`\sum_k \min(x_k, y_k)`. With :math:`0 = t_0 < t_1 < \dots` the values that
    occur among the drugs, :math:`\min(x, y) = \sum_l \min(\max(x - t_{l-1}, 0), t_l - t_{l-1})\, [y \ge t_l]`: a matrix
    product for every level, exact whatever the values of the molecules, and of few entries at high levels.

    Attributes
    ----------
    known
        The description, of these drugs.
    levels
        Their distinct values above zero, ascending; empty where they are too many, or for other kinds of description.
    reach
        ``(features, drugs)`` indicators of :math:`y \ge t_l`, one a level, in single precision where that is exact.
    size
        ``(drugs,)`` sums of values.
    """

    known: Description
    levels: FloatArray
    reach: tuple[np.ndarray, ...]
    size: FloatArray

    @classmethod
    def of(cls, known: Description) -> Compared:
        """Make a description ready."""
        values = known.values
        if known.kind != "counts":
            return cls(known, np.zeros(0), (), np.zeros(len(values)))
        levels = np.unique(values[values > 0])
        if len(levels) > MANY:
            return cls(known, np.zeros(0), (), values.sum(1))
        whole = bool((levels == np.floor(levels)).all()) and float(values.sum(1).max(initial=0)) < EXACT
        kind = np.float32 if whole else np.float64
        return cls(known, levels, tuple((values.T >= t).astype(kind) for t in levels), values.sum(1))

    def to(self, molecules: Any) -> FloatArray:
        """Return the similarity of molecules ``(m, features)``, dense or sparse, to the drugs, ``(m, drugs)``.

        Examples
        --------
        >>> import numpy as np
        >>> from scjepa.baselines.drugs._compare import Compared
        >>> from scjepa.baselines.drugs._structure import Description
        >>> drugs = Description(("a", "b"), np.array([[2.0, 1.0], [1.0, 0.0]]), "counts")
        >>> Compared.of(drugs).to(np.array([[2, 0], [3, 1]])).round(3).tolist()
        [[0.667, 0.5], [0.75, 0.25]]
        """
        known = self.known
        if known.kind == "real":
            scaled = lambda x: (x - known.center) / known.spread  # type: ignore[operator]
            return nearness(scaled(_dense(molecules)), scaled(known.values), known.unit)
        if not len(self.levels):
            return tanimoto(_dense(molecules), known.values)
        x = rows_of(molecules)
        shared = self._shared(x)
        size = np.asarray(x.sum(1), dtype=np.float64).ravel()
        most = size[:, None] + self.size - shared
        return np.divide(shared, most, out=np.zeros_like(shared), where=most > 0)

    def _shared(self, x: sp.csr_array) -> FloatArray:
        """Return sums of minima ``(m, drugs)``."""
        kind = self.reach[0].dtype
        data = x.data
        if kind == np.float32 and data.dtype.kind == "f" and not (data == np.floor(data)).all():
            kind = np.dtype(np.float64)
        data, m, below = data.astype(kind), x.shape[0], 0.0
        full = len(data) * SPARSE > m * x.shape[1]
        out: FloatArray = np.zeros((m, len(self.size)))
        indices, starts = x.indices, x.indptr
        for level, reach in zip(self.levels, self.reach, strict=True):
            part = sp.csr_array((np.minimum(data, kind.type(level)) - kind.type(below), indices, starts), shape=x.shape)
            table = reach.astype(kind, copy=False)
            out += part.toarray() @ table if full else part @ table
            over = data > level
            if not over.any():
                break
            starts = np.concatenate([[0], np.cumsum(over)])[starts].astype(starts.dtype)
            data, indices, below, full = data[over], indices[over], float(level), False
        return out


def rows_of(molecules: Any) -> sp.csr_array:
    """Return features as a CSR array without the zeros; from bytes five times as fast as SciPy's own way."""
    if sp.issparse(molecules):
        x = sp.csr_array(molecules)
        if x.has_canonical_format and (x.data != 0).all():
            return x
        x = x.copy()
        x.sum_duplicates()
        x.eliminate_zeros()
        return x
    dense = np.ascontiguousarray(molecules)
    flat = dense.view(np.bool_) if dense.dtype.itemsize == 1 and dense.dtype.kind in "bui" else dense != 0
    at = np.flatnonzero(flat)
    starts = np.searchsorted(at, np.arange(dense.shape[0] + 1) * dense.shape[1])
    data = dense.ravel()[at]
    return sp.csr_array(
        (
            data.astype(np.uint8) if data.dtype == bool else data,
            (at % dense.shape[1]).astype(np.int32),
            starts.astype(np.int32),
        ),
        shape=dense.shape,
    )


def _dense(molecules: Any) -> FloatArray:
    return np.asarray(molecules.toarray() if sp.issparse(molecules) else molecules, dtype=np.float64)
