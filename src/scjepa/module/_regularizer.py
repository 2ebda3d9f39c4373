"""What forbids collapse, by name."""

from __future__ import annotations

import torch
from torch import nn

from scjepa.losses import SIGRegLoss, VICRegLoss, VISRegLoss

REGULARIZER_WEIGHTS = {"visreg": 1.0, "sigreg": 2.0, "vicreg": 0.04, "ema": 0.0}
"""Default weights: VISReg and SIGReg as measured, VICReg's 25/25/1 relative to an agreement of weight 1, EMA none."""


class Regularizer(nn.Module):
    """The anti-collapse term of one batch of embeddings, by name.

    Parameters
    ----------
    name
        ``"visreg"``, ``"sigreg"``, ``"vicreg"``, or ``"ema"`` (no term: the slow target encoder does the work).
    weight
        Multiplies the term; by default :data:`REGULARIZER_WEIGHTS`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import Regularizer
    >>> collapsed, spread = torch.zeros(64, 4), torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> bool(Regularizer("visreg")(collapsed) > Regularizer("visreg")(spread))
    True
    """

    def __init__(self, name: str = "visreg", weight: float | None = None) -> None:
        super().__init__()
        if name not in REGULARIZER_WEIGHTS:
            raise ValueError(f"regularizer={name!r}: expected one of {sorted(REGULARIZER_WEIGHTS)}.")
        self.name = name
        self.weight = REGULARIZER_WEIGHTS[name] if weight is None else float(weight)
        self.term = {"visreg": VISRegLoss, "sigreg": SIGRegLoss, "vicreg": VICRegLoss}.get(name, nn.Identity)()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the weighted term of ``z`` ``(n, latent)``."""
        if self.name == "ema" or self.weight == 0:
            return z.new_zeros(())
        parts = self.term.regularize(z) if self.name == "vicreg" else self.term(z)
        return self.weight * parts["loss"]
