"""The settings of perturb_noisy.py: screens made noisy, small, null and odd, and the questions asked about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _common import read

from scjepa.data import ConditionTable, condition_table
from scjepa.datasets import simulate_perturbseq

CONTROL, ALL = "control", "all"
PERTURBATION, CONTEXT, KEPT = "perturbation", "context", "kept"
SPARE = "spare"
"""Context of cells that were thinned away from pseudo-replicates: they count as truth in each of these."""
WEAK = ("FOXO4", "HK2", "IER5L", "MIDN", "NIT1", "PLK4", "SLC38A2", "TMSB4X")
"""Norman singles that can hardly be told from controls: with these they are the pool of controls and of null conditions."""
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
    contexts: Sequence[str] = (ALL,),
    n_null: int = 0,
    cells: tuple[int, int] = (10, 30),
    n_control: int = 80,
    pooled: Sequence[str] = WEAK,
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


# ------------------------------------------------------------------------------------------------- simulations
def simulated(
    seed: int,
    *,
    n_contexts: int,
    context_effect: float,
    n_real: int = 8,
    n_null: int = 18,
    n_truth: int = 120,
    cells: tuple[int, int] = (8, 25),
    n_genes: int = 300,
) -> Screen:
    """Counts of a few knock-downs and many null conditions cut from the controls, with few cells each."""
    rng = np.random.default_rng(seed)
    most = cells[1]
    source = simulate_perturbseq(
        n_genes,
        20,
        n_real,
        0,
        n_cells=n_truth,
        n_control=100 + most * n_null,
        contexts=[f"c{j}" for j in range(n_contexts)],
        kinds=("KD",),
        context_effect=context_effect,
        n_batches=1,
        batch_effect=0.0,
        depth=2000.0,
        seed=seed,
    )
    sc.pp.normalize_total(source, target_sum=1e4)
    sc.pp.log1p(source)
    label, place = (source.obs[key].to_numpy().astype(str) for key in (PERTURBATION, CONTEXT))
    real = sorted(set(label) - {CONTROL})
    parts = []
    for context in sorted(set(place)):
        deck = {
            p: rng.permutation(np.flatnonzero((label == p) & (place == context))).tolist() for p in [*real, CONTROL]
        }
        deck |= {f"N{j}": draw(deck[CONTROL], most) for j in range(n_null)}
        parts.append(dealt(deck.pop(CONTROL), CONTROL, context))
        for perturbation, members in deck.items():
            parts.append(dealt(draw(members, int(rng.integers(cells[0], most + 1))), perturbation, context))
            parts.append(dealt(members, perturbation, context, kept=False))
    return Screen(gather(source, parts), frozenset(real))


def programmes(
    seed: int,
    *,
    n_contexts: int,
    told: float = 0.0,
    own: float = 0.0,
    common: float = 1.0,
    size: float = 1.0,
    fold: bool = False,
    n_perturbations: int = 1,
    n_programmes: int = 6,
    n_genes: int = 200,
    cells: tuple[int, int] = (30, 200),
    n_truth: int = 300,
) -> Screen:
    r"""Contexts that answer with the same gene programmes, each in its own strength.

    .. math:: \delta_{pc} = \frac{2 s}{\sqrt R} \sum_r (\text{common}\,a_{pr} + \text{told}\,b_{pr} \cdot z_c +
        \text{own}\,u_{pcr})\, w_r

    with :math:`z_c` the state of the context's controls, so that "told" amplitudes can be read from control profiles
    and "own" ones can't. Effects add up on the log-normalised scale, or multiply expression (``fold``). Cells are gamma
    variables with the condition's mean, of the spread that log-normalised values have.
    """
    rng = np.random.default_rng(seed)
    mean = rng.gamma(0.5, 1.2, n_genes) + 0.02
    state = rng.normal(size=(n_contexts, 2))
    axes = rng.normal(0, 0.5, (2, n_genes)) * (rng.random((2, n_genes)) < 0.4) * np.sqrt(mean)
    jitter = 0.1 * rng.normal(size=(n_contexts, n_genes)) * np.sqrt(mean)
    controls = np.clip(mean + state @ axes + jitter, 0.01, None)
    genes = rng.normal(0, 0.5, (n_programmes, n_genes)) * (rng.random((n_programmes, n_genes)) < 0.3)
    genes *= 1.0 if fold else np.sqrt(mean)
    shared = common * rng.normal(size=(n_perturbations, n_programmes))
    slopes = told * rng.normal(0, math.sqrt(0.5), (n_perturbations, n_programmes, 2))
    parts: list[tuple[np.ndarray, str, str, int]] = []  # cells, perturbation, context, how many are kept
    for c in range(n_contexts):
        n = int(rng.integers(80, 300))
        parts.append((gamma_cells(controls[c], n, rng), CONTROL, f"c{c}", n))
        for p in range(n_perturbations):
            amplitude = shared[p] + slopes[p] @ state[c] + own * rng.normal(size=n_programmes)
            effect = size * 2 / math.sqrt(n_programmes) * amplitude @ genes
            if fold:
                target = np.log1p(np.expm1(controls[c]) * np.exp(np.clip(effect, -3, 3)))
            else:
                target = np.clip(controls[c] + effect, 0, None)
            parts.append((gamma_cells(target, n_truth, rng), f"P{p}", f"c{c}", int(rng.integers(*cells))))
    x = np.vstack([part[0] for part in parts])
    rows = [
        dealt(range(len(values)), label, place).assign(**{KEPT: np.arange(len(values)) < n})
        for values, label, place, n in parts
    ]
    obs = pd.concat(rows, ignore_index=True)[[PERTURBATION, CONTEXT, KEPT]]
    obs.index = [f"cell{i}" for i in range(len(obs))]
    real = frozenset(f"P{p}" for p in range(n_perturbations))
    return Screen(ad.AnnData(x.astype(np.float32), obs=obs), real)


def gamma_cells(mean: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw cells around a log-normalised profile: never negative, often zero where the mean is small."""
    mean = np.clip(mean, 1e-6, 7)
    variance = np.minimum(0.8 * np.sqrt(mean) + 0.05, 1.1 * mean)
    values = rng.gamma(mean**2 / variance, variance / mean, (n, len(mean)))
    return np.minimum(values, 14)  # no real value is larger, and hardly any of these


