"""How cells move as time passes: a shift that is zero when no time does, and exactly zero to begin with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int
from scjepa.nn._position import SinusoidalPositionEmbeddings
from scjepa.nn._predictors import ConditionalPredictor, check_width

WAVES = 16
"""Length of the embedding of a time."""


class ElapsedPredictor(nn.Module):
    r"""Shift of cells from a start time over an elapsed time, which may be negative.

    .. math:: f(z, t, a, k) = \frac{a}{u}\, g\big(z,\; W [e(2 \pi (t - t_0) / s),\, e(2 \pi a / (4 u))] + v_k\big)

    with sinusoidal embeddings e of the start t, the elapsed time a in typical steps u, a course from :math:`t_0` of length s, a vector
    v of the condition (zero to begin with) and a :class:`ConditionalPredictor` g.

    Parameters
    ----------
    n_in
        Dimensions of the cells.
    n_conditions
        Number of conditions.
    n_cond, n_hidden, n_layers
        See :class:`ConditionalPredictor`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import ElapsedPredictor
    >>> predictor = ElapsedPredictor(5)
    >>> predictor.set_clock(first=0.0, length=6.0, step=2.0)
    >>> shift = predictor(torch.randn(3, 7, 5), torch.zeros(3, 7), torch.ones(3, 7))
    >>> shift.shape, bool((shift == 0).all())
    (torch.Size([3, 7, 5]), True)
    """

    clock: Tensor

    def __init__(
        self, n_in: int, n_conditions: int = 1, *, n_cond: int = 32, n_hidden: int = 64, n_layers: int = 2
    ) -> None:
        super().__init__()
        self.n_in = require_positive_int(n_in, "n_in")
        self.waves = SinusoidalPositionEmbeddings(WAVES, max_period=16.0)
        self.times = nn.Linear(2 * WAVES, n_cond)
        self.condition = nn.Embedding(require_positive_int(n_conditions, "n_conditions"), n_cond)
        nn.init.zeros_(self.condition.weight)
        self.predictor = ConditionalPredictor(n_in, n_in, n_cond=n_cond, n_hidden=n_hidden, n_layers=n_layers)
        self.register_buffer("clock", torch.tensor([0.0, 1.0, 1.0]))

    def set_clock(self, first: float, length: float, step: float) -> None:
        """Say when the course starts, how long it is, and what a typical step is.

        Raises
        ------
        ValueError
            Unless length and step are positive.
        """
        if not (math.isfinite(first) and length > 0 and step > 0):
            raise ValueError(
                f"first={first!r}, length={length!r}, step={step!r}: expected a start and positive lengths."
            )
        self.clock.copy_(torch.tensor([first, length, step]))

    def forward(self, z: Tensor, start: Tensor, elapsed: Tensor, kind: Tensor | None = None) -> Tensor:
        """Return shifts.

        Parameters
        ----------
        z
            ``(..., m, n_in)`` cells.
        start, elapsed
            ``(..., m)`` time of each cell, and how long it moves.
        kind
            ``(..., m)`` codes of conditions; the first one by default.

        Raises
        ------
        ValueError
            For shapes that don't fit.
        """
        check_width(z, self.n_in)
        for value, name in ((start, "start"), (elapsed, "elapsed")):
            if value.shape != z.shape[:-1]:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}: expected {tuple(z.shape[:-1])}, one time for each cell."
                )
        first, length, step = self.clock
        ahead = elapsed / step
        waves = torch.cat([self.waves(2 * math.pi * (start - first) / length), self.waves(math.pi / 2 * ahead)], -1)
        condition = self.times(waves)
        code = torch.zeros_like(start, dtype=torch.long) if kind is None else kind
        return ahead[..., None] * self.predictor(z, condition + self.condition(code))
