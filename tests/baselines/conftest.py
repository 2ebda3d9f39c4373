"""Small tables of conditions with known answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from scjepa.data import ConditionTable


def _table(
    labels: Sequence[str],
    effects: object = None,
    *,
    contexts: Sequence[str] | None = None,
    control: object = 0.0,
    n_genes: int = 2,
    **columns: object,
) -> ConditionTable:
    """Build a table from labels such as ``"A+B"``; without effects it is a question."""
    actions = tuple(tuple(sorted(label.split("+"))) for label in labels)
    if effects is not None:
        effects = np.asarray(effects, dtype=float).reshape(len(labels), -1)
        n_genes = effects.shape[1]
    base = np.broadcast_to(np.asarray(control, dtype=float), (len(labels), n_genes)).copy()
    where = np.array(contexts if contexts is not None else ["all"] * len(labels), dtype=object)
    return ConditionTable(actions, where, base, None if effects is None else base + effects, **columns)


def _screen(seed: int, *, n_genes: int = 40, n_singles: int = 8, n_doubles: int = 12) -> ConditionTable:
    """Simulate singles and doubles with shrunken additive effects and noise, in one context."""
    rng = np.random.default_rng(seed)
    names = [f"G{i}" for i in range(n_singles)]
    single = dict(zip(names, rng.normal(size=(n_singles, 3)) @ rng.normal(size=(3, n_genes)), strict=True))
    every = [f"{a}+{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    labels = names + [every[i] for i in rng.choice(len(every), n_doubles, replace=False)]
    parts = [label.split("+") for label in labels]
    effects = np.array([sum(single[g] for g in p) * (0.7 if len(p) > 1 else 1.0) for p in parts])
    return _table(labels, 0.3 * effects + 0.05 * rng.normal(size=effects.shape), control=np.full(n_genes, 3.0))


@pytest.fixture
def make_table() -> Callable[..., ConditionTable]:
    """Return the builder of small tables."""
    return _table


@pytest.fixture
def make_screen() -> Callable[..., ConditionTable]:
    """Return the simulator of small screens."""
    return _screen
