"""Prediction intervals from left-out conditions: a scale for every gene, and a quantile over conditions. Arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, stats

from scjepa._types import FloatArray

CONTRASTS = tuple(i / 10 for i in range(16))
"""How much narrower than its spread says the interval of a quiet gene may be, see :func:`calibrate`; the least that
covers genes with the largest effects as well as all genes is used."""
TOP, TOP_LEVEL = 20, 0.9
"""How many genes with the largest effects of each condition, and the level at which they are looked at."""
GENE_PRIOR = 2.0
"""A gene's spread is shrunken toward what its terms say, as if so many conditions had been seen to agree with them."""
SCALE_PRIOR, SCALE_SPREAD = 3.0, 0.3
"""Conditions differ in how well they are predicted. With few of them the standard deviation of the log of their scale is
shrunken toward 0.3 (what conditions of real screens typically show) with the weight of three degrees of freedom."""
FLOOR = 1e-3
"""Least variance of a gene, as a share of the mean gene's."""


# ------------------------------------------------------------------------------------------------------- quantiles
@dataclass(frozen=True)
class Scores:
    """Absolute standardised residuals, and which of them belong to one exchangeable unit.

    Attributes
    ----------
    values
        ``(rows, genes)``, not negative.
    units
        ``(rows,)`` labels; rows of one unit (a context, say) are left out together and share their scale.
    """

    values: FloatArray
    units: np.ndarray

    @cached_property
    def _members(self) -> tuple[int, np.ndarray, FloatArray]:
        """Number of units, unit of each row, and the weight of each row (units weigh the same)."""
        _, unit, count = np.unique(np.asarray(self.units), return_inverse=True, return_counts=True)
        return len(count), unit, 1 / (len(count) * count[unit])

    def _ordered(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values in rising order, and the share of the mass up to each."""
        weight = np.repeat(self._members[2] / values.shape[1], values.shape[1])
        order = np.argsort(values, axis=None, kind="stable")
        return values.ravel()[order], np.cumsum(weight[order])

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
        >>> from scjepa.model._conformal import Scores
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
        square = np.bincount(unit, (self.values**2).mean(1) * weight * n)
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


# ----------------------------------------------------------------------------------------------------------- scales
@dataclass(frozen=True)
class Calibration:
    """What left-out conditions of one class say about the errors of predictions.

    Attributes
    ----------
    scores
        Standardised left-out residuals.
    coefficients
        Of the variance terms: constant, effects of the gene in training, control expression, predicted effect squared.
    energy, base
        ``(genes,)`` the second and third term, in units of the mean gene's.
    gene
        ``(genes,)`` factor of a gene's variance beyond its terms.
    unit
        Typical size of a residual, in which predicted effects are measured.
    contrast
        How much narrower quiet genes are.
    reference, farthest
        Median and largest distance of the left-out conditions.
    skill
        One minus the typical ratio (geometric mean over conditions) of squared error to squared effect.
    """

    scores: Scores
    coefficients: FloatArray
    energy: FloatArray
    base: FloatArray
    gene: FloatArray
    unit: float
    contrast: float
    reference: float
    farthest: float
    skill: float

    @cached_property
    def typical_width(self) -> float:
        """Root mean square half-width at level 0.9, for no predicted effect and the median distance."""
        half = self.half_widths(np.zeros((1, len(self.gene))), np.array([self.reference]), 0.9)
        return float(np.sqrt((half**2).mean()))

    def half_widths(self, predicted: FloatArray, distance: FloatArray, level: float) -> FloatArray:
        """Return half the widths of the intervals, ``(m, genes)``.

        Parameters
        ----------
        predicted
            ``(m, genes)`` predicted effects.
        distance
            ``(m,)`` distances of the questions; beyond the calibration's median intervals widen.
        level
            Wanted coverage.
        """
        terms = _terms(predicted, self.energy[None], self.base, self.unit)
        scale = _contrasted(_scale(terms, self.coefficients, self.gene[None]), self.contrast)
        wider = np.sqrt(np.asarray(distance, dtype=float) / max(self.reference, 1e-12))
        return self.scores.quantile(level) * scale * np.maximum(wider, 1.0)[:, None]


def calibrate(
    predicted: FloatArray,
    true: FloatArray,
    *,
    effects: FloatArray,
    together: np.ndarray,
    base: FloatArray,
    units: Sequence[object] | np.ndarray,
    distances: FloatArray,
) -> Calibration:
    r"""Learn scale and quantile from conditions that were predicted while left out.

    The variance of gene ``g`` in condition ``c``, relative to the condition's own, is

    .. math:: s_{cg}^2 = (a_0 + a_1 \overline{\delta^2_g} + a_2 \mu_g + a_3 \hat\delta_{cg}^2) \, v_g,

    with non-negative coefficients (Gamma regression with identity link) on the mean squared effect of the gene in
    training, its control expression and the predicted effect, and a shrunken factor :math:`v_g` of the gene. The terms
    of a condition are found without what was left out with it. Genes that respond to few perturbations, but then
    strongly, have errors with long tails, and the genes with the largest effects of a condition are found in these
    tails. They would be covered less often than others, so that scores are :math:`|r| / (s \min(s, 1)^p)`, with
    the least :math:`p` in :data:`CONTRASTS` for which they are covered at 90 % as well: quiet genes get narrower
    intervals, and the common quantile rises. Genes without expression in any training profile don't count.

    Parameters
    ----------
    predicted, true
        ``(K, genes)`` left-out predictions and measured effects.
    effects
        ``(n, genes)`` effects of all training conditions.
    together
        ``(K, n)`` boolean: training conditions that were left out when the condition was predicted.
    base
        ``(genes,)`` mean control profile.
    units
        ``(K,)`` labels of exchangeable units.
    distances
        ``(K,)`` distances of the conditions when left out.

    Returns
    -------
    The calibration.
    """
    units, genes = np.asarray(units), len(base)
    alive = (effects != 0).any(0) | (base > 0)
    if not alive.any():
        alive[:] = True
    square, base = effects**2, base / max(float(base[alive].mean()), 1e-300)
    predicted, true = predicted[:, alive], true[:, alive]
    residual = true - predicted
    size = np.sqrt((residual**2).mean(1))
    size = np.maximum(size, 1e-6 * max(float(size.max()), 1e-12))
    unit = float(np.exp(np.log(size).mean()))
    kept = ~np.asarray(together, bool)
    energy = kept.astype(float) @ square[:, alive] / np.maximum(kept.sum(1), 1)[:, None]
    energy[~kept.any(1)] = square[:, alive].mean(0)
    energy /= np.maximum(energy.mean(1, keepdims=True), 1e-300)
    terms = _terms(predicted, energy, base[alive], unit)
    relative = (residual / size[:, None]) ** 2
    coefficients = _fit_variance(terms, relative)
    ratio = relative / np.maximum(_weighted(terms, coefficients), FLOOR)
    of_unit = units[:, None] == units[None]
    others = (~of_unit).astype(float)
    own_gene = (GENE_PRIOR + others @ ratio) / (GENE_PRIOR + others.sum(1))[:, None]
    gene = np.ones(genes)
    gene[alive] = (GENE_PRIOR + ratio.sum(0)) / (GENE_PRIOR + len(ratio))
    reference = float(np.median(distances))
    wider = np.maximum(np.sqrt(np.asarray(distances, dtype=float) / max(reference, 1e-12)), 1.0)
    scale = _scale(terms, coefficients, own_gene)
    top = np.argsort(-np.abs(true), axis=1, kind="stable")[:, : max(min(TOP, true.shape[1] // 10), 1)]
    for contrast in CONTRASTS:
        scores = Scores(np.abs(residual) / (_contrasted(scale, contrast) * wider[:, None]), units)
        covered = np.take_along_axis(scores.values, top, 1) <= scores.quantile(TOP_LEVEL)
        if covered.mean() >= TOP_LEVEL:
            break
    share = (residual**2).sum(1) / np.maximum((true**2).sum(1), 1e-300)
    return Calibration(
        scores=scores,
        coefficients=coefficients,
        energy=square.mean(0) / max(float(square[:, alive].mean()), 1e-300),
        base=base,
        gene=gene,
        unit=unit,
        contrast=contrast,
        reference=reference,
        farthest=float(np.max(distances)),
        skill=float(1 - np.exp(np.log(np.maximum(share, 1e-12)).mean())),
    )


def _terms(predicted: FloatArray, energy: FloatArray, base: FloatArray, unit: float) -> list[FloatArray]:
    """Terms of the variance, each broadcastable to ``(rows, genes)``."""
    return [
        np.ones((1, 1)),
        energy,
        base[None],
        (predicted / unit) ** 2,
    ]


def _weighted(terms: list[FloatArray], coefficients: FloatArray) -> FloatArray:
    return sum((a * t for a, t in zip(coefficients, terms, strict=True)), np.zeros((1, 1)))


def _scale(terms: list[FloatArray], coefficients: FloatArray, gene: FloatArray) -> FloatArray:
    """Standard deviations relative to the condition's own, ``(rows, genes)``."""
    return np.sqrt(np.maximum(_weighted(terms, coefficients), FLOOR) * gene)


def _contrasted(scale: FloatArray, contrast: float) -> FloatArray:
    """Make scales below one (quiet genes) smaller still."""
    return scale * np.minimum(scale, 1.0) ** contrast


def _fit_variance(terms: list[FloatArray], relative: FloatArray) -> FloatArray:
    """Regress squares on terms with non-negative coefficients and errors as large as the mean, by reweighting."""
    shape, n = relative.shape, len(terms)
    mean = np.full(shape, max(float(relative.mean()), 1e-300))
    out = np.zeros(n)
    for _ in range(8):
        columns = [np.broadcast_to(t, shape) / mean for t in terms]
        gram = np.array([[np.vdot(a, b) for b in columns] for a in columns])
        right = np.array([np.vdot(a, relative / mean) for a in columns])
        norm = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
        # the normal equations as a least-squares problem of n rows, for the non-negative solver
        values, vectors = np.linalg.eigh(gram / np.outer(norm, norm))
        root = np.sqrt(np.maximum(values, 1e-12 * values.max()))
        out = optimize.nnls(root[:, None] * vectors.T, (vectors.T @ (right / norm)) / root)[0] / norm
        mean = np.maximum(_weighted(terms, out), FLOOR * float(relative.mean()) + 1e-300)
    return out
