"""Conditions as the numbers that kernels and simple predictions read: which drugs, where, at which dose, for how long."""

from __future__ import annotations

import itertools
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
        ``(n,)`` decadic logarithms, or None; of the drugs of a combination the mean.
    doses
        ``(n, drugs)`` decadic logarithms of the dose of each drug given, where the drugs of any row differ; else None.
    """

    drugs: tuple[str, ...]
    design: FloatArray
    contexts: np.ndarray
    dose: FloatArray | None = None
    time: FloatArray | None = None
    doses: FloatArray | None = None

    @classmethod
    def of(cls, table: ConditionTable, drugs: Sequence[str]) -> Rows:
        """Read a table; rows in which :func:`nothing_done` have no logarithm and must be left out."""
        log = lambda values: None if values is None else np.log10(np.asarray(values, dtype=float))
        design, dose, doses = table.design(drugs), table.dose, None
        if dose is not None and dose.ndim == 2:
            doses = np.log10(table.dose_design(drugs), out=np.zeros(design.shape), where=design > 0)
            own = doses.sum(1) / np.maximum(design.sum(1), 1)
            return cls(tuple(drugs), design, table.contexts.astype(str), own, log(table.time), doses)
        return cls(tuple(drugs), design, table.contexts.astype(str), log(dose), log(table.time))

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
            doses=pick(self.doses),
        )

    def items(self) -> tuple[Rows, np.ndarray]:
        """Return a row for each drug of each row, at its own dose, and ``(items,)`` the rows that they are of."""
        row, column = np.nonzero(self.design)
        alone = np.zeros((len(row), self.design.shape[1]))
        alone[np.arange(len(row)), column] = 1.0
        taken = replace(self.take(row), design=alone, doses=None)
        return (taken if self.doses is None else replace(taken, dose=self.doses[row, column])), row

    def pairs(self) -> tuple[Rows, np.ndarray, FloatArray]:
        """Return a row for each pair of drugs of each row.

        Returns
        -------
        Rows with both drugs of a pair; ``(pairs, 2)`` the drugs; and ``(pairs, 2)`` the dose of each, zeros without doses.
        """
        row: list[int] = []
        drugs: list[tuple[int, int]] = []
        for i in np.flatnonzero(self.order > 1):
            for pair in itertools.combinations(np.flatnonzero(self.design[i]).tolist(), 2):
                row.append(int(i))
                drugs.append(pair)
        index, both = np.array(row, dtype=int), np.array(drugs, dtype=int).reshape(len(row), 2)
        if self.dose is None:
            dose = np.zeros(both.shape)
        elif self.doses is None:
            dose = np.repeat(self.dose[index, None], 2, 1)
        else:
            dose = self.doses[index[:, None], both]
        return self.take(index), both, dose

    def level(self, axis: str, row: int, drug: int) -> float:
        """Return the level of dose or time at which a row has one of its drugs."""
        if axis == "dose" and self.doses is not None:
            return float(self.doses[row, drug])
        return float(getattr(self, axis)[row])

    def levels(self, axis: str, drug: int) -> FloatArray:
        """Return the levels of dose or time at which the drug of a column was given alone or with others, ascending."""
        given = self.design[:, drug] > 0
        if axis == "dose" and self.doses is not None:
            return levels_of(self.doses[given, drug])
        return levels_of(getattr(self, axis)[given])


def nothing_done(table: ConditionTable) -> np.ndarray:
    """Return a boolean ``(n,)``: rows without a drug, at dose zero or for no time, whose effect is none."""
    out = table.untreated
    return out if table.time is None else np.asarray(out | (np.asarray(table.time, dtype=float) <= 0))


def finite(table: ConditionTable, axis: str) -> bool:
    """Return whether all doses, or all times, are finite numbers."""
    values = getattr(table, axis)
    if values is not None and np.ndim(values) == 2:
        values = table.dose_design(table.vocabulary())  # NaN beyond the last drug of a row says nothing
    return values is None or bool(np.isfinite(np.asarray(values, dtype=float)).all())


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
    time = zero if table.time is None else np.asarray(table.time, dtype=float)
    each = (
        zero[:, None]
        if table.dose is None
        else np.nan_to_num(np.asarray(table.dose, dtype=float).reshape(len(table), -1))
    )
    label = ["+".join(action) for action in table.actions]
    spread = np.zeros(len(table)) if table.perturbed is None else np.asarray(table.perturbed, dtype=float).sum(1)
    return np.lexsort((spread, time, *each.T[::-1], table.contexts.astype(str), np.array(label, dtype=str)))


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
        if rows.dose is None:
            return cls()
        if rows.doses is not None:
            rows = rows.items()[0]
        assert rows.dose is not None
        if len(levels_of(rows.dose)) <= MANY_LEVELS:
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
