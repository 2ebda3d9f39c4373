"""Unpaired sets of raw cells: encoder and predictor are trained together, in the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from scjepa.losses import mean_distance
from scjepa.module._objective import SET_LOSSES, CellEncoder, Objective, Parts, check_set_loss, squared_error, told
from scjepa.module._regularizer import Regularizer
from scjepa.nn import InverseDynamicsHead

JOINT = "joint"


class JointParts(Protocol):
    """What is read off the module."""

    encoder: CellEncoder
    decoder: Callable[[torch.Tensor], torch.Tensor] | None
    target_encoder: Callable[..., torch.Tensor] | None
    inverse_dynamics: InverseDynamicsHead | None

    @property
    def predictors(self) -> Iterable[Callable[..., torch.Tensor]]:
        """Ensemble of shifts under an action."""


class JointPrediction(Objective):
    """The classic formulation: encode source and target, predict one from the other, all trained together.

    ``loss = set_loss(h_source + f(h_source, a), h_target) + mean term + regularizer(h_source, h_target)
    + inverse dynamics + reconstruction``. With ``set_loss="random_pair"`` and ``regularizer="vicreg"`` this is the
    VICReg joint embedding of (randomly) paired cells; a slow target encoder takes the place of the shared one when
    the module has it.

    Parameters
    ----------
    regularizer, set_loss, mean_weight
        As in the two stages.
    inverse_dynamics
        Weight of the linear head that must read the action off the shift of set means; without a head there is none.
    reconstruction
        Weight of the decoder's squared error; without a decoder there is none.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import JOINT, JEPAModule, JointPrediction, Regularizer, action_predictors
    >>> from scjepa.nn import ActionEncoder, GeneExpressionEncoder
    >>> predictors = action_predictors(lambda: ActionEncoder(2), n_state=4, n_out=4)
    >>> objectives = {JOINT: JointPrediction(Regularizer("vicreg"))}
    >>> module = JEPAModule(GeneExpressionEncoder(40, 4), objectives, predictors=predictors)
    >>> batch = {"source_x": torch.rand(2, 9, 40), "target_x": torch.rand(2, 9, 40), "actions": torch.eye(2)}
    >>> list(module(batch, JOINT).extra_metrics)
    ['set_loss', 'mean_loss', 'regularization']
    """

    trains = ("encoder.", "decoder.", "predictors.", "inverse_dynamics.")

    def __init__(
        self,
        regularizer: Regularizer,
        set_loss: str = "energy",
        *,
        mean_weight: float = 0.2,
        inverse_dynamics: float = 1.0,
        reconstruction: float = 0.3,
    ) -> None:
        super().__init__()
        self.regularizer, self.set_loss, self.mean_weight = regularizer, check_set_loss(set_loss), mean_weight
        self.inverse_dynamics, self.reconstruction = inverse_dynamics, reconstruction

    def forward(self, parts: JointParts, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of sets of raw cells."""
        x, y = batch["source_x"], batch["target_x"]
        sets, cells, genes = x.shape
        both = parts.encoder(torch.cat([x, y]).view(-1, genes))
        hx, hy = both.view(2, sets, cells, -1)
        target = hy
        if parts.target_encoder is not None:
            target = parts.target_encoder(y.view(-1, genes)).view(sets, cells, -1).detach()
        set_loss, mean_loss = hx.new_zeros(()), hx.new_zeros(())
        for member in parts.predictors:
            predicted = hx + member(hx, **told(batch))
            set_loss = set_loss + SET_LOSSES[self.set_loss](predicted, target).mean()
            mean_loss = mean_loss + mean_distance(predicted, target).mean()
        regularization = self.regularizer(both)
        loss = set_loss + self.mean_weight * mean_loss + regularization
        out = {"set_loss": set_loss, "mean_loss": mean_loss, "regularization": regularization}
        if parts.inverse_dynamics is not None:
            out["inverse_dynamics"] = parts.inverse_dynamics.loss(hx, hy, batch["actions"])
            loss = loss + self.inverse_dynamics * out["inverse_dynamics"]
        if parts.decoder is not None:
            aim = parts.encoder.center(torch.cat([x, y]).view(-1, genes))
            out["reconstruction"] = squared_error(parts.decoder(both), aim, both.shape[1])
            loss = loss + self.reconstruction * out["reconstruction"]
        return {"loss": loss, **out}

    def count(self, batch: Parts) -> int:
        """Return the number of pairs of sets."""
        return batch["source_x"].shape[0]
