"""What all predictions of cells at a time share: snapshots that are kept by time, and clouds of cells that moved."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from scjepa._types import FloatArray


class Cloud(NamedTuple):
    """Cells predicted at a time, as training cells that moved: a weighted cloud."""

    cells: np.ndarray
    """``(k,)`` which training cell each point was."""
    shift: FloatArray
    """``(k, d)`` how far it moved."""
    mass: FloatArray
    """``(k,)`` of sum one."""


class Snapshots:
    """Cells kept by time.

    Attributes
    ----------
    z_
        ``(n, d)`` cells.
    times_
        Distinct times, ascending.
    """

    @property
    def cell_times(self) -> FloatArray:
        """``(n,)`` time of each cell."""
        return self._time_of

    def members(self, k: int) -> np.ndarray:
        """Return the indices of the cells of the time ``times_[k]``."""
        return self._members[k]

    def _hold(self, z: FloatArray, times: FloatArray) -> None:
        """Keep cells; raise a :class:`ValueError` for shapes that don't fit, and missing values."""
        z, t = np.asarray(z, dtype=np.float64), np.asarray(times, dtype=np.float64)
        if z.ndim != 2 or t.shape != (len(z),) or not len(z):
            raise ValueError(f"z has shape {z.shape} and times {t.shape}: expected (cells, coordinates) and (cells,).")
        if not np.isfinite(z).all() or not np.isfinite(t).all():
            raise ValueError("z or times have missing or infinite values: expected numbers.")
        self.z_, self._time_of, self.times_ = z, t, np.unique(t)
        self._members = [np.flatnonzero(t == level) for level in self.times_]


def copied(cells: np.ndarray, d: int, shift: Any = 0.0, mass: FloatArray | None = None) -> Cloud:
    """Return a cloud of cells, moved by a shift (one for all, or one each); of equal weights unless they are given."""
    moved = np.zeros((len(cells), d)) + shift
    return Cloud(cells, moved, np.full(len(cells), 1 / len(cells)) if mass is None else mass)


def systematic(mass: FloatArray, n: int, *, start: float = 0.5) -> np.ndarray:
    """Return ``n`` points drawn by mass at even steps, ``(n,)``: a sample of low variance, the same for the same ``start``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import systematic
    >>> systematic(np.array([0.5, 0.25, 0.25]), 4).tolist()
    [0, 0, 1, 2]
    """
    total = np.cumsum(mass)
    return np.searchsorted(total / total[-1], (np.arange(n) + start) / n).clip(max=len(total) - 1)
