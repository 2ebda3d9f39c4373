"""The baseline "matching mean": a combination looks like the average of its parts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.baselines._mean import MeanEffect
from scjepa.baselines._singles import single_effects
from scjepa.data import ConditionTable


class MatchingMean(Baseline):
    r"""Predict the mean of the effects that the perturbed genes have alone.

    .. math:: \hat\delta_{g_1+\dots+g_k} = \frac1k \sum_{j=1}^{k} \delta_{g_j}

    A single effect is the one measured in the query's context, or else its mean over the contexts where it was
    measured; kind and dose must be the query's. A gene that was not measured alone counts with the overall mean effect
    (:class:`scjepa.baselines.MeanEffect`), so every condition has a prediction.

    Notes
    -----
    "Matching mean" of Systema (Viñas Torné et al. 2025, *Nature Biotechnology*, 10.1038/s41587-025-02777-8). There the
    overall mean is over perturbed cells; here every perturbation has the same weight.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import MatchingMean
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["all", "all"])
    >>> table = ConditionTable((("A",), ("B",)), where, np.zeros((2, 2)), np.array([[1.0, 0.0], [0.5, 2.0]]))
    >>> query = ConditionTable((("A", "B"), ("A", "C")), where, np.zeros((2, 2)))
    >>> MatchingMean().fit(table).effects(query).tolist()
    [[0.75, 1.0], [0.875, 0.5]]
    """

    name: ClassVar[str] = "matching mean"

    def fit(self, table: ConditionTable) -> MatchingMean:
        """Keep the training effects."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return the mean single effects, ``(m, genes)``."""
        table = self._trained(query)
        overall = MeanEffect().fit(table).effects(query)
        out = np.empty(query.control.shape)
        for i, parts in enumerate(single_effects(table, query)):
            out[i] = np.mean([overall[i] if part is None else part for part in parts], axis=0)
        return out
