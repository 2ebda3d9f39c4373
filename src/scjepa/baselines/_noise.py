"""What sampling noise there is in measured effects, and what follows for a kernel regression. Functions of arrays only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.baselines._large import column_effects

AMPLITUDE_FLOOR = 0.03
"""Least prior variance of a perturbation's own effect, as a share of the mean one's."""
GENE_FLOOR = 0.1
"""What every gene's signal variance gets on top, as a share of the mean gene's: a gene without signal has an estimate too."""
GENE_STEPS = 4
"""How far the strength of a gene may lie from the common one, in quarter decades."""
Fold = tuple[np.ndarray, np.ndarray]
"""Training rows and left-out rows."""


def effect_noise(variance: FloatArray | None, n_cells: np.ndarray, n_controls: FloatArray | None) -> FloatArray | None:
    r"""Return the expected squared length of the noise in each row's measured effect, ``(n,)``; None if unknown.

    .. math:: \nu_i = \sum_g V_g \, (1 / n_i + 1 / m_i)

    for :math:`n_i` perturbed cells and :math:`m_i` controls.

    Parameters
    ----------
    variance
        ``(genes,)`` variance within conditions, :math:`V`; None where there were no cells to tell.
    n_cells
        ``(n,)`` perturbed cells behind each row.
    n_controls
        ``(n,)`` effective numbers of controls; None counts as many.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._noise import effect_noise
    >>> effect_noise(np.array([1.0, 3.0]), np.array([4, 8]), np.array([2.0, np.inf])).tolist()
    [3.0, 0.5]
    """
    if variance is None or not len(n_cells) or (np.asarray(n_cells) < 1).any():
        return None
    shared = 0.0 if n_controls is None else 1 / np.asarray(n_controls, dtype=float)
    return float(np.sum(variance)) * (1 / np.asarray(n_cells, dtype=float) + shared)


def reliability(squared_length: FloatArray, noise: FloatArray) -> FloatArray:
    r"""Return which share of a measured squared effect is not noise, :math:`\max(0, 1 - \nu/|\hat\delta|^2)`.

    Since :math:`E|\hat\delta|^2 = |\delta|^2 + \nu`, the numerator estimates the squared length of the true effect
    without bias before it is cut at zero (James and Stein 1961).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._noise import reliability
    >>> reliability(np.array([4.0, 1.0, 0.0]), np.array([1.0, 2.0, 0.0])).tolist()
    [0.75, 0.0, 0.0]
    """
    square = np.asarray(squared_length, dtype=float)
    share = 1 - np.divide(noise, square, out=np.ones_like(square), where=square > 0)
    return np.asarray(np.maximum(share, 0.0))


def misfit(
    design: FloatArray, gram: FloatArray, noise: FloatArray, folds: Sequence[Fold], judged: np.ndarray
) -> float | None:
    r"""Return the mean squared error of left-out rows under plain sums that sampling noise does not explain.

    A left-out row is predicted by :math:`w = a^\top (A^\top A + 10^{-3})^{-1} A^\top`, the sum of the least-squares effects
    of what it perturbs (in a new context: their transfer). Its squared error has the expectation
    :math:`(1 + |w|^2)\, m + \nu_i + w^2 \cdot \nu`, so that

    .. math:: \hat m = \max\Bigl(0, \frac{\sum_i |w_i Y - y_i|^2 - \nu_i - w_i^2 \cdot \nu}{\sum_i 1 + |w_i|^2}\Bigr)

    Parameters
    ----------
    design
        ``(n, columns)`` actions.
    gram
        ``(n, n)`` inner products of the effects.
    noise
        ``(n,)`` expected squared lengths of their noise.
    folds
        Training and left-out rows.
    judged
        ``(n,)`` rows to look at: those whose genes are seen without them.

    Returns
    -------
    None when fewer than two rows can be judged.

    Examples
    --------
    Two rows of one action that differ by 2 in length without any noise.

    >>> import numpy as np
    >>> from scjepa.baselines._noise import misfit
    >>> one, other = np.array([0]), np.array([1])
    >>> gram = np.array([[9.0, 3.0], [3.0, 1.0]])
    >>> round(misfit(np.ones((2, 1)), gram, np.zeros(2), [(one, other), (other, one)], np.ones(2, bool)), 2)
    2.0
    """
    top, bottom, n_judged = 0.0, 0.0, 0
    for train, test in folds:
        rows = test[judged[test]]
        if not len(rows):
            continue
        a = design[train]
        # (A'A + c)^-1 A' = A' (AA' + c)^-1: the smaller of the two
        if len(train) < a.shape[1]:
            weight = np.linalg.solve(a @ a.T + 1e-3 * np.eye(len(train)), a @ design[rows].T).T
        else:
            weight = design[rows] @ np.linalg.solve(a.T @ a + 1e-3 * np.eye(a.shape[1]), a.T)
        square = ((weight @ gram[np.ix_(train, train)]) * weight).sum(1)
        square += gram[rows, rows] - 2 * (weight * gram[np.ix_(rows, train)]).sum(1)
        top += float((square - noise[rows] - weight**2 @ noise[train]).sum())
        bottom += float((1 + (weight**2).sum(1)).sum())
        n_judged += len(rows)
    return max(0.0, top / bottom) if n_judged >= 2 else None


def row_covariance(own: FloatArray, shared: FloatArray, contexts: np.ndarray) -> FloatArray:
    """Return ``(n, n)``: how the noise of rows varies together, of mean one on the diagonal.

    Parameters
    ----------
    own
        ``(n,)`` variance of a row alone.
    shared
        ``(n,)`` variance of its controls, which rows of its context share.
    contexts
        ``(n,)`` labels.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._noise import row_covariance
    >>> row_covariance(np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.0, 1.0]), np.array(["x", "x", "y"])).tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 2.0]]
    """
    root = np.sqrt(shared)
    out = np.diag(own) + (contexts[:, None] == contexts[None]) * np.outer(root, root)
    mean = float(out.diagonal().mean())
    if not mean > 0:
        return np.eye(len(own))
    out = out / mean
    # a row that a million cells measure is not known exactly either; and the matrix stays invertible
    out[np.diag_indices(len(out))] = np.maximum(out.diagonal(), 1e-6)
    return out


def row_variances(own: FloatArray, shared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return :func:`row_covariance` as a diagonal and what rows of one context share, ``(n,)`` each.

    Examples
    --------
    The first row has half a unit of its own; the square of what it shares, nothing, is added where rows share a context.

    >>> import numpy as np
    >>> from scjepa.baselines._noise import row_variances
    >>> alone, root = row_variances(np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.0, 1.0]))
    >>> alone.tolist(), root.round(4).tolist()
    ([0.5, 0.5, 1.5], [0.0, 0.0, 0.7071])
    """
    mean = float((own + shared).mean())
    if not mean > 0:
        return np.ones_like(own), np.zeros_like(own)
    own, shared = own / mean, shared / mean
    return np.maximum(own, 1e-6 - shared), np.sqrt(shared)


