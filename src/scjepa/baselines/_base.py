"""What every baseline shares: fit on a table of conditions, predict effects, checks at the door, state as plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines._cells import CellMethods
from scjepa.baselines._contexts import ContextReport
from scjepa.data import ConditionTable


class Baseline(CellMethods, ABC):
    """A closed-form predictor of perturbation effects.

    On tables of mean profiles: :meth:`fit` and :meth:`effects`. On cells, with the signatures of the models:
    :meth:`fit_anndata` and :meth:`predict_perturbation`. Subclasses set ``name`` (the label of their row in score
    tables) and implement the first two.
    """

    name: ClassVar[str]
    table_: ConditionTable

    @abstractmethod
    def fit(self, table: ConditionTable) -> Baseline:
        """Fit on training conditions (a table with perturbed profiles); returns itself."""

    @abstractmethod
    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects ``(m, genes)``, log-normalised scale; rows of NaN where it does not apply."""

    def state(self) -> dict[str, Any]:
        """Return the fitted state as arrays, strings, numbers, lists and dicts, for :meth:`from_state`; no cells."""
        state = {
            key: value for key, value in vars(self).items() if key not in ("_cells", "_layer", "_keys", "_highest")
        }
        if "table_" in state:
            state["table_"] = table_state(state["table_"])
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Baseline:
        """Rebuild a fitted baseline from :meth:`state`."""
        new = cls.__new__(cls)
        vars(new).update(state)
        if "table_" in state:
            new.table_ = table_from_state(state["table_"])
        return new

    def applies(self, query: ConditionTable) -> np.ndarray:
        """Return a boolean ``(m,)``: rows for which this baseline has a prediction."""
        return np.asarray(np.isfinite(self.effects(query)).all(1))

    def fitted_effects(self) -> FloatArray:
        """Return predictions of the training rows themselves, ``(n, genes)``: what is left to learn is the rest."""
        if not hasattr(self, "table_"):
            raise RuntimeError(f"{type(self).__name__} is not fitted yet: call fit(table) first.")
        return self.effects(self.table_)

    def _remember(self, table: ConditionTable) -> None:
        """Check a training table and keep it as ``table_``."""
        check_training(table, type(self).__name__)
        self.table_ = table

    def _trained(self, query: ConditionTable) -> ConditionTable:
        """Check a query against the training table and return the training table."""
        if not hasattr(self, "table_"):
            raise RuntimeError(f"{type(self).__name__} is not fitted yet: call fit(table) first.")
        check_query(query, self.table_)
        return self.table_


class SelfJudging(Baseline):
    """A baseline that judges itself: it knows what kind of question it is asked, and leaves training rows out to tell how well it answers.

    Models ask it for intervals and trust. Each class of question has an entry in ``picks_``, of which ``"basis"`` says what
    judged it (``"left out"`` rows, ``"sampling noise"`` alone, or ``"none"``) and ``"error"`` how large left-out errors are.
    """

    picks_: dict[str, dict[str, Any]]
    own_classes: ClassVar[bool] = False
    """Whether its classes of questions are finer than a condition, a combination and a context: models then judge by them."""

    @abstractmethod
    def classes(self, query: ConditionTable) -> np.ndarray:
        """Return the class of each question, ``(m,)``; ``""`` for rows without a prediction."""

    @abstractmethod
    def left_out_effects(self, cls: str | None = None) -> FloatArray:
        """Return training rows as they are predicted while left out as questions of a class, ``(n, genes)``, or NaN."""

    @abstractmethod
    def distances(self, query: ConditionTable) -> FloatArray:
        """Return how far questions are from training, ``(m,)`` from 0 to 1; NaN where there is no prediction."""

    @abstractmethod
    def left_out_distances(self, cls: str | None = None) -> FloatArray:
        """Return the distances of training rows that are left out as questions of a class, ``(n,)``, or NaN."""

    @abstractmethod
    def rows_like(self, cls: str, *, combinations: bool, usable: np.ndarray) -> np.ndarray:
        """Return the ``usable`` rows whose left-out predictions are most like questions of a class, boolean ``(n,)``."""

    @abstractmethod
    def left_together(self, cls: str) -> np.ndarray:
        """Return boolean ``(n, n)``: row ``j`` is left out when row ``i`` is predicted as a question of a class."""

    @abstractmethod
    def again(self, table: ConditionTable) -> SelfJudging:
        """Return the same baseline fitted to another table, with the choices it made kept."""

    @abstractmethod
    def knowing(self, features: pd.DataFrame) -> SelfJudging:
        """Return a baseline fitted to the same table that knows what was never done by ``features`` (item x features)."""

    def blind(self) -> SelfJudging | None:
        """Return one like it, to be fitted, that is worse in known contexts but leaves something to learn; None if it is it."""
        return None

    def context_report(self) -> ContextReport | None:
        """Return what left-out contexts say of predictions in another one, or None."""
        return None

    def remarks(self, query: ConditionTable) -> pd.DataFrame | None:
        """Return what is to be said of each question, or None.

        A row a question: ``support``, a word in place of "near" and "far", and ``remark``, sentences joined by ``"; "``
        (both ``""`` where there is nothing to be said); further columns are kept beside predictions.
        """
        return None

    def new_context(self, cls: str) -> bool:
        """Return whether questions of a class are about contexts without training rows."""
        return cls == "context"


