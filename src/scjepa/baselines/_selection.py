"""Which rows the kernel anchor leaves out, and the left-out error of every candidate on its grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._kernels import (
    ACTION_KERNELS,
    Pair,
    action_kernels,
    apply_link,
    context_kernel,
    invert_link,
    ridge_weights,
    unit_folds,
)
from scjepa.data import ConditionTable

MAX_FOLDS, MANY_UNITS, FEW_FOLDS = 32, 320, 10
"""At most 32 folds; 10 when there are more than 320 things to leave out (each fold is a set of decompositions)."""
TEMPERATURE, MAX_MIXED, LEAST_WEIGHT = 0.1, 32, 0.01
"""How fast a candidate's weight falls with its relative excess error, how many candidates are averaged at most, and the
least weight relative to the best one's."""
UNTRIED_COMBINATIONS = ((0.03, "additive", 0.3, 0.5), (0.03, "components", 0.3, 0.5))
"""Link, kernel, strength and weight for combinations when too few left-out combinations of measured singles can tell:
sums of single effects, shrunken, averaged with a prediction from their components (better than sums alone on two
screens)."""
Fold = tuple[np.ndarray, np.ndarray]
"""Training rows and left-out rows."""


@dataclass(frozen=True)
class Rows:
    """What kernels read of conditions: design, order, context, place of the control profile, summed features or None."""

    design: FloatArray
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


@dataclass(frozen=True)
class GridErrors:
    """Squared errors of left-out rows under every candidate.

    Attributes
    ----------
    links, kernels, strengths
        The candidates.
    errors
        ``(n, links, kernels, strengths)``: mean over the folds in which the row is left out, NaN for rows never left
        out.
    """

    links: tuple[float | None, ...]
    kernels: tuple[str, ...]
    strengths: tuple[float, ...]
    errors: FloatArray

    def mixture(self, masks: Sequence[np.ndarray]) -> dict[str, Any] | None:
        """Weigh the candidates by their error over the first of ``masks`` that has three left-out rows.

        Errors are averaged as a geometric mean: conditions with large effects have large errors, and would choose alone
        otherwise. A candidate whose mean squared error is a share r above the least weighs ``exp(-r / TEMPERATURE)``:
        with few conditions to choose by, candidates that do about as well are averaged rather than one of them trusted.
        At most ``MAX_MIXED`` count, and none that weighs less than ``LEAST_WEIGHT`` times the best.

        Parameters
        ----------
        masks
            Boolean ``(n,)`` sets of rows, those most like the question first. The last of several is used if it has two
            rows, a mask on its own only if it has three.

        Returns
        -------
        ``{"link", "kernel", "lambda", "error"}`` of the best candidate and ``"mixture"``, a list of
        ``[link, kernel, lambda, weight]`` with weights that sum to one, best first. None if no mask has enough rows.

        Examples
        --------
        The second row has large errors; relative to them, the second strength is better for the first row.

        >>> import numpy as np
        >>> from scjepa.baselines._selection import GridErrors
        >>> grid = GridErrors((None,), ("additive",), (0.1, 1.0), np.array([[[[4.0, 1.0]]], [[[81.0, 100.0]]]]))
        >>> pick = grid.mixture([np.array([False, True]), np.array([True, True])])
        >>> pick["lambda"], pick["error"], pick["mixture"]
        (1.0, 5.5, [[None, 'additive', 1.0, 1.0]])
        """
        left_out = np.isfinite(self.errors).all((1, 2, 3))
        rows = next((m & left_out for m in masks if (m & left_out).sum() >= 3), masks[-1] & left_out)
        if rows.sum() < (2 if len(masks) > 1 else 3):
            return None
        errors = self.errors[rows]
        score = np.log(errors + 1e-9 * errors.mean() + 1e-300).mean(0)  # perfect predictions have no logarithm
        weight = np.exp(-np.expm1(np.minimum(score - score.min(), 50)) / TEMPERATURE).ravel()
        order = np.argsort(-weight, kind="stable")[:MAX_MIXED]
        order = order[weight[order] >= LEAST_WEIGHT]  # the best weighs one
        share = weight[order] / weight[order].sum()
        mixture = []
        for flat, w in zip(order, share, strict=True):
            j, k, s = np.unravel_index(flat, score.shape)
            mixture.append([self.links[j], self.kernels[k], self.strengths[s], float(w)])
        j, k, s = np.unravel_index(order[0], score.shape)
        return {
            "link": self.links[j],
            "kernel": self.kernels[k],
            "lambda": self.strengths[s],
            "error": float(np.sqrt(errors[:, j, k, s]).mean()),
            "mixture": mixture,
        }