def gene_steps(square: FloatArray, noise: FloatArray, unexplained: float) -> np.ndarray:
    r"""Return how much more each gene is to be shrunken than the average one, ``(genes,)`` whole quarter decades.

    A gene's strength is its noise and misfit over its signal variance, :math:`(\nu_g + m_g) / \sigma_g^2`, with the
    misfit spread over genes like the signal; scaled so that the mean over the signal is one.

    Parameters
    ----------
    square
        ``(genes,)`` mean squared effect over training rows.
    noise
        ``(genes,)`` mean variance of the noise in them.
    unexplained
        Misfit of a row, all genes together.

    Examples
    --------
    Two genes with the same noise, one of them with ten times the signal.

    >>> import numpy as np
    >>> from scjepa.baselines._noise import gene_steps
    >>> gene_steps(np.array([11.0, 2.0]), np.array([1.0, 1.0]), 0.0).tolist()
    [-1, 2]
    """
    signal = np.maximum(square - noise, 0)
    signal = signal + GENE_FLOOR * signal.mean() + 1e-12
    ratio = (noise + unexplained * signal / signal.sum()) / signal
    scale = float((ratio * signal).sum() / signal.sum())
    if not scale > 0:
        return np.zeros(len(signal), int)
    step = np.rint(4 * np.log10(np.maximum(ratio / scale, 1e-9)))
    return np.clip(step, -GENE_STEPS, GENE_STEPS).astype(int)


