"""Simple predictions of drug responses; the process must beat them where they can be left out, or gives way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.drugs._kernels import summed
from scjepa.baselines.drugs._rows import MANY_LEVELS, Rows, Scale, levels_of
from scjepa.baselines.drugs._structure import Structure

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Strengths of the ridge on structures, in units of the kernel's mean diagonal."""


@dataclass(frozen=True)
class Plain:
    """Training rows, and what simple rules say of others; all rules are sums over the drugs of a row.

    Attributes
    ----------
    rows
        Training conditions.
    values
        ``(n, columns)`` their effects.
    structure
        What is known of drugs.
    cache
        Where similarities among drugs are kept.
    """

    rows: Rows
    values: FloatArray
    structure: Structure
    cache: dict[Any, FloatArray] = field(default_factory=dict)

    def predict(self, query: Rows) -> dict[str, FloatArray]:
        """Return predictions ``(m, columns)`` by the name of the rule."""
        each = self.values / np.maximum(self.rows.order, 1)[:, None]  # of one drug of the row
        mean = each.mean(0)
        where = self.by_place(query)
        none = np.zeros((len(query), self.values.shape[1]))
        out = {
            "no change": none,
            "mean": none + query.order[:, None] * mean,
            "mean per context": where,
            "mean per drug": self.by_drug(query, mean),
        }
        if query.axes:
            out["nearest"] = self.nearest(query, where)
            out["linear"] = self.linear(query, mean)
        if self.structure:
            out["structure ridge"] = self.ridge(query, where)
        return out

    def by_place(self, query: Rows) -> FloatArray:
        """Return the mean over drugs in the row's context, and at its dose and time by interpolation between levels.

        A context that was never seen has the mean of the others.
        """
        if query.doses is not None:
            items, row = query.items()
            return summed(self.by_place(items), row, len(query))
        rows, each = self.rows, self.values / np.maximum(self.rows.order, 1)[:, None]
        scale = Scale.of(rows)
        if rows.doses is not None:
            rows, of = rows.items()
            each = each[of]
        dose, asked = scale(rows), scale(query)
        out = np.zeros((len(query), self.values.shape[1]))
        seen = np.isin(query.contexts, rows.contexts)
        for context in [*np.unique(query.contexts[seen]), None]:
            mine = seen & (query.contexts == context) if context is not None else ~seen
            if not mine.any():
                continue
            own = rows.contexts == context if context is not None else np.ones(len(rows), bool)
            out[mine] = _curves(rows, own, each, dose, query.take(mine), None if asked is None else asked[mine])
        return out * query.order[:, None]

    def by_drug(self, query: Rows, mean: FloatArray) -> FloatArray:
        """Return sums over drugs of their mean effect; a drug given in combinations only has an equal part of theirs."""
        effect, seen = self._drug_means(self.values)
        known = query.design[:, : len(seen)] * seen
        return known @ effect + (query.order - known.sum(1))[:, None] * mean

    def _drug_means(self, values: FloatArray) -> tuple[FloatArray, np.ndarray]:
        """Return the mean of each drug ``(drugs, columns)``, by rows with that drug alone if there are any."""
        design, order = self.rows.design, np.maximum(self.rows.order, 1)
        alone = design * (order == 1)[:, None]
        use = np.where(alone.any(0), alone, design / order[:, None] * (design > 0))
        count = np.where(alone.any(0), alone.sum(0), (design > 0).sum(0))
        return (use.T @ values) / np.maximum(count, 1)[:, None], count > 0

    def nearest(self, query: Rows, fallback: FloatArray) -> FloatArray:
        """Return sums over drugs of their measurements at the nearest time and dose, in the row's context if there are any."""
        return self._each_drug(query, fallback, self._nearest)

    def _nearest(self, own: np.ndarray, asked: dict[str, float]) -> FloatArray:
        gap = np.zeros(len(own))
        for axis, level in asked.items():
            gap = gap + np.abs(getattr(self.rows, axis)[own] - level)
        return np.asarray(self.values[own[gap <= gap.min() + 1e-9]].mean(0))

    def linear(self, query: Rows, mean: FloatArray) -> FloatArray:
        """Return sums over drugs of straight lines in the logarithms of dose and time, least squares for each drug."""
        return self._each_drug(query, query.order[:, None] * mean, self._line)

    def _line(self, own: np.ndarray, asked: dict[str, float]) -> FloatArray:
        at = np.stack([getattr(self.rows, axis)[own] for axis in asked], 1)
        middle = at.mean(0)
        slope = np.linalg.lstsq(at - middle, self.values[own] - self.values[own].mean(0), rcond=1e-6)[0]
        return np.asarray(self.values[own].mean(0) + (np.array(list(asked.values())) - middle) @ slope)

    def _each_drug(self, query: Rows, fallback: FloatArray, rule: Callable[..., FloatArray]) -> FloatArray:
        single = self.rows.order == 1
        rows_of = [np.flatnonzero((self.rows.design[:, j] > 0) & single) for j in range(len(self.rows.drugs))]
        out = np.zeros((len(query), self.values.shape[1]))
        for i in range(len(query)):
            drugs = np.flatnonzero(query.design[i])
            for j in drugs:
                own = rows_of[j] if j < len(rows_of) else rows_of[0][:0]
                if not len(own):
                    out[i] += fallback[i] / len(drugs)
                    continue
                here = own[self.rows.contexts[own] == query.contexts[i]]
                out[i] += rule(here if len(here) else own, {axis: query.level(axis, i, int(j)) for axis in query.axes})
        return out

    def ridge(self, query: Rows, where: FloatArray) -> FloatArray:
        """Return the mean of the row's place plus kernel ridge on structures of what drugs differ from it.

        The strength is the one with the least leave-one-drug-out error (closed form).
        """
        effect, seen = self._drug_means(self.values - self.by_place(self.rows))
        drugs = np.flatnonzero(seen)
        if len(drugs) < 3:
            return where
        names = self.rows.drugs
        if "similarity" not in self.cache:
            self.cache["similarity"] = self.structure.between(self.structure.kernels[-1], names, names)
        kernel = self.cache["similarity"][np.ix_(drugs, drugs)]
        center = kernel.mean(0)
        among = kernel - center - center[:, None] + kernel.mean()
        asked = self.cache["similarity"][:, drugs]
        if query.drugs[len(names) :]:
            new = self.structure.between(self.structure.kernels[-1], query.drugs[len(names) :], names)
            asked = np.vstack([asked, new[:, drugs]])
        across = asked - asked.mean(1, keepdims=True) - center + kernel.mean()
        size = max(float(np.trace(among)) / len(drugs), 1e-12)
        y = effect[drugs] - effect[drugs].mean(0)
        best: tuple[float, FloatArray] | None = None
        for strength in RIDGES:
            inverse = np.linalg.inv(among + strength * size * np.eye(len(drugs)))
            weight = inverse @ y
            error = float(((weight / inverse.diagonal()[:, None]) ** 2).mean())
            if best is None or error < best[0]:
                best = error, weight
        assert best is not None
        return where + query.design @ (across @ best[1])


