"""The baseline "context transfer": a perturbation does here what it does elsewhere."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline, condition_keys
from scjepa.data import ConditionTable


class ContextTransfer(Baseline):
    r"""Predict the mean effect of the same perturbation in the other training contexts.

    .. math:: \hat\delta_{p,c} = \frac{1}{|C_p|} \sum_{c' \in C_p} \delta_{p,c'}

    where :math:`C_p` are the training contexts in which ``p`` (same kind, same dose) was measured. It applies where
    ``p`` was not measured in the query's own context; other rows, and perturbations never seen, are NaN.

    Notes
    -----
    The general baseline of TxPert (Wenkel et al. 2025, arXiv:2505.14919) without its fall-back to the global mean for
    unseen perturbations, which is :class:`scjepa.baselines.MeanEffect` here.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import ContextTransfer
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x", "y"])
    >>> table = ConditionTable((("A",), ("A",)), where, np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> query = ConditionTable((("A",), ("A",), ("B",)), np.array(["z", "x", "z"]), np.zeros((3, 1)))
    >>> ContextTransfer().fit(table).effects(query).tolist()
    [[2.0], [nan], [nan]]
    """

    name: ClassVar[str] = "context transfer"

    def fit(self, table: ConditionTable) -> ContextTransfer:
        """Keep the training effects."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return the transferred effects, ``(m, genes)``; NaN where the baseline does not apply."""
        table = self._trained(query)
        delta = table.effects
        seen: dict[tuple, dict[str, int]] = {}
        for i, key in enumerate(condition_keys(table)):
            seen.setdefault(key, {})[str(table.contexts[i])] = i
        out = np.full(query.control.shape, np.nan)
        for i, key in enumerate(condition_keys(query)):
            where = seen.get(key, {})
            if where and str(query.contexts[i]) not in where:
                out[i] = delta[list(where.values())].mean(0)
        return out
