"""The draws for drugs: by scaffold, by drug within a context, by the place of a dose among those of its drug."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from scjepa._checks import some
from scjepa._labels import Action
from scjepa.tl.splitting._schemes import TEST, TRAIN, UNUSED, VALIDATION

WORST = (UNUSED, TEST, VALIDATION, TRAIN)
"""A combination goes to the first of these that one of its drugs is in."""


def worst_part(action: Action, part: dict[str, str]) -> str:
    """Return where a combination must go so that no held-out drug trains."""
    return min((part.get(drug, UNUSED) for drug in action), key=WORST.index)


def by_scaffold(
    scaffolds: dict[str, str], sizes: tuple[float, float], rng: np.random.Generator, test: Sequence[str] | None
) -> dict[str, str]:
    """Assign drugs to parts, whole scaffolds at a time, so that the parts hold about their share of the *drugs*.

    Raises
    ------
    ValueError
        If there are too few scaffolds.
    """
    members: dict[str, list[str]] = {}
    for drug in sorted(scaffolds):
        members.setdefault(scaffolds[drug], []).append(drug)
    order = [sorted(members)[i] for i in rng.permutation(len(members))]
    named = {scaffolds[drug] for drug in test or []}
    chosen = {TEST: [s for s in order if s in named]}
    rest = [s for s in order if s not in named]
    if test is None:
        chosen[TEST] = _fill(rest, members, sizes[0] * len(scaffolds))
    rest = [s for s in rest if s not in chosen[TEST]]
    chosen[VALIDATION] = _fill(rest, members, sizes[1] * len(scaffolds)) if sizes[1] > 0 else []
    if not chosen[TEST] or (sizes[1] > 0 and not chosen[VALIDATION]) or len(chosen[VALIDATION]) == len(rest):
        raise ValueError(
            f"{len(members)} scaffolds of {len(scaffolds)} drugs: {len(chosen[TEST])} for the test and "
            f"{len(chosen[VALIDATION])} for validation leave too few (at least 1 must train). Lower test_size and "
            "validation_size (0 for no validation), or choose another kind."
        )
    where = {scaffold: part for part, found in chosen.items() for scaffold in found}
    return {drug: where.get(scaffold, TRAIN) for drug, scaffold in scaffolds.items()}


def _fill(order: Sequence[str], members: dict[str, list[str]], size: float) -> list[str]:
    """Take scaffolds in this order while they fit; the smallest one if none does."""
    left, taken = max(1, round(size)), []
    for scaffold in order:
        if len(members[scaffold]) <= left:
            taken.append(scaffold)
            left -= len(members[scaffold])
    return taken or sorted(order, key=lambda s: len(members[s]))[:1]


def in_context(
    actions: Sequence[Action],
    contexts: np.ndarray,
    sizes: tuple[float, float],
    rng: np.random.Generator,
    test: Sequence[str] | None,
) -> np.ndarray:
    """Hold out a share of the drugs of a context that other contexts know; the context's other drugs train.

    Raises
    ------
    ValueError
        If a context has too few such drugs.
    """
    names = sorted(set(contexts.tolist()))
    drugs_of = {c: {d for a, k in zip(actions, contexts, strict=True) if k == c for d in a} for c in names}
    elsewhere = {c: set().union(*(drugs_of[k] for k in names if k != c and k not in (test or []))) for c in names}
    known = {c: sorted(drugs_of[c] & elsewhere[c]) for c in names}
    n_test, n_validation = _numbers(sizes)
    fit = [c for c in names if len(known[c]) > n_test(len(known[c])) + n_validation(len(known[c]))]
    wanted = list(dict.fromkeys(test)) if test is not None else [fit[i] for i in rng.permutation(len(fit))[:1]]
    short = [c for c in wanted if c not in fit]
    if short or not wanted:
        counts = ", ".join(f"{c!r} {len(known[c])}" for c in names)
        raise ValueError(
            f"contexts and how many of their drugs train in another context: {counts}. "
            f"{some(short) or 'All'}: too few to test and to validate on some and train on others. Lower test_size and "
            "validation_size (0 for no validation), or hold out fewer contexts."
        )
    parts = np.full(len(actions), TRAIN, dtype=object)
    for context in wanted:
        pool = [known[context][i] for i in rng.permutation(len(known[context]))]
        a, b = n_test(len(pool)), n_validation(len(pool))
        part = dict.fromkeys(drugs_of[context], TRAIN) | dict.fromkeys(pool[:a], TEST)
        part |= dict.fromkeys(pool[a : a + b], VALIDATION)
        for i in np.flatnonzero(contexts == context).tolist():
            parts[i] = worst_part(actions[i], part)
    return parts


def _numbers(sizes: tuple[float, float]) -> tuple[Callable[[int], int], Callable[[int], int]]:
    test = lambda n: max(1, round(sizes[0] * n))
    validation = lambda n: max(1, round(sizes[1] * n)) if sizes[1] > 0 else 0
    return test, validation


def by_dose(
    actions: Sequence[Action], doses: np.ndarray, place: str, sizes: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Hold out one dose of every drug, in all contexts: its highest, its lowest, or one between; drugs are dealt to parts.

    Raises
    ------
    ValueError
        If fewer drugs than needed have enough doses.
    """
    rows: dict[Action, list[int]] = {}
    for i, action in enumerate(actions):
        rows.setdefault(action, []).append(i)
    levels = {a: sorted({float(doses[i]) for i in found}) for a, found in rows.items()}
    least = 3 if place == "inner" else 2
    fit = [a for a in rows if len(levels[a]) >= least]
    n_validation = max(1, round(len(fit) * sizes[1] / sum(sizes))) if sizes[1] > 0 else 0
    if len(fit) <= n_validation:
        raise ValueError(
            f"{len(fit)} of {len(rows)} perturbations have the {least} or more doses that kind='{place}_dose' needs, "
            f"for the test and {n_validation} for validation. Choose another kind, or validation_size=0."
        )
    parts = np.full(len(actions), TRAIN, dtype=object)
    for k, j in enumerate(rng.permutation(len(fit))):
        found = levels[fit[j]]
        held = {"highest": found[-1], "lowest": found[0]}.get(place)
        if held is None:
            held = found[1 + int(rng.integers(len(found) - 2))]
        for i in rows[fit[j]]:
            if doses[i] == held:
                parts[i] = VALIDATION if k < n_validation else TEST
    return parts
