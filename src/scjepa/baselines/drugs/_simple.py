"""The simple baselines of drug responses as objects: means, nearest dose, nearest molecules, ridge on structures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.baselines.drugs._plain import Plain
from scjepa.baselines.drugs._rows import Rows, nothing_done
from scjepa.baselines.drugs._structure import Structure
from scjepa.data import ConditionTable


class DrugRule(Baseline):
    """A simple rule on drugs, doses, times and contexts; combinations are sums over their drugs."""

    def fit(self, table: ConditionTable) -> DrugRule:
        """Keep the training effects.

        Raises
        ------
        ValueError
            For tables with nothing to fit on: no rows, no profiles, NaN, doses of zero only.
        """
        self._remember(table)
        if nothing_done(table).all():
            raise ValueError(
                f"{type(self).__name__}.fit: all {len(table)} rows have dose or time zero. Give at least one with a treatment."
            )
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects ``(m, genes)``; NaN where the rule says nothing, zero at dose or time zero."""
        table = self._trained(query)
        out = np.full(query.control.shape, np.nan)
        nothing = nothing_done(query)
        out[nothing] = 0.0
        able = np.flatnonzero(~nothing & self._able(query))
        if len(able):
            active = table.rows(np.flatnonzero(~nothing_done(table)))
            known = active.vocabulary()
            asked = query.rows(able)
            new = tuple(name for name in asked.vocabulary() if name not in set(known))
            rows = Rows.of(active, known)
            out[able] = self._rule(Plain(rows, active.effects, self._structure()), Rows.of(asked, known + new))
        return out

    @abstractmethod
    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        """Return predictions of questions that it is able to answer."""

    def _able(self, query: ConditionTable) -> np.ndarray:
        """Return which questions it can answer: those about drugs that were given."""
        given = {name for i in np.flatnonzero(~nothing_done(self.table_)) for name in self.table_.actions[i]}
        return np.array([given.issuperset(action) for action in query.actions], dtype=bool)

    def _structure(self) -> Structure:
        return Structure({})


class MeanPerContext(DrugRule):
    """Predict the mean over drugs in the context, at the dose (between levels by interpolation) and the nearest time.

    What is predicted of a molecule of which nothing is known; a context without training rows gets the mean of the others.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import MeanPerContext
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x", "x", "y"])
    >>> table = ConditionTable((("A",), ("B",), ("A",)), where, np.zeros((3, 1)), np.array([[1.0], [3.0], [8.0]]))
    >>> MeanPerContext().fit(table).effects(ConditionTable((("new",),), where[:1], np.zeros((1, 1)))).tolist()
    [[2.0]]
    """

    name: ClassVar[str] = "mean per context"

    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        return plain.by_place(query)

    def _able(self, query: ConditionTable) -> np.ndarray:
        return np.ones(len(query), bool)


class MeanPerDrug(DrugRule):
    """Predict the mean of the drug over contexts, doses and times.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import MeanPerDrug
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x", "y", "x"])
    >>> table = ConditionTable((("A",), ("A",), ("B",)), where, np.zeros((3, 1)), np.array([[1.0], [3.0], [8.0]]))
    >>> MeanPerDrug().fit(table).effects(ConditionTable((("A",), ("new",)), where[:2], np.zeros((2, 1)))).tolist()
    [[2.0], [nan]]
    """

    name: ClassVar[str] = "mean per drug"

    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        return plain.by_drug(query, np.zeros(plain.values.shape[1]))


class NearestDose(DrugRule):
    """Predict what the drug did at the nearest dose and time (decades), in the context if it was given there.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import NearestDose
    >>> from scjepa.data import ConditionTable
    >>> where, dose = np.array(["x", "x"]), np.array([1.0, 100.0])
    >>> table = ConditionTable((("A",), ("A",)), where, np.zeros((2, 1)), np.array([[1.0], [5.0]]), dose=dose)
    >>> asked = ConditionTable((("A",), ("A",)), where, np.zeros((2, 1)), dose=np.array([3.0, 300.0]))
    >>> NearestDose().fit(table).effects(asked).tolist()
    [[1.0], [5.0]]
    """

    name: ClassVar[str] = "nearest dose"

    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        return plain.nearest(query, np.zeros((len(query), plain.values.shape[1])))


