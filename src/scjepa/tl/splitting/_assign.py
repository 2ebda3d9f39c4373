"""Which part a condition, or a cell, goes to: names that were asked for, draws for all others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scjepa._checks import closest, some
from scjepa._labels import Action, parse_labels
from scjepa.tl.splitting._conditions import Conditions
from scjepa.tl.splitting._drugs import by_dose, by_scaffold, in_context, worst_part
from scjepa.tl.splitting._schemes import (
    TEST,
    TRAIN,
    VALIDATION,
    draw_units,
    gears_simulation,
    perturbench,
    seen_combinations,
    unseen_genes,
)


def assign(
    kind: str,
    conditions: Conditions,
    sizes: tuple[float, float],
    seed: int,
    test: list | None,
    control: str,
    separator: str,
    scaffolds: dict[str, str] | None = None,
) -> np.ndarray:
    """Return the part of every condition; ``scaffolds`` of drugs for the kind that asks for them."""
    actions = conditions.actions
    known = sorted(set(actions))
    rng = np.random.default_rng([seed, 11])
    by_action: Callable[[dict[Action, str]], np.ndarray] = lambda part: np.array([part[a] for a in actions])
    if kind in ("unseen_perturbation", "unseen_drug", "unseen_scaffold"):
        what = "genes" if kind == "unseen_perturbation" else "drugs"
        items = sorted({item for action in known for item in action}) if scaffolds is None else sorted(scaffolds)
        wanted = None if test is None else _named([str(t) for t in test], items, what)
        if scaffolds is None:
            part = draw_units(items, sizes, rng, wanted, "perturbed genes" if what == "genes" else what)
        else:
            part = by_scaffold(scaffolds, sizes, rng, wanted)
        return by_action({a: worst_part(a, part) for a in known})
    if kind == "drug_in_context":
        names = sorted(set(conditions.contexts.tolist()))
        wanted = None if test is None else _named([str(t) for t in test], names, "contexts of perturbed cells")
        return in_context(actions, conditions.contexts, sizes, rng, wanted)
    if kind == "unseen_combination_2":
        candidates = seen_combinations(known)
        if test is not None:
            parsed = list(parse_labels(test, control, separator).values())
            written = dict(zip((separator.join(a) for a in candidates), candidates, strict=True))
            names = _named([separator.join(a) for a in parsed], list(written), "combinations of genes measured alone")
            test = [written[name] for name in names]
        what = "combinations whose genes were all measured alone"
        held = draw_units(candidates, sizes, rng, test, what, spare=0)  # their singles train
        return by_action({a: held.get(a, TRAIN) for a in known})
    if kind in ("unseen_context", "unseen_dose"):
        values = conditions.contexts if kind == "unseen_context" else conditions.doses
        assert values is not None  # for the type checker: dose_key was asked for
        units = sorted(set(values.tolist()))
        what = "contexts" if kind == "unseen_context" else "doses"
        if test is not None:
            test = [float(t) for t in test] if kind == "unseen_dose" else [str(t) for t in test]
            test = _named(test, units, f"{what} of perturbed cells")
        part = draw_units(units, sizes, rng, test, f"{what} of perturbed cells")
        return np.array([part[v] for v in values.tolist()])
    refuse_names(test, kind)
    if kind.endswith("_dose"):
        assert conditions.doses is not None
        return by_dose(actions, conditions.doses, kind.removesuffix("_dose"), sizes, rng)
    if kind == "gears_simulation":
        return by_action(gears_simulation(dict(zip(actions, conditions.labels, strict=True)), sizes, seed))
    if kind.startswith("perturbench"):
        return perturbench(actions, conditions.contexts, sizes, rng, combinations=kind.endswith("combination"))
    return by_action(unseen_genes(known, sizes, rng, some_seen=kind.endswith("1")))


def _named(names: list, options: list, what: str) -> list:
    unknown = [name for name in names if name not in options]
    if unknown:
        raise ValueError(
            f"test={some(unknown)}: not among the {what}.{closest(unknown[0], options)} Found: {some(options, 8)}."
        )
    return names


def split_cells(conditions: Conditions, names: np.ndarray, sizes: tuple[float, float], seed: int) -> np.ndarray:
    """Draw a share of the cells of each condition; which cells does not depend on their order."""
    parts = np.full(len(names), TRAIN, dtype=object)
    rng = np.random.default_rng([seed, 13])
    cells = np.argsort(names, kind="stable")
    cells = cells[np.argsort(conditions.of[cells], kind="stable")]
    cells = cells[conditions.of[cells] >= 0]
    for members in np.split(cells, np.flatnonzero(np.diff(conditions.of[cells])) + 1):
        members = rng.permutation(members)
        n_test, n_validation = (round(share * len(members)) for share in sizes)
        parts[members[:n_test]] = TEST
        parts[members[n_test : n_test + n_validation]] = VALIDATION
    return parts


def refuse_names(test: object, kind: str) -> None:
    if test is not None:
        raise ValueError(
            f"test={test!r} can't be used with kind={kind!r}, whose test cells are always drawn. Leave it out, or use "
            "'unseen_perturbation', 'unseen_combination_2', 'unseen_drug', 'unseen_scaffold', 'drug_in_context', "
            "'unseen_context' or 'unseen_dose'."
        )
