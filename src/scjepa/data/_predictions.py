"""Predicted cells: control cells moved by a shift, kept on the log-normalised scale."""

from __future__ import annotations

import numpy as np

from scjepa._types import FloatArray


def shift_cells(cells: FloatArray, shift: FloatArray) -> FloatArray:
    """Move cells by a shift, keep values at or above zero, and keep the mean that the shift asks for.

    Clipping at zero alone would weaken every down-regulation of a sparse gene, because most cells hold a zero there.
    So after clipping each gene is rescaled to the mean of the unclipped values (zero if that mean is negative).

    Parameters
    ----------
    cells
        ``(n, genes)`` log-normalised control cells.
    shift
        ``(genes,)`` or ``(n, genes)``.

    Returns
    -------
    ``(n, genes)`` float32, non-negative.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import shift_cells
    >>> shift_cells(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([-0.5, 1.0])).tolist()
    [[0.0, 2.0], [1.0, 2.0]]
    """
    moved = np.asarray(cells, dtype=np.float32) + np.asarray(shift, dtype=np.float32)
    wanted = np.maximum(moved.mean(0, dtype=np.float64), 0)
    np.maximum(moved, 0, out=moved)
    got = moved.mean(0, dtype=np.float64)
    moved *= np.divide(wanted, got, out=np.ones_like(got), where=got > wanted).astype(np.float32)
    return moved
