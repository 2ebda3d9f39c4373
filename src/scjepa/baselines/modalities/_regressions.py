"""Regressions of one modality on another, on principal components: ridge, nearest neighbours, kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray, Matrix
from scjepa.baselines.modalities._base import Axes, Modality, _dense, stacked
from scjepa.baselines.modalities._kernels import (
    LANDMARKS,
    KernelFit,
    gaussian,
    gradient_product,
    kernel_ridge,
    matern,
    median_distance,
)

PCS = 50
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Candidates of the Gaussian kernel's width, in median distances."""
WIDE = 100
"""Targets of more features are read through principal components where features are chosen and re-scaled."""
TARGET_PCS = 30
BLOCK = 2000


class RidgeModality(Modality):
    """Ridge regression on 50 principal components, its penalty by leaving cells out.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.modalities import RidgeModality
    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> bool(abs(RidgeModality().fit(x, x[:, :2]).predict(x) - x[:, :2]).max() < 0.1)
    True
    """

    name = "ridge"

    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None:
        self.axes_ = Axes(stacked(x, extra), PCS)
        found = RidgeCV(np.logspace(-1, 4, 12)).fit(self.axes_.project(x), y)
        self.weights_, self.intercept_ = np.atleast_2d(found.coef_), np.atleast_1d(found.intercept_)

    def _predict(self, x: Matrix) -> FloatArray:
        return np.asarray(self.axes_.project(x) @ self.weights_.T + self.intercept_)


class NearestModality(Modality):
    """Mean of the 15 nearest cells in 50 principal components.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.modalities import NearestModality
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> NearestModality().fit(x, x).predict(x[:2]).shape
    (2, 4)
    """

    name = "nearest cells"

    def __init__(self, n_neighbors: int = 15) -> None:
        self.n_neighbors = require_positive_int(n_neighbors, "n_neighbors")

    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None:
        self.axes_ = Axes(stacked(x, extra), PCS)
        self.cells_, self.target_ = self.axes_.project(x), y

    def _predict(self, x: Matrix) -> FloatArray:
        found = KNeighborsRegressor(min(self.n_neighbors, len(self.cells_))).fit(self.cells_, self.target_)
        return np.asarray(found.predict(self.axes_.project(x)))


class KernelModality(Modality):
    """Gaussian kernel ridge regression on 50 principal components; width and penalties by leaving cells out.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.modalities import KernelModality
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = np.sin(2 * x[:, :1])
    >>> bool(np.corrcoef(KernelModality().fit(x[:150], y[:150]).predict(x[150:]).T, y[150:].T)[0, 1] > 0.8)
    True
    """

    name = "kernel ridge"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None:
        rng = np.random.default_rng(self.seed)
        self.axes_ = Axes(stacked(x, extra), PCS)
        z = self.axes_.project(x)
        centers = z if len(z) <= LANDMARKS else z[rng.permutation(len(z))[:LANDMARKS]]
        unit = median_distance(z, rng)
        fits: list[KernelFit] = []
        for width in WIDTHS:
            scale = unit / width
            inner = gaussian(centers, centers, scale)
            fits.append(kernel_ridge(gaussian(z, centers, scale), centers, inner, y, scale))
        errors = [fit.error for fit in fits]
        self.fit_: tuple[Any, ...] = tuple(fits[int(np.argmin(errors))])

    def _predict(self, x: Matrix) -> FloatArray:
        fit = KernelFit(*self.fit_)
        z = self.axes_.project(x)
        blocks = [gaussian(z[i : i + BLOCK], fit.centers, fit.scale) @ fit.weights for i in range(0, len(z), BLOCK)]
        return np.asarray(fit.mean + np.concatenate(blocks))


