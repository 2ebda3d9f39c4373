"""Noisy screens made of real cells, and the questions asked about them: what perturb_noisy.py is built from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

from scjepa.data import ConditionTable, condition_table

CONTROL = "control"
PERTURBATION, CONTEXT, KEPT = "perturbation", "context", "kept"
SPARE = "spare"
"""Context of cells that were thinned away from pseudo-replicates: they count as truth in each of these."""
N_VARIABLE = 2000


# ------------------------------------------------------------------------------------------------ screens and cases
@dataclass(frozen=True)
class Screen:
    """Cells of a noisy screen.

    Attributes
    ----------
    cells
        Log-normalised cells; ``obs``: ``"perturbation"`` (combinations sorted, ``"A+B"``), ``"context"``, and
        ``"kept"``, false for cells that were thinned away: nothing sees them, they only make the truth less noisy.
    strong
        Labels of the real perturbations; others are relabelled controls.
    features
        Gene x features, or None.
    n_variable
        Number of variable genes to choose on training cells; None: all genes.
    """

    cells: ad.AnnData
    strong: frozenset[str]
    features: pd.DataFrame | None = None
    n_variable: int | None = None


@dataclass(frozen=True)
class Case:
    """One split of a screen.

    Attributes
    ----------
    name
        Name of the split.
    table
        Training conditions, from training cells only.
    query
        ``m`` held-out conditions as questions, with the control profiles that a prediction starts from.
    truth
        ``(m, genes)`` effects measured with all cells of the held-out conditions, thinned away or not.
    measured
        ``(m, genes)`` the same with the kept cells only, about as many as training conditions have.
    strong
        ``(m,)`` real perturbations.
    features
        Gene x features, or None.
    cells
        Training cells, or None where the case is made of profiles.
    """

    name: str
    table: ConditionTable
    query: ConditionTable
    truth: np.ndarray
    measured: np.ndarray
    strong: np.ndarray
    features: pd.DataFrame | None = None
    cells: ad.AnnData | None = None


def make_case(screen: Screen, held: set[tuple[str, str]], name: str) -> Case:
    """Split a screen into training conditions and the held-out ``(perturbation, context)``.

    Left out of the question are conditions of which nothing is known: no features, and never perturbed elsewhere.
    """
    label, place = (screen.cells.obs[key].to_numpy().astype(str) for key in (PERTURBATION, CONTEXT))
    kept = screen.cells.obs[KEPT].to_numpy()
    training = kept & ~np.array([pair in held for pair in zip(label, place, strict=True)])
    cells = screen.cells
    if screen.n_variable is not None:
        genes = sc.pp.highly_variable_genes(cells[training].copy(), n_top_genes=screen.n_variable, inplace=False)
        cells = cells[:, genes["highly_variable"].to_numpy()]
    table = condition_table(cells[training].copy(), PERTURBATION, CONTROL, context_key=CONTEXT)
    known = set(table.vocabulary()) | (set() if screen.features is None else set(screen.features.index))
    asked = condition_table(cells[kept].copy(), PERTURBATION, CONTROL, context_key=CONTEXT)
    pairs = list(zip(map("+".join, asked.actions), asked.contexts.astype(str), strict=True))
    rows = [i for i, pair in enumerate(pairs) if pair in held and known.issuperset(asked.actions[i])]
    asked, pairs = asked.rows(rows), [pairs[i] for i in rows]
    everything = [np.flatnonzero((label == p) & np.isin(place, (c, SPARE))) for p, c in pairs]
    means = np.stack([np.asarray(cells[i].X.mean(0), dtype=np.float64).ravel() for i in everything])
    return Case(
        name=name,
        table=table,
        query=question(asked, table),
        truth=means - asked.control,
        measured=asked.effects,
        strong=np.isin([p for p, _ in pairs], list(screen.strong)),
        features=screen.features,
        cells=cells[training].copy(),
    )


def question(asked: ConditionTable, table: ConditionTable) -> ConditionTable:
    """Return the conditions without anything that was measured on their cells."""
    unknown = {"perturbed": None, "n_cells": np.zeros(len(asked), int)}
    if "variance" in {field.name for field in fields(ConditionTable)}:  # a pooled variance, here of held-out cells too
        unknown["variance"] = table.variance
    return replace(asked, **unknown)


def contexts_of(screen: Screen) -> list[str]:
    """Return the sorted contexts that hold kept cells."""
    return sorted(screen.cells.obs.loc[screen.cells.obs[KEPT], CONTEXT].astype(str).unique())


def labels_of(screen: Screen) -> list[str]:
    """Return the sorted perturbations, without controls."""
    return sorted(set(screen.cells.obs[PERTURBATION].astype(str)) - {CONTROL})


def each_context(screen: Screen, contexts: Iterable[str] | None = None) -> Iterator[Case]:
    """Hold out all perturbed cells of each context in turn."""
    for context in contexts_of(screen) if contexts is None else contexts:
        yield make_case(screen, {(label, context) for label in labels_of(screen)}, context)


def each_label(screen: Screen, labels: Iterable[str]) -> Iterator[Case]:
    """Hold out each perturbation in turn, in all contexts."""
    for label in labels:
        yield make_case(screen, {(label, context) for context in contexts_of(screen)}, label)


def some_pairs(screen: Screen, seed: int) -> Iterator[Case]:
    """Hold out every perturbation in one context, chosen at random, all at once."""
    labels, contexts = labels_of(screen), contexts_of(screen)
    where = np.random.default_rng(seed).integers(0, len(contexts), len(labels))
    yield make_case(screen, {(p, contexts[i]) for p, i in zip(labels, where, strict=True)}, "pairs")


def measured_doubles(screen: Screen) -> list[str]:
    """Return the combinations whose parts are all measured alone."""
    labels = labels_of(screen)
    return [p for p in labels if "+" in p and set(labels).issuperset(p.split("+"))]


# --------------------------------------------------------------------------------------------- drawing cells
def draw(deck: list[int], n: int) -> list[int]:
    """Take the last ``n`` of a shuffled deck; an error if it has fewer."""
    if n > len(deck):
        raise ValueError(f"{n} cells wanted, {len(deck)} left: ask for fewer conditions or cells.")
    taken = deck[len(deck) - n :]
    del deck[len(deck) - n :]
    return taken


def dealt(cells: Sequence[int], perturbation: str, context: str, kept: bool = True) -> pd.DataFrame:
    """Return rows of a screen: which cells of a source are what."""
    return pd.DataFrame({"cell": list(cells), PERTURBATION: perturbation, CONTEXT: context, KEPT: kept})


def gather(source: ad.AnnData, parts: list[pd.DataFrame]) -> ad.AnnData:
    """Put dealt cells into one AnnData."""
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    obs = rows[[PERTURBATION, CONTEXT, KEPT]].astype({KEPT: bool})
    obs.index = [f"cell{i}" for i in range(len(rows))]
    return ad.AnnData(source.X[rows["cell"].to_numpy(int)], obs=obs, var=pd.DataFrame(index=source.var_names))


def replicates(
    source: ad.AnnData,
    seed: int,
    *,
    real: Sequence[str],
    contexts: Sequence[str] = ("all",),
    n_null: int = 0,
    cells: tuple[int, int] = (10, 30),
    n_control: int = 80,
    pooled: Sequence[str] = (),
) -> Screen:
    """Deal the cells of one screen to pseudo-replicates, few to each condition.

    Parameters
    ----------
    source
        Cells with ``obs["perturbation"]``.
    seed
        Decides which cell goes where.
    real
        Perturbations to keep.
    contexts
        Names of the replicates.
    n_null
        Number of conditions ``"N0"``, ``"N1"``, ... made of controls.
    cells
        Fewest and most kept cells per condition and replicate; what else a perturbation has is spare.
    n_control
        Controls per replicate.
    pooled
        Perturbations whose cells count as controls.
    """
    rng = np.random.default_rng(seed)
    label = source.obs[PERTURBATION].to_numpy().astype(str)
    pool = rng.permutation(np.flatnonzero(np.isin(label, [CONTROL, *pooled]))).tolist()
    size = lambda: int(rng.integers(cells[0], cells[1] + 1))
    parts = [dealt(draw(pool, n_control), CONTROL, context) for context in contexts]
    parts += [dealt(draw(pool, size()), f"N{j}", context) for j in range(n_null) for context in contexts]
    for perturbation in real:
        deck = rng.permutation(np.flatnonzero(label == perturbation)).tolist()
        for number, context in enumerate(contexts):
            fair = len(deck) // (len(contexts) - number)
            parts.append(dealt(draw(deck, min(size(), fair)), perturbation, context))
        parts.append(dealt(deck, perturbation, SPARE, kept=False))
    return Screen(gather(source, parts), frozenset(real))


def thinned_types(
    source: ad.AnnData, seed: int, *, n_cells: int, n_control: int = 60, n_null: int = 0, n_variable: int = N_VARIABLE
) -> Screen:
    """Keep few cells of every condition and context; ten controls of each context make a null condition."""
    rng = np.random.default_rng(seed)
    label, place = (source.obs[key].to_numpy().astype(str) for key in (PERTURBATION, CONTEXT))
    real = sorted(set(label) - {CONTROL})
    parts = []
    for context in sorted(set(place)):
        controls = rng.permutation(np.flatnonzero((label == CONTROL) & (place == context))).tolist()
        parts += [dealt(draw(controls, 10), f"N{j}", context) for j in range(n_null)]
        parts.append(dealt(draw(controls, min(n_control, len(controls))), CONTROL, context))
        for perturbation in real:
            deck = rng.permutation(np.flatnonzero((label == perturbation) & (place == context))).tolist()
            parts.append(dealt(draw(deck, min(n_cells, len(deck))), perturbation, context))
            parts.append(dealt(deck, perturbation, context, kept=False))
    return Screen(gather(source, parts), frozenset(real), n_variable=n_variable)


def few_types(source: ad.AnnData, seed: int, n_train: int, n_variable: int = N_VARIABLE) -> Iterator[Case]:
    """Hold out each context in turn, with so many others, chosen at random, to learn from."""
    rng = np.random.default_rng(seed)
    place = source.obs[CONTEXT].to_numpy().astype(str)
    types = sorted(set(place))
    for new in types:
        others = rng.choice([t for t in types if t != new], n_train, replace=False)
        cells = source[np.isin(place, [new, *others])].copy()
        cells.obs[KEPT] = True
        real = frozenset(cells.obs[PERTURBATION].astype(str)) - {CONTROL}
        yield from each_context(Screen(cells, real, n_variable=n_variable), [new])


def swapped(case: Case, keep: float, rng: np.random.Generator) -> Case:
    """Give each condition the effect of another one but for the share ``keep``: controls no longer tell effects."""
    control = np.vstack([case.table.control, case.query.control])
    effects = np.vstack([case.table.effects, case.truth])
    order = rng.permutation(len(effects))
    while (order == np.arange(len(effects))).any():
        order = rng.permutation(len(effects))
    perturbed = np.clip(control + keep * effects + (1 - keep) * effects[order], 0, None)
    n = len(case.table)
    truth = perturbed[n:] - case.query.control
    return replace(case, table=replace(case.table, perturbed=perturbed[:n]), truth=truth, measured=truth, cells=None)
