"""Prediction intervals from left-out conditions: a scale for every gene, and a quantile over conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from scipy import optimize

from scjepa._types import FloatArray
from scjepa.baselines._noise import effect_noise
from scjepa.data import ConditionTable
from scjepa.model.conditions._quantiles import Scores

CONTRASTS = tuple(i / 10 for i in range(16))
"""How much narrower than its spread says the interval of a quiet gene may be, see :func:`calibrate`; the least that
covers genes with the largest effects about as well as all genes is used."""
TOP, TOP_LEVEL = 20, 0.9
"""How many genes with the largest effects of each condition, and the level at which they are looked at."""
GENE_PRIOR = 2.0
"""A gene's spread is shrunken toward what its terms say, as if so many conditions had been seen to agree with them."""
FLOOR = 1e-3
"""Least variance of a gene, as a share of the mean gene's."""
MODEL_FLOOR = 0.05
"""Least share of a condition's squared error that sampling noise leaves to the model."""
DETECTION = 0.02
"""Added to mean profiles before their ratio is taken: variances of cells rise in proportion to the mean, from there on."""
NEAREST = 0.01
"""Distances below are as good as none, so that intervals widen tenfold at most."""


@dataclass(frozen=True)
class SamplingNoise:
    r"""What is known of the noise in measured mean effects.

    The variance of gene ``g`` in condition ``c`` is :math:`V_g \, \nu_c \, (\mu_{cg} + \epsilon) / (\bar\mu_g + \epsilon)`:
    counts vary in proportion to their mean, so that the variance within training conditions, :math:`V`, is carried over
    to the control profile of the condition, :math:`\mu_c`. That matters for questions about contexts of other depth or
    other genes.

    Attributes
    ----------
    variance
        ``(genes,)`` variance of cells within training conditions.
    base
        ``(genes,)`` mean control profile of training.
    share
        ``(K,)`` what the variance is multiplied with in each left-out condition, :math:`\nu`: one over the number of its
        cells, for new contexts plus one over that of its controls.
    """

    variance: FloatArray
    base: FloatArray
    share: FloatArray

    @classmethod
    def of(cls, table: ConditionTable, rows: np.ndarray, *, new_context: bool) -> SamplingNoise | None:
        """Return the noise in rows of a table, None where there were no cells to tell.

        In their own context conditions share the noise of the controls with those they are predicted from.
        """
        if effect_noise(table.variance, table.n_cells, None) is None or table.variance is None:
            return None
        share = 1 / table.n_cells[rows].astype(float)
        if new_context and table.n_controls is not None:
            share = share + 1 / table.n_controls[rows]
        return cls(table.variance, table.control.mean(0), share)

    def at(self, control: FloatArray, share: FloatArray | float) -> FloatArray:
        """Return the variances ``(m, genes)`` for control profiles ``(m, genes)``."""
        ratio = (control + DETECTION) / (self.base + DETECTION)
        return self.variance * ratio * np.reshape(share, (-1, 1))


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
        Typical size of a residual without the sampling noise, in which predicted effects are measured.
    contrast
        How much narrower quiet genes are.
    alive
        ``(genes,)`` genes expressed in any training profile.
    noise
        Sampling noise of the left-out conditions; a question is expected to have that of the median one.
    reference, farthest
        Median and largest distance of the left-out conditions.
    """

    scores: Scores
    coefficients: FloatArray
    energy: FloatArray
    base: FloatArray
    gene: FloatArray
    unit: float
    contrast: float
    alive: np.ndarray
    noise: SamplingNoise | None
    reference: float
    farthest: float

    def state(self) -> dict[str, Any]:
        """Return it as arrays and numbers."""
        state = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("scores", "noise")}
        state["scores"] = {"values": self.scores.values, "units": self.scores.units}
        if self.noise is not None:
            state["noise"] = {f.name: getattr(self.noise, f.name) for f in fields(self.noise)}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        noise = SamplingNoise(**state["noise"]) if "noise" in state else None
        return cls(**{**state, "scores": Scores(**state["scores"]), "noise": noise})

    @cached_property
    def typical_width(self) -> float:
        """Root mean square half-width at level 0.9, for no predicted effect and the median distance."""
        nothing = np.zeros((1, len(self.gene)))
        control = nothing + (0.0 if self.noise is None else self.noise.base)
        half = self.half_widths(nothing, control, np.array([self.reference]), 0.9)
        return float(np.sqrt((half**2).mean()))

    def half_widths(self, predicted: FloatArray, control: FloatArray, distance: FloatArray, level: float) -> FloatArray:
        """Return half the widths of the intervals, ``(m, genes)``.

        Parameters
        ----------
        predicted, control
            ``(m, genes)`` predicted effects, and the control profiles they start from.
        distance
            ``(m,)`` distances of the questions; beyond the calibration's median intervals widen.
        level
            Wanted coverage.
        """
        terms = _terms(predicted, self.energy[None], self.base, self.unit)
        model = np.maximum(_weighted(terms, self.coefficients), FLOOR) * self.gene * self.unit**2
        known: FloatArray = np.zeros((1, len(self.gene)))
        if self.noise is not None:
            known = self.noise.at(control, float(np.median(self.noise.share)))
        wider = _widening(distance, self.reference)
        typical = _typical(known[:, self.alive], self.unit**2 * wider)
        return self.scores.quantile(level) * _contrasted(known + model * wider, typical, self.contrast)


def calibrate(
    predicted: FloatArray,
    true: FloatArray,
    *,
    control: FloatArray,
    effects: FloatArray,
    together: np.ndarray,
    base: FloatArray,
    units: Sequence[object] | np.ndarray,
    distances: FloatArray,
    noise: SamplingNoise | None = None,
) -> Calibration:
    r"""Learn scale and quantile from conditions that were predicted while left out.

    The variance of gene ``g`` in condition ``c`` is the known sampling noise and the error of the model,

    .. math::
        s_{cg}^2 = \nu_{cg}
        + u^2 \, w_c \, (a_0 + a_1 \overline{\delta^2_g} + a_2 \mu_g + a_3 \hat\delta_{cg}^2 / u^2) \, v_g,

    with non-negative coefficients on the mean squared effect of the gene in training, its control expression and the
    predicted effect (Gamma regression with identity link on squared errors, in units of the condition's own), the typical
    size :math:`u` of a condition's error beyond the noise, a shrunken factor :math:`v_g` of the gene, and the widening
    :math:`w_c` with the distance. :math:`a_3` is at most one, an error as large as the predicted effect, and that where
    left-out predictions can't tell. The terms of a condition are found without what was left out with it.

    Genes that respond to few perturbations, but then strongly, have errors with long tails, and the genes with the largest
    effects of a condition are found in these tails. They would be covered less often than others, so that scores are
    :math:`|r| / (s \min(s / \bar s, 1)^p)`, with the least :math:`p` in :data:`CONTRASTS` for which their coverage is
    not a standard error (over units) below 90 %: quiet genes get narrower intervals, and the common quantile rises.

    Only genes that were detected in the condition or its controls count: the others have no effect to be wrong about, are
    covered for nothing, and would pull the quantile down.

    Parameters
    ----------
    predicted, true, control
        ``(K, genes)`` left-out predictions, measured effects, and the control profiles they start from.
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
    noise
        Sampling noise in ``true``; None counts all of the error as the model's.

    Returns
    -------
    The calibration.
    """
    units, genes = np.asarray(units), len(base)
    alive = (effects != 0).any(0) | (base > 0)
    if not alive.any():
        alive[:] = True
    square, base = effects**2, base / max(float(base[alive].mean()), 1e-300)
    known = np.zeros((len(true), int(alive.sum()))) if noise is None else noise.at(control, noise.share)[:, alive]
    predicted, true, control = predicted[:, alive], true[:, alive], control[:, alive]
    counted = (control > 0) | (true != 0)
    counted |= ~counted.any(1, keepdims=True)
    residual = true - predicted
    size = _own_size(residual, known, counted)
    unit = float(np.exp(np.log(size).mean()))
    kept = ~np.asarray(together, bool)
    energy = kept.astype(float) @ square[:, alive] / np.maximum(kept.sum(1), 1)[:, None]
    energy[~kept.any(1)] = square[:, alive].mean(0)
    energy /= np.maximum(energy.mean(1, keepdims=True), 1e-300)
    terms = _terms(predicted, energy, base[alive], unit)
    relative, share = (residual / size[:, None]) ** 2, known / (size**2)[:, None]
    coefficients = _fit_variance(terms, relative, share, counted)
    model = np.maximum(_weighted(terms, coefficients), FLOOR)
    # a residual says something of the gene's factor as far as it is the model's
    weight = counted * model / (model + share)
    ratio = weight * relative / (model + share)
    others = (units[:, None] != units[None]).astype(float)
    own_gene = (GENE_PRIOR + others @ ratio) / (GENE_PRIOR + others @ weight)
    gene = np.ones(genes)
    gene[alive] = (GENE_PRIOR + ratio.sum(0)) / (GENE_PRIOR + weight.sum(0))
    reference = float(np.median(distances))
    wider = _widening(distances, reference)
    variance, typical = known + model * own_gene * unit**2 * wider, _typical(known, unit**2 * wider)
    size_of_effect = np.where(counted, np.abs(true), -1.0)
    top = np.argsort(-size_of_effect, axis=1, kind="stable")[:, : max(min(TOP, true.shape[1] // 10), 1)]
    for contrast in CONTRASTS:
        values = np.abs(residual) / _contrasted(variance, typical, contrast)
        scores = Scores(np.where(counted, values, np.nan), units)
        covered = (np.take_along_axis(values, top, 1) <= scores.quantile(TOP_LEVEL)).mean(1)
        if covered.mean() + _standard_error(covered, units) >= TOP_LEVEL:
            break
    return Calibration(
        scores=scores,
        coefficients=coefficients,
        energy=square.mean(0) / max(float(square[:, alive].mean()), 1e-300),
        base=base,
        gene=gene,
        unit=unit,
        contrast=contrast,
        alive=alive,
        noise=noise,
        reference=reference,
        farthest=float(np.max(distances)),
    )


def _own_size(residual: FloatArray, known: FloatArray, counted: np.ndarray) -> FloatArray:
    """Root mean square error of each condition beyond the sampling noise, ``(K,)``."""
    number = counted.sum(1)
    total = (residual**2 * counted).sum(1) / number
    beyond = total - (known * counted).sum(1) / number
    size = np.sqrt(np.maximum(beyond, MODEL_FLOOR * total))
    return np.asarray(np.maximum(size, 1e-6 * max(float(size.max()), 1e-12)))


def _widening(distance: FloatArray, reference: float) -> FloatArray:
    """Factor of the variance beyond the median distance, ``(m, 1)``: distances are shares of the predictive variance."""
    return np.maximum(np.asarray(distance, dtype=float) / max(reference, NEAREST), 1.0)[:, None]


def _standard_error(values: FloatArray, units: np.ndarray) -> float:
    """Of the mean over units; a single one says nothing."""
    _, unit, count = np.unique(units, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return float("inf")
    return float((np.bincount(unit, values) / count).std(ddof=1) / np.sqrt(len(count)))


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


def _typical(known: FloatArray, model: FloatArray) -> FloatArray:
    """Standard deviation of a condition's average gene, ``(m, 1)``: sampling noise and the model's variance."""
    return np.sqrt(model + known.mean(1, keepdims=True))


def _contrasted(variance: FloatArray, typical: FloatArray, contrast: float) -> FloatArray:
    """Return standard deviations; those below the typical one (quiet genes) are made smaller still."""
    scale = np.sqrt(variance)
    return np.maximum(scale * np.minimum(scale / typical, 1.0) ** contrast, 1e-300)


def _fit_variance(terms: list[FloatArray], relative: FloatArray, known: FloatArray, counted: np.ndarray) -> FloatArray:
    """Regress squares beyond the known ones on terms, by reweighting with errors as large as the mean.

    Coefficients are not negative, that of the predicted effect (the last) is at most one. A pseudo-observation each, worth
    one gene of one condition, pulls what nothing else determines to zero, and the last to one: left-out predictions that
    are all zero don't say that others will be right.
    """
    shape, n = relative.shape, len(terms)
    upper, prior = np.array([np.inf] * (n - 1) + [1.0]), np.eye(n)[-1]
    start = max(float(relative[counted].mean()), 1e-6)
    least, mean = FLOOR * start, np.full(shape, start)
    out = np.zeros(n)
    for _ in range(8):
        columns = [counted * t / mean for t in terms]
        gram = np.array([[np.vdot(a, b) for b in columns] for a in columns]) + np.eye(n)
        right = np.array([np.vdot(a, (relative - known) / mean) for a in columns]) + prior
        norm = np.sqrt(gram.diagonal())
        # the normal equations as a least-squares problem of n rows, for the bounded solver
        values, vectors = np.linalg.eigh(gram / np.outer(norm, norm))
        root = np.sqrt(np.maximum(values, 1e-12 * values.max()))
        found = optimize.lsq_linear(root[:, None] * vectors.T, (vectors.T @ (right / norm)) / root, (0, upper * norm))
        out = np.clip(found.x / norm, 0, upper)
        mean = np.maximum(_weighted(terms, out) + known, least)
    return out
