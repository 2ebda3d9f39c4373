"""The draws behind ``split``: which genes, combinations or conditions are held out. Labels in, parts out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

from scjepa._labels import Action

TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
Unit = TypeVar("Unit", bound=Hashable)


def group_name(action: Action, seen: set[str]) -> str:
    """Name what is asked of a predictor that knows the genes ``seen``, in the words of GEARS.

    Examples
    --------
    >>> from scjepa.tl.splitting._schemes import group_name
    >>> group_name(("A", "B"), {"A"}), group_name(("B",), {"A"})
    ('combo_seen1', 'unseen_single')
    """
    known = sum(gene in seen for gene in action)
    if len(action) == 1:
        return "seen_single" if known else "unseen_single"
    return f"combo_seen{0 if not known else 2 if known == len(action) else 1}"


def seen_combinations(actions: Sequence[Action]) -> list[Action]:
    """Return the combinations whose genes were all measured alone."""
    alone = {a[0] for a in actions if len(a) == 1}
    return [a for a in actions if len(a) > 1 and alone.issuperset(a)]


def draw_units(
    units: Sequence[Unit],
    sizes: tuple[float, float],
    rng: np.random.Generator,
    test: Sequence[Unit] | None,
    what: str,
    *,
    spare: int = 1,
) -> dict[Unit, str]:
    """Assign whole units to parts: at least one each to test and (if asked for) validation, ``spare`` to training.

    Raises
    ------
    ValueError
        If there are too few units.
    """
    named = list(dict.fromkeys(test or []))
    pool = [u for u in units if u not in set(named)]
    n_test = 0 if test is not None else max(1, round(sizes[0] * len(units)))
    n_validation = max(1, round(sizes[1] * len(units))) if sizes[1] > 0 else 0
    if n_test + n_validation + spare > len(pool) or (test is not None and not named):
        raise ValueError(
            f"{len(units)} {what}: {len(named) or n_test} for the test and {n_validation} for validation leave too few "
            f"(at least {spare} must train). Lower test_size and validation_size (0 for no validation), or choose another kind."
        )
    order = rng.permutation(len(pool))
    out = dict.fromkeys(units, TRAIN)
    out.update(dict.fromkeys(named, TEST))
    out.update({pool[i]: TEST for i in order[:n_test]})
    out.update({pool[i]: VALIDATION for i in order[n_test : n_test + n_validation]})
    return out


def unseen_genes(
    actions: Sequence[Action], sizes: tuple[float, float], rng: np.random.Generator, *, some_seen: bool
) -> dict[Action, str]:
    """Make genes unseen until enough combinations have no seen gene (or some, with ``some_seen``).

    Validation is drawn from what training keeps, without touching the seen genes of the test combinations.
    """
    total = sum(len(a) > 1 for a in actions)
    out = dict.fromkeys(actions, TRAIN)
    protected: set[str] = set()
    for part, size in zip((TEST, VALIDATION), sizes, strict=True):
        if size == 0 or not total:
            continue
        pool = [a for a in actions if out[a] == TRAIN]
        hits, unseen = _grow(pool, max(1, round(size * total)), rng, protected, some_seen)
        seen = {g for a in pool if not unseen.intersection(a) for g in a}
        protected |= {g for a in hits for g in a if g in seen}
        out.update({a: UNUSED for a in pool if unseen.intersection(a)})
        out.update(dict.fromkeys(hits, part))
    return out


def _grow(
    pool: Sequence[Action], target: int, rng: np.random.Generator, protected: set[str], some_seen: bool
) -> tuple[list[Action], set[str]]:
    """Add genes (one gene, or those of one combination) to the unseen ones while that yields more combinations."""
    group = "combo_seen1" if some_seen else "combo_seen0"
    combos = [a for a in pool if len(a) > 1]
    units = [{g} for g in sorted({g for a in combos for g in a})] if some_seen else [set(a) for a in combos]
    hits: list[Action] = []
    unseen: set[str] = set()
    for i in rng.permutation(len(units)):
        if len(hits) >= target:
            break
        wider = unseen | units[i]
        kept = [a for a in pool if not wider.intersection(a)]
        seen = {g for a in kept for g in a}
        if wider & protected or not protected <= seen or not kept:
            continue
        found = [a for a in combos if wider.intersection(a) and group_name(a, seen) == group]
        if len(found) > len(hits):
            hits, unseen = found, wider
    return hits, unseen


def gears_simulation(labels: dict[Action, str], sizes: tuple[float, float], seed: int) -> dict[Action, str]:
    """Repeat the simulation split of GEARS, with its random numbers, for test and then for validation."""
    train, test = _simulate(labels, 1 - sizes[0], seed)
    out = dict.fromkeys(test, TEST)
    if sizes[1] > 0:
        train, validation = _simulate({a: labels[a] for a in train}, 1 - sizes[1], seed)
        out.update(dict.fromkeys(validation, VALIDATION))
    return {a: out.get(a, TRAIN) for a in labels}


def _simulate(labels: dict[Action, str], keep: float, seed: int) -> tuple[list[Action], list[Action]]:
    """Keep a share of the genes, and this share of the combinations of kept genes."""
    genes = sorted({g for a in labels for g in a})
    # GEARS seeds numpy's old generator before each of the two draws
    kept = set(np.random.RandomState(seed).choice(genes, int(len(genes) * keep), replace=False))
    combos = sorted((a for a in labels if len(a) > 1 and kept.issuperset(a)), key=labels.__getitem__)
    n = int(len(combos) * keep)
    chosen: list[int] = np.random.RandomState(seed).choice(len(combos), n, replace=False).tolist() if combos else []
    train = {a for a in labels if len(a) == 1 and kept.issuperset(a)} | {combos[i] for i in chosen}
    return [a for a in labels if a in train], [a for a in labels if a not in train]


def perturbench(
    actions: Sequence[Action],
    contexts: np.ndarray,
    sizes: tuple[float, float],
    rng: np.random.Generator,
    *,
    combinations: bool,
) -> np.ndarray:
    """Hold out conditions per context as PerturBench does, and deal them to test and validation, context by context."""
    share = sizes[0] + sizes[1]
    held = _combinations(actions, contexts, share, rng) if combinations else _transfer(actions, contexts, share, rng)
    mixed = rng.permutation(np.array(sorted(held), dtype=int))
    mixed = mixed[np.argsort(contexts[mixed].astype(str), kind="stable")]
    # dealt evenly along the contexts, so that each has its share of both
    steps = np.floor(np.arange(len(mixed) + 1) * sizes[0] / share + 0.5)
    parts = np.full(len(actions), TRAIN, dtype=object)
    parts[mixed] = np.where(np.diff(steps) > 0, TEST, VALIDATION)
    return parts.astype(str)


def _transfer(actions: Sequence[Action], contexts: np.ndarray, share: float, rng: np.random.Generator) -> list[int]:
    """Hold out each perturbation in one or two of its contexts while the context has room."""
    rows: dict[Action, list[int]] = {}
    for i, action in enumerate(actions):
        rows.setdefault(action, []).append(i)
    names, count = np.unique(contexts.astype(str), return_counts=True)
    room = dict(zip(names, share * count, strict=True))
    held: list[int] = []
    for a in rng.permutation(len(rows)):
        places = list(rows.values())[a]
        distinct = {str(contexts[i]) for i in places}
        pool = sorted(c for c in distinct if room[c] > 0)
        if len(distinct) < 2 or not pool:
            continue
        most = min(max(1, len(pool) - len(names) + 2), len(distinct) - 1)
        chosen = set(rng.choice(pool, int(rng.integers(1, most + 1)), replace=False))
        for context in chosen:
            room[context] -= 1
        held += [i for i in places if str(contexts[i]) in chosen]
    return held


def _combinations(actions: Sequence[Action], contexts: np.ndarray, share: float, rng: np.random.Generator) -> list[int]:
    """Hold out a share of the combinations of each context."""
    held: list[int] = []
    for context in sorted(set(contexts.astype(str))):
        rows = [i for i, a in enumerate(actions) if len(a) > 1 and str(contexts[i]) == context]
        held += rng.permutation(np.array(rows, dtype=int))[: int(share * len(rows))].tolist()
    return held
