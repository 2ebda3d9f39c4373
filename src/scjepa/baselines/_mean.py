"""The baseline "mean": every perturbation does what perturbations do on average."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.data import ConditionTable


class MeanEffect(Baseline):
    r"""Predict the mean effect over training perturbations, each with the same weight.

    .. math:: \hat\delta = \frac1P \sum_{p=1}^{P} \bar\delta_p

    where :math:`\bar\delta_p` is the mean effect of perturbation ``p`` over its rows (contexts, doses, kinds).

    Notes
    -----
    "Mean" of Ahlmann-Eltze, Huber and Anders (2025), *Nature Methods*, 10.1038/s41592-025-02772-6; equal weights per
    perturbation as in Systema (Viñas Torné et al. 2025, *Nature Biotechnology*, 10.1038/s41587-025-02777-8).

    Examples
    --------
    Three rows, two perturbations: A is averaged over its two contexts first.

    >>> import numpy as np
    >>> from scjepa.baselines import MeanEffect
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x", "y", "x"])
    >>> table = ConditionTable((("A",), ("A",), ("B",)), where, np.zeros((3, 1)), np.array([[1.0], [3.0], [4.0]]))
    >>> MeanEffect().fit(table).effects(table.rows([0])).tolist()
    [[3.0]]
    """

    name: ClassVar[str] = "mean"

    def fit(self, table: ConditionTable) -> MeanEffect:
        """Keep the training effects."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return the mean effect for every row, ``(m, genes)``."""
        table = self._trained(query)
        number = {action: j for j, action in enumerate(dict.fromkeys(table.actions))}
        of_row = np.array([number[action] for action in table.actions])
        weight = 1 / (len(number) * np.bincount(of_row)[of_row])
        return np.repeat((weight @ table.effects)[None], len(query), axis=0)