def amplitudes(design: FloatArray, gram: FloatArray, noise: FloatArray) -> tuple[FloatArray, float]:
    r"""Return the prior variance of each column's own effect, ``(columns,)``, mean one; and their mean before scaling.

    Strong and null perturbations should not be shrunken alike. The variance of a column is the squared length of its
    effect by weighted least squares less the noise in it, :math:`\tau_j^2 = \max(0, |\hat\delta_j|^2 - \nu_j)`; shrinking by
    :math:`\tau_j^2 / (\tau_j^2 + \nu_j)` is what James and Stein (1961) do. Columns without a training row get the mean.

    Parameters
    ----------
    design
        ``(n, columns)`` actions.
    gram
        ``(n, n)`` inner products of the effects.
    noise
        ``(n,)`` expected squared lengths of their noise.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._noise import amplitudes
    >>> variance, mean = amplitudes(np.eye(2), np.diag([10.0, 1.0]), np.ones(2))
    >>> variance.round(2).tolist(), round(mean, 1)
    ([1.97, 0.03], 4.5)
    """
    weight = 1 / np.maximum(noise, 1e-12)
    inner = design.T @ (weight[:, None] * design)
    ridge = 1e-3 * np.trace(inner) / max(len(inner), 1) or 1.0  # rows of dose zero only have an empty design
    hat = np.linalg.solve(inner + ridge * np.eye(len(inner)), design.T * weight)
    square = np.maximum(((hat @ gram) * hat).sum(1) - hat**2 @ noise, 0)
    return _prior_variances(square, (design != 0).any(0))


def large_amplitudes(design: sp.csr_array, effects: FloatArray, noise: FloatArray) -> tuple[FloatArray, float]:
    """Return :func:`amplitudes` of a design that is mostly zeros from the effects themselves, ``(n, genes)``."""
    weight = 1 / np.maximum(noise, 1e-12)
    ridge = 1e-3 * float(weight @ np.asarray((design**2).sum(1))) / max(design.shape[1], 1) or 1.0
    single, unsure = column_effects(design, effects, weight, ridge)
    square = np.maximum(np.einsum("jg,jg->j", single, single) - unsure, 0)
    return _prior_variances(square, np.asarray(abs(design).sum(0)) > 0)


def _prior_variances(square: FloatArray, seen: np.ndarray) -> tuple[FloatArray, float]:
    """Return squared lengths of columns without noise as prior variances of mean one, and their mean."""
    mean = float(square[seen].mean()) if seen.any() else 0.0
    out = square / mean if mean > 0 else np.ones(len(square))
    out[~seen] = 1.0
    return AMPLITUDE_FLOOR + (1 - AMPLITUDE_FLOOR) * out, mean