class _ByStructure(DrugRule):
    """A rule that reads structures; see :class:`scjepa.baselines.DrugEffect` for how they are handed in."""

    def __init__(
        self,
        *,
        similarity: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
        features: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.structure = Structure.of(similarity, features)

    def _structure(self) -> Structure:
        return self.structure

    def _able(self, query: ConditionTable) -> np.ndarray:
        return np.array([self.structure.names.issuperset(action) for action in query.actions], dtype=bool)

    def state(self) -> dict[str, Any]:
        """Return structures and training table as plain data."""
        return {**super().state(), "structure": self.structure.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Baseline:
        """Rebuild from :meth:`state`."""
        return super().from_state({**state, "structure": Structure.from_state(state["structure"])})


class TanimotoKNN(_ByStructure):
    """Predict the mean of the most similar drugs in the context, weighted by similarity.

    Parameters
    ----------
    similarity, features
        Structures, as in :class:`scjepa.baselines.DrugEffect`; of several descriptions their mean similarity counts.
    k
        Number of neighbors.

    Notes
    -----
    A drug that was given in the context is its own nearest neighbor, and doses are not looked at. NaN for drugs without a
    structure. A context without training rows gets the neighbors in all others.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from scjepa.baselines import TanimotoKNN
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x", "x"])
    >>> table = ConditionTable((("A",), ("B",)), where, np.zeros((2, 1)), np.array([[1.0], [5.0]]))
    >>> bits = pd.DataFrame([[1, 1, 0], [0, 0, 1], [0, 1, 1]], index=["A", "B", "new"])
    >>> TanimotoKNN(features=bits, k=1).fit(table).effects(
    ...     ConditionTable((("new",),), where[:1], np.zeros((1, 1)))
    ... ).tolist()
    [[5.0]]
    """

    name: ClassVar[str] = "Tanimoto kNN"

    def __init__(
        self,
        *,
        similarity: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
        features: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
        k: int = 5,
    ) -> None:
        super().__init__(similarity=similarity, features=features)
        self.k = require_positive_int(k, "k")

    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        rows, kernels = plain.rows, plain.structure.kernels
        alike = plain.structure.between(kernels[-1], query.drugs, rows.drugs) if kernels else np.zeros((0, 0))
        out = np.zeros((len(query), plain.values.shape[1]))
        for context in np.unique(query.contexts):
            own = np.flatnonzero(rows.contexts == context)
            if not len(own):
                own = np.arange(len(rows))
            effect, seen = Plain(rows.take(own), plain.values[own], plain.structure)._drug_means(plain.values[own])
            drugs = np.flatnonzero(seen)
            near = alike[:, drugs]
            least = np.sort(near, axis=1)[:, [-min(self.k, len(drugs))]]
            weight = np.where(near >= least, near, 0.0) + 1e-9  # where nothing is alike, the mean of all
            mine = query.contexts == context
            out[mine] = query.design[mine] @ ((weight / weight.sum(1, keepdims=True)) @ effect[drugs])
        return out


class TanimotoRidge(_ByStructure):
    """Predict the mean per context plus kernel ridge on similarities of structures; the strength by leave-one-drug-out.

    Parameters
    ----------
    similarity, features
        Structures, as in :class:`scjepa.baselines.DrugEffect`; of several descriptions their mean similarity counts.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from scjepa.baselines import TanimotoRidge
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["x"] * 4)
    >>> bits = pd.DataFrame(
    ...     [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1]], index=[*"ABCD", "new"]
    ... )
    >>> does = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    >>> table = ConditionTable(tuple((n,) for n in "ABCD"), where, np.zeros((4, 1)), does)
    >>> asked = ConditionTable((("new",),), where[:1], np.zeros((1, 1)))
    >>> bool(TanimotoRidge(features=bits).fit(table).effects(asked)[0, 0] > 0)
    True
    """

    name: ClassVar[str] = "Tanimoto ridge"

    def _rule(self, plain: Plain, query: Rows) -> FloatArray:
        where = plain.by_place(query)
        return plain.ridge(query, where) if plain.structure else where
