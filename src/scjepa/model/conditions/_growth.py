"""What models of conditions take over from a reference: its conditions, beside those of the query data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scjepa.baselines._base import condition_keys, table_state
from scjepa.data import ConditionTable, joined_doses


def held_of(reference: Any) -> dict[str, Any]:
    """Return what query data need to know of a trained :class:`ConditionModel`, as plain data."""
    known, table = reference.known_, reference.anchors_.table
    return {
        "table": None if table is None else table_state(table),
        "max_expression": reference.max_expression_,
        "residual": reference.residual_,
        "gates": reference.gate_.shares,
        "trained_actions": known.items,
        "trained_on": known.conditions,
        "usual_kind": known.usual_kind,
        "n_kinds": len(reference._vocabulary.kinds),
    }


def joined(first: ConditionTable, second: ConditionTable) -> ConditionTable:
    """Append the rows of ``second`` to ``first``; conditions in both are averaged, weighted by their cells.

    So is the variance within conditions; controls of a condition in both add up.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import ConditionTable
    >>> from scjepa.model.conditions._growth import joined
    >>> row = lambda name, value, n: ConditionTable(
    ...     ((name,),), np.array(["all"]), np.zeros((1, 1)), np.full((1, 1), value), np.array([n])
    ... )
    >>> both = joined(row("A", 4.0, 1), row("A", 0.0, 3))
    >>> both.perturbed.tolist(), both.n_cells.tolist()
    ([[1.0]], [4])
    >>> joined(row("A", 4.0, 1), row("B", 0.0, 3)).actions
    (('A',), ('B',))
    """
    key = lambda table: [(str(c), *k) for c, k in zip(table.contexts, condition_keys(table), strict=True)]
    place = {k: i for i, k in enumerate(key(first))}
    twin = np.array([place.get(k, -1) for k in key(second)], dtype=int)
    mine, same, rest = twin[twin >= 0], second.rows(twin >= 0), second.rows(twin < 0)
    assert first.perturbed is not None and same.perturbed is not None and rest.perturbed is not None
    control, perturbed, n = first.control.copy(), first.perturbed.copy(), first.n_cells.copy()
    variance, controls = first.variance, first.n_controls
    if variance is not None and second.variance is not None:
        new = second.n_cells.sum() / max(second.n_cells.sum() + first.n_cells.sum(), 1)
        variance = variance + new * (second.variance - variance)
    if controls is not None and same.n_controls is not None:
        controls = controls.copy()
        controls[mine] += same.n_controls
    weight = (same.n_cells / np.maximum(same.n_cells + n[mine], 1))[:, None]
    control[mine] += weight * (same.control - control[mine])
    perturbed[mine] += weight * (same.perturbed - perturbed[mine])
    n[mine] += same.n_cells
    end = lambda a, b: None if a is None or b is None else np.concatenate([a, b])
    return replace(
        first,
        actions=first.actions + rest.actions,
        contexts=np.concatenate([first.contexts, rest.contexts]).astype(object),
        control=np.concatenate([control, rest.control]),
        perturbed=np.concatenate([perturbed, rest.perturbed]),
        n_cells=np.concatenate([n, rest.n_cells]),
        dose=joined_doses(first.dose, rest.dose),
        kind=end(first.kind, rest.kind),
        time=end(first.time, rest.time),
        variance=variance if second.variance is not None else None,
        n_controls=end(controls, rest.n_controls),
    )