def check_training(table: ConditionTable, name: str) -> None:
    """Raise a :class:`ValueError` unless ``table`` is something to fit on."""
    if table.perturbed is None:
        raise ValueError(
            f"{name}.fit: the table has no perturbed profiles (it is a question). Give a table of measured "
            "conditions, for example from scjepa.data.condition_table."
        )
    if len(table) == 0:
        raise ValueError(f"{name}.fit: the table has no rows. Give at least one measured condition.")
    if not (np.isfinite(table.control).all() and np.isfinite(table.perturbed).all()):
        bad = ~(np.isfinite(table.control).all(1) & np.isfinite(table.perturbed).all(1))
        raise ValueError(
            f"{name}.fit: {int(bad.sum())} of {len(table)} rows have NaN or infinite profiles "
            f"({some(['+'.join(table.actions[i]) for i in np.flatnonzero(bad)])}). Drop them: table.rows(keep)."
        )
    if (table.order == 0).any():
        raise ValueError(
            f"{name}.fit: {int((table.order == 0).sum())} of {len(table)} rows have no perturbed gene (controls). "
            "Controls belong in table.control; drop these rows: table.rows(table.order > 0)."
        )


def check_query(query: ConditionTable, table: ConditionTable) -> None:
    """Raise a :class:`ValueError` unless ``query`` asks about the genes and columns of the training ``table``."""
    if query.control.shape[1] != table.control.shape[1]:
        raise ValueError(
            f"the query has {query.control.shape[1]} genes, the training table {table.control.shape[1]}. "
            "Give the control profiles in the training genes and their order."
        )
    if query.genes and table.genes and tuple(query.genes) != tuple(table.genes):
        off = [a for a, b in zip(query.genes, table.genes, strict=True) if a != b]
        raise ValueError(
            f"{len(off)} of {len(table.genes)} genes of the query differ from the training table or stand in another "
            f"place ({some(off)}). Order the query's control profiles by the training genes."
        )
    for column in ("dose", "kind", "time"):
        if (getattr(query, column) is None) != (getattr(table, column) is None):
            has, lacks = ("training table", "query") if getattr(query, column) is None else ("query", "training table")
            raise ValueError(f"the {has} has a {column} for every row, the {lacks} has none. Give both or neither.")


def condition_keys(table: ConditionTable) -> list[tuple[Any, ...]]:
    """Return what was done in each row, without where: ``(action, kind, dose)`` (see :attr:`ConditionTable.doses`), and time where it is told; hashable."""
    kind = [""] * len(table) if table.kind is None else [str(k) for k in table.kind]
    dose = table.doses or [0.0] * len(table)
    time = [] if table.time is None else [[float(t) for t in table.time]]
    return list(zip(table.actions, kind, dose, *time, strict=True))


def table_state(table: ConditionTable) -> dict[str, Any]:
    """Write a table as plain data; columns that are None are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._base import table_from_state, table_state
    >>> from scjepa.data import ConditionTable
    >>> table = ConditionTable((("A", "B"),), np.array(["all"]), np.zeros((1, 2)), genes=("g1", "g2"))
    >>> sorted(table_state(table))
    ['actions', 'contexts', 'control', 'genes', 'n_cells']
    >>> table_from_state(table_state(table)).actions
    (('A', 'B'),)
    """
    state: dict[str, Any] = {
        "actions": [list(action) for action in table.actions],
        "contexts": [str(c) for c in table.contexts],
        "control": np.asarray(table.control),
        "n_cells": np.asarray(table.n_cells),
        "genes": [str(g) for g in table.genes],
    }
    if table.perturbed is not None:
        state["perturbed"] = np.asarray(table.perturbed)
    for name in ("dose", "time", "variance", "n_controls"):
        if getattr(table, name) is not None:
            state[name] = np.asarray(getattr(table, name))
    if table.kind is not None:
        state["kind"] = [str(k) for k in table.kind]
    return state


def table_from_state(state: dict[str, Any]) -> ConditionTable:
    """Rebuild a table from :func:`table_state`."""
    array = lambda name: None if name not in state else np.asarray(state[name])
    return ConditionTable(
        actions=tuple(tuple(action) for action in state["actions"]),
        contexts=np.array([*state["contexts"]], dtype=object),
        control=np.asarray(state["control"]),
        perturbed=array("perturbed"),
        n_cells=np.asarray(state["n_cells"], dtype=int),
        dose=array("dose"),
        kind=None if "kind" not in state else np.array([*state["kind"]], dtype=object),
        time=array("time"),
        genes=tuple(state["genes"]),
        variance=array("variance"),
        n_controls=array("n_controls"),
    )