# ------------------------------------------------------------------------------------------------- real data
@lru_cache(maxsize=1)
def norman(folder: Path) -> ad.AnnData:
    """Return the K562 cells of Norman 2019, log-normalised."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    cells.obs[PERTURBATION] = ["+".join(sorted(label.split("+"))) for label in cells.obs["condition"].astype(str)]
    return cells


@lru_cache(maxsize=1)
def kang(folder: Path) -> ad.AnnData:
    """Return the PBMC of Kang 2018, log-normalised; types are contexts."""
    cells = read(folder, "kang18_combined.h5ad")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.obs[PERTURBATION], cells.obs[CONTEXT] = cells.obs["condition"].astype(str), cells.obs["cell_type"].astype(str)
    return cells


@lru_cache(maxsize=1)
def gene_ontology(folder: Path) -> pd.DataFrame:
    """Return gene x 128 components of Gene Ontology annotations."""
    path = folder / "priors" / "go_svd128_human.npz"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Name the folder with the data: --data DIR, or set SCJEPA_DATA.")
    with np.load(path, allow_pickle=True) as file:
        return pd.DataFrame(file["emb"].astype(np.float64), index=file["genes"].astype(str))


def singles(source: ad.AnnData) -> list[str]:
    """Return the single perturbations with an effect."""
    return sorted(p for p in set(source.obs[PERTURBATION]) - {CONTROL, *WEAK} if "+" not in p)


# ---------------------------------------------------------------------------------------------- the settings
@dataclass(frozen=True)
class Setting:
    """A kind of screen, and the questions asked about it.

    Attributes
    ----------
    cases
        Called with the folder of the data and a seed.
    seeds
        How many seeds by default.
    n_differ
        Number of training contexts, where contexts truly differ in their effects.
    """

    cases: Callable[[Path, int], Iterator[Case]]
    seeds: int = 10
    n_differ: int = 0


def norman_doubles(folder: Path, seed: int, n_cells: int) -> Iterator[Case]:
    """All of Norman, thinned; each double with measured singles in turn."""
    source = norman(folder)
    real = sorted(set(source.obs[PERTURBATION]) - {CONTROL})
    screen = replicates(source, seed, real=real, cells=(n_cells, n_cells), n_control=100, pooled=())
    return each_label(screen, measured_doubles(screen))


def norman_doubles_null(folder: Path, seed: int, share: float) -> Iterator[Case]:
    """Doubles in turn, a share of all conditions null; at 80 % only perturbations that doubles are made of."""
    source = norman(folder)
    labels = sorted(set(source.obs[PERTURBATION]) - {CONTROL, *WEAK})
    if share > 0.5:
        doubles = [p for p in labels if "+" in p and set(labels).issuperset(p.split("+"))]
        labels = sorted({*doubles, *(gene for p in doubles for gene in p.split("+"))})
    n_null = nulls(len(labels), share)
    screen = replicates(source, seed, real=labels, n_null=n_null, cells=(10, 22), n_control=120)
    return each_label(screen, measured_doubles(screen))


def norman_replicates(
    folder: Path, seed: int, n: int, share: float, cells: tuple[int, int] = (10, 25), n_real: int = 10
) -> Screen:
    """Singles of Norman in ``n`` pseudo-replicates."""
    source = norman(folder)
    real = sorted(np.random.default_rng(seed).permutation(singles(source))[:n_real].tolist())
    contexts = [f"r{j}" for j in range(n)]
    return replicates(source, seed, real=real, contexts=contexts, n_null=nulls(n_real, share), cells=cells)


def replicate_out(folder: Path, seed: int, **how: object) -> Iterator[Case]:
    """Hold out the perturbed cells of each pseudo-replicate in turn."""
    return each_context(norman_replicates(folder, seed, **how))


def pairs_out(folder: Path, seed: int, **how: object) -> Iterator[Case]:
    """Hold out every perturbation in one pseudo-replicate."""
    return some_pairs(norman_replicates(folder, seed, **how), seed)


def kang_thinned(folder: Path, seed: int, n_cells: int, share: float = 0.0) -> Iterator[Case]:
    """Interferon in an unseen cell type, with few cells."""
    return each_context(thinned_types(kang(folder), seed, n_cells=n_cells, n_null=nulls(1, share)))


def kang_types(folder: Path, seed: int, n_train: int) -> Iterator[Case]:
    """Interferon in an unseen cell type, learned from few others."""
    return few_types(kang(folder), seed, n_train)


def kang_swapped(folder: Path, seed: int, keep: float) -> Iterator[Case]:
    """Interferon in an unseen cell type, with effects exchanged between types."""
    rng = np.random.default_rng(seed)
    return (swapped(case, keep, rng) for case in few_types(kang(folder), seed, 4))


def simulated_contexts(_: Path, seed: int, **how: object) -> Iterator[Case]:
    """Simulated knock-downs, mostly null; each context in turn."""
    return each_context(simulated(seed, **how))


def programme_contexts(_: Path, seed: int, n_train: int, **how: object) -> Iterator[Case]:
    """Simulated programmes; up to four contexts in turn."""
    screen = programmes(seed, n_contexts=n_train + 1, **how)
    return each_context(screen, contexts_of(screen)[:4])


def unseen_genes(folder: Path, seed: int, n_null: int = 10, n_asked: int = 20) -> Iterator[Case]:
    """Genes never perturbed, described by Gene Ontology; null conditions carry the names of other genes."""
    source, features = norman(folder), gene_ontology(folder)
    screen = replicates(source, seed, real=singles(source), n_null=n_null, cells=(20, 50), n_control=150)
    spare = np.random.default_rng(seed).permutation(sorted(set(features.index) - {*singles(source), *WEAK}))
    names = {f"N{j}": spare[j] for j in range(n_null)}
    screen.cells.obs[PERTURBATION] = [names.get(p, p) for p in screen.cells.obs[PERTURBATION]]
    described = [p for p in labels_of(screen) if p in features.index][:n_asked]
    return each_label(replace(screen, features=features.loc[described]), described)


def nulls(n_real: int, share: float) -> int:
    """Return how many null conditions make up a share of all conditions."""
    return round(n_real * share / (1 - share))


def settings() -> dict[str, Setting]:
    """Return all settings by name."""
    out = {f"norman-doubles-{n}": Setting(partial(norman_doubles, n_cells=n)) for n in (10, 20, 40)}
    out |= {
        f"norman-doubles-{share:.0%}-null": Setting(partial(norman_doubles_null, share=share)) for share in (0.5, 0.8)
    }
    out |= {
        "replicates-2": Setting(partial(replicate_out, n=2, share=0.5, cells=(8, 35))),
        "replicates-2-80%-null": Setting(partial(replicate_out, n=2, share=0.8, cells=(8, 20), n_real=5)),
        "replicates-3-0%-null": Setting(partial(replicate_out, n=3, share=0.0)),
        "replicates-3-50%-null": Setting(partial(replicate_out, n=3, share=0.5)),
        "replicates-3-80%-null": Setting(partial(replicate_out, n=3, share=0.8, cells=(8, 12), n_real=5)),
        "replicates-3-10-cells": Setting(partial(replicate_out, n=3, share=0.5, cells=(10, 10))),
        "replicates-4": Setting(partial(replicate_out, n=4, share=0.5, cells=(8, 16))),
        "pairs-3-50%-null": Setting(partial(pairs_out, n=3, share=0.5), 30),
        "pairs-2-80%-null": Setting(partial(pairs_out, n=2, share=0.8, cells=(8, 20), n_real=5), 30),
    }
    out |= {f"kang-{n}": Setting(partial(kang_thinned, n_cells=n), n_differ=4) for n in (10, 20, 40)}
    out |= {
        f"kang-20-{share:.0%}-null": Setting(partial(kang_thinned, n_cells=20, share=share), n_differ=4)
        for share in (0.5, 0.8)
    }
    out |= {f"kang-{n}-types": Setting(partial(kang_types, n_train=n), n_differ=n) for n in (2, 3)}
    out |= {
        "kang-half-swapped": Setting(partial(kang_swapped, keep=0.5), n_differ=4),
        "kang-swapped": Setting(partial(kang_swapped, keep=0.0), n_differ=4),
        "simulated-shared": Setting(partial(simulated_contexts, n_contexts=3, context_effect=0.0)),
        "simulated-differing": Setting(partial(simulated_contexts, n_contexts=4, context_effect=1.0), n_differ=3),
    }
    for n in (2, 3, 4):
        out[f"programmes-own-{n}"] = Setting(partial(programme_contexts, n_train=n, own=1.0), 40, n)
        out[f"programmes-told-{n}"] = Setting(partial(programme_contexts, n_train=n, told=1.0), 40, n)
    out |= {
        "programmes-own-fold-4": Setting(partial(programme_contexts, n_train=4, own=1.0, fold=True), 40, 4),
        "programmes-own-thin-4": Setting(
            partial(programme_contexts, n_train=4, own=1.0, size=0.6, cells=(10, 40)), 40, 4
        ),
        "programmes-alike-thin-4": Setting(partial(programme_contexts, n_train=4, cells=(15, 60)), 40),
        "programmes-own-6-perturbations": Setting(
            partial(programme_contexts, n_train=3, own=1.0, n_perturbations=6), 10, 3
        ),
        "programmes-told-6-perturbations": Setting(
            partial(programme_contexts, n_train=3, told=1.0, n_perturbations=6), 10, 3
        ),
        "unseen-genes": Setting(unseen_genes, 5),
    }
    return out
