"""Callbacks: one watches the embedding for collapse while it trains, one keeps the weights of the best epoch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch

from scjepa.metrics import rankme
from scjepa.nn import GeneExpressionEncoder

logger = logging.getLogger(__name__)

COLLAPSE_STD = 0.1
"""Largest standard deviation of an embedding dimension, after the batch norm, below which all cells are one point."""
COLLAPSE_RANK = 0.05
"""Share of the dimensions (beyond the first) that the effective rank must reach; below, all cells are on a line."""


class CollapseMonitor(pl.Callback):
    """Log ``embedding_std`` and ``rankme`` of a fixed set of cells after every epoch; warn once on collapse.

    The batch norm gives every dimension unit variance, unless nothing of it is left; so an embedding collapses by
    dimensions becoming copies of each other, and the standard deviation alone does not tell. RankMe is an alarm, not
    a score: it does not rank good encoders.

    Parameters
    ----------
    probe
        ``(n, genes)`` cells to encode, on the encoder's scale.
    batch
        ``(n,)`` their batch codes, for a batch-aware encoder.
    """

    def __init__(self, probe: torch.Tensor, batch: torch.Tensor | None = None) -> None:
        self.probe, self.batch, self.warned = probe, batch, False

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on needs to know."""
        return {"warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take :meth:`state_dict`."""
        self.warned = state_dict["warned"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Encode the probe, normalized by its own statistics as in training (running ones lag), and log."""
        encoder: GeneExpressionEncoder = pl_module.module.encoder  # type: ignore[union-attr, assignment]
        codes = None if self.batch is None else self.batch.to(pl_module.device)
        training = encoder.training
        encoder.eval()
        with torch.no_grad():
            z: torch.Tensor = encoder(self.probe.to(pl_module.device), batch=codes, normalize=False).float()
        encoder.train(training)
        z = (z - z.mean(0)) / (z.var(0, correction=0) + encoder.norm.eps).sqrt()
        std, rank = z.std(0, correction=0), float(rankme(z.cpu().numpy()))
        pl_module.log("embedding_std", float(std.mean()), on_epoch=True, batch_size=1)
        pl_module.log("rankme", rank, on_epoch=True, batch_size=1)
        if len(z) < 3 or self.warned:  # one or two cells are a point or a line whatever the encoder does
            return
        if std.max() < COLLAPSE_STD or (z.shape[1] > 1 and rank < 1 + COLLAPSE_RANK * (z.shape[1] - 1)):
            self.warned = True
            warnings.warn(
                f"the embedding is collapsing: effective rank {rank:.2g} of {z.shape[1]}, largest standard deviation "
                f"{float(std.max()):.2g}. Raise regularizer_weight or use regularizer='visreg'.",
                stacklevel=2,
            )


class BestWeights(pl.Callback):
    """Put the weights of the epoch with the lowest ``validation_loss`` back when training ends.

    Early stopping notices that the loss stalls only after it waited; the weights of the last epoch are not the best.

    Parameters
    ----------
    parameters
        Parameters that are trained; one copy of them is kept.

    Attributes
    ----------
    best
        Lowest validation loss so far.
    epoch
        The epoch where it was found, or None when there was no finite loss: nothing is put back then.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.kept: list[torch.Tensor] = []
        self.best = float("inf")
        self.epoch: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on needs to know."""
        return {"best": self.best, "epoch": self.epoch, "kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take :meth:`state_dict`."""
        self.best, self.epoch, self.kept = (state_dict[k] for k in ("best", "epoch", "kept"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the weights when the loss is lower than ever."""
        loss = float(trainer.callback_metrics.get("validation_loss", torch.inf))
        if not trainer.sanity_checking and loss < self.best:
            self.best, self.epoch = loss, trainer.current_epoch
            self.kept = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self.epoch is None:
            return
        for parameter, kept in zip(self.parameters, self.kept, strict=True):
            parameter.copy_(kept)
        logger.info("kept the weights of epoch %d, validation loss %.4g.", self.epoch, self.best)
