"""Measured single effects of the parts of a combination: what "additive" and "matching mean" are made of."""

from __future__ import annotations

from scjepa._types import FloatArray
from scjepa.baselines._base import condition_keys
from scjepa.data import ConditionTable


def single_effects(table: ConditionTable, query: ConditionTable) -> list[list[FloatArray | None]]:
    """Look up what each perturbed gene of a query row does alone.

    The effect is the one measured in the row's context, or else its mean over the contexts where it was measured; kind,
    time and the gene's dose must be the row's.

    Parameters
    ----------
    table
        Training conditions.
    query
        Conditions to predict.

    Returns
    -------
    For every query row one ``(genes,)`` effect per perturbed gene, or None for a gene that was not measured alone.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._singles import single_effects
    >>> from scjepa.data import ConditionTable
    >>> table = ConditionTable((("A",),), np.array(["all"]), np.zeros((1, 1)), np.array([[2.0]]))
    >>> query = ConditionTable((("A", "B"),), np.array(["all"]), np.zeros((1, 1)))
    >>> single_effects(table, query)
    [[array([2.]), None]]
    """
    delta = table.effects
    single: dict[tuple, dict[str, int]] = {}
    for i, (action, *how) in enumerate(condition_keys(table)):
        if len(action) == 1:
            single.setdefault((action[0], *how), {})[str(table.contexts[i])] = i

    def effect(where: dict[str, int], here: str) -> FloatArray | None:
        rows = [where[here]] if here in where else list(where.values())
        return delta[rows].mean(0) if rows else None

    return [
        [
            effect(
                single.get((name, kind, dose[j] if isinstance(dose, tuple) else dose, *time), {}),
                str(query.contexts[i]),
            )
            for j, name in enumerate(action)
        ]
        for i, (action, kind, dose, *time) in enumerate(condition_keys(query))
    ]
