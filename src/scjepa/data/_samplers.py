"""Batches for training: views of cells (stage 1), sets of embedded cells (stage 2), sets of raw cells (joint)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset

from scjepa._types import FloatArray
from scjepa.data._cache import EmbeddingCache
from scjepa.data._groups import CellGroups
from scjepa.data._matrix import ExpressionMatrix, aligned

Batch = dict[str, torch.Tensor]


def process_rank() -> tuple[int, int]:
    """Return rank and number of the processes that train together (0, 1 without distribution)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class SeededBatches(IterableDataset[Batch]):
    """Batches drawn from a generator that depends on seed, epoch and process only.

    ``fixed=True`` repeats the first epoch, so that a validation loss can be compared between epochs.
    """

    def __init__(self, seed: int, *, fixed: bool = False) -> None:
        super().__init__()
        self.seed, self.fixed, self.epoch = seed, fixed, 0

    def generator(self) -> np.random.Generator:
        rank, _ = process_rank()
        return np.random.default_rng([self.seed, 0 if self.fixed else self.epoch, rank, int(self.fixed)])

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches an epoch."""

    @abstractmethod
    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch."""

    def __iter__(self) -> Iterator[Batch]:
        rng = self.generator()
        self.epoch += 1
        yield from self.batches(rng)

    def __getitem__(self, index: int) -> Any:  # IterableDataset is typed as a Dataset
        raise TypeError("iterate over the batches; they have no index.")


class ViewBatches(SeededBatches):
    """Two count-split views of ``batch_size`` cells a step; every cell once an epoch (the last, short batch is left).

    Parameters
    ----------
    matrix
        The cells.
    cells
        Indices of the cells to draw from.
    batch_size
        Cells per batch and process.
    reference
        See :meth:`ExpressionMatrix.reference_unit`.
    batch_codes
        ``(n,)`` batch codes of all cells for a batch-aware encoder, or None.
    seed, fixed
        Seed of the draws; ``fixed`` repeats one epoch.
    """

    def __init__(
        self,
        matrix: ExpressionMatrix,
        cells: np.ndarray,
        batch_size: int,
        *,
        reference: float = 1.0,
        batch_codes: np.ndarray | None = None,
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__(seed, fixed=fixed)
        self.matrix, self.cells, self.reference, self.batch_codes = matrix, np.asarray(cells), reference, batch_codes
        if not len(self.cells):
            raise ValueError("there are no cells to draw from: cells is empty.")
        self.batch_size = min(batch_size, len(self.cells))

    def __len__(self) -> int:
        return max(len(self.cells) // (self.batch_size * process_rank()[1]), 1)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        rank, world = process_rank()
        order = np.random.default_rng([self.seed, 0 if self.fixed else self.epoch]).permutation(self.cells)
        mine = order[rank::world] if len(order) >= world * self.batch_size else order
        for step in range(len(self)):
            cells = np.sort(mine[step * self.batch_size : (step + 1) * self.batch_size])  # sorted rows slice faster
            first, second = self.matrix.views(cells, rng, reference=self.reference)
            batch = {"first": aligned(first), "second": aligned(second)}
            if self.batch_codes is not None:
                batch["batch"] = torch.from_numpy(self.batch_codes[cells].astype(np.int64))
            yield batch


class ConditionSampler:
    """Draw a set of perturbed cells and a set of matched controls for conditions in turn.

    Conditions come in shuffled order and each equally often, however many cells they have. Controls come from the
    same context, weighted to the batches of the perturbed cells.

    Parameters
    ----------
    groups
        Training conditions; their ``cells`` and ``controls`` must be training cells only.
    n_sets
        Conditions per batch.
    set_size
        Cells per set, drawn with replacement.
    """

    def __init__(self, groups: CellGroups, *, n_sets: int = 4, set_size: int = 32) -> None:
        self.groups, self.n_sets, self.set_size = groups, min(n_sets, len(groups)), set_size
        if not len(groups):
            raise ValueError("there are no conditions to draw from: the groups hold no perturbed cells.")
        self._strata, self._weights = groups.control_strata

    def _draw_controls(self, condition: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a set of controls matched to a condition, batch by batch."""
        numbers, weights = self._weights[condition]
        sizes = rng.multinomial(self.set_size, weights) if len(numbers) > 1 else [self.set_size]
        return np.concatenate([rng.choice(self._strata[s], size) for s, size in zip(numbers, sizes, strict=True)])

    def draw(self, rng: np.random.Generator, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (conditions ``(K,)``, control cells ``(K, M)``, perturbed cells ``(K, M)``) ``steps`` times."""
        order = np.zeros(0, int)
        for _ in range(steps):
            if len(order) < self.n_sets:
                order = np.concatenate([order, rng.permutation(len(self.groups))])
            chosen, order = order[: self.n_sets], order[self.n_sets :]
            target = np.stack([rng.choice(self.groups.cells[c], self.set_size) for c in chosen])
            source = np.stack([self._draw_controls(c, rng) for c in chosen])
            yield chosen, source, target


class SetBatches(SeededBatches):
    """Sets of control and perturbed cells, with the action that lies between them.

    Parameters
    ----------
    sampler
        Draws the cells.
    cells
        Where cells come from: an :class:`EmbeddingCache` (stage 2: coordinates, ready) or an
        :class:`ExpressionMatrix` with its ``reference`` (joint training: expression, to be encoded).
    actions
        ``(conditions, n_actions)`` multi-hot.
    shift
        ``(conditions, d)`` the anchor's shift in the cache's coordinates, or None.
    dose, kind, time
        ``(conditions,)`` or None.
    steps
        Batches per epoch.
    reference
        Depth for raw cells.
    seed, fixed
        Seed of the draws; ``fixed`` repeats one epoch.
    """

    def __init__(
        self,
        sampler: ConditionSampler,
        cells: EmbeddingCache | ExpressionMatrix,
        actions: FloatArray,
        *,
        shift: FloatArray | None = None,
        dose: FloatArray | None = None,
        kind: np.ndarray | None = None,
        time: FloatArray | None = None,
        steps: int = 20,
        reference: float = 1.0,
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__(seed, fixed=fixed)
        self.sampler, self.cells, self.steps, self.reference = sampler, cells, steps, reference
        tensor = lambda a, kind: None if a is None else torch.as_tensor(np.asarray(a), dtype=kind)
        self.per_condition = {
            "actions": tensor(actions, torch.float32),
            "shift": tensor(shift, torch.float32),
            "dose": tensor(dose, torch.float32),
            "kind": tensor(kind, torch.long),
            "time": tensor(time, torch.float32),
        }

    def __len__(self) -> int:
        return self.steps

    def gather(self, cells: np.ndarray) -> Batch:
        """Return what the model reads of ``cells`` ``(K, M)`` as tensors ``(K, M, ...)``."""
        if isinstance(self.cells, EmbeddingCache):
            return self.cells.gather(cells)
        rows = aligned(self.cells.rows(cells.ravel(), self.reference))
        return {"x": rows.view(*cells.shape, -1)}

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        for chosen, source, target in self.sampler.draw(rng, self.steps):
            batch = {k: v[chosen] for k, v in self.per_condition.items() if v is not None}
            batch |= {f"source_{k}": v for k, v in self.gather(source).items()}
            batch |= {f"target_{k}": v for k, v in self.gather(target).items()}
            yield batch
