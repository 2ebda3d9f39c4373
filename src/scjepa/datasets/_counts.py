"""What simulators share: true mean profiles over cell states, counts drawn around them, checks of numbers."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray, IntArray, Matrix

TARGET_SUM = 1e4
"""Total per cell of the log-normalised scale on which true effects are stated."""

STATE_GRID = 8
BLOCK = 2**22

StatesShift: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""Programme activity and cycle phase of each cell -> log fold changes ``(cells, genes)``"""


def share(log_rate: FloatArray) -> FloatArray:
    """Turn log rates ``(..., genes)`` into shares of a cell's transcripts."""
    rate = np.exp(log_rate - log_rate.max(-1, keepdims=True))
    return rate / rate.sum(-1, keepdims=True)


def mean_profiles(
    log_rate: FloatArray, change: FloatArray, context: IntArray, states_shift: StatesShift
) -> tuple[FloatArray, FloatArray]:
    """Average ``log1p(1e4 * share)`` over cell states, for controls of each context and for each condition.

    States are uniform, so a midpoint grid over programme and cycle is accurate to far below any count noise.
    """
    middle = (np.arange(STATE_GRID) + 0.5) / STATE_GRID
    u, theta = (g.ravel() for g in np.meshgrid(np.sqrt(3) * (2 * middle - 1), 2 * np.pi * middle))
    shift = states_shift(u, theta)

    def profile(j: int, extra: FloatArray | float) -> FloatArray:
        return np.log1p(TARGET_SUM * share(log_rate[j] + shift + extra)).mean(0)

    control = np.stack([profile(j, 0.0) for j in range(len(log_rate))])
    effect = np.zeros_like(change)
    for i, j in enumerate(context):
        effect[i] = profile(j, change[i]) - control[j]
    return control, effect


def draw_counts(
    log_rate: FloatArray,
    change: FloatArray,
    batch_shift: FloatArray,
    states_shift: StatesShift,
    condition: IntArray,
    context: IntArray,
    batch: IntArray,
    *,
    library: FloatArray,
    dispersion: float,
    dropout: float,
    rng: np.random.Generator,
    sparse: bool,
) -> Matrix:
    """Draw counts block by block of cells, so that only one block is ever dense; the last row of ``change`` is zero."""
    n, n_genes = len(condition), log_rate.shape[1]
    u = rng.uniform(-np.sqrt(3), np.sqrt(3), n)  # variance 1
    theta = rng.uniform(0.0, 2 * np.pi, n)
    blocks: list[Matrix] = []
    for start in range(0, n, max(1, BLOCK // n_genes)):
        i = slice(start, start + max(1, BLOCK // n_genes))
        mean = library[i, None] * share(
            log_rate[context[i]] + states_shift(u[i], theta[i]) + change[condition[i]] + batch_shift[batch[i]]
        )
        if dispersion > 0:
            mean = rng.gamma(1.0 / dispersion, dispersion * mean)
        block = rng.poisson(mean).astype(np.float32)
        if dropout > 0:
            block[rng.random(block.shape) < dropout] = 0.0
        blocks.append(sp.csr_matrix(block) if sparse else block)
    if not blocks:
        return sp.csr_matrix((0, n_genes), dtype=np.float32) if sparse else np.zeros((0, n_genes), np.float32)
    return sp.vstack(blocks, format="csr") if sparse else np.vstack(blocks)


def check_number(value: object, name: str, low: float, high: float) -> None:
    """Raise a :class:`ValueError` that names the argument unless it is a finite number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not (low <= float(value) <= high) or value == np.inf:
        limit = f"between {low:g} and {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        raise ValueError(f"{name}={value!r}: expected a finite number {limit}.")
