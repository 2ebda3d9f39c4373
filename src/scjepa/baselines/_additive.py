"""The baseline "additive": a combination does the sum of what its parts do alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline, condition_keys
from scjepa.data import ConditionTable


class Additive(Baseline):
    r"""Predict the effect of a combination as the sum of the measured single effects.

    .. math:: \hat\delta_{A+B+\dots} = \delta_A + \delta_B + \dots

    A single effect is the one measured in the query's context, or else its mean over the contexts where it was
    measured; kind and dose must be the query's. It applies to combinations whose singles were all measured; other
    rows are NaN.

    Notes
    -----
    "Additive" of Ahlmann-Eltze, Huber and Anders (2025), *Nature Methods*, 10.1038/s41592-025-02772-6.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import Additive
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["all", "all"])
    >>> table = ConditionTable((("A",), ("B",)), where, np.zeros((2, 2)), np.array([[1.0, 0.0], [0.5, 2.0]]))
    >>> query = ConditionTable((("A", "B"), ("A", "C")), where, np.zeros((2, 2)))
    >>> Additive().fit(table).effects(query).tolist()
    [[1.5, 2.0], [nan, nan]]
    """

    name: ClassVar[str] = "additive"

    def fit(self, table: ConditionTable) -> Additive:
        """Keep the training effects."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return the sums, ``(m, genes)``; NaN for single perturbations and where a single was not measured."""
        table = self._trained(query)
        delta = table.effects
        single: dict[tuple, dict[str, int]] = {}
        for i, (action, kind, dose) in enumerate(condition_keys(table)):
            if len(action) == 1:
                single.setdefault((action[0], kind, dose), {})[str(table.contexts[i])] = i
        out = np.full(query.control.shape, np.nan)
        for i, (action, kind, dose) in enumerate(condition_keys(query)):
            measured = [single.get((name, kind, dose)) for name in action]
            if len(action) < 2 or None in measured:
                continue
            here = str(query.contexts[i])
            rows = [[where[here]] if here in where else list(where.values()) for where in measured if where]
            out[i] = np.sum([delta[r].mean(0) for r in rows], axis=0)
        return out
