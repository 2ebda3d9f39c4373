"""Quantiles over conditions: how large an interval must be for a new one, when values come in exchangeable units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, stats

from scjepa._types import FloatArray

SCALE_PRIOR, SCALE_SPREAD = 3.0, 0.3
"""Conditions differ in how well they are predicted. With few of them the standard deviation of the log of their scale is
shrunken toward 0.3 (what conditions of real screens typically show) with the weight of three degrees of freedom."""


@dataclass(frozen=True)
class Scores:
    """Absolute standardised residuals, and which of them belong to one exchangeable unit.

    Attributes
    ----------
    values
        ``(rows, genes)``, not negative; NaN where a value does not count, but one at least in each row.
    units
        ``(rows,)`` labels; rows of one unit (a context, say) are left out together and share their scale.
    """

    values: FloatArray
    units: np.ndarray

    @cached_property
    def _members(self) -> tuple[int, np.ndarray, FloatArray]:
        """Number of units, unit of each row, and the weight of each of a row's values (units and their rows weigh the same)."""
        _, unit, count = np.unique(np.asarray(self.units), return_inverse=True, return_counts=True)
        return len(count), unit, 1 / (len(count) * count[unit] * np.isfinite(self.values).sum(1))

    def _ordered(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values in rising order, and the share of the mass up to each."""
        counted = np.isfinite(values)
        weight = np.broadcast_to(self._members[2][:, None], values.shape)[counted]
        found = values[counted]
        order = np.argsort(found, kind="stable")
        return found[order], np.cumsum(weight[order])

    def hierarchical(self, level: float) -> float:
        """Return the quantile that covers a new unit's genes with probability ``level``, whatever units are like.

        Every value has mass ``1 / ((K + 1) N_k)`` for ``K`` units with ``N_k`` values each; ``1 / (K + 1)`` lies at
        infinity, for the unit that was not seen.

        Returns
        -------
        The quantile; infinity when ``level`` is above ``K / (K + 1)``.

        References
        ----------
        Lee, Barber and Willett (2023). Distribution-free inference with hierarchical data. arXiv:2306.06342.

        Examples
        --------
        Four units: four fifths of the mass are finite.

        >>> import numpy as np
        >>> from scjepa.model.conditions._quantiles import Scores
        >>> scores = Scores(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]), np.arange(4))
        >>> [scores.hierarchical(level) for level in (0.1, 0.5, 0.8, 0.9)]
        [1.0, 5.0, 8.0, inf]
        """
        n = self._members[0]
        values, mass = self._ordered(self.values)
        wanted = level * (n + 1) / n
        if wanted > 1 + 1e-9:
            return float("inf")
        return float(values[np.searchsorted(mass[:-1], wanted - 1e-9)])

    def predictive(self, level: float) -> float:
        r"""Return the quantile when a unit's values are its scale times values of one common shape.

        The log of a new unit's scale follows Student's t: mean :math:`\bar l` of the ``K`` units' log scales (root mean
        square), scale :math:`\hat\sigma \sqrt{1 + 1/K}`, where :math:`\hat\sigma^2` is their variance, shrunken toward
        :data:`SCALE_SPREAD`. The quantile ``q`` solves mean over that distribution of ``F(q / scale) = level``, with
        ``F`` the distribution of all values divided by their unit's scale. It is finite for every ``K``.
        """
        n, unit, weight = self._members
        square = np.bincount(unit, np.nansum(self.values**2, axis=1) * weight * n)
        largest = float(np.sqrt(square.max()))
        if largest == 0:
            return 0.0
        log_scale = 0.5 * np.log(np.maximum(square, (1e-6 * largest) ** 2))
        free = n - 1 + SCALE_PRIOR
        spread = np.sqrt((((log_scale - log_scale.mean()) ** 2).sum() + SCALE_PRIOR * SCALE_SPREAD**2) / free)
        points = stats.t.ppf((np.arange(200) + 0.5) / 200, free) * spread * np.sqrt(1 + 1 / n)
        values, mass = self._ordered(self.values / np.exp(log_scale)[unit][:, None])
        new = np.exp(log_scale.mean() + np.clip(points, -20, 20))
        below = lambda log_q: np.interp(np.exp(log_q) / new, values, mass, left=0.0).mean() - level
        top = np.log(values[-1] * new.max()) + 1e-6
        bottom = np.log(max(values[0], 1e-12 * values[-1]) * new.min()) - 1
        return float(np.exp(optimize.brentq(below, bottom, top))) if below(bottom) < 0 else float(np.exp(bottom))

    def quantile(self, level: float) -> float:
        """Return :meth:`hierarchical` up to the level that leaves three units out, above that :meth:`predictive`.

        Close to the highest level it can serve, the hierarchical quantile is the largest value seen.
        """
        highest = 1 - 3 / (self._members[0] + 1)
        if level <= highest:
            return self.hierarchical(level)
        # never below the quantile of a lower level
        return max(self.predictive(level), self.hierarchical(highest) if highest > 0 else 0.0)
