"""What the demo holds out: the conditions the user names, or a choice of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scjepa._checks import closest, some
from scjepa._labels import parse_label
from scjepa.demo._messages import UserError
from scjepa.demo._screen import Condition, Screen, measured_genes, perturbed_genes

MAX_COMBINATIONS = 5


def resolve_holdout(items: Sequence[str], screen: Screen) -> list[Condition]:
    """Turn ``--holdout`` items into conditions.

    Parameters
    ----------
    items
        Each is a perturbation (``"A+B"``, in all contexts), a context (all its perturbed cells) or
        ``"CONTEXT:PERTURBATION"``.
    screen
        The screen.

    Raises
    ------
    UserError
        If an item matches nothing, is the control or has two meanings, or if nothing is left to train on.
    """
    known = list(screen.conditions().index)
    held: dict[Condition, None] = {}
    kind = "drug" if screen.drugs else "perturbation"
    for item in items:
        text = item.strip()
        name = _canonical(text, screen.control)
        if name == screen.control:
            raise UserError(f"--holdout {item!r}: controls can't be held out, predictions start from them.")
        called = {c[0]: {c[0], screen.drug_of(c[0])} if screen.drugs else {c[0]} for c in known}  # a drug: at all doses
        by_name, by_context = [c for c in known if name in called[c[0]]], [c for c in known if c[1] == text]
        if by_name and by_context:
            raise UserError(f"--holdout {item!r} is a {kind} and a context. Write 'CONTEXT:{kind.upper()}'.")
        # names may hold colons themselves: try each
        cuts = [(text[i + 1 :].strip(), text[:i].strip()) for i, sign in enumerate(text) if sign == ":"]
        pairs = [(_canonical(perturbation, screen.control), context) for perturbation, context in cuts]
        hits = by_name or by_context or [c for c in known if any((n, c[1]) in pairs for n in called[c[0]])]
        if not hits:
            names, contexts = (sorted({c[i] for c in known} - {""}) for i in (0, 1))
            names = sorted({screen.drug_of(n) for n in names}) if screen.drugs else names
            near = closest(text, [*names, *contexts, *(f"{c[1]}:{c[0]}" for c in known if c[1])])
            found = f"{kind}s: {some(names)}" + (f"; contexts: {some(contexts)}" if contexts else "")
            hint = " Contexts need --context-key." if cuts and not contexts else ""
            raise UserError(f"--holdout {item!r} matches no perturbed cells.{near}{hint} Found {found}.")
        held |= dict.fromkeys(hits)
    if len(held) == len(known):
        raise UserError("--holdout leaves no perturbed cells to train on. Hold out fewer conditions.")
    lost = sorted({name for name, _ in set(held) - set(_predictable(list(held), screen))})
    if lost:
        what = "the perturbed gene, which isn't measured" if not screen.drugs else "the drug, which has no SMILES"
        raise UserError(
            f"--holdout leaves {some(lost)} without any training cells of {what} "
            "either: nothing is known about it. Hold out other conditions."
        )
    return list(held)


def _canonical(label: str, control: str) -> str:
    """Write a label as the screen does, in any order of genes; what is no label stays as it is."""
    try:
        return "+".join(parse_label(label, control)) or control
    except ValueError:
        return label


def default_holdout(screen: Screen, seed: int) -> tuple[list[Condition], str]:
    """Choose what to hold out, and say why in words.

    Up to five combinations whose single perturbations are measured in the same contexts; else the context with most
    perturbed cells; else a tenth of the perturbations.
    """
    size, rng = screen.conditions(), np.random.default_rng(seed)
    present = set(size.index)
    where: dict[str, list[Condition]] = {}
    for condition in size.index:
        where.setdefault(condition[0], []).append(condition)
    genes = {name: parse_label(name, screen.control) for name in where}

    def singles_measured(name: str) -> bool:
        return all((gene, context) in present for _, context in where[name] for gene in genes[name])

    combinations = [name for name in where if len(genes[name]) > 1 and singles_measured(name)]
    if combinations:
        chosen = sorted(rng.choice(combinations, min(MAX_COMBINATIONS, len(combinations)), replace=False).tolist())
        reason = f"{len(chosen)} of {len(combinations)} combinations whose single perturbations are measured"
        return [condition for name in chosen for condition in where[name]], reason
    by_context = size.groupby(level="c").sum()
    if len(by_context) > 1:
        largest = str(by_context.idxmax())
        in_largest = [condition for condition in size.index if condition[1] == largest]
        held = _predictable(in_largest, screen)
        if held:
            lost = len(in_largest) - len(held)
            kept = f" (without {lost} perturbations that no other context has)" if lost else ""
            return held, f"the perturbed cells of the largest context, {largest!r}{kept}"
    if len(where) == 1:
        raise UserError("nothing can be held out by default: the screen has one perturbation in one context.")
    measured = measured_genes(screen, ~screen.cells().isin(size.index))  # in controls, which train whatever is chosen
    names = [name for name in where if set(genes[name]) <= measured]
    if not names:
        raise UserError(
            "nothing can be held out by default: no combination whose single perturbations are measured, no second "
            f"context, and no perturbed gene ({some(sorted(set().union(*genes.values())), 3)}) is a measured one "
            f"({some(list(screen.adata.var_names), 3)}). Name both alike, or give --context-key or --holdout."
        )
    chosen = sorted(rng.choice(names, max(1, round(0.1 * len(names))), replace=False).tolist())
    return [condition for name in chosen for condition in where[name]], f"{len(chosen)} of {len(where)} perturbations"


def _predictable(held: Sequence[Condition], screen: Screen) -> list[Condition]:
    """Keep the conditions whose perturbed genes are all measured, or perturbed in training; drugs with a structure are known."""
    if screen.drugs:
        known = screen.with_structure().union(*(screen.items(p) for p, _ in set(screen.conditions().index) - set(held)))
        return [c for c in held if set(screen.items(c[0])) <= known]
    seen = perturbed_genes(set(screen.conditions().index) - set(held), screen.control)
    seen |= measured_genes(screen, ~screen.cells().isin(held))
    return [c for c in held if set(parse_label(c[0], screen.control)) <= seen]
