"""Predicted cells: control cells moved by a shift, kept on the log-normalised scale."""

from __future__ import annotations

import numpy as np

from scjepa._types import FloatArray


def shift_cells(cells: FloatArray, shift: FloatArray) -> FloatArray:
    """Move cells by a shift, keep values at or above zero, and keep the mean that the shift asks for.

    Clipping at zero alone would weaken every down-regulation of a sparse gene, because most cells hold a zero there.
    So each gene's moved values are replaced by the nearest non-negative values with the same mean (zero if that mean is
    negative): ``max(value - t, 0)`` with the one ``t`` that gives the mean, the Euclidean projection onto a simplex.

    Parameters
    ----------
    cells
        ``(n, genes)`` log-normalised control cells.
    shift
        ``(genes,)`` or ``(n, genes)``.

    Returns
    -------
    ``(n, genes)`` float32, non-negative.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra (2008). Efficient projections onto the l1-ball. *ICML*.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import shift_cells
    >>> shift_cells(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([-0.5, 1.0])).tolist()
    [[0.0, 2.0], [1.0, 2.0]]
    """
    moved = np.asarray(cells, dtype=np.float32) + np.asarray(shift, dtype=np.float32)
    below = np.flatnonzero((moved < 0).any(0))
    if not len(below):
        return moved
    part = moved[:, below].astype(np.float64)
    n = len(part)
    total = np.maximum(part.sum(0), 0)
    ordered = -np.sort(-part, axis=0)
    excess = (np.cumsum(ordered, axis=0) - total) / np.arange(1, n + 1)[:, None]
    kept = np.maximum((ordered > excess).sum(0), 1)  # values that stay above zero
    threshold = excess[kept - 1, np.arange(len(below))]
    moved[:, below] = np.where(total > 0, np.maximum(part - threshold, 0), 0)
    return moved
