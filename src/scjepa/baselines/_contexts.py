"""How far effects in a new context follow from its control profile: what a few left-out contexts can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scjepa._types import FloatArray

SLOPE_VARIANCE = 1.0
"""Prior variance of the slope that a single left-out row shows."""
FEW_CONTEXTS = 8
"""Up to so many training contexts are looked at; more choose well by their left-out errors alone."""


@dataclass(frozen=True)
class ContextReport:
    """What leaving training contexts out says about another context.

    Attributes
    ----------
    contexts
        Number of training contexts.
    slope, error
        Regression of left-out effects on what the control profile adds to the prediction: 1, it is right; 0, it says
        nothing. And its standard error; NaN and infinity where two contexts can't tell, or where no prediction looks at
        control profiles.
    share
        The slope shrunken by its reliability, 0 to 1: what the cautious mode takes of it.
    misfit_to_noise
        How many times larger than sampling noise the squared differences between contexts are that do not follow from
        adding up; NaN without cells.
    """

    contexts: int
    slope: float
    error: float
    share: float
    misfit_to_noise: float

    @classmethod
    def of(
        cls, n: int, misfit: float, left_out: tuple[FloatArray, FloatArray, FloatArray, np.ndarray] | None
    ) -> ContextReport:
        """Report on ``n`` contexts.

        ``left_out``: measured effects, predictions that don't and that do look at control profiles ``(rows, genes)``, and the
        rows' contexts; None where no prediction looks at them.
        """
        if left_out is None:
            return cls(n, float("nan"), float("inf"), 0.0, misfit)
        measured, plain, looking, contexts = left_out
        a, error = slope(measured - plain, looking - plain, contexts)
        return cls(n, a, error, trusted_share(a, error), misfit)

    @property
    def note(self) -> str:
        """A sentence to warn with, or an empty string."""
        if not self.misfit_to_noise > 1 or self.share >= 0.5:
            return ""
        told = f"slope {self.slope:.2f} +- {self.error:.2f}, 1 where they do, 0 where they say nothing"
        if not np.isfinite(self.error):
            told = "two contexts can't tell" if self.contexts == 2 else "no prediction looks at them"
        return (
            f"the {self.contexts} training contexts differ {self.misfit_to_noise:.1f} times beyond sampling noise, and their "
            f"control profiles do not tell how ({told}): effects in a new context may differ as much"
        )


def slope(
    rest: FloatArray, difference: FloatArray, group: np.ndarray, prior: float = SLOPE_VARIANCE
) -> tuple[float, float]:
    r"""Return the slope of what is left on a difference of two predictions, over all genes, and its standard error.

    .. math::
        a = \frac{\sum_i \langle r_i, d_i\rangle}{\sum_i |d_i|^2},\quad
        s^2 = (1 - \tfrac1k)\, s^2_{\text{jackknife over groups}} + \frac{p}{m},\quad
        m = \frac{(\sum_i |d_i|^2)^2}{\sum_i |d_i|^4}

    The second part is the prior: three contexts may agree by chance.

    Parameters
    ----------
    rest, difference
        ``(rows, genes)``.
    group
        ``(rows,)`` what was left out together; ``k`` groups.
    prior
        Prior variance of the slope of one row, ``p``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._contexts import slope
    >>> difference = np.eye(4)
    >>> [round(x, 2) for x in slope(difference, difference, np.arange(4))]
    [1.0, 0.5]
    """
    top, square = (rest * difference).sum(1), (difference**2).sum(1)
    groups = np.unique(group)
    k = len(groups)
    if k < 2 or square.sum() <= 1e-9 * (rest**2).sum():
        return 0.0, float("inf")
    over, under = (np.array([x[group == g].sum() for g in groups]) for x in (top, square))
    without = (over.sum() - over) / np.maximum(under.sum() - under, 1e-12)
    jackknife = (k - 1) / k * ((without - without.mean()) ** 2).sum()
    effective = square.sum() ** 2 / (square**2).sum()
    variance = (1 - 1 / k) * jackknife + prior / effective
    return float(over.sum() / under.sum()), float(np.sqrt(variance))


def trusted_share(a: float, error: float) -> float:
    r"""Return :math:`a \max(0, 1 - s^2/a^2)`, cut to 0 to 1: the slope shrunken by its reliability.

    Examples
    --------
    >>> from scjepa.baselines._contexts import trusted_share
    >>> trusted_share(0.8, 0.4), trusted_share(0.3, 0.4), trusted_share(-1.0, 0.1)
    (0.6, 0.0, 0.0)
    """
    return float(np.clip(a * max(0.0, 1 - (error / a) ** 2), 0, 1)) if a > 0 else 0.0
