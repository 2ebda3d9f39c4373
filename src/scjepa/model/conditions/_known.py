"""What a model has seen in training: conditions, items, and what was usual of them."""

from __future__ import annotations

from typing import Any, Self

import pandas as pd

from scjepa._labels import Action
from scjepa.data import CellGroups, ConditionTable


class Known:
    """Training conditions and what follows from them.

    Parameters
    ----------
    conditions
        Columns ``perturbation`` (label), ``context``, ``n_cells``.
    items
        Items that the network was trained on, sorted.
    usual_kind
        Most frequent kind of each action, and under ``()`` of all; empty without kinds.
    separator
        What joins the parts of a combination in the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import group_cells
    >>> from scjepa.model.conditions._known import Known
    >>> known = Known.of(group_cells(np.array(["control", "A+B", "A"])), "+")
    >>> known.items, known.has(("A", "B"), "all"), known.has(("B",), "all")
    (('A', 'B'), True, False)
    """

    def __init__(
        self,
        conditions: pd.DataFrame,
        items: tuple[str, ...] = (),
        usual_kind: dict[Action, str] | None = None,
        separator: str = "+",
    ) -> None:
        self.conditions, self.items, self.separator = conditions, tuple(items), separator
        self.usual_kind = dict(usual_kind or {})

    @classmethod
    def nothing(cls, separator: str = "+") -> Self:
        """Return what an untrained model knows."""
        return cls(pd.DataFrame({"perturbation": [], "context": [], "n_cells": []}), separator=separator)

    @classmethod
    def of(cls, groups: CellGroups, separator: str) -> Self:
        """Return what training on some conditions shows."""
        conditions = pd.DataFrame(
            {
                "perturbation": [separator.join(a) for a in groups.actions],
                "context": groups.contexts.astype(str),
                "n_cells": [len(c) for c in groups.cells],
            }
        )
        items = tuple(sorted({name for action in groups.actions for name in action}))
        usual: dict[Action, str] = {}
        if groups.kind is not None:
            kinds = pd.DataFrame({"action": groups.actions, "kind": groups.kind, "n": conditions["n_cells"]})
            counts = kinds.groupby(["action", "kind"])["n"].sum().sort_values(kind="stable")
            usual = dict(counts.index.tolist())
            usual[()] = str(kinds.groupby("kind")["n"].sum().idxmax())
        return cls(conditions, items, usual, separator)

    def after(self, held: Known, learned: set[str]) -> Known:
        """Return this together with what a reference knew before, when the network learned only some items anew."""
        return Known(
            pd.concat([held.conditions, self.conditions], ignore_index=True),
            tuple(sorted(learned | set(held.items))),
            self.usual_kind | held.usual_kind,
            self.separator,
        )

    @property
    def pairs(self) -> set[tuple[str, str]]:
        """Labels and contexts that were trained on."""
        return set(zip(self.conditions["perturbation"], self.conditions["context"].astype(str), strict=True))

    @property
    def contexts(self) -> set[str]:
        """Contexts that were trained on."""
        return set(self.conditions["context"].astype(str))

    @property
    def named(self) -> set[str]:
        """Items in any training label: those that the anchor knows."""
        return {name for label in self.conditions["perturbation"] for name in label.split(self.separator)}

    def has(self, action: Action, context: str) -> bool:
        """Whether a condition was trained on, at whatever dose and of whatever kind."""
        return (self.separator.join(action), str(context)) in self.pairs

    def among(self, table: ConditionTable | CellGroups) -> list[bool]:
        """Return which rows were trained on, at whatever dose and of whatever kind."""
        pairs = self.pairs
        rows = zip(table.actions, table.contexts, strict=True)
        return [(self.separator.join(action), str(context)) in pairs for action, context in rows]

    def state(self) -> dict[str, Any]:
        """Return it as a frame, names and kinds."""
        kinds = [[list(action), kind] for action, kind in self.usual_kind.items()]
        return {
            "conditions": self.conditions,
            "items": list(self.items),
            "usual_kind": kinds,
            "separator": self.separator,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        usual = {tuple(action): kind for action, kind in state["usual_kind"]}
        return cls(state["conditions"], tuple(state["items"]), usual, state["separator"])
