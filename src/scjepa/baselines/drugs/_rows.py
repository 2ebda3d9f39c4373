"""Conditions as the numbers that kernels and simple predictions read: which drugs, where, at which dose, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scjepa._types import FloatArray
from scjepa.data import ConditionTable

SAME_LEVEL = 1e-3
"""Doses and times whose decadic logarithms differ by less are the same level."""
MANY_LEVELS = 16
"""With more levels than this, drugs have doses of their own, and those of two drugs are compared by their place in each range."""
AXES = ("dose", "time")


@dataclass(frozen=True)
class Rows:
    """Conditions, one a row.

    Attributes
    ----------
    drugs
        Names of the columns of ``design``; in questions those given in training come first.
    design
        ``(n, drugs)``: 1 for the drugs given; a combination is the sum of its drugs.
    contexts
        ``(n,)`` labels.
    dose, time
        ``(n,)`` decadic logarithms, or None.
    """

    drugs: tuple[str, ...]
    design: FloatArray
    contexts: np.ndarray
    dose: FloatArray | None = None
    time: FloatArray | None = None

    @classmethod
    def of(cls, table: ConditionTable, drugs: Sequence[str]) -> Rows:
        """Read a table; rows in which :func:`nothing_done` have no logarithm and must be left out."""
        log = lambda values: None if values is None else np.log10(np.asarray(values, dtype=float))
        return cls(tuple(drugs), table.design(drugs), table.contexts.astype(str), log(table.dose), log(table.time))

    def __len__(self) -> int:
        return len(self.design)

    @property
    def order(self) -> FloatArray:
        """``(n,)`` number of drugs given."""
        return np.asarray(self.design.sum(1))

    @property
    def axes(self) -> tuple[str, ...]:
        """Which of dose and time rows have."""
        return tuple(name for name in AXES if getattr(self, name) is not None)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows ``index``."""
        pick = lambda values: None if values is None else values[index]
        return replace(
            self,
            design=self.design[index],
            contexts=self.contexts[index],
            dose=pick(self.dose),
            time=pick(self.time),
        )

    def levels(self, axis: str, drug: int) -> FloatArray:
        """Return the levels of dose or time at which the drug of a column was given alone or with others, ascending."""
        return levels_of(getattr(self, axis)[self.design[:, drug] > 0])


def nothing_done(table: ConditionTable) -> np.ndarray:
    """Return a boolean ``(n,)``: rows without a drug, at dose zero or for no time, whose effect is none."""
    out = table.order == 0
    for column in (table.dose, table.time):
        if column is not None:
            out = out | (np.asarray(column, dtype=float) <= 0)
    return np.asarray(out)


def levels_of(values: FloatArray) -> FloatArray:
    """Return the distinct values, ascending; those closer than ``SAME_LEVEL`` are one.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._rows import levels_of
    >>> levels_of(np.array([1.0, 0.0, 1.00001])).tolist()
    [0.0, 1.0]
    """
    ascending = np.sort(values)
    return ascending[np.diff(ascending, prepend=-np.inf) > SAME_LEVEL]


def canonical_order(table: ConditionTable) -> np.ndarray:
    """Return the order of rows by their names and numbers, so that nothing depends on the order they came in."""
    zero = np.zeros(len(table))
    dose, time = (zero if column is None else np.asarray(column, dtype=float) for column in (table.dose, table.time))
    label = ["+".join(action) for action in table.actions]
    spread = np.zeros(len(table)) if table.perturbed is None else np.asarray(table.perturbed, dtype=float).sum(1)
    return np.lexsort((spread, time, dose, table.contexts.astype(str), np.array(label, dtype=str)))


@dataclass(frozen=True)
class Scale:
    """Where the doses of drugs lie on a common scale.

    Where drugs share their levels this is the dose itself. Else it is the dose over the highest one of the drug, as
    concentrations in toxicology are multiples of each drug's own; the typical highest one stands for drugs never given.

    Attributes
    ----------
    tops
        ``(drugs,)`` logarithm of each drug's highest dose, or None.
    typical
        The median of them.
    """

    tops: FloatArray | None = None
    typical: float = 0.0

    @classmethod
    def of(cls, rows: Rows) -> Scale:
        """Find the scale of training rows."""
        if rows.dose is None or len(levels_of(rows.dose)) <= MANY_LEVELS:
            return cls()
        given = rows.design > 0
        tops = np.array([rows.dose[given[:, j]].max(initial=-np.inf) for j in range(len(rows.drugs))])
        typical = float(np.median(tops[np.isfinite(tops)]))
        return cls(np.where(np.isfinite(tops), tops, typical), typical)

    def __call__(self, rows: Rows) -> FloatArray | None:
        """Return ``(n,)`` doses of rows on this scale, or None."""
        if rows.dose is None or self.tops is None:
            return rows.dose
        more = rows.design.shape[1] - len(self.tops)  # drugs that were never given stand behind the others
        return rows.dose - rows.design @ np.append(self.tops, [self.typical] * more) / np.maximum(rows.order, 1)
