"""What all predictions of one modality from another share: cells in, features of the target out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray, Matrix
from scjepa.data import fit_components

NARROW = 200
"""Up to so many features sparse cells are made dense."""


class Modality(ABC):
    """Predicts the features of a modality from those of another, of paired cells.

    Subclasses say how in :meth:`_fit` and :meth:`_predict`, which get matrices that were checked.
    """

    name: ClassVar[str] = ""

    def fit(self, x: Matrix, y: FloatArray, *, extra: Matrix | None = None) -> Self:
        """Learn from paired cells.

        Parameters
        ----------
        x
            ``(n, p)`` features of the source, dense or sparse.
        y
            ``(n, q)`` features of the target.
        extra
            ``(k, p)`` further cells of the source without a target, which tell what the source varies by.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            For shapes that don't fit, values that are not finite, and fewer than three cells.
        """
        source, target = _matrix(x, "x"), np.asarray(y, dtype=np.float64)
        if target.ndim != 2 or len(target) != source.shape[0] or not target.shape[1]:
            raise ValueError(
                f"x has shape {source.shape} and y {target.shape}: expected (cells, features) of the same cells."
            )
        if not np.isfinite(target).all():
            raise ValueError(f"y has {int((~np.isfinite(target)).sum())} missing or infinite values: expected numbers.")
        if len(target) < 3:
            raise ValueError(f"{len(target)} paired cells: at least three are needed to learn anything.")
        more = None if extra is None else _matrix(extra, "extra")
        if more is not None and more.shape[1] != source.shape[1]:
            raise ValueError(f"extra has {more.shape[1]} features, x {source.shape[1]}: expected the same ones.")
        self.n_features_ = source.shape[1]
        self.mean_: FloatArray = target.mean(0)
        self._fit(source, target, more if more is not None and more.shape[0] else None)
        return self

    def predict(self, x: Matrix) -> FloatArray:
        """Return the target's features ``(m, q)`` of cells ``(m, p)``.

        Raises
        ------
        RuntimeError, ValueError
            Before :meth:`fit`, and for other features than those it was fitted to.
        """
        if not hasattr(self, "n_features_"):
            raise RuntimeError(f"{type(self).__name__} has learned nothing yet. Run fit(x, y) first.")
        source = _matrix(x, "x")
        if source.shape[1] != self.n_features_:
            raise ValueError(
                f"x has {source.shape[1]} features, {self.n_features_} were learned from: expected the same ones."
            )
        return self._predict(source)

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: value.state() if isinstance(value, Axes) else value for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        new = cls.__new__(cls)
        vars(new).update(state)
        if "axes_" in state:
            vars(new)["axes_"] = Axes.from_state(state["axes_"])
        return new

    @abstractmethod
    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None: ...

    @abstractmethod
    def _predict(self, x: Matrix) -> FloatArray: ...


class MeanModality(Modality):
    """Every cell is the mean cell.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.modalities import MeanModality
    >>> MeanModality().fit(np.eye(3), np.array([[1.0], [2.0], [6.0]])).predict(np.eye(3)[:1])
    array([[3.]])
    """

    name = "mean"

    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None:
        pass

    def _predict(self, x: Matrix) -> FloatArray:
        return np.tile(self.mean_, (x.shape[0], 1))


class Axes:
    """Principal axes of cells, fitted once.

    Parameters
    ----------
    x
        ``(n, p)`` cells, dense or sparse.
    k
        How many, at most; fewer cells and features have fewer.
    """

    def __init__(self, x: Matrix, k: int) -> None:
        x = (
            _dense(x) if x.shape[1] <= NARROW else x
        )  # all directions of a few features, which sparse solvers leave one short
        found = fit_components(x, max(1, min(k, x.shape[0] - 2, x.shape[1])))
        self.mean, self.loadings, self.std = (np.asarray(part, dtype=np.float64) for part in found)
        kept = self.std > 1e-9 * max(float(self.std.max()), 1e-300)
        if kept.any():
            self.loadings, self.std = self.loadings[kept], self.std[kept]

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        new = cls.__new__(cls)
        vars(new).update(state)
        return new

    def project(self, x: Matrix) -> FloatArray:
        """Return coordinates ``(m, k)``, not whitened."""
        return np.asarray(x @ self.loadings.T) - self.mean @ self.loadings.T


def stacked(x: Matrix, extra: Matrix | None) -> Matrix:
    """Return cells with further ones below."""
    if extra is None:
        return x
    return sp.vstack([x, extra], format="csr") if sp.issparse(x) else np.vstack([x, _dense(extra)])


def _dense(x: Any) -> FloatArray:
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)


def _matrix(x: Any, name: str) -> Matrix:
    """Return a finite matrix, sparse as CSR."""
    matrix: Any = sp.csr_matrix(x) if sp.issparse(x) else np.asarray(x)
    if matrix.ndim != 2:
        raise ValueError(f"{name} has shape {matrix.shape}: expected (cells, features).")
    values = matrix.data if sp.issparse(matrix) else matrix
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(values)).sum())} missing or infinite values: expected numbers."
        )
    return matrix
