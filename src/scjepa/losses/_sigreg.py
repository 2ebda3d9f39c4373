"""SIGReg: sketched isotropic Gaussian regularisation by the Epps-Pulley statistic on random slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int
from scjepa.losses._inputs import check_batch, random_directions


class SIGRegLoss(nn.Module):
    r"""Distance of a batch of embeddings from N(0, I): characteristic functions compared along random directions.

    .. math::

        L(z) = \frac{1}{S} \sum_a \sum_k w_k \left[
          \Big(\frac1n \sum_i \cos(t_k a^\top z_i) - e^{-t_k^2/2}\Big)^2
          + \Big(\frac1n \sum_i \sin(t_k a^\top z_i)\Big)^2 \right]

    with knots :math:`t_k` evenly spaced on [0, t_max] and trapezoid weights :math:`w_k = 2 \Delta t\, e^{-t_k^2/2}`
    (half of that at both ends). This is the statistic of LeJEPA **without its factor n**, so that the weight of the
    loss does not depend on the batch size: LeJEPA's weight :math:`\lambda` at batch size n is :math:`\lambda n` here.
    True N(0, I) samples score about 1.05 / n, a batch collapsed to the origin 0.41. Slices are drawn anew at each call.

    Parameters
    ----------
    n_slices
        Number of random directions.
    n_knots
        Number of points at which characteristic functions are compared.
    t_max
        The last of them.

    References
    ----------
    Balestriero, LeCun. LeJEPA. arXiv:2511.08544; code rbalestr-lab/lejepa. Epps, Pulley. Biometrika 70, 1983.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import SIGRegLoss
    >>> loss, rng = SIGRegLoss(), torch.Generator().manual_seed(0)
    >>> z = torch.randn(1000, 8, generator=rng)
    >>> bool(loss(z)["loss"] < 0.01), bool(loss(0 * z)["loss"] > 0.3)
    (True, True)
    """

    knots: Tensor
    weights: Tensor

    def __init__(self, n_slices: int = 256, n_knots: int = 17, t_max: float = 3.0) -> None:
        super().__init__()
        self.n_slices = require_positive_int(n_slices, "n_slices")
        require_positive_int(n_knots, "n_knots", minimum=2)
        if not t_max > 0:
            raise ValueError(f"t_max={t_max!r}: expected a positive number.")
        knots = torch.linspace(0.0, t_max, n_knots)
        weights = 2 * t_max / (n_knots - 1) * torch.exp(-knots.square() / 2)
        weights[[0, -1]] /= 2
        # constants of the formula, not state: kept out of checkpoints
        self.register_buffer("knots", knots, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

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
        ``{"loss": 0-d tensor}``.

        Raises
        ------
        ValueError
            With fewer than two cells.
        """
        z = check_batch(z)
        knots = self.knots.to(z.dtype)
        projected = z @ random_directions(z, self.n_slices, generator)
        angles = projected.unsqueeze(-1) * knots
        real = angles.cos().mean(0) - torch.exp(-knots.square() / 2)
        imaginary = angles.sin().mean(0)
        statistic = (real.square() + imaginary.square()) @ self.weights.to(z.dtype)
        return {"loss": statistic.mean()}
