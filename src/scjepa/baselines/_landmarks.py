"""Kernel ridge on large tables: own effects exactly, what conditions have in common through landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.baselines._kernels import ACTION_KERNELS, AMPLITUDE, FEATURE_KERNELS, length_scale, squared_distances
from scjepa.baselines._large import Blocks, Group, blocks_of, connected, grouped, large_components
from scjepa.baselines._noise import NoiseModel, large_amplitudes
from scjepa.baselines._selection import CONTEXT, Rows

LANDMARKS = 1_000
"""Training rows through which rows see each other, where they perturb nothing in common."""
FLAT = 1e-7
"""Directions of the landmarks' kernel below this share of the largest one are left out."""
CACHED = 3e8
"""Bytes of decompositions that are kept for further questions."""
CHUNK = 1_000_000
"""Values of own parts that contexts are multiplied to at a time."""
OF_ACTION = {name: parts[0] for name, parts in ACTION_KERNELS.items()} | dict(
    zip(FEATURE_KERNELS, (0.0, 0.0, 1.0), strict=True)
)
"""How much of :math:`A D A^\\top` a kernel has."""


@dataclass(frozen=True)
class Kernel:
    """One candidate kernel of the training rows.

    Attributes
    ----------
    project
        ``(landmarks, rank)`` turns kernel values with landmarks into coordinates.
    common
        ``(n, rank)`` coordinates of the training rows: their products are the kernel between parts of the screen.
    rest
        What the products lack within parts.
    """

    project: FloatArray
    common: FloatArray
    rest: list[Group]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.project.nbytes + self.common.nbytes + sum(values.nbytes for _, values in self.rest)


