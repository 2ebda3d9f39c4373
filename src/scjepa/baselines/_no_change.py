"""The baseline "no change": a perturbation does nothing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.data import ConditionTable


class NoChange(Baseline):
    r"""Predict a zero effect, :math:`\hat\delta = 0`: the perturbed profile is the control profile.

    Notes
    -----
    The first baseline of Ahlmann-Eltze, Huber and Anders (2025), *Nature Methods*, 10.1038/s41592-025-02772-6.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import NoChange
    >>> from scjepa.data import ConditionTable
    >>> table = ConditionTable((("A",),), np.array(["all"]), np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]]))
    >>> NoChange().fit(table).effects(table).tolist()
    [[0.0, 0.0]]
    """

    name: ClassVar[str] = "no change"

    def fit(self, table: ConditionTable) -> NoChange:
        """Check the table; nothing is learned from it."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return zeros, ``(m, genes)``."""
        self._trained(query)
        return np.zeros(query.control.shape)
