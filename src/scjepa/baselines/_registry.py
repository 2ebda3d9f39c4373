"""The list of baselines, and which of them have something to say about a question."""

from __future__ import annotations

from scjepa.baselines._additive import Additive
from scjepa.baselines._base import Baseline
from scjepa.baselines._context_transfer import ContextTransfer
from scjepa.baselines._kernel_effect import KernelEffect
from scjepa.baselines._knn import KNNEffect
from scjepa.baselines._linear import Linear
from scjepa.baselines._matching_mean import MatchingMean
from scjepa.baselines._mean import MeanEffect
from scjepa.baselines._no_change import NoChange
from scjepa.baselines._ridge import Ridge
from scjepa.baselines.drugs import DrugEffect, MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge
from scjepa.data import ConditionTable

BASELINES: dict[str, type[Baseline]] = {
    cls.name: cls
    for cls in (NoChange, MeanEffect, MatchingMean, Additive, ContextTransfer, KNNEffect, Linear, Ridge, KernelEffect)
}
"""Every baseline of perturbation effects by the name of its row in score tables, simplest first."""

DRUGS: dict[str, type[Baseline]] = {
    cls.name: cls for cls in (MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge, DrugEffect)
}
"""Baselines of drug responses: they look at doses and times, and some at structures."""
ANCHORS: dict[str, type[Baseline]] = {**BASELINES, **DRUGS}
"""These and what else a model may start from; those of drugs are not among the rows of score tables unless they are handed in."""


def applicable(table: ConditionTable, query: ConditionTable) -> list[Baseline]:
    """Fit every baseline and return those that have a prediction for at least one query row.

    Parameters
    ----------
    table
        Measured training conditions.
    query
        Conditions to predict.

    Returns
    -------
    Fitted baselines, in the order of :data:`BASELINES`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import applicable
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["all", "all"])
    >>> table = ConditionTable((("A",), ("B",)), where, np.ones((2, 2)), np.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> query = ConditionTable((("A", "B"),), np.array(["all"]), np.ones((1, 2)))
    >>> [baseline.name for baseline in applicable(table, query)]
    ['no change', 'mean', 'matching mean', 'additive', 'kNN', 'ridge', 'kernel anchor']
    """
    fitted = (cls().fit(table) for cls in BASELINES.values())
    return [baseline for baseline in fitted if baseline.applies(query).any()]