class LandmarkRidge:
    r"""The weights of kernel ridge regression, :math:`k_q (K + \lambda S)^{-1}`, for thousands of training rows.

    A screen falls into parts that no combination connects: in one of singles, the rows of one gene. Within parts every
    kernel is kept exactly; through landmarks alone a perturbation would lose its own effect. Between parts rows see each
    other through ``LANDMARKS`` random rows :math:`l` (Nyström: Williams and Seeger 2001, *NeurIPS*; the partially
    independent conditional: Snelson and Ghahramani 2007, *AISTATS*):

    .. math::
        K + \lambda S \approx \underbrace{\mathrm{blocks}(K - U U^\top) + \lambda\,\mathrm{diag}(s)}_B
        + U U^\top + \lambda R R^\top, \quad U U^\top = K_{\cdot l} K_{ll}^{-1} K_{l \cdot}

    :math:`K_{\cdot l}` being all of a kernel but the sum over perturbations in common, :math:`A D A^\top`, which is zero
    between parts, and :math:`R` the noise of the controls that rows of a context share. By Woodbury's identity a strength
    takes the inverse of :math:`B`, block by block, and a decomposition as large as the rank of :math:`U`. Nothing is
    approximated where combinations connect all rows, nor where all rows are landmarks; the cost is then that of the exact form.

    Parameters
    ----------
    rows
        Training rows, their design a sparse matrix.
    effects
        ``(n, genes)``.
    noise
        Of the rows.
    n_components, use_context
        As in :class:`scjepa.baselines.KernelEffect`.
    """

    def __init__(
        self, rows: Rows, effects: FloatArray, noise: NoiseModel, n_components: int, use_context: bool
    ) -> None:
        n, columns = rows.design.shape
        self._rows = rows
        self._alone: FloatArray = np.ones(n) if noise.parts is None else noise.parts[0]
        shared = np.zeros(n) if noise.parts is None else noise.parts[1]
        labels = np.unique(rows.contexts, return_inverse=True)[1]
        self._shared = np.zeros((n, labels.max() + 1 if shared.any() else 0))
        if shared.any():
            self._shared[np.arange(n), labels] = shared
        self._axes, self._variances = np.zeros((columns, 0)), np.ones(columns)
        names = ["additive"]
        if columns > 1:
            self._axes = large_components(rows.design, effects, n_components)
            self._variances = large_amplitudes(rows.design, effects, noise.rows)[0]
            names += [name for name in ACTION_KERNELS if name != "additive"]
        names += [] if rows.features is None else FEATURE_KERNELS
        if columns > 1:
            names += [name + AMPLITUDE for name in names if OF_ACTION[name]]
        looks = use_context and len(set(rows.contexts)) > 1
        self.names = (*names, *(name + CONTEXT for name in names if looks))
        self._center = rows.place.mean(0)
        self._spread = float(((rows.place - self._center) ** 2).sum(1).mean())
        self._marks = rows.take(np.sort(np.random.default_rng(0).choice(n, min(LANDMARKS, n), replace=False)))
        self._scale = [length_scale(squared_distances(v, v)) for v in self._smooth(self._marks)]
        self._part, self._part_of_column = connected(rows.design)
        self._groups = grouped(self._part)
        self._kernels: dict[str, Kernel] = {}
        self._factors: dict[tuple[str, float], tuple[Blocks, FloatArray]] = {}
        self._held = 0.0

    def weights(self, query: Rows, name: str, strength: float) -> FloatArray:
        r"""Return ``(m, n)``: rows of :math:`k_q (K + \lambda S)^{-1}` for a kernel and a strength."""
        return self._solved(name, strength, *self._across(name, query))

    def unexplained(self, query: Rows, name: str, strength: float, extra: FloatArray | float) -> FloatArray:
        """Return the share of predictive variance that training leaves (:func:`scjepa.baselines._support.unexplained`)."""
        apart, common = self._across(name, query)
        solved = self._solved(name, strength, apart, common)
        explained = np.einsum("mn,mn->m", solved, apart + common @ self._kernel(name).common.T)
        return 1 - explained / (self._diagonal(name, query, extra) + strength)

    def _solved(self, name: str, strength: float, apart: FloatArray, common: FloatArray) -> FloatArray:
        """Return the weights of rows whose kernel with training rows is ``apart`` plus products of coordinates."""
        kernel, (blocks, inner) = self._kernel(name), self._factor(name, strength)
        first = blocks.solve(np.ascontiguousarray(apart.T))
        columns = self._columns(kernel, strength)
        asked = np.zeros((columns.shape[1], len(apart)))
        asked[: kernel.common.shape[1]] = common.T
        asked -= columns.T @ first
        return (first + blocks.solve(columns @ scipy.linalg.cho_solve((inner, True), asked))).T

    def _columns(self, kernel: Kernel, strength: float) -> FloatArray:
        """Return ``(n, rank + contexts)``: what is not in blocks is the product of this with itself."""
        if not self._shared.shape[1]:
            return kernel.common
        return np.hstack([kernel.common, strength**0.5 * self._shared])

    def _factor(self, name: str, strength: float) -> tuple[Blocks, FloatArray]:
        """Return the blocks of a candidate and the Cholesky factor of what couples them."""
        key = name, strength
        if key in self._factors:
            return self._factors[key]
        kernel = self._kernel(name)
        blocks = Blocks.of(kernel.rest, strength * self._alone)
        columns = self._columns(kernel, strength)
        inner = columns.T @ blocks.solve(columns)
        inner[np.diag_indices(len(inner))] += 1
        found = blocks, np.linalg.cholesky(inner)
        size = inner.nbytes + blocks.nbytes
        if self._held + size <= CACHED:
            self._held += size
            self._factors[key] = found
        return found

    def _kernel(self, name: str) -> Kernel:
        """Return a kernel of the training rows."""
        if name in self._kernels:
            return self._kernels[name]
        n, marks = len(self._rows.order), self._marks
        project, common = np.zeros((len(marks.order), 0)), np.zeros((n, 0))
        rest = blocks_of(self._own(name, self._rows), self._groups)
        if plain(name) != "additive":
            values, vectors = np.linalg.eigh(self._smooth_part(name, marks, marks))
            kept = values > FLAT * values[-1]
            project = vectors[:, kept] / np.sqrt(values[kept])
            common = self._smooth_part(name, self._rows, marks) @ project
            for index, blocks in rest:
                if index.shape[1] == 1:
                    alone = self._diagonal(name, self._rows.take(index[:, 0]), 0.0)
                    blocks[:, 0, 0] = np.maximum(alone - (common[index[:, 0]] ** 2).sum(1), 0.0)
                    continue
                for i, block in zip(index, blocks, strict=True):
                    rows = self._rows.take(i)
                    block += self._smooth_part(name, rows, rows) - common[i] @ common[i].T
        found = Kernel(project, common, rest)
        if sum(k.nbytes for k in self._kernels.values()) + found.nbytes > CACHED:
            self._kernels.clear()
        self._kernels[name] = found
        return found

    def _across(self, name: str, query: Rows) -> tuple[FloatArray, FloatArray]:
        """Return the kernel of questions: ``(m, n)`` what is not through landmarks, ``(m, rank)`` coordinates."""
        kernel, out = self._kernel(name), self._own(name, query).toarray()
        if plain(name) == "additive":
            return out, np.zeros((len(query.order), 0))
        common = self._smooth_part(name, query, self._marks) @ kernel.project
        asked = query.design.tocoo()
        n_parts = 1 + max(self._part.max(), self._part_of_column.max(initial=0))
        mine = np.zeros((len(out), n_parts), bool)
        mine[asked.row, self._part_of_column[asked.col]] = True
        same = mine[:, self._part]
        exact = self._smooth_part(name, query, self._rows) - common @ kernel.common.T
        return np.add(out, exact, out=out, where=same), common

    def _own(self, name: str, query: Rows) -> sp.csr_array:
        """Return ``(m, n)``: what questions and training rows have in common by perturbations they share."""
        share = OF_ACTION[plain(name)]
        if not share:
            return sp.csr_array((len(query.order), len(self._rows.order)))
        variances = self._variances if AMPLITUDE in name else np.ones_like(self._variances)
        out = (query.design @ sp.diags_array(share * variances) @ self._rows.design.T).tocoo()
        if CONTEXT in name and self._spread >= 1e-9:
            a, b = query.place - self._center, self._rows.place - self._center
            for first in range(0, out.nnz, CHUNK):
                here = slice(first, first + CHUNK)
                out.data[here] *= 1 + np.einsum("ir,ir->i", a[out.row[here]], b[out.col[here]]) / self._spread
        return out.tocsr()

    def _smooth_part(self, name: str, query: Rows, other: Rows) -> FloatArray:
        """Return ``(m, others)``: all of a kernel but the sum over perturbations in common."""
        base = plain(name)
        (f, p), (g, q), (scale, of_features) = self._smooth(other), self._smooth(query), self._scale
        out = np.ones((len(query.order), len(other.order)))
        if base in ACTION_KERNELS:
            _, of_linear, of_near = ACTION_KERNELS[base]
            out += 2 * np.outer(query.order >= 2, other.order >= 2)
            out += of_linear * (g @ f.T) + of_near * np.exp(-squared_distances(g, f) / scale)
        elif base != "constant":
            out += q @ p.T + np.exp(-squared_distances(q, p) / of_features)
        if CONTEXT in name and self._spread >= 1e-9:
            out *= 1 + (query.place - self._center) @ (other.place - self._center).T / self._spread
        return out

    def _diagonal(self, name: str, query: Rows, extra: FloatArray | float) -> FloatArray:
        """Return the kernel of rows with themselves, ``(m,)``; see :func:`scjepa.baselines._support.own_values`."""
        base, square = plain(name), query.design**2
        variances = self._variances if AMPLITUDE in name else np.ones_like(self._variances)
        out = OF_ACTION[base] * (square @ variances + extra)
        g, q = self._smooth(query)
        if base in ACTION_KERNELS and base != "additive":
            _, of_linear, of_near = ACTION_KERNELS[base]
            out = out + 1 + 2.0 * (query.order >= 2) + of_linear * (g**2).sum(1) + of_near
        elif base in FEATURE_KERNELS:
            out = out + 1 + (0 if base == "constant" else 1 + (q**2).sum(1))
        if CONTEXT in name and self._spread >= 1e-9:
            out = out * (1 + ((query.place - self._center) ** 2).sum(1) / self._spread)
        return out

    def _smooth(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """Return what Gaussian kernels read of rows: components of single effects, and features."""
        features = np.zeros((len(rows.order), 0)) if rows.features is None else rows.features
        return rows.design @ self._axes, features


def plain(name: str) -> str:
    """Return the name of a kernel without what stands behind it."""
    return name.removesuffix(CONTEXT).removesuffix(AMPLITUDE)
