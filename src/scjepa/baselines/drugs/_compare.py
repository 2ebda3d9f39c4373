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
    product, exact whatever the values of the molecules, and of few entries at high levels.

    Attributes
    ----------
    known
        The description, of these drugs.
    levels
        Their distinct values above zero, ascending; empty where they are too many, or for other kinds of description.
    reach
        ``(levels x features, drugs)`` indicators of :math:`y \ge t_l`, in single precision where that is exact.
    used
        ``(levels, features)`` whether any drug reaches a level.
    size
        ``(drugs,)`` sums of values.
    """

    known: Description
    levels: FloatArray
    reach: np.ndarray
    used: np.ndarray
    size: FloatArray

    @classmethod
    def of(cls, known: Description) -> Compared:
        """Make a description ready."""
        values, none = known.values, np.zeros(0)
        levels = np.unique(values[values > 0]) if known.kind == "counts" else none
        if not len(levels) or len(levels) > MANY:
            return cls(known, none, none, none, values.sum(1))
        whole = bool((levels == np.floor(levels)).all()) and float(values.sum(1).max()) < EXACT
        reach = values.T >= levels[:, None, None]
        table = reach.reshape(-1, len(values)).astype(np.float32 if whole else np.float64)
        return cls(known, levels, table, np.asarray(reach.any(2)), values.sum(1))

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
            return tanimoto(_dense(molecules), known.values)  # no counts, but numbers of all sizes
        x = rows_of(molecules)
        shared = self._shared(x)
        most = np.add.outer(np.asarray(x.sum(1), dtype=np.float64).ravel(), self.size)
        most -= shared
        most[most <= 0] = 1.0  # nothing shared either
        shared /= most
        return shared

    def _shared(self, x: sp.csr_array) -> FloatArray:
        """Return sums of minima ``(m, drugs)``, all levels in one product."""
        kind, data = self.reach.dtype, x.data
        if kind == np.float32 and data.dtype.kind == "f" and not (data == np.floor(data)).all():
            kind = np.dtype(np.float64)
        table = self.reach.astype(kind, copy=False)
        if len(data) * SPARSE > x.shape[0] * x.shape[1] and len(self.levels) == 1:
            return np.asarray(np.minimum(x.toarray().astype(kind), kind.type(self.levels[0])) @ table, dtype=np.float64)
        row = np.repeat(np.arange(x.shape[0], dtype=np.int32), np.diff(x.indptr))
        column, value, below = x.indices, data.astype(kind), 0.0
        rows, columns, values = [], [], []
        for i, level in enumerate(self.levels.tolist()):
            used = self.used[i][column]
            rows.append(row[used])
            columns.append(column[used].astype(np.int64) + i * x.shape[1])
            values.append(np.minimum(value[used], kind.type(level)) - kind.type(below))
            over = value > level
            if i + 1 == len(self.levels) or not over.any():
                break
            row, column, value, below = row[over], column[over], value[over], level
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return np.asarray(sp.coo_array(entries, shape=(x.shape[0], len(table))) @ table, dtype=np.float64)


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