@dataclass(frozen=True)
class NoiseModel:
    """What one class of questions takes the noise of the training rows for.

    Attributes
    ----------
    rows
        ``(n,)`` expected squared length of the sampling noise of each row, for questions about new contexts with that of
        its controls; without cells what there is of spread between contexts, else next to nothing.
    misfit
        Squared error of plain sums that sampling noise does not explain.
    covariance
        ``(n, n)`` of the noise and misfit of rows, mean one; None is the identity, and in large tables left to ``parts``.
    variance
        ``(genes,)`` variance within conditions, or None.
    share
        ``(n,)`` what the variance is multiplied with in a row.
    parts
        The covariance as :func:`row_variances`, ``(n,)`` each; None is the identity.
    """

    rows: FloatArray
    misfit: float = 0.0
    covariance: FloatArray | None = None
    variance: FloatArray | None = None
    share: FloatArray | None = None
    parts: tuple[FloatArray, FloatArray] | None = None

    @property
    def by_gene(self) -> bool:
        """Whether it tells noisy genes from others."""
        return self.variance is not None

    def among(self, rows: np.ndarray) -> FloatArray | None:
        """Return the covariance of some rows; its diagonal where there is no matrix, for rows that share nothing."""
        if self.covariance is None:
            return None if self.parts is None else self.parts[0][rows]
        return self.covariance[np.ix_(rows, rows)]

    def take(self, rows: np.ndarray) -> NoiseModel:
        """Return the noise of some rows."""
        pick = lambda a: None if a is None else a[rows]
        parts = None if self.parts is None else (self.parts[0][rows], self.parts[1][rows])
        return replace(
            self,
            rows=self.rows[rows],
            covariance=None if self.covariance is None else self.among(rows),
            share=pick(self.share),
            parts=parts,
        )

    def alike(self, other: NoiseModel) -> bool:
        """Return whether rows are believed alike under another model, strengths of genes apart."""
        mine, others = (() if m.parts is None else m.parts for m in (self, other))
        same = len(mine) == len(others) and all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))
        return same and np.array_equal(self.rows, other.rows)

    def steps(self, square: FloatArray, rows: np.ndarray) -> np.ndarray:
        """Return :func:`gene_steps` ``(genes,)`` for some rows whose effects have the mean square ``square``."""
        if self.variance is None or self.share is None:
            return np.zeros(len(square), int)
        return gene_steps(square, self.variance * self.share[rows].mean(), self.misfit)


def noise_model(
    contexts: np.ndarray,
    variance: FloatArray | None,
    n_cells: np.ndarray,
    n_controls: FloatArray | None,
    *,
    new_context: bool,
    unexplained: Callable[[FloatArray], float | None],
    dense: bool = True,
) -> NoiseModel:
    """Return the noise of training rows for one class of questions.

    Rows of one context share their controls. That matters for questions about another context only: in their own one the
    noise of the controls is on both sides.

    Parameters
    ----------
    contexts
        ``(n,)`` labels.
    variance, n_cells, n_controls
        As in :func:`effect_noise`.
    new_context
        Whether the questions are about contexts without training rows.
    unexplained
        Returns the :func:`misfit`, given the noise of rows; None stands for as much as there is noise.
    dense
        Whether the covariance is wanted as a matrix.
    """
    n = len(contexts)
    own = effect_noise(variance, n_cells, None)
    if own is None or variance is None:  # profiles: what differs between contexts is the only noise that can be seen
        between = (unexplained(np.zeros(n)) or 0.0) if new_context else 0.0
        return NoiseModel(np.full(n, max(between, 1e-12)), between)
    both = effect_noise(variance, n_cells, n_controls) if new_context else own
    assert both is not None  # for the type checker
    found = unexplained(both)
    rest = float(both.mean()) if found is None else found
    covariance = row_covariance(own + rest, both - own, contexts) if dense else None
    share, parts = both / max(float(variance.sum()), 1e-300), row_variances(own + rest, both - own)
    return NoiseModel(both, rest, covariance, variance, share, parts)


def sampling_noise_alone(model: NoiseModel, *, dense: bool = True) -> NoiseModel:
    """Return a model of noise without misfit, rows independent: what is left when no row can be judged by others."""
    mean = float(model.rows.mean())
    parts = row_variances(model.rows, np.zeros_like(model.rows)) if mean > 0 else None
    covariance = np.diag(np.maximum(model.rows / mean, 1e-6)) if mean > 0 and dense else None
    return replace(model, misfit=0.0, covariance=covariance, parts=parts)
