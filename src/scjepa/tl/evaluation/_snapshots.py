"""Cells at held-out times as weighted clouds in components of training cells, and the scores that compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray, Matrix
from scjepa.baselines.times import systematic
from scjepa.data import fit_components
from scjepa.dynamics import wasserstein
from scjepa.metrics import energy_distance, mmd

PCA_CELLS = 5000
SPLITS = 5
"""Splits of held-out cells into halves."""
MIN_CELLS = 4
METRICS = ("w1", "w2", "mmd", "e_distance")


class Points(NamedTuple):
    """A weighted cloud of cells."""

    z: FloatArray
    """``(k, d)``."""
    mass: FloatArray
    """``(k,)`` of sum one."""

    def at_most(self, n: int, *, even: bool = False) -> Points:
        """Return a systematic sample of ``n`` points of equal weight; itself where it has no more and (if ``even``) equal weights."""
        if len(self.z) <= n and not (even and np.ptp(self.mass) > 1e-12):
            return self
        kept = systematic(self.mass, n)
        return Points(self.z[kept], np.full(n, 1 / n))


def equal(z: FloatArray) -> Points:
    """Return a cloud of equal weights."""
    return Points(z, np.full(len(z), 1 / len(z)))


class Axes(NamedTuple):
    """Principal components of training cells, all in one scale."""

    offset: FloatArray
    axes: FloatArray

    def __call__(self, x: Matrix) -> FloatArray:
        """Return coordinates of cells."""
        return np.asarray(x @ self.axes, dtype=np.float64) - self.offset


def training_axes(x: Matrix, n_pcs: int, seed: int) -> Axes:
    """Fit components on (at most 5,000) training cells and scale them by their mean standard deviation."""
    rng = np.random.default_rng(seed)
    n = x.shape[0]
    few = np.arange(n) if n <= PCA_CELLS else np.sort(rng.choice(n, PCA_CELLS, replace=False))
    mean, loadings, std = fit_components(x[few], n_pcs, seed=seed)
    loadings, std = loadings[std > 0], std[std > 0]
    if not len(std):
        raise ValueError("training cells are all equal: there are no components to score in.")
    axes = loadings.T.astype(np.float64) / float(std.mean())
    return Axes(mean.astype(np.float64) @ axes, axes)


def score_points(guess: Points, real: FloatArray, metrics: Sequence[str], max_cells: int) -> dict[str, float]:
    """Score one cloud against measured cells."""
    some, true = guess.at_most(max_cells), equal(real).at_most(max_cells).z
    even = guess.at_most(max_cells, even=True).z if {"mmd", "e_distance"} & set(metrics) else some.z
    scores = {
        "w1": lambda: wasserstein(some.z, true, source_mass=some.mass),
        "w2": lambda: wasserstein(some.z, true, source_mass=some.mass, order=2),
        "mmd": lambda: mmd(even, true),
        "e_distance": lambda: energy_distance(even, true),
    }
    return {m: float(scores[m]()) for m in metrics}


def half_against_half(real: FloatArray, metrics: Sequence[str], max_cells: int, seed: int) -> dict[str, float] | None:
    """Score one half of the measured cells as the prediction of the other, averaged over splits; None for too few cells."""
    n = len(real)
    if n < MIN_CELLS:
        return None
    rng = np.random.default_rng([seed, n])
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        found.append(score_points(equal(real[order[: n // 2]]), real[order[n // 2 :]], metrics, max_cells))
    return {m: float(np.mean([f[m] for f in found])) for m in metrics}


def copied(pred: FloatArray, real: FloatArray, train: FloatArray) -> float:
    """Return the share of predicted cells that are measured held-out cells and no training cells."""
    key = lambda z: {row.tobytes() for row in np.ascontiguousarray(np.round(z, 9) + 0.0)}
    held = key(real) - key(train)
    return float(np.mean([row.tobytes() in held for row in np.ascontiguousarray(np.round(pred, 9) + 0.0)]))


def joined(x: Matrix, rows: np.ndarray) -> Matrix:
    """Return rows of a matrix, sparse ones as CSR."""
    return sp.csr_matrix(x[rows]) if sp.issparse(x) else x[rows]
