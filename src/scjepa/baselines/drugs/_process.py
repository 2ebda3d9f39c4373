"""A Gaussian process over rows whose components have a signal share each: what is carried over reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.drugs._kernels import (
    LOCAL,
    PAIRS,
    SHARES,
    Frame,
    Spec,
    context_covariance,
    gates,
    structure_specs,
    with_any_other,
)
from scjepa.baselines.drugs._rows import Rows, Scale
from scjepa.baselines.drugs._structure import Structure

SIGNAL = np.array([0, 0.02, 0.05, 0.1, 0.17, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92, 0.97])
"""Candidates of a component's signal share."""
OWN = 80
"""Components with a share of their own; the others have one in common."""
SWEEPS = 15
"""Rounds in which the distribution of shares over components is learned."""
MIXED, LEAST = 2, 0.1
"""How many kernels are averaged at most, and the least weight of one relative to the best one's."""
MANY_ROWS, SOME_ROWS = 600, 400
"""In larger tables kernels are compared on whole drugs that make up about so many rows."""


@dataclass(frozen=True)
class Fitted:
    """A process fitted to rows: predictions are linear in the kernel between questions and these rows.

    Attributes
    ----------
    rows, frame
        What it was fitted to.
    mixture
        ``(kernel, weight)``, weights sum to one, and the weights of the rows for each, ``(n, columns)``.
    fixed
        ``(contexts, columns)`` fixed effects of one drug, or None.
    solve
        ``(contexts, n)``: how they are read off rows.
    noise
        ``(n,)`` square root of the relative noise variance of rows.
    """

    rows: Rows
    frame: Frame
    mixture: list[tuple[Spec, float]]
    alpha: list[FloatArray]
    fixed: FloatArray | None
    solve: FloatArray
    noise: FloatArray

    def predict(self, query: Rows) -> FloatArray:
        """Return predicted rows ``(m, columns)``."""
        out = np.zeros((len(query), self.alpha[0].shape[1]))
        x = fixed_design(query, self.frame)
        if self.fixed is not None:
            out += x @ self.fixed
        for (spec, weight), alpha in zip(self.mixture, self.alpha, strict=True):
            across = self.frame.kernel(spec, query, self.rows) / self.noise
            if self.fixed is not None:
                among = self.frame.kernel(spec, self.rows, self.rows) / np.outer(self.noise, self.noise)
                across = across - x @ (self.solve @ among)
            out += weight * (across @ alpha)
        return out


def fixed_design(rows: Rows, frame: Frame) -> FloatArray:
    """Return ``(m, contexts)``: which mean a row has, times its drugs; the average of all where the context is new."""
    n = len(frame.contexts)
    which = np.vstack([np.eye(n), np.full(n, 1 / n)])
    return np.asarray(which[frame.place(rows)] * rows.order[:, None])