def default_pick(
    cls: str, links: Sequence[float | None], strengths: Sequence[float], *, n_columns: int
) -> dict[str, Any]:
    """Return what a class uses when there is nothing to choose by, in the form of :meth:`GridErrors.mixture`.

    Combinations get ``UNTRIED_COMBINATIONS``, all else effects that add up and are hardly shrunken, as in the baselines
    without a choice. What is not among the candidates is replaced: a link by the first, a strength by the nearest end of
    the range, a kernel that needs several columns by the additive one.

    Parameters
    ----------
    cls
        Class of query rows.
    links, strengths
        Candidates.
    n_columns
        Columns of the design; with one there is the additive kernel only.

    Returns
    -------
    The first candidate, error NaN, and the mixture.

    Examples
    --------
    >>> from scjepa.baselines._selection import default_pick
    >>> default_pick("combination", (None,), (1.0, 10.0), n_columns=5)["mixture"]
    [[None, 'additive', 1.0, 0.5], [None, 'components', 1.0, 0.5]]
    """
    low, high = min(strengths), max(strengths)
    additive = ACTION_KERNELS[0]
    usual = UNTRIED_COMBINATIONS if cls == "combination" else ((links[0], additive, low, 1.0),)
    mixture: list[list[Any]] = [
        [
            eps if eps in links else links[0],
            kernel if n_columns > 1 else additive,
            min(max(strength, low), high),
            weight,
        ]
        for eps, kernel, strength, weight in usual
    ]
    eps, kernel, strength, _ = mixture[0]
    return {"link": eps, "kernel": kernel, "lambda": strength, "error": np.nan, "mixture": mixture}


def joint_kernels(
    train: Rows, query: Rows, gram: FloatArray, n_components: int, use_context: bool
) -> Iterator[tuple[str, Pair]]:
    """Yield the candidate kernels by name: action kernel x context kernel.

    Inside a fold the context kernel is centered on the contexts that remain. Centered on all, a context that is left
    out would lie opposite to the others by construction: of two contexts, nothing would carry over.
    """
    features = None
    if train.features is not None and query.features is not None:
        features = (train.features, query.features)
    where: Pair | tuple[float, float] = (1.0, 1.0)
    # one context says nothing about how effects depend on it; what differs within it is the mix of batches
    if use_context and len(set(train.contexts)) > 1:
        where = context_kernel(train.place, query.place)
    actions = action_kernels(train.design, query.design, train.order, query.order, gram, n_components, features)
    for name, (among, across) in actions.items():
        yield name, (among * where[0], across * where[1])


def condition_folds(table: ConditionTable) -> list[Fold]:
    """Leave every condition out once: a single row by row, a combination with all its contexts, doses and kinds.

    A question about a single is about a gene that was seen (elsewhere, or in combinations); one about a combination is
    mostly about one that was not seen anywhere.
    """
    units: dict[object, list[int]] = {}
    for i, action in enumerate(table.actions):
        units.setdefault(action if len(action) > 1 else i, []).append(i)
    rows = list(units.values())
    strata = [min(len(table.actions[unit[0]]), 2) for unit in rows]
    return _folds(len(table), [sum((rows[u] for u in fold), []) for fold in unit_folds(rows, strata, _number(rows))])


def context_folds(table: ConditionTable) -> list[Fold]:
    """Leave every context out once; none when there is only one."""
    labels = table.contexts.astype(str)
    units = [np.flatnonzero(labels == c).tolist() for c in np.unique(labels)]
    folds = unit_folds(units, [0] * len(units), _number(units))
    return _folds(len(table), [sum((units[u] for u in fold), []) for fold in folds])


