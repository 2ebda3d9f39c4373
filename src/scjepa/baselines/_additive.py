"""The baseline "additive": a combination does the sum of what its parts do alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.baselines._singles import single_effects
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
        out = np.full(query.control.shape, np.nan)
        for i, parts in enumerate(single_effects(table, query)):
            measured = [part for part in parts if part is not None]
            if len(parts) > 1 and len(measured) == len(parts):
                out[i] = np.sum(measured, axis=0)
        return out
