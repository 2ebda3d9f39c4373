"""Sinusoidal embedding of a number: elapsed time, diffusion time, position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int


class SinusoidalPositionEmbeddings(nn.Module):
    r"""Embed real numbers as sines and cosines of geometrically spaced frequencies; no parameters.

    .. math::

        \omega_i = P^{-2 i / dim}, \qquad e(t) = [\sin \omega_0 t, \sin \omega_1 t, \ldots, \cos \omega_0 t, \ldots]

    All sines first, then all cosines; an odd ``dim`` has one sine more. Periods grow from 2π to almost 2π P, so scale t
    such that differences worth telling apart are of order one.

    Parameters
    ----------
    dim
        Length of the embedding.
    max_period
        The P of the formula.

    References
    ----------
    Vaswani et al. Attention is all you need. arXiv:1706.03762, section 3.5.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import SinusoidalPositionEmbeddings
    >>> SinusoidalPositionEmbeddings(4)(torch.tensor([0.0])).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_period: float = 10000.0) -> None:
        super().__init__()
        self.dim = require_positive_int(dim, "dim")
        if not (math.isfinite(max_period) and max_period > 0):
            raise ValueError(f"max_period={max_period!r}: expected a positive number.")
        exponent = torch.arange((dim + 1) // 2, dtype=torch.float64) * (2 / dim)
        frequencies = torch.exp(-math.log(max_period) * exponent)
        # a constant of the formula, not state: kept out of checkpoints
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed ``t`` of shape ``(n,)`` (or any shape) as ``(n, dim)`` (a new last dimension)."""
        t = torch.as_tensor(t, device=self.frequencies.device)
        t = t if t.is_floating_point() else t.to(self.frequencies.dtype)
        angles = t.unsqueeze(-1) * self.frequencies.to(t.dtype)
        return torch.cat([angles.sin(), angles[..., : self.dim // 2].cos()], -1)
