"""Tanimoto similarity of fingerprints: bits and counts, whole matrices or the nearest of a large library."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray, IntArray

Prints: TypeAlias = "npt.ArrayLike | pd.DataFrame | sp.sparray | sp.spmatrix"

BLOCK = 2048
"""Rows of the library compared at a time: what is held besides the result is about this many rows of single precision."""


class Nearest(NamedTuple):
    """Result of :func:`nearest`, one entry per query."""

    similarity: FloatArray
    """Tanimoto similarity of the nearest molecule of the library."""
    row: IntArray
    """Where it is in the library; the first of several that are equally near."""


def tanimoto(a: Prints, b: Prints | None = None, *, block_size: int = BLOCK) -> FloatArray:
    r"""Tanimoto similarity of all pairs of fingerprints.

    .. math:: T(x, y) = \frac{\sum_k \min(x_k, y_k)}{\sum_k \max(x_k, y_k)}

    For bits this is the number of shared bits over that of bits set in either. Sums of minima are matrix products of
    indicators, one for each count that occurs, hence exact.

    Parameters
    ----------
    a, b
        ``(n, bits)`` and ``(m, bits)`` fingerprints (bits or counts; arrays, sparse matrices or DataFrames). None for
        ``b`` compares ``a`` with itself.
    block_size
        Rows of ``b`` compared at a time, which bounds what is held besides the result.

    Returns
    -------
    ``(n, m)`` similarities between 0 and 1; 0 for two empty fingerprints, as in RDKit.

    Raises
    ------
    ValueError
        If the two differ in bits, or a value is negative or no whole number.

    References
    ----------
    Tanimoto, IBM report 1957; ``rdkit.DataStructs.TanimotoSimilarity``, whose values it equals.

    Examples
    --------
    >>> from scjepa.pharma import tanimoto
    >>> tanimoto([[1, 1, 0]], [[1, 0, 0], [0, 0, 1]])
    array([[0.5, 0. ]])
    >>> tanimoto([[3, 1]], [[1, 1]])  # counts
    array([[0.5]])
    """
    x = _prints(a, "a")
    y = x if b is None else _prints(b, "b")
    _same_bits(x, y, ("a", "b"))
    step = require_positive_int(block_size, "block_size")
    out = np.empty((x.shape[0], y.shape[0]))
    query = _dense(x)
    for start in range(0, y.shape[0], step):
        out[:, start : start + step] = _block(query, _dense(y[start : start + step]))
    return out


def nearest(a: Prints, library: Prints, *, block_size: int = BLOCK) -> Nearest:
    """Find the molecule of a library that is most similar to each query, without holding all similarities.

    Parameters
    ----------
    a
        ``(n, bits)`` fingerprints of the queries.
    library
        ``(m, bits)`` fingerprints, for example of the drugs that a model was trained on.
    block_size
        Rows of the library compared at a time.

    Returns
    -------
    Similarity and row of the nearest, one each per query. Below about .3 structure says little about response.

    Raises
    ------
    ValueError
        If the two differ in bits, one is empty, or a value is negative or no whole number.

    Examples
    --------
    >>> from scjepa.pharma import nearest
    >>> nearest([[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]])
    Nearest(similarity=array([0.5, 0.5]), row=array([0, 1]))
    """
    x, y = _prints(a, "a"), _prints(library, "library")
    _same_bits(x, y, ("a", "library"))
    step = require_positive_int(block_size, "block_size")
    query = _dense(x)
    best, at = np.full(x.shape[0], -1.0), np.zeros(x.shape[0], dtype=np.int64)
    for start in range(0, y.shape[0], step):
        found = _block(query, _dense(y[start : start + step]))
        here = found.argmax(1)
        value = found[np.arange(len(found)), here]
        closer = value > best  # not on ties: the first stays
        best[closer], at[closer] = value[closer], here[closer] + start
    return Nearest(best, at)


def _prints(a: Prints, name: str) -> np.ndarray | sp.csr_array:
    """Return fingerprints as an array or CSR matrix of non-negative whole numbers, or raise."""
    x = sp.csr_array(a) if sp.issparse(a) else np.asarray(a)
    if x.ndim != 2 or not x.shape[0] or not x.shape[1]:
        raise ValueError(f"{name} has shape {x.shape}: expected fingerprints, molecules x bits, with at least one row.")
    values: np.ndarray = np.asarray(x.data) if sp.issparse(x) else x
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} has values of type {values.dtype}: expected numbers, bits or counts.")
    if values.dtype.kind in "if" and values.size:
        wrong = ~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))
        if wrong.any():
            raise ValueError(
                f"{name} has {int(wrong.sum())} values that are negative or no whole numbers, for example "
                f"{values[wrong][0]:g}: expected bits or counts. Compare other features by cosine or distance."
            )
    return x


def _same_bits(x: np.ndarray | sp.csr_array, y: np.ndarray | sp.csr_array, names: tuple[str, str]) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} has {x.shape[1]} bits and {names[1]} has {y.shape[1]}: expected fingerprints of one kind and size."
        )


def _dense(x: np.ndarray | sp.csr_array) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.toarray()


def _block(x: np.ndarray, y: np.ndarray) -> FloatArray:
    """Similarities of all rows of two dense arrays."""
    shared = np.zeros((len(x), len(y)))
    x_left, y_left, level = x, y, 0
    while True:
        # min(x, y) is the number of levels that both reach; few columns reach high ones
        kept = (x_left > level).any(0) & (y_left > level).any(0)
        if not kept.any():
            break
        x_left, y_left = x_left[:, kept], y_left[:, kept]
        above_x, above_y = x_left > level, y_left > level
        following = min(x_left[above_x].min(), y_left[above_y].min())  # no value between: these levels are one product
        weight = float(following) - level
        shared += weight * (above_x.astype(np.float32) @ above_y.astype(np.float32).T)
        level = following
    total = x.sum(1, dtype=np.float64)[:, None] + y.sum(1, dtype=np.float64)[None, :] - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
