"""The expression-faithful geometry: frozen principal axes with one common scale, and the linear readout."""

from __future__ import annotations

import torch
from torch import nn


class ExpressionSpace(nn.Module):
    """Coordinates ``z = (x - mean) @ loadings.T / scale``: PCA axes, one scale for all, never trained.

    One common scale keeps distances proportional to those between expression profiles; whitening would not.

    Parameters
    ----------
    n_genes, n_components
        Shapes of the buffers; values come from :meth:`set_axes`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import ExpressionSpace
    >>> space = ExpressionSpace(3, 2)
    >>> space.set_axes(torch.zeros(3), torch.eye(2, 3), 2.0)
    >>> space.project(torch.tensor([[4.0, 2.0, 9.0]])).tolist()
    [[2.0, 1.0]]
    """

    mean: torch.Tensor
    loadings: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_genes: int, n_components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("loadings", torch.zeros(n_components, n_genes))
        self.register_buffer("scale", torch.ones(()))

    def set_axes(self, mean: torch.Tensor, loadings: torch.Tensor, scale: float) -> None:
        """Store the axes; ``loadings`` has orthonormal rows (or rows of zeros)."""
        self.mean.copy_(torch.as_tensor(mean))
        self.loadings.copy_(torch.as_tensor(loadings))
        self.scale.fill_(scale)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Return coordinates ``(..., d)`` of expression ``(..., genes)``."""
        return (x - self.mean) @ self.loadings.T / self.scale

    def project_shift(self, shift: torch.Tensor) -> torch.Tensor:
        """Return the coordinates of a difference of expressions."""
        return shift @ self.loadings.T / self.scale

    def lift_shift(self, shift: torch.Tensor) -> torch.Tensor:
        """Return the difference of expressions ``(..., genes)`` of a shift ``(..., d)`` in coordinates."""
        return (shift * self.scale) @ self.loadings


class LinearReadout(nn.Module):
    """Expression from an embedding, ``x = h @ weight.T + bias``, fitted in closed form (ridge), never by gradient.

    Parameters
    ----------
    n_latent, n_genes
        Shapes of the buffers; values come from :meth:`fit`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import LinearReadout
    >>> readout = LinearReadout(1, 1)
    >>> h = torch.tensor([[0.0], [1.0], [2.0]])
    >>> readout.fit([(h, 2 * h + 1)], ridge=0.0)
    >>> readout(torch.tensor([[3.0]])).round(decimals=4).tolist()
    [[7.0]]
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_latent: int, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_genes, n_latent))
        self.register_buffer("bias", torch.zeros(n_genes))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return expression ``(..., genes)`` of embeddings ``(..., latent)``."""
        return h @ self.weight.T + self.bias

    @torch.no_grad()
    def fit(self, batches, ridge: float = 1.0) -> None:
        """Fit by ridge regression from an iterable of ``(h, x)`` batches, in one pass over the cells."""
        n = 0
        d, g = self.weight.shape[1], self.weight.shape[0]
        hh, hx = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, g, dtype=torch.float64)
        h_sum, x_sum = torch.zeros(d, dtype=torch.float64), torch.zeros(g, dtype=torch.float64)
        for h, x in batches:
            h, x = h.detach().cpu(), x.detach().cpu()
            hh += (h.T @ h).double()
            hx += (h.T @ x).double()
            h_sum += h.double().sum(0)
            x_sum += x.double().sum(0)
            n += len(h)
        h_mean, x_mean = h_sum / max(n, 1), x_sum / max(n, 1)
        cov = hh - n * torch.outer(h_mean, h_mean) + ridge * torch.eye(d, dtype=torch.float64)
        weight = torch.linalg.lstsq(cov, hx - n * torch.outer(h_mean, x_mean)).solution.T
        self.weight.copy_(weight)
        self.bias.copy_(x_mean - weight @ h_mean)
