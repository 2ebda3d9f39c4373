"""Predictors: how an embedding moves under an action, and a target embedding from a context embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scjepa._checks import require_positive_int

MIN_WIDTH = 8
"""Smallest default width of :class:`JEPAPredictor`."""


def expand_condition(z: Tensor, condition: Tensor, n_cond: int) -> Tensor:
    """Return ``condition`` with a dimension for the cells of a set where ``z`` has one more dimension; check shapes."""
    if condition.ndim == z.ndim - 1:
        condition = condition.unsqueeze(-2)
    fits = condition.ndim == z.ndim and condition.shape[-1] == n_cond
    if not fits or any(c not in (1, s) for c, s in zip(condition.shape[:-1], z.shape[:-1], strict=True)):
        raise ValueError(
            f"condition has shape {tuple(condition.shape)} for z of shape {tuple(z.shape)}: expected (..., {n_cond}), "
            "one condition for each cell or for each set of cells."
        )
    return condition


def check_width(z: Tensor, n_in: int) -> None:
    """Raise unless the last dimension of ``z`` is ``n_in``."""
    if z.ndim < 2 or z.shape[-1] != n_in:
        raise ValueError(f"z has shape {tuple(z.shape)}: expected (..., n_cells, {n_in}).")


class ConditionalPredictor(nn.Module):
    r"""Shift of each cell's embedding under a condition: an AdaLN-zero network that is exactly zero to begin with.

    .. math::

        h_0 = A z, \qquad h_{l+1} = h_l + g_l \odot \mathrm{FF}_l\big(\mathrm{LN}(h_l) \odot (1 + s_l) + b_l\big),
        \qquad (b_l, s_l, g_l) = B_l\, \mathrm{SiLU}(c)

    and a linear read-out; every B and the read-out start at zero. Added to a closed-form anchor, the model therefore
    *is* the anchor at step 0.

    Parameters
    ----------
    n_in
        Dimensions of the embedding.
    n_out
        Dimensions of the shift, by default ``n_in``.
    n_cond
        Dimensions of the condition.
    n_hidden, n_layers
        Width and number of blocks.

    References
    ----------
    Peebles, Xie. Scalable diffusion models with transformers (AdaLN-zero). arXiv:2212.09748.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import ConditionalPredictor
    >>> predictor = ConditionalPredictor(50, n_cond=8)
    >>> shift = predictor(torch.randn(4, 32, 50), torch.randn(4, 8))  # 4 sets of 32 cells, a condition each
    >>> shift.shape, bool((shift == 0).all())
    (torch.Size([4, 32, 50]), True)
    """

    def __init__(
        self, n_in: int, n_out: int | None = None, n_cond: int = 32, n_hidden: int = 128, n_layers: int = 2
    ) -> None:
        super().__init__()
        self.n_in = require_positive_int(n_in, "n_in")
        self.n_out = n_in if n_out is None else require_positive_int(n_out, "n_out")
        self.n_cond = require_positive_int(n_cond, "n_cond")
        require_positive_int(n_hidden, "n_hidden")
        require_positive_int(n_layers, "n_layers")
        self.input = nn.Linear(n_in, n_hidden)
        self.modulation = nn.ModuleList(nn.Linear(n_cond, 3 * n_hidden) for _ in range(n_layers))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(n_hidden, 2 * n_hidden), nn.GELU(), nn.Linear(2 * n_hidden, n_hidden))
            for _ in range(n_layers)
        )
        self.output = nn.Linear(n_hidden, self.n_out)
        for layer in (self.output, *self.modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Predict shifts.

        Parameters
        ----------
        z
            ``(n, n_in)`` cells, or ``(..., m, n_in)`` sets of cells.
        condition
            ``(n, n_cond)``, one for each cell; or with one dimension less than ``z``, one for each set.

        Returns
        -------
        ``(..., n_out)`` shifts.

        Raises
        ------
        ValueError
            For shapes that don't fit.
        """
        check_width(z, self.n_in)
        c = F.silu(expand_condition(z, condition, self.n_cond))
        h = self.input(z)
        for modulation, block in zip(self.modulation, self.blocks, strict=True):
            shift, scale, gate = modulation(c).chunk(3, -1)
            h = h + gate * block(F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)
        return self.output(h)


class JEPAPredictor(nn.Module):
    """The classic JEPA predictor: target embedding from context embedding through a narrow residual network.

    The bottleneck is the point: a predictor as wide as the encoder could do the encoder's work.

    Parameters
    ----------
    n_latent
        Dimensions of context and target embedding.
    n_cond
        Dimensions of a condition that is concatenated to the context (which part is hidden, which action); 0 for none.
    n_hidden
        Width, by default half of ``n_latent``, but at least 8: the layer norm of one unit is constant and that of
        two units a sign, so that narrower blocks pass next to nothing on.
    n_layers
        Number of residual blocks (LayerNorm, linear, GELU, linear).
    dropout
        Dropout rate inside the blocks.

    References
    ----------
    Assran et al. I-JEPA. arXiv:2301.08243 (projection down, blocks, LayerNorm, projection up).

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import JEPAPredictor
    >>> JEPAPredictor(32, n_cond=4)(torch.randn(10, 32), torch.randn(10, 4)).shape
    torch.Size([10, 32])
    """

    def __init__(
        self, n_latent: int, n_cond: int = 0, n_hidden: int | None = None, n_layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.n_latent = require_positive_int(n_latent, "n_latent")
        self.n_cond = require_positive_int(n_cond, "n_cond", minimum=0)
        require_positive_int(n_layers, "n_layers")
        width = max(MIN_WIDTH, n_latent // 2) if n_hidden is None else require_positive_int(n_hidden, "n_hidden")
        self.n_hidden = width
        self.input = nn.Linear(n_latent + n_cond, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(4 * width, width),
                nn.Dropout(dropout),
            )
            for _ in range(n_layers)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_latent))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict the target embedding.

        Parameters
        ----------
        z
            ``(..., n, n_latent)`` context embeddings (cells or tokens).
        condition
            ``(..., n_cond)`` as in :class:`ConditionalPredictor`. Needed if, and only if, ``n_cond`` is positive.

        Returns
        -------
        ``(..., n, n_latent)``.

        Raises
        ------
        ValueError
            For shapes that don't fit, or a condition missing or not asked for.
        """
        check_width(z, self.n_latent)
        if (condition is None) != (self.n_cond == 0):
            state = "missing" if condition is None else "given"
            raise ValueError(f"condition is {state}, but the predictor was made with n_cond={self.n_cond}.")
        if condition is not None:
            condition = expand_condition(z, condition, self.n_cond)
            z = torch.cat([z, condition.expand(*z.shape[:-1], self.n_cond)], -1)
        h = self.input(z)
        for block in self.blocks:
            h = h + block(h)
        return self.output(h)
