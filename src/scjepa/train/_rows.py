"""A callback that lets only some entries of some parameters train: what is known stays, to the last bit."""

from __future__ import annotations

import lightning.pytorch as pl
import torch


class OnlyRows(pl.Callback):
    """Train only the entries of parameters that a mask names.

    Gradients elsewhere are zeroed before the optimizer steps, and the entries are put back after it, because weight
    decay moves them without a gradient. The encoder stays in evaluation mode: its running statistics are known, too.

    Parameters
    ----------
    parameters
        Parameters that train.
    masks
        For each a boolean tensor of its shape, True where it trains.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], masks: list[torch.Tensor]) -> None:
        self.parameters, self.masks = parameters, masks
        self.kept: list[torch.Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember what stays."""
        self.masks = [m.to(p.device) for m, p in zip(self.masks, self.parameters, strict=True)]
        self.kept = [p.detach().clone() for p in self.parameters]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the encoder's statistics."""
        pl_module.module.encoder.eval()  # type: ignore[union-attr, operator]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Zero the gradients of what stays, so that they neither move anything nor count when gradients are clipped."""
        for p, mask in zip(self.parameters, self.masks, strict=True):
            if p.grad is not None:
                p.grad.mul_(mask)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """Put back what stays."""
        for p, mask, kept in zip(self.parameters, self.masks, self.kept, strict=True):
            p.copy_(torch.where(mask, p, kept))
