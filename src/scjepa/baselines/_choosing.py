"""How the kernel anchor chooses: for each class of question, candidates weighed by what can be left out in that way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._folds import folds_of, supported_rows
from scjepa.baselines._grid import grid_errors
from scjepa.baselines._noise import Fold, NoiseModel, misfit, noise_model, sampling_noise_alone
from scjepa.baselines._selection import (
    CONTEXT,
    MARGIN,
    OF_TWO,
    TEMPERATURE,
    GridErrors,
    Rows,
    averaged,
    described,
    unjudged,
    untried_combinations,
)
from scjepa.data import ConditionTable

MAX_VALUES, SELECTION_GENES = 1_000_000, 1_000
"""Above so many values (conditions x genes) candidates are compared on the most variable genes only, and on how many."""
MIXTURES = ("mixture", "measured", "with", "without")
"""What a pick may hold of mixtures."""
FEW_KNOWN = 3
"""Up to so many contexts, kernels that do not look at them are candidates for questions about known contexts too."""
SELECTION_ROWS = 1_000
"""They are compared on at most this many conditions."""


def noise_of(
    table: ConditionTable,
    cls: str,
    basis: str,
    unexplained: Callable[[FloatArray], float | None],
    dense: bool = True,
) -> NoiseModel:
    """Return the noise of a training table for one class of questions.

    Parameters
    ----------
    table
        Training conditions.
    cls
        Class of the questions, see :class:`scjepa.baselines.KernelEffect`.
    basis
        What judges them. By sampling noise alone rows are independent and nothing else is off; combinations are not,
        since their fixed mixture was found with all of it.
    unexplained, dense
        See :func:`scjepa.baselines._noise.noise_model`.
    """
    model = noise_model(
        table.contexts.astype(str),
        table.variance,
        table.n_cells,
        table.n_controls,
        new_context=cls == "context",
        unexplained=unexplained,
        dense=dense,
    )
    return sampling_noise_alone(model, dense=dense) if basis == "sampling noise" and cls != "combination" else model


@dataclass
class Chooser:
    """Training conditions and candidates; :meth:`pick` weighs these for a class of questions.

    Attributes
    ----------
    table
        Training conditions.
    rows
        The same as kernel inputs.
    gram
        ``(n, n)`` inner products of their effects.
    links, strengths, n_components, use_context
        As in :class:`scjepa.baselines.KernelEffect`.
    large
        Whether they are a part of a large table: where rows share no noise its covariance is then kept as a diagonal.
    """

    table: ConditionTable
    rows: Rows
    gram: FloatArray
    links: tuple[float | None, ...]
    strengths: tuple[float, ...]
    n_components: int
    use_context: bool
    large: bool = False
    _grids: dict[tuple[str, bool], GridErrors] = field(default_factory=dict)

    def pick(self, cls: str) -> dict[str, Any]:
        """Return the mixture of a class with its best candidate, error, basis and misfit (``KernelEffect.picks_``)."""
        noise, found = self._judged(cls, cls if cls in ("context", "unseen") else "condition")
        basis = "left out"
        if found is None and cls == "context" and not noise.by_gene:
            # without cells, what holds for other conditions is the next best question
            noise, found = self._judged(cls, "condition")
            basis = "none"
        if found is None:
            basis = "sampling noise" if noise.by_gene else "none"
            if cls == "combination":
                columns = self.rows.design.shape[1]
                found = untried_combinations(self.links, self.strengths, n_columns=columns, by_gene=noise.by_gene)
            else:
                found = unjudged(self.links, self.strengths, rows=self.rows, gram=self.gram, noise=noise)
                noise = sampling_noise_alone(noise)  # as predictions take it, see noise_of
        return {**found, "basis": basis, "misfit": float(noise.misfit)}

    def _judged(self, cls: str, way: str) -> tuple[NoiseModel, dict[str, Any] | None]:
        """Return the noise for a class, and the pick by what is left out in some way; None if there is too little."""
        folds = folds_of(way, self.table)
        judged = supported_rows(self.table, folds)
        unexplained = lambda rows: misfit(self.rows.design, self.gram, rows, folds, judged)
        noise = noise_of(self.table, cls, "left out", unexplained, not self.large or cls == "context")
        if not folds:
            return noise, None
        key = way, cls == "context"  # classes that share these share the noise
        if key not in self._grids:
            self._grids[key] = self._grid(folds, noise, way)
        grid, masks = self._grids[key], self._masks(cls, way, folds)
        if way == "context":
            return noise, among_contexts(grid, masks, len(folds))
        # of a gene never perturbed little can be said, and most of an error is its effect: judge by relative errors
        found = grid.mixture(masks, absolute=float(way != "unseen"))
        looking, plain = (grid.only(context=look) for look in (True, False))
        if found is not None and looking is not None and plain is not None:
            # left out, a condition is known from other contexts; measured, from its own, and they may differ
            own = looking.mixture(masks)
            found |= {} if own is None else {"measured": own["mixture"]}
        return noise, found

    def _grid(self, folds: list[Fold], noise: NoiseModel, way: str) -> GridErrors:
        """Return errors of all candidates for what is left out in some way."""
        effects = self.table.effects
        n, genes = effects.shape
        columns = np.arange(genes)
        if n * genes > MAX_VALUES and genes > SELECTION_GENES:
            columns = np.argsort(-effects.var(0), kind="stable")[:SELECTION_GENES]
        strengths = self.strengths
        if way in ("context", "unseen"):
            # what holds for a gene never perturbed, or elsewhere, may be nothing: shrink further, almost to no change
            strengths = (*strengths, max(strengths) * 10**0.5, max(strengths) * 10)
        if way == "unseen":  # which genes are noisy is known, but not by how much their effects will be missed
            noise = replace(noise, variance=None, share=None)
        square = effects**2
        return grid_errors(
            self.rows,
            np.asarray(self.table.control, dtype=float)[:, columns],
            np.asarray(self.table.perturbed, dtype=float)[:, columns],
            folds,
            gram=self.gram,
            noise=noise,
            steps=[noise.steps(square[train].mean(0), train)[columns] for train, _ in folds],
            links=self.links,
            strengths=strengths,
            n_components=self.n_components,
            use_context=self.use_context,
            # among few contexts the kernel that looks at them carries next to nothing from one to another: of two, nothing
            use_plain=way == "context" or (way == "condition" and len(set(self.rows.contexts)) <= FEW_KNOWN),
            use_amplitudes=way != "unseen",  # the amplitude of a gene never perturbed is not known
        )

    def _masks(self, cls: str, way: str, folds: list[Fold]) -> list[np.ndarray]:
        """Return sets of rows to choose by, from those most like a question of the class to all that make sense."""
        order = self.table.order
        of_class = {"combination": order >= 2, "single": order == 1}.get(cls, order > 0)
        if way == "unseen":
            return [of_class]
        alone, seen = supported_rows(self.table, folds, alone=True), supported_rows(self.table, folds)
        if cls == "combination":  # other rows tell little about combinations, and mislead about how far to shrink them
            return [alone & of_class]
        return [alone & of_class, seen & of_class, seen]


def among_contexts(grid: GridErrors, masks: list[np.ndarray], n_folds: int) -> dict[str, Any] | None:
    """Return the pick for new contexts, with mixtures of candidates that look at contexts and of those that do not.

    Kernels that look at control profiles must be better by ``MARGIN`` standard errors over left-out contexts. The mixture
    without contexts, for the cautious mode, averages more candidates the fewer contexts there are, half of it without a
    link.

    Parameters
    ----------
    grid, masks
        Errors of candidates, and rows to choose by.
    n_folds
        Number of parts that contexts were left out in.
    """
    found = grid.mixture(masks, margin=MARGIN)
    if found is None:
        return None
    looking = grid.only(context=True)
    if looking is None and any(CONTEXT in name for name in grid.kernels):
        alike = [[eps, kernel + CONTEXT, *rest] for eps, kernel, *rest in found["mixture"]]
        found |= described(averaged((1 - OF_TWO, found["mixture"]), (OF_TWO, alike)), found["error"])
    cautious = [
        part.mixture(masks, temperature=max(TEMPERATURE, 1 / n_folds))
        for part in (grid.only(context=False), grid.only(context=False, links=(None,)))
        if part is not None
    ]
    found["without"] = averaged(*((1 / len(cautious), c["mixture"]) for c in cautious if c is not None))
    best = None if looking is None else looking.mixture(masks)
    return found if best is None else {**found, "with": best["mixture"]}


def link_name(eps: float | None) -> float | str:
    """Return a link as plain data."""
    return "identity" if eps is None else float(eps)


def link_value(eps: float | str) -> float | None:
    """Read a link back."""
    return None if eps == "identity" else float(eps)


def renamed(pick: dict[str, Any], rename: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a pick with its links renamed, for writing as plain data and back."""
    mixtures: dict[str, Any] = {
        name: [[rename(eps), *rest] for eps, *rest in pick[name]] for name in MIXTURES if name in pick
    }
    return {**pick, "link": rename(pick["link"]), **mixtures}
