"""What a drug anchor holds: structures, rows in their own order, who judges; kept as plain data, told of more drugs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines._base import SelfJudging, table_from_state, table_state
from scjepa.baselines._kernel_effect import KernelEffect
from scjepa.baselines.drugs._few import FewContexts
from scjepa.baselines.drugs._judging import LEAST_ROWS, Judge, coordinates, row_noise
from scjepa.baselines.drugs._questions import CLASSES, NEW_CONTEXT, left_with
from scjepa.baselines.drugs._rows import AXES, Rows, canonical_order, finite, nothing_done
from scjepa.baselines.drugs._structure import Structure
from scjepa.data import ConditionTable


class DrugRows(SelfJudging):
    """The parts of :class:`DrugEffect`, which says what they are for.

    Parameters
    ----------
    similarity, features
        As for :class:`DrugEffect`.
    """

    kernels_: list[list[Any]]
    _few: FewContexts | None
    _judge: Judge

    def __init__(
        self,
        *,
        similarity: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
        features: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.structure = Structure.of(similarity, features)

    def also(
        self,
        *,
        similarity: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
        features: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    ) -> Self:
        """Return the same baseline, fitted or not, that knows the structures of more drugs.

        Parameters
        ----------
        similarity, features
            As for the class, in the descriptions (by name) that it has; similarities of the new drugs must be to all others.
        """
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        new.structure = self.structure.joined(Structure.of(similarity, features))
        if hasattr(self, "picks_"):
            new._prepare()
            new._judge.mixture, new._few = self._judge.mixture, self._few
        return new

    def again(self, table: ConditionTable) -> Self:
        """Return the same baseline fitted to another table; kernels and weights are kept."""
        return self.from_state({**self.state(), "table": table_state(table)})

    def knowing(self, features: pd.DataFrame) -> Self:
        """Return a drug anchor fitted to the same table whose structures are ``features`` (drug x features)."""
        new = type(self)(features=features)
        new.fit(self.table_)
        return new

    def state(self) -> dict[str, Any]:
        """Return structures, choices and training table as plain data; predictions are recomputed from them."""
        state: dict[str, Any] = {"structure": self.structure.state()}
        if hasattr(self, "picks_"):
            state["table"] = table_state(self.table_)
            state["kernels"] = [[dict(spec), weight] for spec, weight in self.kernels_]
            state["picks"] = {c: dict(pick) for c, pick in self.picks_.items()}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild a baseline, fitted or not, from :meth:`state`."""
        new = cls()
        new.structure = Structure.from_state(state["structure"])
        if "picks" in state:
            new.table_ = table_from_state(state["table"])
            new._prepare()
            new.kernels_ = [[dict(spec), float(weight)] for spec, weight in state["kernels"]]
            new._judge.mixture = [(spec, weight) for spec, weight in new.kernels_]
            new.picks_ = {c: dict(pick) for c, pick in state["picks"].items()}
            few = new.picks_.get("context", {}).get("few")
            if few is not None:
                table = new.table_.rows(new._active)
                kernel = KernelEffect.from_state({**few["kernel"], "table": table_state(table)})
                new._few = FewContexts(table, kernel, few["choice"])
        return new

    def rows_like(self, cls: str, *, combinations: bool, usable: np.ndarray) -> np.ndarray:
        """Return the rows whose left-out predictions are like questions of a class, boolean ``(n,)``."""
        many = self.table_.order >= 2
        like = usable & (many == combinations)
        return like if like.sum() >= LEAST_ROWS else usable

    def left_together(self, cls: str) -> np.ndarray:
        """Return boolean ``(n, n)``: row ``j`` is not seen when row ``i`` is predicted as a question of a class."""
        out = np.eye(len(self.table_), dtype=bool)
        out[np.ix_(self._active, self._active)] = left_with(self._rows, cls)
        return out

    def new_context(self, cls: str) -> bool:
        """Return whether questions of a class are about contexts without training rows."""
        return cls in NEW_CONTEXT

    # ---------------------------------------------------------------- how it is done
    def _prepare(self) -> None:
        """Compute what all predictions share: rows in their own order, and coordinates of their effects."""
        table = self.table_
        order = canonical_order(table)
        active = order[~nothing_done(table)[order]]
        if not len(active):
            raise ValueError(
                f"DrugEffect.fit: all {len(table)} rows have dose or time zero. Give at least one with a treatment."
            )
        for axis in AXES:
            if not finite(table, axis):
                raise ValueError(f"DrugEffect.fit: {axis} has values that are no finite numbers. Drop these rows.")
        self._active = active
        self._rows = Rows.of(table.rows(active), table.rows(active).vocabulary())
        effects = np.asarray(table.effects, dtype=float)[active]
        values, self._axes = coordinates(effects)
        noise = row_noise(table.rows(active), self._rows, values)
        cells = table.variance is not None and len(table.n_cells) > 0
        self._few = None
        self._judge = Judge(self._rows, values, noise, self.structure, width=effects.shape[1], cells=cells)

    def _fitted(self, query: ConditionTable) -> ConditionTable:
        if not hasattr(self, "picks_"):
            raise RuntimeError(f"{type(self).__name__} is not fitted yet: call fit(table) first.")
        for axis in AXES:
            if not finite(query, axis):
                raise ValueError(f"the query has values of {axis} that are no finite numbers. Drop these rows.")
        return self._trained(query)

    def _questions(self, query: ConditionTable) -> Rows:
        """Read questions; drugs never given stand behind those that were."""
        known = self._rows.drugs
        new = tuple(name for name in query.vocabulary() if name not in set(known))
        return Rows.of(query, known + new) if new else Rows.of(query, known)

    def _classes(self) -> list[str]:
        """Return the classes of which there may be questions."""
        out = [c for c in CLASSES if not c.startswith(AXES) or c.split()[0] in self._rows.axes]
        return out if self.structure else [c for c in out if not c.startswith("unseen")]

    def _row_classes(self, cls: str | None) -> np.ndarray:
        """Return the class of each active row, or ``cls`` for all."""
        if not hasattr(self, "picks_"):
            raise RuntimeError("DrugEffect is not fitted yet: call fit(table) first.")
        if cls is not None and cls not in self.picks_:
            raise ValueError(f"cls={cls!r}: expected one of {some(list(self.picks_), len(self.picks_))}.")
        if cls is not None:
            return np.full(len(self._active), cls, dtype=object)
        known = "together" if self.picks_.get("together", {}).get("basis") == "left out" else "combination"
        return np.where(self._rows.order > 1, known, "single").astype(object)

    def _mixed(self, predicted: dict[str, FloatArray], cls: str, contexts: np.ndarray | None = None) -> FloatArray:
        """Return the weighted prediction of a class; where contexts have weights of their own, by these."""
        pick = self.picks_[cls]
        mix = lambda weights, rows: sum(weight * predicted[name][rows] for name, weight in weights.items())
        out = np.asarray(mix(pick["weights"], slice(None)))
        for context, weights in pick.get("contexts", {}).items() if contexts is not None else ():
            mine = np.asarray(contexts).astype(str) == context
            out[mine] = mix(weights, mine)
        return out
