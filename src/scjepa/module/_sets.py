"""Unpaired sets of cells before and after an action: the predicted set must match the measured one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from scjepa.losses import mean_distance
from scjepa.module._objective import SET_LOSSES, Objective, Parts, check_set_loss, told

SETS = "sets"


class SetParts(Protocol):
    """What is read off the module."""

    @property
    def predictors(self) -> Iterable[Callable[..., torch.Tensor]]:
        """Ensemble of shifts under an action."""

    def state(self, z: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """Return what predictors read."""


class SetMatching(Objective):
    """Stage 2: predicted sets match the sets of perturbed cells, in frozen expression-faithful coordinates.

    ``predicted = z_control + anchor shift + f(z_control + noise, action)``; controls and perturbed cells are
    unpaired, so only distributions are compared. Members of the ensemble are trained side by side on the same sets.

    Parameters
    ----------
    set_loss
        ``"mmd"``, ``"energy"`` or ``"random_pair"`` (the ablation that shrinks effects).
    mean_weight
        Weight of the squared distance of set means.
    noise
        Standard deviation of the noise on the predictor's input.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import SETS, JEPAModule, SetMatching, action_predictors
    >>> from scjepa.nn import ActionEncoder, GeneExpressionEncoder
    >>> predictors = action_predictors(lambda: ActionEncoder(2), n_state=5, n_out=5)
    >>> module = JEPAModule(GeneExpressionEncoder(40, 4), {SETS: SetMatching()}, predictors=predictors)
    >>> batch = {"source_z": torch.rand(2, 9, 5), "target_z": torch.rand(2, 9, 5), "actions": torch.eye(2)}
    >>> list(module(batch, SETS).extra_metrics)
    ['set_loss', 'mean_loss']
    """

    trains = ("predictors.",)

    def __init__(self, set_loss: str = "mmd", *, mean_weight: float = 0.2, noise: float = 0.3) -> None:
        super().__init__()
        self.set_loss, self.mean_weight, self.noise = check_set_loss(set_loss), mean_weight, noise

    def forward(self, parts: SetParts, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of sets."""
        source, target = batch["source_z"], batch["target_z"]
        state = parts.state(source, batch.get("source_h"))
        base = source + batch["shift"][:, None] if "shift" in batch else source
        set_loss, mean_loss = source.new_zeros(()), source.new_zeros(())
        for member in parts.predictors:
            noisy = state + self.noise * torch.randn_like(state) if self.training else state
            predicted = base + member(noisy, **told(batch))
            set_loss = set_loss + SET_LOSSES[self.set_loss](predicted, target).mean()
            mean_loss = mean_loss + mean_distance(predicted, target).mean()
        return {"loss": set_loss + self.mean_weight * mean_loss, "set_loss": set_loss, "mean_loss": mean_loss}

    def count(self, batch: Parts) -> int:
        """Return the number of pairs of sets."""
        return batch["source_z"].shape[0]