def gene_folds(table: ConditionTable) -> list[Fold]:
    """Leave every perturbed gene out once, with all rows it is part of."""
    genes = table.vocabulary()
    has = table.design(genes) > 0
    folds = unit_folds([[j] for j in range(len(genes))], [0] * len(genes), _number(genes))
    return _folds(len(table), [np.flatnonzero(has[:, fold].any(1)).tolist() for fold in folds])


def _number(units: Sequence[object]) -> int:
    """Return how many folds to deal ``units`` into."""
    return MAX_FOLDS if len(units) <= MANY_UNITS else FEW_FOLDS


def _folds(n: int, left_out: Iterable[Sequence[int]]) -> list[Fold]:
    """Turn lists of left-out rows into folds; a fold that leaves nothing to train on is dropped."""
    out = []
    for rows in left_out:
        test = np.zeros(n, bool)
        test[list(rows)] = True
        if 0 < test.sum() < n:
            out.append((np.flatnonzero(~test), np.flatnonzero(test)))
    return out


def supported_rows(table: ConditionTable, folds: Sequence[Fold], *, alone: bool = False) -> np.ndarray:
    """Return a boolean ``(n,)``: rows that are left out and whose genes all remain in the training part.

    With ``alone=True`` the genes of a combination must remain as singles: a gene that is left in one other combination
    only gets that combination's effect, which says little about choices for combinations of measured singles.
    """
    has = table.design(table.vocabulary()) > 0
    single = has & (table.order == 1)[:, None]
    out = np.zeros(len(table), bool)
    for train, test in folds:
        left = has[train].any(0)
        out[test] = ~(has[test] & ~left).any(1)
        if alone:
            out[test] &= ~(has[test] & ~single[train].any(0)).any(1) | (table.order[test] == 1)
    return out


def grid_errors(
    rows: Rows,
    control: FloatArray,
    perturbed: FloatArray,
    folds: Sequence[Fold],
    *,
    gram: FloatArray,
    links: Sequence[float | None],
    strengths: Sequence[float],
    n_components: int,
    use_context: bool,
) -> GridErrors:
    """Return the squared error of every left-out row under every candidate.

    Components of single effects, kernel widths and centering are computed again inside each fold.

    Parameters
    ----------
    rows
        Kernel inputs of the ``n`` training conditions.
    control, perturbed
        Their profiles, ``(n, genes)``; errors are summed over these genes.
    folds
        Training and left-out rows.
    gram
        ``(n, n)`` inner products of effects.
    links, strengths
        Pseudocounts of the link (None: identity) and ridge strengths.
    n_components, use_context
        As in :class:`scjepa.baselines.KernelEffect`.

    Returns
    -------
    The candidates with their errors.
    """
    names: tuple[str, ...] = ()
    weights = []
    for train, test in folds:
        kernels = dict(
            joint_kernels(rows.take(train), rows.take(test), gram[np.ix_(train, train)], n_components, use_context)
        )
        names = tuple(kernels)
        weights.append(np.stack([ridge_weights(*pair, strengths) for pair in kernels.values()]))
    total = np.zeros((len(control), len(links), len(names), len(strengths)))
    count = np.zeros(len(control))
    for j, eps in enumerate(links):
        base = apply_link(control, eps)
        target = apply_link(perturbed, eps) - base
        for (train, test), weight in zip(folds, weights, strict=True):
            shift = (weight.reshape(-1, len(train)) @ target[train]).reshape(*weight.shape[:3], -1)
            shift += base[test]
            predicted = invert_link(shift, eps)
            predicted -= perturbed[test]
            total[test, j] += np.moveaxis(np.einsum("klmg,klmg->klm", predicted, predicted), -1, 0)
            count[test] += j == 0
    errors = total / np.where(count > 0, count, np.nan)[:, None, None, None]
    return GridErrors(tuple(links), names, tuple(strengths), errors)
