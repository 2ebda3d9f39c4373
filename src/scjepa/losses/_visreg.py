"""VISReg: centre, scale and sliced shape of a batch against N(0, I)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int
from scjepa.losses._inputs import check_batch, random_directions

_SMALL_STD = 1e-6
"""Added to the standard deviation that the shape term divides by: a constant dimension stays finite."""


class VISRegLoss(nn.Module):
    r"""Distance of a batch of embeddings from N(0, I), split into centre, scale and shape.

    .. math::

        L(z) = \underbrace{\overline{\mu_j^2}}_{center} + \underbrace{\overline{(\sigma_j - 1)^2}}_{scale}
        + \underbrace{\overline{\big(\mathrm{sort}(\tilde z\, a)_i - \Phi^{-1}(\tfrac{i + 1/2}{n})\big)^2}}_{shape},
        \qquad \tilde z = \frac{z - \mu}{\mathrm{sg}(\sigma)}

    over random unit directions a and i = 0 ... n-1: the squared 2-Wasserstein distance of each standardised slice from
    the normal. The standard deviation (unbiased) is detached in the shape term, so that only the scale term changes it.
    Slices are drawn anew at each call. Quantiles at (i + 1/2) / n, where the paper has i / (n + 1).

    Parameters
    ----------
    n_slices
        Number of random directions.

    References
    ----------
    VISReg, arXiv:2606.02572; as in rbalestr-lab/stable-pretraining ``methods/visreg.py`` but for the quantiles.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import VISRegLoss
    >>> parts = VISRegLoss()(torch.tensor([[3.0], [5.0], [7.0]]))
    >>> round(parts["center"].item(), 4), round(parts["scale"].item(), 4)
    (25.0, 1.0)
    """

    def __init__(self, n_slices: int = 64) -> None:
        super().__init__()
        self.n_slices = require_positive_int(n_slices, "n_slices")

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Score one batch.

        Parameters
        ----------
        z
            ``(n, d)`` embeddings.
        generator
            Source of the random slices; torch's default one if None.

        Returns
        -------
        0-d tensors ``loss`` (the sum), ``center``, ``scale`` and ``shape``.

        Raises
        ------
        ValueError
            With fewer than two cells.
        """
        z = check_batch(z)
        mean, std = z.mean(0), z.std(0)
        standard = (z - mean) / (std.detach() + _SMALL_STD)
        slices = (standard @ random_directions(z, self.n_slices, generator)).sort(0).values
        ranks = torch.arange(len(z), dtype=z.dtype, device=z.device)
        normal = torch.special.ndtri((ranks + 0.5) / len(z))
        center, scale = mean.square().mean(), (std - 1).square().mean()
        shape = (slices - normal[:, None]).square().mean()
        return {"loss": center + scale + shape, "center": center, "scale": scale, "shape": shape}