class KernelAnchor(Modality):
    """Matern kernel ridge regression on components and the features that tell most, which learns how to scale them.

    1. Coordinates: 30 principal components and, twice as heavy, the source features that correlate best with each target feature
       (with each of its 30 components, where there are more than 100); cells are averaged with their 15 neighbours, if asked.
    2. Kernel ridge regression, a penalty for each feature by leaving cells out.
    3. One step of a recursive feature machine: coordinates are re-scaled by the fourth root of the average gradient outer product,
       and the regression is fitted again.

    Parameters
    ----------
    n_best
        Source features for each target feature.
    smooth
        Weight of the neighbours' mean in a cell's coordinates.
    seed
        Of landmarks.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.modalities import KernelAnchor
    >>> x = np.random.default_rng(0).normal(size=(300, 30))
    >>> y = x[:, :1] ** 2 + x[:, :1]
    >>> anchor = KernelAnchor(n_best=1, smooth=0.0).fit(x[:250], y[:250])
    >>> bool(np.corrcoef(anchor.predict(x[250:]).T, y[250:].T)[0, 1] > 0.8)
    True
    """

    name = "kernel anchor"

    def __init__(self, *, n_best: int = 10, smooth: float = 0.6, seed: int = 0) -> None:
        self.n_best, self.smooth, self.seed = require_positive_int(n_best, "n_best"), float(smooth), seed
        if not 0 <= self.smooth < 1:
            raise ValueError(f"smooth={smooth!r}: expected a weight from 0 to below 1.")

    HEAVY, N_PCS, NEIGHBORS = 2.0, 30, 15

    def _fit(self, x: Matrix, y: FloatArray, extra: Matrix | None) -> None:
        rng = np.random.default_rng(self.seed)
        everything = stacked(x, extra)
        self.axes_ = Axes(everything, self.N_PCS)
        told: FloatArray = y - self.mean_
        if y.shape[1] > WIDE:
            told = Axes(y, TARGET_PCS).project(y)
        self.best_ = _most_correlated(x, told, self.n_best)
        self.center_ = np.asarray(x[:, self.best_].mean(0), dtype=np.float64).ravel()
        pool = self._coordinates(everything)
        self.pool_ = pool if self.smooth else None
        z = self._smoothed(pool[: x.shape[0]], own=True)
        centers = z if len(z) <= LANDMARKS else z[rng.permutation(len(z))[:LANDMARKS]]
        first = self._ridge(z, centers, told, rng)  # what re-scales is asked of components of a wide target
        value, vector = np.linalg.eigh(gradient_product(z, first))
        self.scaling_ = vector * (np.maximum(value, 0) / max(float(value.max()), 1e-300) + 1e-3) ** 0.25
        self.fit_: tuple[Any, ...] = tuple(self._ridge(z @ self.scaling_, centers @ self.scaling_, y, rng))

    @staticmethod
    def _ridge(z: FloatArray, centers: FloatArray, y: FloatArray, rng: np.random.Generator) -> KernelFit:
        scale = median_distance(z, rng)
        return kernel_ridge(matern(z, centers, scale), centers, matern(centers, centers, scale), y, scale)

    def _predict(self, x: Matrix) -> FloatArray:
        fit = KernelFit(*self.fit_)
        z = self._smoothed(self._coordinates(x)) @ self.scaling_
        blocks = [matern(z[i : i + BLOCK], fit.centers, fit.scale) @ fit.weights for i in range(0, len(z), BLOCK)]
        return np.asarray(fit.mean + np.concatenate(blocks))

    def _coordinates(self, x: Matrix) -> FloatArray:
        return np.hstack([self.axes_.project(x), self.HEAVY * (_dense(x[:, self.best_]) - self.center_)])

    def _smoothed(self, z: FloatArray, *, own: bool = False) -> FloatArray:
        """Return cells averaged with their neighbours among the training cells, by components; ``own``: without themselves."""
        if self.pool_ is None:
            return z
        d = self.axes_.loadings.shape[0]
        k = max(1, min(self.NEIGHBORS, len(self.pool_) - 2))
        search: Any = NearestNeighbors(n_neighbors=k + own).fit(self.pool_[:, :d])
        near = search.kneighbors(z[:, :d], return_distance=False)[:, int(own) :]
        return (1 - self.smooth) * z + self.smooth * self.pool_[near].mean(1)


def _most_correlated(x: Matrix, y: FloatArray, n: int) -> np.ndarray:
    """Return the columns of ``x`` that correlate best with each column of ``y``, the ``n`` best of each, ascending."""
    mean = np.asarray(x.mean(0), dtype=np.float64).ravel()
    square = np.asarray(x.multiply(x).mean(0) if hasattr(x, "multiply") else (np.asarray(x) ** 2).mean(0)).ravel()
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    centred = (y - y.mean(0)) / (y.std(0) + 1e-9)
    moment = np.asarray(x.T @ centred) - np.outer(mean, centred.sum(0))
    strength = np.abs(moment) / (std[:, None] + 1e-6)
    return np.unique(np.argsort(-strength, axis=0, kind="stable")[:n])