def components(residual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return scores ``(n, j)`` and axes ``(columns, j)`` of rows, largest first; their product is the rows."""
    n, columns = residual.shape
    value, vector = np.linalg.eigh(residual @ residual.T if n <= columns else residual.T @ residual)
    value, vector = value[::-1], vector[:, ::-1]
    keep = value > 1e-8 * max(value[0], 1e-300) if len(value) and value[0] > 1e-18 else np.zeros(len(value), bool)
    vector, size = vector[:, keep], np.sqrt(value[keep])
    if n <= columns:
        return vector * size, (residual.T @ vector) / size
    return residual @ vector, vector


def shares(scores: FloatArray, kernel: FloatArray, lost: int) -> tuple[float, FloatArray]:
    r"""Return the log evidence of a kernel, and the weights that rows have in its predictions, ``(n, components)``.

    Component ``j`` is :math:`z_j \sim N(0, s_j [h_j K + (1 - h_j) I])`; its scale :math:`s_j` is profiled out, and its share
    :math:`h_j` averaged over ``SIGNAL`` under a distribution that is learned over components (empirical Bayes).

    Parameters
    ----------
    scores
        ``(n, components)``, largest first.
    kernel
        ``(n, n)``.
    lost
        Degrees of freedom that fixed effects took.
    """
    n, width = scores.shape
    size = max(float(np.trace(kernel)) / n, 1e-12)
    value, vector = np.linalg.eigh(kernel / size)
    turned = vector.T @ scores
    variance = SIGNAL[:, None] * np.maximum(value, 0) + 1 - SIGNAL[:, None]
    square = np.maximum((1 / variance) @ turned**2, 1e-12)
    log = -0.5 * (np.log(variance).sum(1) - lost * np.log(1 - SIGNAL))[:, None] - 0.5 * (n - lost) * np.log(square)
    if width > OWN:
        log = np.c_[log[:, :OWN], log[:, OWN:].sum(1)]
    prior = np.full(len(SIGNAL), 1 / len(SIGNAL))
    for _ in range(SWEEPS):
        joint = log + np.log(prior)[:, None]
        most = joint.max(0)
        weight = np.exp(joint - most)
        total = weight.sum(0)
        weight /= total
        prior = (weight.sum(1) + 0.1) / (weight.shape[1] + 0.1 * len(SIGNAL))
    evidence = float((most + np.log(total)).sum())
    if width > OWN:
        weight = np.c_[weight[:, :OWN], np.repeat(weight[:, OWN:], width - OWN, 1)]
    return evidence, vector @ (((SIGNAL[:, None] / variance).T @ weight) * turned) / size


class Ground:
    """What all processes fitted to the same rows share: residuals from fixed effects, their components, how contexts relate.

    Parameters
    ----------
    rows
        Conditions.
    values
        ``(n, columns)`` effects, or coordinates of them.
    noise
        ``(n,)`` relative noise variance of rows.
    structure
        What is known of drugs.
    common
        Whether rows share a curve of dose or time; else each context has a fixed effect.
    cache
        Where kernels among drugs are kept.
    """

    def __init__(
        self,
        rows: Rows,
        values: FloatArray,
        noise: FloatArray,
        structure: Structure,
        *,
        common: bool,
        cache: dict[Any, FloatArray] | None = None,
    ) -> None:
        seen = tuple(np.unique(rows.contexts).tolist())
        n = len(seen)
        self.rows, self.values, self.root = rows, values, np.sqrt(noise)
        frame = Frame(seen, np.ones((n + 1, n + 1)), structure, Scale.of(rows), common, {} if cache is None else cache)
        whitened = values / self.root[:, None]
        self.fixed: FloatArray | None = None
        self.x: FloatArray = np.zeros((len(rows), 0))
        self.solve: FloatArray = np.zeros((0, len(rows)))
        if not common:
            self.x = fixed_design(rows, frame) / self.root[:, None]
            self.solve = np.linalg.pinv(self.x)
            self.fixed = self.solve @ whitened
            whitened = whitened - self.x @ self.fixed
        self.scores, self.axes = components(whitened)
        if n > 1:
            single = rows.order == 1
            drug, where = rows.design[single].argmax(1), frame.place(rows.take(np.flatnonzero(single)))
            alike = context_covariance((self.scores * self.root[:, None])[single, :OWN], drug, where, n)
            frame = replace(frame, alike=with_any_other(alike))
        self.frame = frame

    def weigh(self, spec: Spec, index: np.ndarray | None = None) -> tuple[float, FloatArray]:
        """Return :func:`shares` of a kernel, on all rows or (about, the fixed effects being those of all) on some."""
        if index is not None:
            taken, root = self.rows.take(index), self.root[index]
            return shares(self.scores[index], self.frame.kernel(spec, taken, taken) / np.outer(root, root), 0)
        kernel = self.frame.kernel(spec, self.rows, self.rows) / np.outer(self.root, self.root)
        kernel = kernel - self.x @ (self.solve @ kernel)
        kernel = kernel - (kernel @ self.x) @ self.solve
        return shares(self.scores, kernel, self.x.shape[1])

    def fit(self, mixture: Sequence[tuple[Spec, float]] | None = None) -> Fitted:
        """Fit a process under a mixture of kernels; without one they are weighed by their evidence."""
        if not self.scores.shape[1] or len(self.rows) - self.x.shape[1] < 2:
            return self._alone(mixture)
        if mixture is None:
            mixture = self.choose()
        alphas: list[FloatArray] = []
        for spec, _ in mixture:
            alpha = self.weigh(spec)[1]
            alphas.append((alpha - self.x @ (self.solve @ alpha)) @ self.axes.T)
        return Fitted(self.rows, self.frame, list(mixture), alphas, self.fixed, self.solve, self.root)

    def _alone(self, mixture: Sequence[tuple[Spec, float]] | None) -> Fitted:
        """Fit where nothing varies, or nothing is left to tell signal from noise: half of a row's effect is believed."""
        spec: Spec = {"contexts": "alike", "structure": "", "share": 0.0, "local": 0.0}
        for gate in gates(self.rows, self.frame.scale):
            spec |= gate[len(gate) // 2]
        if mixture is not None:
            spec = mixture[0][0]
        alpha, one = np.zeros_like(self.values), np.ones(len(self.rows))
        if self.fixed is None:
            kernel = self.frame.kernel(spec, self.rows, self.rows)
            size = float(np.trace(kernel)) / len(kernel)
            alpha = np.linalg.solve(kernel + size * np.eye(len(kernel)), self.values)
        return Fitted(self.rows, self.frame, [(spec, 1.0)], [alpha], self.fixed, self.solve, one)

    def choose(self) -> list[tuple[Spec, float]]:
        """Weigh kernels by their evidence: contexts and gates under a middling structure first, then structures."""
        n_contexts, names = len(self.frame.contexts), self.frame.structure.kernels
        fixed = self.fixed is not None
        index = None if len(self.rows) <= MANY_ROWS else whole_drugs(self.rows, SOME_ROWS)
        contexts = ["alike"]
        if n_contexts > 1 and not fixed:
            contexts.append("half")
        if n_contexts > 2:
            contexts.append("learned")
        of_context: list[Spec] = [{"contexts": name} for name in contexts]
        of_dose, of_time = gates(self.rows, self.frame.scale)
        best: Spec = {**of_context[-1], **of_dose[len(of_dose) // 2], **of_time[len(of_time) // 2]}
        best |= {"structure": names[0], "share": SHARES[0]} if names else {"structure": "", "share": 0.0}
        best["local"] = LOCAL[1] if names and fixed else 0.0
        for part in (of_context, of_dose, of_time):
            if len(part) > 1:
                best |= max(part, key=lambda change: self.weigh({**best, **change}, index)[0])
        best["pairs"] = 0.0
        if (self.rows.order > 1).any():
            best["pairs"] = max(PAIRS, key=lambda p: self.weigh({**best, "pairs": p})[0])
        specs = structure_specs(best, names, fixed and n_contexts > 1)
        if len(specs) == 1:
            return [(specs[0], 1.0)]
        evidence = np.array([self.weigh(spec, index)[0] for spec in specs])
        weight = np.exp(evidence - evidence.max())
        weight /= weight.sum()
        top = [i for i in np.argsort(-weight, kind="stable")[:MIXED] if weight[i] >= LEAST * weight.max()]
        return [(specs[i], float(weight[i] / weight[top].sum())) for i in top]


def whole_drugs(rows: Rows, n: int) -> np.ndarray:
    """Return about ``n`` rows: all of drugs drawn with seed 0."""
    order = np.random.default_rng(0).permutation(len(rows.drugs))
    first = rows.design.argmax(1)
    kept: list[int] = []
    for drug in order:
        if len(kept) >= n:
            break
        kept.extend(np.flatnonzero(first == drug).tolist())
    return np.sort(np.array(kept, dtype=int))
