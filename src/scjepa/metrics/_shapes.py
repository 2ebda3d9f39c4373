"""Shape checks shared by the metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray


def vector_pair(a: npt.ArrayLike, b: npt.ArrayLike, names: tuple[str, str]) -> tuple[FloatArray, FloatArray]:
    """Return two float64 vectors of one length, or raise a :class:`ValueError` that names both shapes."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(
            f"{names[0]} has shape {x.shape} and {names[1]} has shape {y.shape}: expected two vectors of one length, "
            "one value per gene in the same order."
        )
    return x, y


def matrix(a: npt.ArrayLike, name: str) -> FloatArray:
    """Return a float64 matrix with at least one row and one column, or raise a :class:`ValueError`."""
    x = np.asarray(a, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name} has shape {x.shape}: expected a matrix, cells x features, with at least one cell.")
    return x


def matrix_pair(a: npt.ArrayLike, b: npt.ArrayLike, names: tuple[str, str]) -> tuple[FloatArray, FloatArray]:
    """Return two float64 matrices with the same number of columns, or raise a :class:`ValueError`."""
    x, y = matrix(a, names[0]), matrix(b, names[1])
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} has {x.shape[1]} features and {names[1]} has {y.shape[1]}: expected the same features, "
            "in the same order."
        )
    return x, y
