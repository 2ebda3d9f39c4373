"""The candidates of the kernel anchor: their left-out errors, and how they are weighed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.baselines._kernels import AMPLITUDE, Pair, action_kernels, context_kernel
from scjepa.baselines._noise import NoiseModel, amplitudes

TEMPERATURE, MAX_MIXED, LEAST_WEIGHT = 0.1, 32, 0.01
"""How fast a candidate's weight falls with its relative excess error, how many candidates are averaged at most, and the
least weight relative to the best one's."""
CONTEXT = " x context"
"""Behind the name of a kernel whose effects depend on the control profile."""
MARGIN = 0.75
"""By how many standard errors over left-out contexts such a kernel must be better than the best one without."""
OF_TWO = 0.3
"""With two training contexts no context kernel can be tried; so much of the prediction looks at contexts nevertheless."""
UNTRIED_COMBINATIONS = ((0.03, "additive", 0.3, 0.5), (0.03, "components", 0.3, 0.5))
"""Link, kernel, strength and weight for combinations when too few left-out combinations of measured singles can tell:
sums of single effects, shrunken, averaged with a prediction from their components (better than sums alone on two
screens)."""
Entry = list[Any]
"""Link, kernel, strength, weight, and whether the strength differs between genes."""


@dataclass(frozen=True)
class Rows:
    """What kernels read of conditions: design, order, context, place of the control profile, summed features or None.

    The design of large tables is a sparse matrix.
    """

    design: Any
    order: np.ndarray
    contexts: np.ndarray
    place: FloatArray
    features: FloatArray | None = None

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows ``index``."""
        features = None if self.features is None else self.features[index]
        return replace(
            self,
            design=self.design[index],
            order=self.order[index],
            contexts=self.contexts[index],
            place=self.place[index],
            features=features,
        )

    def dense(self) -> Rows:
        """Return the same with the design as an array, without columns that say nothing of these rows."""
        if not sp.issparse(self.design):
            return self
        return replace(self, design=self.design[:, np.asarray(abs(self.design).sum(0)) > 0].toarray())


@dataclass(frozen=True)
class GridErrors:
    """Squared errors of left-out rows under every candidate.

    Attributes
    ----------
    links, kernels, strengths
        The candidates.
    errors
        ``(n, links, kernels, strengths, ways)``: mean over the folds in which the row is left out, NaN for rows never left
        out. Ways: one strength for all genes and, if there is a second, strengths that differ between genes.
    unit
        ``(n,)`` number of the fold that a row is left out in, or -1.
    """

    links: tuple[float | None, ...]
    kernels: tuple[str, ...]
    strengths: tuple[float, ...]
    errors: FloatArray
    unit: np.ndarray

    def rows(self, masks: Sequence[np.ndarray]) -> np.ndarray | None:
        """Return the first of ``masks`` with three left-out rows, as a mask; the last may have two if there are several."""
        left_out = np.isfinite(self.errors).any((1, 2, 3, 4))
        rows = next((m & left_out for m in masks if (m & left_out).sum() >= 3), masks[-1] & left_out)
        return None if rows.sum() < (2 if len(masks) > 1 else 3) else rows

    def only(self, *, context: bool | None = None, links: Sequence[float | None] | None = None) -> GridErrors | None:
        """Return a part of the candidates; None if nothing is left that was tried in all folds.

        Parameters
        ----------
        context
            Whether kernels look at contexts; None for both.
        links
            Links to keep, by default all.
        """
        tried = np.asarray(np.isfinite(self.errors[self.unit >= 0]).all((0, 1, 3, 4)))
        which = [k for k, name in enumerate(self.kernels) if tried[k] and context in (None, CONTEXT in name)]
        kept = [j for j, eps in enumerate(self.links) if links is None or eps in links]
        if not which or not kept:
            return None
        return replace(
            self,
            links=tuple(self.links[j] for j in kept),
            kernels=tuple(self.kernels[k] for k in which),
            errors=self.errors[:, kept][:, :, which],
        )

    def mixture(
        self,
        masks: Sequence[np.ndarray],
        *,
        margin: float = 0.0,
        temperature: float = TEMPERATURE,
        absolute: float = 1.0,
    ) -> dict[str, Any] | None:
        r"""Weigh the candidates by their error over the first of ``masks`` that has three left-out rows.

        The score of a candidate is the mean over rows of :math:`\log(e_i + \bar e)`, where :math:`\bar e` is the least mean
        squared error of any candidate: relative for large errors (conditions with large effects would choose alone
        otherwise), absolute for small ones (else the many null conditions of a noisy screen would choose a strength that
        ruins the few strong ones). A candidate whose score lies a share r above the least weighs ``exp(-r / temperature)``:
        with few conditions to choose by, candidates that do about as well are averaged rather than one of them trusted.
        At most ``MAX_MIXED`` count, and none that weighs less than ``LEAST_WEIGHT`` times the best.

        Parameters
        ----------
        masks
            Boolean ``(n,)`` sets of rows, those most like the question first. The last of several is used if it has two
            rows, a mask on its own only if it has three.
        margin
            How many standard errors, over what is left out together, a kernel that looks at contexts must be better than
            the best one that does not.
        temperature
            How fast weights fall.
        absolute
            How many times the least mean error is added to errors; 0 judges all rows by relative errors.

        Returns
        -------
        ``{"link", "kernel", "lambda", "error"}`` of the best candidate and ``"mixture"``, a list of
        ``[link, kernel, lambda, weight, by gene]`` with weights that sum to one, best first. None if no mask has enough
        rows.

        Examples
        --------
        Of the second row all candidates are off by much; the first tells more, but less than its ratio of errors says.

        >>> import numpy as np
        >>> from scjepa.baselines._selection import GridErrors
        >>> errors = np.array([[4.0, 1.0], [81.0, 100.0]]).reshape(2, 1, 1, 2, 1)
        >>> grid = GridErrors((None,), ("additive",), (0.1, 1.0), errors, np.arange(2))
        >>> pick = grid.mixture([np.array([False, True]), np.array([True, True])])
        >>> [[entry[2], round(entry[3], 2)] for entry in pick["mixture"]]
        [[0.1, 0.6], [1.0, 0.4]]
        """
        rows, tried = self.rows(masks), self.only()
        if rows is None or tried is None:
            return None
        errors = tried.errors[rows]
        logs = log_errors(errors, absolute)
        score = logs.mean(0)
        looks = np.array([CONTEXT in name for name in tried.kernels])
        if margin and looks.any() and not looks.all():
            best = np.where(looks[:, None, None], np.inf, score).argmin()
            gain = logs - logs.reshape(len(logs), -1)[:, best].reshape(-1, 1, 1, 1, 1)
            unit = self.unit[rows]
            means = np.stack([gain[unit == u].mean(0) for u in np.unique(unit)])
            if len(means) > 1:
                error = means.std(0, ddof=1) / np.sqrt(len(means))
                score = score + margin * np.where(looks[:, None, None], error, 0.0)
        weight = np.exp(-np.expm1(np.minimum(score - score.min(), 50)) / temperature).ravel()
        order = np.argsort(-weight, kind="stable")[:MAX_MIXED]
        order = order[weight[order] >= LEAST_WEIGHT]  # the best weighs one
        share = weight[order] / weight[order].sum()
        mixture: list[Entry] = []
        for flat, w in zip(order, share, strict=True):
            j, k, s, way = np.unravel_index(flat, score.shape)
            mixture.append([tried.links[j], tried.kernels[k], tried.strengths[s], float(w), bool(way)])
        return described(mixture, float(np.sqrt(errors.reshape(len(errors), -1)[:, order[0]]).mean()))


def log_errors(errors: FloatArray, absolute: float) -> FloatArray:
    """Return the logarithm of squared errors ``(rows, ...)`` plus ``absolute`` times the least mean one of a candidate."""
    least = max(absolute * float(errors.mean(0).min()), 1e-9 * float(errors.mean()))  # a perfect one has no logarithm
    return np.asarray(np.log(errors + least + 1e-300))


def averaged(*parts: tuple[float, list[Entry]]) -> list[Entry]:
    """Return the average of mixtures with weights, best first."""
    total: dict[tuple, float] = {}
    for share, mixture in parts:
        for eps, kernel, strength, weight, by_gene in mixture:
            key = (eps, kernel, strength, by_gene)
            total[key] = total.get(key, 0.0) + share * weight
    found = [[*key[:3], weight, key[3]] for key, weight in total.items() if weight > 0]
    return sorted(found, key=lambda entry: -entry[3])


def described(mixture: list[Entry], error: float = float("nan")) -> dict[str, Any]:
    """Return a mixture with its best candidate spelled out."""
    eps, kernel, strength, *_ = mixture[0]
    return {"link": eps, "kernel": kernel, "lambda": strength, "error": error, "mixture": mixture}


def untried_combinations(
    links: Sequence[float | None], strengths: Sequence[float], *, n_columns: int, by_gene: bool
) -> dict[str, Any]:
    """Return what combinations use when there are none to choose by, in the form of :meth:`GridErrors.mixture`.

    What is not among the candidates is replaced: a link by the first, a strength by the nearest end of the range, a kernel
    that needs several columns by the additive one.

    Examples
    --------
    >>> from scjepa.baselines._selection import untried_combinations
    >>> untried_combinations((None,), (1.0, 10.0), n_columns=5, by_gene=False)["mixture"]
    [[None, 'additive', 1.0, 0.5, False], [None, 'components', 1.0, 0.5, False]]
    """
    low, high = min(strengths), max(strengths)
    return described(
        [
            [
                eps if eps in links else links[0],
                kernel if n_columns > 1 else "additive",
                min(max(strength, low), high),
                weight,
                by_gene,
            ]
            for eps, kernel, strength, weight in UNTRIED_COMBINATIONS
        ]
    )


def unjudged(
    links: Sequence[float | None], strengths: Sequence[float], *, rows: Rows, gram: FloatArray, noise: NoiseModel
) -> dict[str, Any]:
    r"""Return what other classes use when there is nothing to choose by, in the form of :meth:`GridErrors.mixture`.

    Effects add up. Where the noise of rows is known each is shrunken by its own reliability,
    :math:`\tau_j^2 / (\tau_j^2 + \nu_j)` (empirical Bayes): the strength is the mean noise over the mean
    :math:`\tau_j^2` (:func:`scjepa.baselines._noise.amplitudes`). Else they are hardly shrunken.
    """
    if not noise.by_gene:
        return described([[links[0], "additive", min(strengths), 1.0, False]])
    many = rows.design.shape[1] > 1
    mean = amplitudes(rows.design, gram, noise.rows)[1]
    if not many:
        mean = max(float(np.trace(gram) - noise.rows.sum()), 0.0) / len(gram)
    strength = float(min(noise.rows.mean() / max(mean, 1e-12), 1e6))
    first = None if None in links else links[0]
    return described([[first, "additive" + AMPLITUDE * many, max(strength, 1e-6), 1.0, True]])


def joint_kernels(
    train: Rows, query: Rows, gram: FloatArray, n_components: int, use_context: bool, noise: FloatArray
) -> Iterator[tuple[str, Pair]]:
    """Yield the candidate kernels by name: action kernels and, with several contexts, action kernel x context kernel.

    Inside a fold the context kernel is centered on the contexts that remain. Centered on all, a context that is left
    out would lie opposite to the others by construction: of two contexts, nothing would carry over.

    Parameters
    ----------
    train, query
        Kernel inputs.
    gram
        ``(n, n)`` inner products of the training effects.
    n_components
        Of single effects.
    use_context
        Whether kernels may look at contexts.
    noise
        ``(n,)`` expected squared lengths of the noise of training effects.
    """
    features = None
    if train.features is not None and query.features is not None:
        features = (train.features, query.features)
    variances = amplitudes(train.design, gram, noise)[0] if train.design.shape[1] > 1 else None
    actions = action_kernels(
        train.design, query.design, train.order, query.order, gram, n_components, features, variances
    )
    yield from actions.items()
    # one context says nothing about how effects depend on it; what differs within it is the mix of batches
    if use_context and len(set(train.contexts)) > 1:
        where = context_kernel(train.place, query.place)
        for name, (among, across) in actions.items():
            yield name + CONTEXT, (among * where[0], across * where[1])
