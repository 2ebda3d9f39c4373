"""Inverse dynamics: read the action back from how a set of cells moved, so that the latent keeps it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scjepa._checks import require_positive_int


class InverseDynamicsHead(nn.Module):
    """Linear logits of the actions from the shift between the means of two sets of cells.

    Parameters
    ----------
    n_latent
        Dimensions of the embedding.
    n_actions
        Number of known actions.

    References
    ----------
    Inverse-dynamics term of eb_jepa, arXiv:2602.03604; here on set means, as single cells are unpaired.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import InverseDynamicsHead
    >>> head = InverseDynamicsHead(8, 3)
    >>> head(torch.randn(4, 32, 8), torch.randn(4, 20, 8)).shape  # 4 pairs of sets
    torch.Size([4, 3])
    """

    def __init__(self, n_latent: int, n_actions: int) -> None:
        super().__init__()
        self.n_latent = require_positive_int(n_latent, "n_latent")
        self.n_actions = require_positive_int(n_actions, "n_actions")
        self.linear = nn.Linear(n_latent, n_actions)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits ``(..., n_actions)`` of sets ``(..., m, n_latent)`` and ``(..., n, n_latent)``."""
        for name, cells in (("source", source), ("target", target)):
            if cells.ndim < 2 or cells.shape[-1] != self.n_latent or cells.shape[-2] == 0:
                raise ValueError(
                    f"{name} has shape {tuple(cells.shape)}: expected sets (..., n_cells, {self.n_latent})."
                )
        return self.linear(target.mean(-2) - source.mean(-2))

    def loss(self, source: Tensor, target: Tensor, actions: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the logits.

        Parameters
        ----------
        source, target
            Sets of cells before and after, ``(..., m, n_latent)`` and ``(..., n, n_latent)``.
        actions
            ``(..., n_actions)`` multi-hot, what was done to each set.

        Returns
        -------
        0-d tensor.
        """
        logits = self(source, target)
        if actions.shape != logits.shape:
            raise ValueError(f"actions have shape {tuple(actions.shape)}: expected {tuple(logits.shape)} multi-hot.")
        return F.binary_cross_entropy_with_logits(logits, actions.to(logits.dtype))
