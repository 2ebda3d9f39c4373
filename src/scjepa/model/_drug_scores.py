"""Scores of predicted effects of many molecules on the same cells, mostly without writing down the effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.drugs import INFORMATIVE, UNINFORMATIVE, Screener
from scjepa.pharma import effect_size, reversal, target_progress

ROWS = 512
"""Molecules whose effects are looked at together: what they need stays in the processor's cache."""
HEAD = 16
"""Coordinates by which most of an effect is told."""
SINGLE = 1e-5
"""More than single precision may err by, of the longest product."""
LOST = 1e-6
"""Where bounds leave less than this share of a squared length, it is computed anew and not by difference."""


class Aim:
    """What makes an effect good.

    Parameters
    ----------
    start
        ``(genes,)`` mean of the cells to be treated.
    signature
        ``(genes,)`` to be reversed, or None.
    target
        ``(genes,)`` mean to be reached, or None.
    score
        How a signature is compared (:func:`scjepa.pharma.reversal`), or a function of effects.

    Raises
    ------
    ValueError
        For a signature of zeros, or a target that is the start.
    """

    def __init__(
        self,
        start: FloatArray,
        signature: FloatArray | None = None,
        target: FloatArray | None = None,
        score: str | Callable[[FloatArray], Any] = "cosine",
    ) -> None:
        self.start, self.signature, self.target, self.score = start, signature, target, score
        self.along: FloatArray = np.zeros_like(start)
        self.kind = "other"
        if callable(score):
            return
        self.kind = "size" if signature is None and target is None else "other"
        if signature is not None:
            self(np.ones((1, len(start))))  # refuses what can't be compared with
            if score == "cosine":
                self.kind, self.along = "cosine", signature / np.linalg.norm(signature)
        elif target is not None:
            self(np.zeros((1, len(start))))
            self.kind, self.along = "target", target - start

    def __call__(self, effects: FloatArray) -> FloatArray:
        """Return scores ``(m,)`` of effects ``(m, genes)``, the higher the better."""
        if callable(self.score):
            return np.asarray(self.score(effects), dtype=float)
        if self.signature is not None:
            return reversal(self.signature, effects, self.score)  # type: ignore[arg-type]
        if self.target is not None:
            return np.asarray(target_progress(self.start + effects, self.target, self.start))
        return np.asarray(effect_size(effects))

    def of(self, square: FloatArray, dot: FloatArray) -> FloatArray:
        """Return the scores of effects by their squared lengths and their products with ``along``; not of kind other."""
        if self.kind == "size":
            return np.sqrt(square)
        if self.kind == "cosine":
            return -np.divide(dot, np.sqrt(square), out=np.zeros_like(dot), where=square > 0) + 0.0
        way = float(self.along @ self.along)
        return 1 - np.sqrt(np.maximum(square - 2 * dot + way, 0) / way)


class Scorer:
    """Scores molecules by their features.

    Effects are bounded as those of :meth:`scjepa.DrugJEPA.predict_effect`: means stay between ``least`` and ``most``. They are
    written down for genes where a bound may be met by some molecule (which the lengths of their coordinates tell); the
    others add to the score by coordinates alone, whose axes are orthonormal.

    Parameters
    ----------
    screener
        What predicts effects.
    aim
        What they are scored by.
    most
        ``(genes,)`` largest mean, infinite for none.
    least
        Smallest mean; minus infinity where profiles are differences.
    described
        Name of the description that features are of.
    judged
        Whether drugs could be left out to see how well molecules never given are predicted.
    """

    def __init__(
        self, screener: Screener, aim: Aim, most: FloatArray, described: str, *, least: float = 0.0, judged: bool = True
    ) -> None:
        self.near = "near" if judged else "far"
        self.screener, self.aim, self.most, self.described, self.least = screener, aim, most, described, least
        base, axes = screener.constant, screener.axes
        self.shift = axes.T @ base
        self.rest = base - axes @ self.shift
        self.length, self.length_of_rest = np.linalg.norm(axes, axis=1), np.linalg.norm(axes[:, HEAD:], axis=1)
        self.head = axes[:, :HEAD].T.astype(np.float32)
        self.along = axes.T @ aim.along

    def __call__(self, features: Any) -> Mapping[str, Any]:
        """Return ``score``, ``similarity``, ``nearest_drug`` and ``support`` of molecules ``(m, features)``."""
        alike = self.screener.similarities({self.described: features})
        similarity, nearest = self.screener.nearest(alike)
        y = self.screener.coordinates(alike)
        parts = [self._scores(y[i : i + ROWS]) for i in range(0, len(y), ROWS)]
        scores = np.concatenate(parts) if parts else np.zeros(0)
        words = np.where(similarity < INFORMATIVE, UNINFORMATIVE, self.near).astype(object)
        return {"score": scores, "similarity": similarity, "nearest_drug": nearest, "support": words}

    def effects(self, y: FloatArray, genes: Any = slice(None)) -> tuple[FloatArray, FloatArray]:
        """Return effects ``(m, genes)`` by their coordinates, unbounded and bounded."""
        free = self.screener.constant[genes] + y @ self.screener.axes[genes].T
        start = self.aim.start[genes]
        return free, np.clip(start + free, self.least, self.most[genes]) - start

    def _scores(self, y: FloatArray) -> FloatArray:
        aim = self.aim
        if aim.kind == "other":
            return aim(self.effects(y)[1])
        z = y + self.shift
        square = self.rest @ self.rest + np.einsum("ij,ij->i", z, z)
        dot = self.rest @ aim.along + z @ self.along
        genes = self._doubtful(y)
        if len(genes):
            free, inside = self.effects(y, genes)
            before = square.copy()
            square += np.einsum("ij,ij->i", inside - free, inside + free)
            dot += (inside - free) @ aim.along[genes]
            lost = np.flatnonzero(square < LOST * before)
            if len(lost):
                exact = self.effects(y[lost])[1]
                square[lost], dot[lost] = (exact**2).sum(1), exact @ aim.along
        return aim.of(square, dot)

    def _doubtful(self, y: FloatArray) -> np.ndarray:
        """Return the genes of which some molecule's mean may lie beyond a bound; others surely don't."""
        middle = y.mean(0)
        y, axes = y - middle, self.screener.axes
        at = self.aim.start + self.screener.constant + axes @ middle
        least, most = (
            self.least + 1e-9 * np.abs(at) - at,
            self.most - at - 1e-9 * np.abs(at),
        )  # how far a mean may move, but for rounding
        reach = _longest(y) * self.length
        genes = np.flatnonzero((-reach < least) | (reach > most))
        if len(genes) and y.shape[1] > HEAD:  # what the first coordinates say exactly, what the others may add at most
            first = y[:, :HEAD].astype(np.float32) @ self.head[:, genes]
            reach = _longest(y[:, HEAD:]) * self.length_of_rest[genes] + SINGLE * reach[genes]
            genes = genes[(first.min(0) - reach < least[genes]) | (first.max(0) + reach > most[genes])]
        return genes


def _longest(y: FloatArray) -> float:
    """Return the length of the longest row."""
    return float(np.sqrt(np.einsum("ij,ij->i", y, y).max(initial=0)))
