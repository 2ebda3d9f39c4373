"""Training conditions of the kernel anchor as kernel inputs, and what mixtures of candidates say from all or some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.baselines._base import condition_keys
from scjepa.baselines._design import ActionDesign, summed_features
from scjepa.baselines._grid import SINGLE
from scjepa.baselines._kernels import apply_link, control_axes, invert_link
from scjepa.baselines._landmarks import LandmarkRidge
from scjepa.baselines._large import is_large
from scjepa.baselines._noise import NoiseModel
from scjepa.baselines._selection import CONTEXT, Entry, Rows, joint_kernels
from scjepa.baselines._support import unexplained
from scjepa.data import ConditionTable

MAX_CACHED = 600
"""Factors of larger tables (large ones apart) are computed again for each prediction: tens of them would fill the memory."""
MAX_WEIGHTS = 40_000_000
"""Weights that are held at a time; more questions than that to a large table are answered in portions."""
Weights = Callable[[str, float], FloatArray]
"""Returns ``(m, n)`` weights of training rows for the questions, given a kernel and a strength."""


class Training:
    """What all predictions from a training table share.

    Parameters
    ----------
    table
        Training conditions.
    features
        Gene x features, or None.
    n_components, use_context
        As in :class:`scjepa.baselines.KernelEffect`.

    Attributes
    ----------
    rows
        The conditions as kernel inputs; the design of large tables is a sparse matrix.
    gram
        ``(n, n)`` inner products of effects; None in large tables, which do without anything of that size.
    """

    def __init__(
        self, table: ConditionTable, features: pd.DataFrame | None, n_components: int, use_context: bool
    ) -> None:
        self._features, self._options = features, (n_components, use_context)
        self.large = is_large(len(table))
        self.design = ActionDesign.of(table)
        self.control = np.asarray(table.control, dtype=float)
        self.perturbed = np.asarray(table.perturbed, dtype=float)
        self._axes = control_axes(self.control)
        self.rows = self.rows_of(table)
        self.gram: FloatArray | None = None
        if not self.large:
            self.gram = self.gram_of(np.arange(len(table)))
        self._targets: dict[float | None, FloatArray] = {}
        self._factors: dict[str, dict[tuple, FloatArray]] = {}
        self._ridges: list[tuple[np.ndarray, NoiseModel, LandmarkRidge]] = []
        self._fold: list[tuple[np.ndarray, NoiseModel, LandmarkRidge]] = []

    def rows_of(self, table: ConditionTable) -> Rows:
        """Write a table as kernel inputs."""
        features = None
        if self._features is not None:
            values = self._features.to_numpy(dtype=float)
            features = summed_features(table, [str(g) for g in self._features.index], values)
        center, axes = self._axes
        place = (np.asarray(table.control, dtype=float) - center) @ axes
        design = self.design.rows(table)
        return Rows(
            sp.csr_array(design) if self.large else design, table.order, table.contexts.astype(str), place, features
        )

    def dense_rows(self, index: np.ndarray) -> Rows:
        """Return some training rows, their design as an array."""
        return self.rows.take(index).dense()

    def gram_of(self, index: np.ndarray) -> FloatArray:
        """Return inner products of the effects of some training rows."""
        if self.gram is not None:
            return self.gram[np.ix_(index, index)]
        delta = self.effects(index)
        return delta @ delta.T

    def effects(self, index: np.ndarray | slice = slice(None)) -> FloatArray:
        """Return effects of training rows."""
        return self.perturbed[index] - self.control[index]

    def predict(
        self,
        query: Rows,
        control: FloatArray,
        mixture: list[Entry],
        noise: NoiseModel,
        cls: str,
        train: np.ndarray | None = None,
    ) -> FloatArray:
        """Return effects of ``query`` under a mixture, ``(m, genes)``, from all training rows or from ``train``.

        Parameters
        ----------
        query, control
            Questions, and their control profiles.
        mixture
            Candidates ``[link, kernel, lambda, weight, by gene]``.
        noise
            Of all training rows.
        cls
            Class of the questions; those of one class have the same noise.
        train
            Training rows, by default all.
        """
        index = np.arange(len(self.perturbed)) if train is None else train
        steps = noise.steps(np.square(self.effects(index)).mean(0), index)
        if not self.large:
            names, weights = self._exact(query, noise, cls, index, cached=train is None and len(index) <= MAX_CACHED)
            return self._mixed(control, mixture, steps, names, weights, train)
        ridge = self._ridge(noise, train)
        keys = {  # strengths that are one but for rounding share a decomposition
            rounded(name, value): (name, value)
            for _, kernel, strength, _, by_gene in mixture
            for step in (np.unique(steps) if by_gene else [0])
            for name, value in [(available(kernel, ridge.names), strength * 10 ** (step / 4))]
        }
        out = np.empty((len(control), control.shape[1]))
        for part in portions(len(control), len(index) * len(keys)):
            asked = query.take(part)
            found = {key: ridge.weights(asked, *keys[key]).astype(SINGLE) for key in sorted(keys)}
            weights = lambda *key, found=found: found[rounded(*key)]
            out[part] = self._mixed(control[part], mixture, steps, ridge.names, weights, train)
        return out

    def distance(
        self,
        query: Rows,
        mixture: list[Entry],
        noise: NoiseModel,
        extra: FloatArray | float = 0.0,
        train: np.ndarray | None = None,
    ) -> FloatArray:
        """Return the share of predictive variance that training leaves, ``(m,)``; see :func:`unexplained`.

        Parameters
        ----------
        query, mixture, noise, train
            As in :meth:`predict`.
        extra
            ``(m,)`` (or one number) squared length of what the design leaves out.
        """
        index = np.arange(len(self.perturbed)) if train is None else train
        if not self.large:
            return unexplained(
                self.rows.take(index),
                query,
                self.gram_of(index),
                mixture,
                *self._options,
                extra,
                noise.rows[index],
                noise.among(index),
            )
        ridge = self._ridge(noise, train)
        left = np.broadcast_to(np.asarray(extra, dtype=float), len(query.order))
        out = np.zeros(len(left))
        for part in portions(len(out), len(index)):
            for (kernel, strength), weight in shares(mixture, ridge.names).items():
                out[part] += weight * ridge.unexplained(query.take(part), kernel, strength, left[part])
        return np.clip(out, 0.0, 1.0)

    def _mixed(
        self,
        control: FloatArray,
        mixture: list[Entry],
        steps: np.ndarray,
        names: object,
        weights: Weights,
        train: np.ndarray | None,
    ) -> FloatArray:
        """Return the average over candidates of the effects that weighted sums of the targets make."""
        out = np.zeros((len(control), control.shape[1]))
        by_link: dict[float | None, FloatArray] = {}
        for eps, kernel, strength, weight, by_gene in mixture:
            kernel = available(kernel, names)
            if eps not in by_link:
                by_link[eps] = apply_link(control, eps)
            target = self._target(eps) if train is None else self._target(eps)[train]
            shift = np.empty_like(out)
            for step in np.unique(steps) if by_gene else [0]:
                genes = steps == step if by_gene else slice(None)
                shift[:, genes] = weights(kernel, strength * 10 ** (step / 4)) @ target[:, genes]
            out += weight * (invert_link(by_link[eps] + shift, eps) - control)
        return out

    def _target(self, eps: float | None) -> FloatArray:
        """Return effects of the training rows under a link."""
        if eps not in self._targets:
            found = apply_link(self.perturbed, eps) - apply_link(self.control, eps)
            self._targets[eps] = found.astype(SINGLE) if self.large else found
        return self._targets[eps]

    def _exact(
        self, query: Rows, noise: NoiseModel, cls: str, index: np.ndarray, *, cached: bool
    ) -> tuple[object, Weights]:
        """Return the names of kernels between training rows ``index`` and questions, and what gives their weights."""
        rows, gram, covariance = self.rows.take(index), self.gram_of(index), noise.among(index)
        kernels = dict(joint_kernels(rows, query, gram, *self._options, noise.rows[index]))
        covariance = np.eye(len(index)) if covariance is None else covariance
        factors = self._factors.setdefault(cls, {}) if cached else {}
        solved: dict[tuple[str, float], FloatArray] = {}

        def weights(kernel: str, strength: float) -> FloatArray:
            key = rounded(kernel, strength)
            if key not in solved:
                among, across = kernels[kernel]
                if key not in factors:
                    factors[key] = scipy.linalg.cho_factor(among + strength * covariance)
                solved[key] = scipy.linalg.cho_solve(factors[key], across.T).T
            return solved[key]

        return kernels, weights

    def _ridge(self, noise: NoiseModel, train: np.ndarray | None) -> LandmarkRidge:
        """Return the landmark form of a large table; the one of all rows is kept."""
        index = np.arange(len(self.perturbed)) if train is None else train
        ridges = self._ridges if train is None else self._fold
        for asked, known, ridge in ridges:  # classes often have the same noise, and are asked one after the other
            if np.array_equal(asked, index) and known.alike(noise):
                return ridge
        if train is not None:
            ridges.clear()
        rows, effects = self.rows.take(index), self.effects(index)
        ridges.append((index, noise, LandmarkRidge(rows, effects, noise.take(index), *self._options)))
        return ridges[-1][2]


def measured_in(table: ConditionTable, query: ConditionTable) -> np.ndarray:
    """Return a boolean ``(m,)``: questions that are rows of a table, in the same context."""
    known, asked = (list(zip(condition_keys(t), t.contexts.astype(str), strict=True)) for t in (table, query))
    rows = set(known)
    return np.array([key in rows for key in asked], dtype=bool)


def rounded(kernel: str, strength: float) -> tuple[str, float]:
    """Return a candidate as a key: strengths lie quarter decades apart."""
    return kernel, round(2 * np.log10(strength), 2)


def available(kernel: str, names: object) -> str:
    """Return a kernel, or what it is where one context is left, which says nothing about others."""
    return kernel if kernel in names else kernel.removesuffix(CONTEXT)  # type: ignore[operator]


def shares(mixture: list[Entry], names: object) -> dict[tuple[str, float], float]:
    """Return the weight of each kernel and strength; links share them."""
    out: dict[tuple[str, float], float] = {}
    for _, kernel, strength, weight, _ in mixture:
        key = available(kernel, names), strength
        out[key] = out.get(key, 0.0) + weight
    return out


def portions(m: int, width: int) -> Iterator[np.ndarray]:
    """Yield ``m`` questions in portions of at most ``MAX_WEIGHTS`` weights, ``width`` a question."""
    size = max(1, MAX_WEIGHTS // max(width, 1))
    for first in range(0, m, size):
        yield np.arange(first, min(first + size, m))
