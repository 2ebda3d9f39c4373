"""What simulated courses are made of: how fates part, which fates are open to a cell, and its log rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scjepa._types import FloatArray, IntArray

STEEP = 25.0
"""How fast a fate's programme comes on (per range of times): within about a tenth of the range."""
WIDTH = 0.15
"""How sharp the peak of fluctuations at a tipping point is: two thirds of their size within this share of the range."""


@dataclass(frozen=True)
class Biology:
    """What the mean of a cell is computed from; all moments are shares of the range of times.

    Attributes
    ----------
    base, size, steepness, middle
        ``(genes,)``: log rate at the start, change along the course, how steep it is and where.
    split_time, split_fates, programmes
        ``(splits,)``, ``(splits, fates)`` and ``(splits, genes)``: when fates part from the others, which, and what it changes.
    priming
        Share of a fate's programme that is there before it parts.
    noise
        ``(factors, genes)`` loadings of what varies between cells of one moment.
    module
        ``(genes,)`` loadings of the module that fluctuates, and in ``tip`` (kind, moment, size).
    """

    base: FloatArray
    size: FloatArray
    steepness: FloatArray
    middle: FloatArray
    split_time: FloatArray
    split_fates: np.ndarray
    programmes: FloatArray
    priming: float
    noise: FloatArray
    module: FloatArray
    tipping: str
    tip_time: float
    tip_size: float

    def log_rate(
        self, pseudotime: FloatArray, time: FloatArray, fate: IntArray, factors: FloatArray, module: FloatArray
    ) -> FloatArray:
        """Return log rates ``(cells, genes)``."""
        out = self.base + self.size * sigmoid(self.steepness * (pseudotime[:, None] - self.middle))
        if len(self.programmes):
            on = self.priming + (1 - self.priming) * sigmoid(STEEP * (pseudotime[:, None] - self.split_time))
            out = out + (on * self.split_fates.T[fate]) @ self.programmes
        spread = self.tip_size * fluctuation(self.tipping, self.tip_time, time)
        return out + factors @ self.noise + (spread * module)[:, None] * self.module


def sigmoid(x: FloatArray) -> FloatArray:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def fluctuation(tipping: str, tip_time: float, time: FloatArray) -> FloatArray:
    """Return how much the module fluctuates at a moment: 1 at a peak, less and less away from it; rising; or not at all."""
    if tipping == "peak":
        return np.sqrt(WIDTH / (WIDTH + 3 * np.abs(time - tip_time)))
    if tipping == "rise":
        return np.sqrt(WIDTH / (1.65 - 1.5 * np.clip(time, 0, 1)))
    return np.zeros_like(time)


def split_tree(n_fates: int, moments: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Return when which fates part: all at once, or with several moments one after another.

    With one moment every fate has a split of its own. With several, at each moment one fate parts from those that are left,
    which change too.
    """
    if n_fates < 2:
        return np.empty(0), np.zeros((0, max(n_fates, 1)), dtype=bool)
    if len(moments) == 1:
        return np.repeat(moments, n_fates), np.eye(n_fates, dtype=bool)
    when, which = [], []
    for i, moment in enumerate(moments):
        leaving, rest = np.arange(n_fates) == i, np.arange(n_fates) > i
        when += [moment, moment]
        which += [leaving, rest]
    return np.array(when), np.array(which)


def open_fates(pseudotime: FloatArray, fate: IntArray, split_time: FloatArray, split_fates: np.ndarray) -> np.ndarray:
    """Return which fates a cell may still have ``(cells, fates)``, given its moment and the fate it will have."""
    n_fates = split_fates.shape[1]
    out = np.ones((len(fate), n_fates), dtype=bool)
    for when, which in zip(split_time, split_fates, strict=True):
        past = pseudotime > when
        inside = which[fate]
        out &= ~(past & inside)[:, None] | which
        out &= ~(past & ~inside)[:, None] | ~which
    return out


def shifted_odds(share: FloatArray, shift: FloatArray) -> FloatArray:
    """Move the odds of the last fate by ``exp(shift)``: ``(..., fates)``."""
    weight = share * np.where(np.arange(share.shape[-1]) == share.shape[-1] - 1, np.exp(shift)[..., None], 1.0)
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def draw_fates(chance: FloatArray, rng: np.random.Generator) -> IntArray:
    """Draw a fate for every row of chances."""
    return np.minimum((rng.random(len(chance))[:, None] > np.cumsum(chance, 1)).sum(1), chance.shape[1] - 1)


def draw_biology(
    n_genes: int,
    n_fates: int,
    moments: FloatArray,
    *,
    fate_effect: float,
    priming: float,
    switch: bool,
    noise: float,
    n_module: int,
    tipping: str,
    tip_time: float,
    tip_size: float,
    streams: tuple[np.random.Generator, np.random.Generator, np.random.Generator],
) -> Biology:
    """Draw genes, the programmes of fates, and the module of the tipping point."""
    rng, fate_rng, tip_rng = streams
    split_time, split_fates = split_tree(n_fates, moments)
    changing = rng.random(n_genes) < 0.35
    middle, steepness = rng.uniform(0, 1, n_genes), rng.uniform(6, 20, n_genes)
    base, size = rng.normal(-1, 1, n_genes), rng.normal(0, 1.3, n_genes) * changing
    loadings = noise * rng.normal(size=(3, n_genes))
    if switch:
        middle, steepness = np.full(n_genes, 0.5), np.full(n_genes, STEEP)
    shape = (len(split_time), n_genes)
    programmes = fate_effect * fate_rng.normal(size=shape) * (fate_rng.random(shape) < 0.2)
    module = np.zeros(n_genes)
    module[tip_rng.choice(n_genes, n_module, replace=False)] = tip_rng.choice([-1.0, 1.0], n_module)
    return Biology(base, size, steepness, middle, split_time, split_fates, programmes, priming, loadings,
                   module, tipping, tip_time, tip_size)  # fmt: skip


def split_table(biology: Biology, fates: list[str], first: float, span: float) -> pd.DataFrame:
    """Return when which fates part, in the unit of the times."""
    return pd.DataFrame(
        {
            "time": first + span * biology.split_time,
            "fates": [
                "+".join(f for f, is_in in zip(fates, which, strict=True) if is_in) for which in biology.split_fates
            ],
        },
        index=[str(i) for i in range(len(biology.split_time))],
    )
