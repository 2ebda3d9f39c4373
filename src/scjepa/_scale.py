"""The scale of an expression matrix: found once, checked, and turned into log-normalised values."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray, InputScale, Matrix

MAX_LOGNORM = 15.0
"""log1p of normalised counts stays below this (cell-eval refuses more)."""


def check_target_sum(target_sum: float) -> float:
    """Return the library size that counts are scaled to; raise unless every log1p of such counts is a possible value.

    Examples
    --------
    >>> from scjepa._scale import check_target_sum
    >>> check_target_sum(10_000)
    10000.0
    """
    number = isinstance(target_sum, (int, float, np.integer, np.floating)) and not isinstance(target_sum, bool)
    if not (number and 0 < target_sum and np.log1p(target_sum) < MAX_LOGNORM):
        raise ValueError(
            f"target_sum={target_sum!r}: expected a number above 0 and below {np.expm1(MAX_LOGNORM):.3g} (log1p of "
            f"counts must stay below {MAX_LOGNORM:g}); 1e4 is usual, 1e6 gives counts per million."
        )
    return float(target_sum)


def stored_values(x: Matrix) -> np.ndarray:
    """Return the stored values of a sparse matrix, or all values of a dense one, as a flat view where possible."""
    return np.asarray(x.data if sp.issparse(x) else np.ravel(np.asarray(x), order="K"))


def check_scale(x: Matrix, scale: InputScale = "auto", *, name: str = "adata.X") -> InputScale:
    """Find (``"auto"``) or check the scale of ``x``.

    Parameters
    ----------
    x
        Cells x genes, dense or sparse.
    scale
        ``"counts"`` for raw counts, ``"lognorm"`` for log1p of library-normalised counts, ``"signature"`` for differences
        (of any sign, zero in controls), ``"auto"`` to find out which of the first two it is.
    name
        What the messages call the matrix.

    Returns
    -------
    ``"counts"``, ``"lognorm"``, or ``"signature"`` where that was said: negative values are never guessed to be meant.

    Raises
    ------
    ValueError
        For NaN, infinite or (but in signatures) negative values, for values that are normalised but not logged, and when ``scale``
        contradicts the values.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa._scale import check_scale
    >>> check_scale(np.array([[0.0, 3.0], [1.0, 0.0]])), check_scale(np.log1p(np.array([[0.0, 2.5]])))
    ('counts', 'lognorm')
    """
    if scale not in ("auto", "counts", "lognorm", "signature"):
        raise ValueError(f"input_scale={scale!r}: expected 'auto', 'counts', 'lognorm' or 'signature'.")
    values = stored_values(x)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low == high == 0 and scale != "signature":  # untreated signatures are zero
        raise ValueError(f"{name} holds no values other than zero. Check that the right layer was given.")
    if not np.isfinite([low, high]).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{name} has {bad} NaN or infinite values. Remove or impute them first.")
    if scale == "signature":
        return scale
    if low < 0:
        bad = int((values < 0).sum())
        raise ValueError(
            f"{name} has {bad} negative values (smallest {low:.4g}); raw counts or log1p-normalised values are "
            "expected. Scaled or z-scored data can't be used: give the unscaled values, for example layer='counts'. "
            "Profiles that are differences from controls train with scjepa.data.signatures_to_conditions and "
            "input_scale='signature'."
        )
    whole = all(bool((block == np.rint(block)).all()) for block in np.array_split(values, 1 + values.size // 2**22))
    if scale == "counts" and not whole:
        raise ValueError(
            f"input_scale='counts', but {name} has fractional values (largest {high:.4g}): these are not counts. "
            "Use input_scale='lognorm' for log1p-normalised values, or give the layer with raw counts."
        )
    if scale == "lognorm" and whole and high > 1:
        raise ValueError(
            f"input_scale='lognorm', but every value of {name} is a whole number (largest {high:.4g}): these look "
            "like counts. Use input_scale='counts', or run scanpy.pp.normalize_total and scanpy.pp.log1p first."
        )
    if not whole and high >= MAX_LOGNORM:
        raise ValueError(
            f"{name} has fractional values up to {high:.4g}: it looks normalised but not logged. "
            "Run scanpy.pp.log1p first, or give raw counts. Log2 profiles of arrays reach that far: train on their differences "
            "from controls (scjepa.data.signatures_to_conditions, input_scale='signature')."
        )
    return scale if scale != "auto" else ("counts" if whole else "lognorm")


def lognormalise(x: Matrix, target_sum: float, library: FloatArray | None = None) -> Matrix:
    """Turn counts into ``log1p(counts / library * target_sum)``, float32, sparse in, sparse out.

    Parameters
    ----------
    x
        Counts, cells x genes.
    target_sum
        Total that every cell is scaled to.
    library
        Total counts of each cell, ``(n,)``; by default the row sums of ``x``. Rows of zeros stay zero.

    Returns
    -------
    New matrix; the column indices of a sparse one are shared with ``x``, not copied.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa._scale import lognormalise
    >>> np.expm1(lognormalise(np.array([[1.0, 3.0]]), 8.0)).round(4).tolist()
    [[2.0, 6.0]]
    """
    totals = np.asarray(x.sum(1), dtype=np.float64).ravel() if library is None else np.asarray(library, np.float64)
    factor = np.divide(target_sum, totals, out=np.zeros_like(totals), where=totals > 0)
    if sp.issparse(x):
        x = sp.csr_matrix(x)
        data = x.data.astype(np.float32) * np.repeat(factor.astype(np.float32), np.diff(x.indptr))
        return sp.csr_matrix((np.log1p(data, out=data), x.indices, x.indptr), shape=x.shape)
    dense = np.asarray(x, dtype=np.float32) * factor[:, None].astype(np.float32)
    return np.log1p(dense, out=dense)


def count_unit(x: Matrix, *, tolerance: float = 1e-3, share: float = 0.95) -> FloatArray | None:
    """Recover what one count is worth in each cell of a log-normalised matrix.

    Values are ``log1p(k * unit)`` with whole numbers ``k``, so ``unit`` is the smallest stored ``expm1(value)`` of a
    cell, provided that all others are multiples of it.

    Parameters
    ----------
    x
        Log-normalised values, cells x genes.
    tolerance
        Largest distance of ``k`` from a whole number, plus 1e-4 of ``k`` for rounding in float32.
    share
        Share of cells (with any value) that must fit.

    Returns
    -------
    ``(n,)`` float32 with 0 for cells without values, or None when the values are no multiples of a unit (averaged
    profiles, corrected or imputed data).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa._scale import count_unit, lognormalise
    >>> count_unit(lognormalise(np.array([[1.0, 3.0, 0.0], [2.0, 1.0, 5.0]]), 8.0)).round(3).tolist()
    [2.0, 1.0]
    """
    x = sp.csr_matrix(x)
    unit, filled, bad = np.zeros(x.shape[0], np.float32), np.zeros(x.shape[0], bool), np.zeros(x.shape[0], bool)
    for start in range(0, x.shape[0], 8192):  # the double-precision copies below are of a block only
        block = x[start : start + 8192]
        block.eliminate_zeros()
        size = np.diff(block.indptr)
        rows = np.flatnonzero(size)
        if not len(rows):
            continue
        begin, size = block.indptr[rows], size[rows]
        values = np.expm1(block.data.astype(np.float64))
        smallest = np.minimum.reduceat(values, begin)
        multiple = values / np.repeat(smallest, size)
        off = np.abs(multiple - np.rint(multiple)) > tolerance + 1e-4 * multiple
        unit[start + rows], filled[start + rows] = smallest, True
        bad[start + rows] = np.add.reduceat(off.astype(np.int64), begin) > 0.01 * size
    return unit if filled.any() and bad[filled].mean() <= 1 - share else None
