"""Small tables of conditions for tests of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scjepa.data import ConditionTable


def table(
    labels: Sequence[str], effects: Any = None, contexts: Sequence[str] | None = None, **columns: Any
) -> ConditionTable:
    """Return conditions ``"A+B"`` with effects on controls of one; a question without effects."""
    n, genes = len(labels), columns.pop("n_genes", 3)
    where = np.array(["all"] * n if contexts is None else contexts, dtype=object)
    effects = None if effects is None else np.asarray(effects, dtype=float).reshape(n, -1)
    control = columns.pop("control", np.ones((n, genes if effects is None else effects.shape[1])))
    actions = tuple(tuple(sorted(label.split("+"))) for label in labels)
    perturbed = None if effects is None else control + effects
    return ConditionTable(actions, where, control, perturbed, **{"n_cells": np.full(n, 20), **columns})


def screen(
    seed: int = 0,
    *,
    items: int = 10,
    doubles: int = 10,
    contexts: Sequence[str] = ("all",),
    genes: int = 30,
    noise: float = 0.1,
    known: bool = True,
) -> ConditionTable:
    """Simulate effects of three factors that add up, in all contexts alike, and are measured in 20 cells each.

    ``noise`` is the standard deviation of a measured mean effect; ``known``: whether the table tells it.
    """
    rng = np.random.default_rng(seed)
    names = [f"I{i}" for i in range(items)]
    single = dict(zip(names, 0.3 * rng.normal(size=(items, 3)) @ rng.normal(size=(3, genes)), strict=True))
    pairs = [f"{a}+{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    labels = names + [pairs[i] for i in rng.choice(len(pairs), doubles, replace=False)]
    base = {c: 3 + 0.2 * rng.normal(size=genes) for c in contexts}
    rows = [(label, c) for label in labels for c in contexts]
    effects = np.array([sum(single[name] for name in label.split("+")) for label, _ in rows])
    return table(
        [label for label, _ in rows],
        effects + noise * rng.normal(size=effects.shape),
        [c for _, c in rows],
        control=np.array([base[c] for _, c in rows]),
        n_cells=np.full(len(rows), 20),
        variance=np.full(genes, 20 * noise**2) if known else None,
        n_controls=np.full(len(rows), 1000.0) if known else None,
    )