def _curves(
    rows: Rows, own: np.ndarray, each: FloatArray, dose: FloatArray | None, query: Rows, asked: FloatArray | None
) -> FloatArray:
    """Average some training rows by time and dose, for queries of one context: nearest time, interpolated dose."""
    out = np.tile(each[own].mean(0), (len(query), 1))
    times = [None] if rows.time is None else list(levels_of(rows.time[own]))
    time = query.time
    for k, t in enumerate(times):
        taken, mine = own, np.ones(len(query), bool)
        if t is not None:
            assert rows.time is not None and time is not None
            taken = own & (np.abs(rows.time - t) < 1e-2)
            mine = np.abs(np.subtract.outer(time, np.array(times, dtype=float))).argmin(1) == k
        if not mine.any() or not taken.any():
            continue
        out[mine] = each[taken].mean(0)
        if dose is not None and asked is not None:
            bins, centers = _binned(dose[taken])
            curve = np.array([each[taken][bins == b].mean(0) for b in range(len(centers))])
            out[mine] = _interpolated(centers, curve, asked[mine])
    return out


def _binned(values: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Return the number of each value's level and the levels; many levels are put into bins of about the same size."""
    levels = levels_of(values)
    if len(levels) > MANY_LEVELS:
        edges = levels_of(np.quantile(values, np.linspace(0, 1, 9)[1:-1]))
        bins = np.searchsorted(edges, values)
        used = np.unique(bins)
        return np.searchsorted(used, bins), np.array([values[bins == b].mean() for b in used])
    return np.abs(values[:, None] - levels).argmin(1), levels


def _interpolated(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """Return rows of ``y`` at new places, linear between those at ascending ``x`` and constant beyond."""
    if len(x) == 1:
        return np.tile(y[0], (len(at), 1))
    right = np.clip(np.searchsorted(x, at), 1, len(x) - 1)
    share = np.clip((at - x[right - 1]) / (x[right] - x[right - 1]), 0, 1)[:, None]
    return np.asarray((1 - share) * y[right - 1] + share * y[right])
