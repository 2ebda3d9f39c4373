"""Action encoder and predictor as one part: how a state moves under an action."""

from __future__ import annotations

import torch
from torch import nn


class ActionPredictor(nn.Module):
    """Shift of states under actions, ``f(state, action)``.

    Parameters
    ----------
    action_encoder
        Turns what is told of an action into a condition ``(K, n_cond)``, see :class:`scjepa.nn.ActionEncoder`.
    predictor
        Turns states ``(K, M, n_state)`` and conditions ``(K, 1, n_cond)`` into shifts, see
        :class:`scjepa.nn.ConditionalPredictor`, which is exactly zero at initialization.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import ActionPredictor
    >>> from scjepa.nn import ActionEncoder, ConditionalPredictor
    >>> f = ActionPredictor(ActionEncoder(2, n_cond=8), ConditionalPredictor(5, 3, n_cond=8))
    >>> f(torch.randn(4, 7, 5), torch.eye(2)[[0, 0, 1, 1]]).abs().max().item()
    0.0
    """

    def __init__(self, action_encoder: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.action_encoder, self.predictor = action_encoder, predictor

    def forward(
        self,
        state: torch.Tensor,
        actions: torch.Tensor | None = None,
        dose: torch.Tensor | None = None,
        kind: torch.Tensor | None = None,
        time: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return shifts ``(K, M, n_out)`` of sets of states ``(K, M, n_state)``; the rest is for the action encoder."""
        told = {"actions": actions, "dose": dose, "kind": kind, "time": time}
        condition = self.action_encoder(**{name: value for name, value in told.items() if value is not None})
        return self.predictor(state, condition[:, None])
