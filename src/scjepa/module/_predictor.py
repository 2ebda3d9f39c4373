"""Action encoder and predictor as one part: how a state moves under an action."""

from __future__ import annotations

import torch
from torch import nn

from scjepa.nn import ConditionalPredictor, PerturbationEncoder


class ActionPredictor(nn.Module):
    """Shift of states under actions, ``f(state, action)``; exactly zero at initialization.

    Parameters
    ----------
    n_state
        Size of the state that is read.
    n_out
        Size of the shift.
    n_actions
        Number of things that can be perturbed.
    n_kinds, dose_gate, dose_ref
        Passed to :class:`scjepa.nn.PerturbationEncoder`.
    n_cond, n_hidden, n_layers
        Sizes of the action embedding and of :class:`scjepa.nn.ConditionalPredictor`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import ActionPredictor
    >>> f = ActionPredictor(5, 3, n_actions=2)
    >>> f(torch.randn(4, 7, 5), torch.eye(2)[[0, 0, 1, 1]]).abs().max().item()
    0.0
    """

    def __init__(
        self,
        n_state: int,
        n_out: int,
        n_actions: int,
        *,
        n_kinds: int = 0,
        dose_gate: bool = False,
        dose_ref: float = 1.0,
        n_cond: int = 32,
        n_hidden: int = 128,
        n_layers: int = 2,
    ) -> None:
        super().__init__()
        self.action_encoder = PerturbationEncoder(
            n_actions, n_cond, n_kinds=n_kinds, dose_gate=dose_gate, dose_ref=dose_ref
        )
        self.predictor = ConditionalPredictor(n_state, n_out, n_cond=n_cond, n_hidden=n_hidden, n_layers=n_layers)

    def forward(
        self,
        state: torch.Tensor,
        actions: torch.Tensor,
        dose: torch.Tensor | None = None,
        kind: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return shifts ``(K, M, n_out)`` of sets of states ``(K, M, n_state)`` under actions ``(K, n_actions)``."""
        condition = self.action_encoder(actions, dose=dose, kind=kind)
        return self.predictor(state, condition[:, None])
