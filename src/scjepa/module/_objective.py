"""What an objective is, and what the objectives share: how a batch tells an action, the distances between sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from scjepa.losses import energy_distance, mmd, random_pair_mse

Parts = dict[str, torch.Tensor]

TOLD = ("actions", "dose", "kind", "time")
"""What a batch can tell of an action; the names are those of :class:`scjepa.nn.ActionEncoder`."""

SET_LOSSES = {"mmd": mmd, "energy": energy_distance, "random_pair": random_pair_mse}


class Objective(nn.Module, ABC):
    """What training asks for: a loss on a batch, of parts that a module puts together. It must forbid collapse.

    An objective owns no part. It reads them off the module that it is given, so that several objectives train one
    encoder in turn; which parts it needs its ``forward`` says by a protocol.

    Attributes
    ----------
    trains
        What the names of the parameters begin with that this objective trains; all others stay as they are.
    """

    trains: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(self, parts: Any, batch: Parts) -> Parts:
        """Return ``"loss"`` and what it is made of, 0-d tensors."""

    @abstractmethod
    def count(self, batch: Parts) -> int:
        """Return the number of observations in a batch: cells, or sets of cells."""


class CellEncoder(Protocol):
    """What is asked of an encoder of cells; :class:`scjepa.nn.GeneExpressionEncoder` has it."""

    @property
    def n_modules(self) -> int:
        """Number of gene modules that can be hidden."""

    def __call__(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, batch: torch.Tensor | None = None) -> Any:
        """Return embeddings ``(n, latent)`` of expression ``(n, genes)``."""

    def center(self, x: torch.Tensor, *, batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return expression less what is no property of the cell (mean, batch offset)."""


def told(batch: Parts) -> Parts:
    """Return what a batch tells of its actions, as keyword arguments of a predictor."""
    return {name: batch[name] for name in TOLD if name in batch}


def check_set_loss(name: str) -> str:
    """Return ``name``; raise :class:`ValueError` unless it is one of :data:`SET_LOSSES`."""
    if name not in SET_LOSSES:
        raise ValueError(f"set_loss={name!r}: expected one of {sorted(SET_LOSSES)}.")
    return name


def squared_error(decoded: torch.Tensor, aim: torch.Tensor, n_latent: int) -> torch.Tensor:
    """Return the squared error a cell, per dimension of the embedding that it was decoded from."""
    return ((decoded - aim) ** 2).sum(1).mean() / n_latent
