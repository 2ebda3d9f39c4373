"""Chains: cells, how an anchor moves them in one step or two, and the snapshot where they should arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.data._samplers import Batch, SeededBatches


class Chain(NamedTuple):
    """Cells on their way from one time to another, perhaps through a third."""

    z: FloatArray
    """``(n, d)`` cells."""
    shift: FloatArray
    """``(n, d)`` how far an anchor moves each in the first step."""
    start: FloatArray
    """``(n,)``."""
    elapsed: FloatArray
    """``(n,)`` length of the first step."""
    mass: FloatArray
    """``(n,)`` how often each is drawn."""
    target: FloatArray
    """``(m, d)`` the snapshot where they arrive."""
    kind: int = 0
    """Code of the condition."""
    next_shift: FloatArray | None = None
    """``(n, d)`` of the second step; None for chains of one."""
    next_elapsed: float = 0.0


class ChainBatches(SeededBatches):
    """Sets of cells of randomly drawn chains.

    Parameters
    ----------
    chains
        At least one; all of one dimension.
    n_sets, set_size
        Chains a step, and cells of each.
    steps
        Batches per epoch.
    seed, fixed
        Seed of the draws; ``fixed`` repeats one epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import Chain, ChainBatches
    >>> cells, zero = np.zeros((4, 2)), np.zeros(4)
    >>> batches = ChainBatches(
    ...     [Chain(cells, cells + 1, zero, zero + 3, zero + 1, cells + 1)], n_sets=2, set_size=5, steps=1
    ... )
    >>> batch = next(iter(batches))
    >>> batch["source_z"].shape, batch["elapsed"].unique().tolist()
    (torch.Size([2, 5, 2]), [3.0])
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        *,
        n_sets: int = 6,
        set_size: int = 48,
        steps: int = 20,
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__(seed, fixed=fixed)
        self.chains, self.n_sets, self.set_size, self.steps = list(chains), n_sets, set_size, steps
        self.totals = [np.cumsum(chain.mass) / chain.mass.sum() for chain in self.chains]

    def __len__(self) -> int:
        return self.steps

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield one epoch."""
        for _ in range(self.steps):
            sets = [self._drawn(int(i), rng) for i in rng.integers(0, len(self.chains), self.n_sets)]
            batch = {name: torch.from_numpy(np.stack([s[name] for s in sets])) for name in sets[0]}
            yield {name: t if name == "kind" else t.float() for name, t in batch.items()}

    def _drawn(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        chain, m = self.chains[i], self.set_size
        at = np.searchsorted(self.totals[i], rng.random(m)).clip(max=len(chain.z) - 1)
        second = np.zeros_like(chain.z[at]) if chain.next_shift is None else chain.next_shift[at]
        return {
            "source_z": chain.z[at],
            "shift": chain.shift[at],
            "start": chain.start[at],
            "elapsed": chain.elapsed[at],
            "next_shift": second,
            "next_elapsed": np.full(m, chain.next_elapsed),
            "part": rng.random(m),
            "kind": np.full(m, chain.kind, dtype=np.int64),
            "target_z": chain.target[rng.integers(0, len(chain.target), m)],
        }
