"""Mean squared error between cells paired at random: a named ablation that shows why sets are compared as sets."""

from __future__ import annotations

import torch
from torch import Tensor

from scjepa.losses._inputs import check_sets


def random_pair_mse(x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the mean squared error between each cell of ``x`` and a random cell of ``y``.

    **Not a loss to train with.** Its optimum is the mean of ``y`` for every cell, so that effects shrink and the
    differences between cells vanish; it is here as the ablation that measures this.

    Every cell of ``y`` is used equally often (up to one), each set has its own pairing.

    Parameters
    ----------
    x
        ``(..., m, d)``.
    y
        ``(..., n, d)``; the sets may differ in size, leading dimensions are broadcast.
    generator
        Source of the pairing; torch's default one if None.

    Returns
    -------
    ``(...)``, mean over cells and dimensions for each pair of sets.

    Raises
    ------
    ValueError
        When the shapes don't fit, or a set is empty.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import random_pair_mse
    >>> random_pair_mse(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0]])).item()
    5.0
    """
    x, y = check_sets(x, y)
    device = y.device if generator is None else generator.device
    order = torch.rand(y.shape[:-1], generator=generator, device=device).argsort(-1).to(y.device)
    partner = order[..., torch.arange(x.shape[-2], device=y.device) % y.shape[-2]]
    return (x - torch.take_along_dim(y, partner[..., None], -2)).square().mean((-2, -1))
