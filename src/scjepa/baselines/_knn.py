"""The baseline "kNN": a perturbation does what the training perturbations most like it do on average."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline, condition_keys
from scjepa.baselines._design import check_features, summed_features
from scjepa.data import ConditionTable


class KNNEffect(Baseline):
    r"""Predict the mean effect of the nearest training perturbations.

    .. math::
        \hat\delta_q = \frac1{|N_k(q)|} \sum_{p \in N_k(q)} \delta_p,\qquad
        s(q, p) = \frac{\phi_q^\top \phi_p}{\|\phi_q\|\,\|\phi_p\|},\qquad \phi_p = \sum_{g \in p} f_g

    with :math:`f_g` the features of a gene and :math:`N_k(q)` the (at most) ``k`` training perturbations of largest
    positive similarity :math:`s`. The effect of a training perturbation is the one measured in the query's context, or
    else its mean over the contexts where it was measured; kind and dose must be the query's.

    Parameters
    ----------
    features
        Gene x features, for instance an embedding of genes. Without it genes have nothing in common: neighbors are
        then the perturbations that share genes.
    k
        Number of neighbors.

    Notes
    -----
    Nearest-neighbor regression (Altman 1992, *The American Statistician* 46, 175-185), all neighbors with the same
    weight. A row is NaN if one of its genes has no features (without ``features``: was never perturbed in training),
    or if no training perturbation has a positive similarity.

    Examples
    --------
    B is more like the unseen gene than A is.

    >>> import numpy as np, pandas as pd
    >>> from scjepa.baselines import KNNEffect
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["all", "all"])
    >>> table = ConditionTable((("A",), ("B",)), where, np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> features = pd.DataFrame([[1.0, 0.0], [0.0, 1.0], [0.2, 1.0]], index=["A", "B", "new"])
    >>> query = ConditionTable((("new",),), where[:1], np.zeros((1, 1)))
    >>> KNNEffect(features, k=1).fit(table).effects(query).tolist()
    [[3.0]]
    """

    name: ClassVar[str] = "kNN"
    feature_names: list[str] | None = None
    feature_values: FloatArray | None = None

    def __init__(self, features: pd.DataFrame | None = None, k: int = 5) -> None:
        self.k = require_positive_int(k, "k")
        if features is not None:
            check_features(features)
            self.feature_names = [str(gene) for gene in features.index]
            self.feature_values = features.to_numpy(dtype=np.float64)

    def fit(self, table: ConditionTable) -> KNNEffect:
        """Keep the training effects."""
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return mean effects of the neighbors, ``(m, genes)``; NaN where the baseline does not apply."""
        table = self._trained(query)
        delta = table.effects
        rows: dict[tuple, dict[str, int]] = {}
        for i, key in enumerate(condition_keys(table)):
            rows.setdefault(key, {})[str(table.contexts[i])] = i
        keys = list(rows)
        first = table.rows([next(iter(where.values())) for where in rows.values()])
        similarity = self._vectors(query) @ self._vectors(first).T
        known = self._known(query)
        out = np.full(query.control.shape, np.nan)
        for i, (_, *how) in enumerate(condition_keys(query)):
            alike = np.array([[*key[1:]] == how for key in keys])
            score = np.where(alike, similarity[i], 0.0).round(12)  # equal similarities must tie, whatever the rounding
            order = np.argsort(-score, kind="stable")[: self.k]
            nearest = order[score[order] > 0]
            if not known[i] or not len(nearest):
                continue
            here = str(query.contexts[i])
            found = [rows[keys[j]] for j in nearest]
            parts = [delta[[where[here]] if here in where else list(where.values())].mean(0) for where in found]
            out[i] = np.mean(parts, axis=0)
        return out

    def _vectors(self, table: ConditionTable) -> FloatArray:
        """Return ``(m, features)`` summed features of length one; without features the multi-hot of perturbed genes."""
        if self.feature_names is None or self.feature_values is None:
            names = list(self.table_.vocabulary())
            return summed_features(table, names, np.eye(len(names)))
        return summed_features(table, self.feature_names, self.feature_values)

    def _known(self, table: ConditionTable) -> np.ndarray:
        """Return a boolean ``(m,)``: rows whose genes all have features."""
        names = set(self.table_.vocabulary() if self.feature_names is None else self.feature_names)
        return np.array([names.issuperset(action) for action in table.actions], dtype=bool)
