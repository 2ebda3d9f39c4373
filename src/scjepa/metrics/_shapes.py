"""Shape checks shared by the metrics."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray

Scores: TypeAlias = Any
"""A float for vectors, an array ``(conditions,)`` for matrices. Array-likes do not tell a type checker which."""


def profiles(**given: npt.ArrayLike) -> list[FloatArray]:
    """Return float64 vectors of one length or matrices of one shape, or raise a :class:`ValueError` with all shapes."""
    arrays: list[FloatArray] = [np.asarray(values, dtype=np.float64) for values in given.values()]
    first = arrays[0]
    if first.ndim not in (1, 2) or not first.size or any(a.shape != first.shape for a in arrays):
        found = " and ".join(f"{name} has shape {a.shape}" for name, a in zip(given, arrays, strict=True))
        raise ValueError(
            f"{found}: expected vectors of one length, one value per gene in the same order, or matrices of one shape, "
            "conditions x genes."
        )
    return arrays


def scores(values: FloatArray) -> Scores:
    """Return a float for one value, the array otherwise."""
    return float(values) if np.ndim(values) == 0 else values


def divide(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return ``a / b``, NaN (without a warning) where ``b`` is not above 0."""
    b = np.asarray(b)
    return np.divide(a, b, out=np.full(np.broadcast_shapes(np.shape(a), b.shape), np.nan), where=b > 0)


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


def condition_pair(a: npt.ArrayLike, b: npt.ArrayLike, names: tuple[str, str]) -> tuple[FloatArray, FloatArray]:
    """Return two float64 matrices, conditions x genes, of one shape, or raise a :class:`ValueError`."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or not x.size:
        raise ValueError(
            f"{names[0]} has shape {x.shape} and {names[1]} has shape {y.shape}: expected two matrices of one shape, "
            "conditions x genes, the same conditions in the same order."
        )
    return x, y
