"""VICReg: variance-invariance-covariance regularisation, the classic joint-embedding objective."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scjepa.losses._inputs import check_batch


class VICRegLoss(nn.Module):
    r"""Two embeddings of the same cells must agree, while each keeps its spread and its dimensions uncorrelated.

    .. math::

        L = \lambda_{sim}\, \mathrm{MSE}(x, y)
          + \lambda_{std}\, \frac{v(x) + v(y)}{2}
          + \lambda_{cov}\, (c(x) + c(y))

        v(z) = \frac{1}{d} \sum_j \max(0, \gamma - \sqrt{\mathrm{Var}(z_j) + \epsilon}),
        \qquad c(z) = \frac{1}{d} \sum_{i \ne j} \mathrm{Cov}(z)_{ij}^2

    with the unbiased (``n - 1``) variance and covariance, as in the reference code ``main_vicreg.py``.

    Parameters
    ----------
    sim, std, cov
        Weights of the invariance, variance and covariance terms.
    gamma
        Standard deviation below which a dimension is pushed apart.
    eps
        Added to the variance under the root: bounds the gradient of a collapsed dimension.

    References
    ----------
    Bardes, Ponce, LeCun. VICReg. ICLR 2022, arXiv:2105.04906; code facebookresearch/vicreg.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import VICRegLoss
    >>> x = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    >>> y = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> {name: round(value.item(), 4) for name, value in VICRegLoss()(x, y).items()}
    {'loss': 22.6875, 'invariance': 0.5, 'variance': 0.2475, 'covariance': 4.0}
    """

    def __init__(
        self, sim: float = 25.0, std: float = 25.0, cov: float = 1.0, gamma: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.sim, self.std, self.cov, self.gamma, self.eps = sim, std, cov, gamma, eps

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Compare two embeddings of the same cells.

        Parameters
        ----------
        x, y
            ``(n, d)``; row i of both belongs to cell i.

        Returns
        -------
        0-d tensors ``loss`` (weighted sum), ``invariance``, ``variance`` and ``covariance`` (unweighted).

        Raises
        ------
        ValueError
            When the shapes differ, or with fewer than two cells.
        """
        if x.shape != y.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, y has shape {tuple(y.shape)}: expected the same cells.")
        left, right = self.regularize(x, name="x"), self.regularize(y, name="y")
        invariance = F.mse_loss(check_batch(x), check_batch(y))
        return {
            "loss": self.sim * invariance + left["loss"] + right["loss"],
            "invariance": invariance,
            "variance": left["variance"] + right["variance"],
            "covariance": left["covariance"] + right["covariance"],
        }

    def regularize(self, z: Tensor, *, name: str = "z") -> dict[str, Tensor]:
        """Return the part against collapse for one batch: what this branch adds to :meth:`forward`.

        So ``forward(x, y)["loss"]`` is ``sim * mse + regularize(x)["loss"] + regularize(y)["loss"]``, and the ratio of
        the two terms is that of the paper with one branch, too.

        Parameters
        ----------
        z
            ``(n, d)`` embeddings.
        name
            What error messages call ``z``.

        Returns
        -------
        0-d tensors ``variance`` = v(z) / 2 (``gamma / 2`` in full collapse), ``covariance`` = c(z), and ``loss`` =
        ``std * variance + cov * covariance``.

        Raises
        ------
        ValueError
            With fewer than two cells.
        """
        z = check_batch(z, name)
        n, d = z.shape
        centred = z - z.mean(0)
        spread = torch.sqrt(centred.square().sum(0) / (n - 1) + self.eps)
        variance = F.relu(self.gamma - spread).mean() / 2
        products = (centred.T @ centred) / (n - 1)
        # the diagonal is zeroed, not subtracted: subtracting sums of squares would cancel badly
        covariance = products.masked_fill(torch.eye(d, dtype=torch.bool, device=z.device), 0.0).square().sum() / d
        return {"loss": self.std * variance + self.cov * covariance, "variance": variance, "covariance": covariance}
