"""Times as they stand in tables: numbers, text with units, names with a number, ordered categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray

UNITS = {
    "second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0, "week": 168.0, "month": 730.5, "year": 8766.0,
}  # fmt: skip
"""Units of elapsed time, in hours."""
NAMES = {
    "s": "second", "sec": "second", "secs": "second", "second": "second", "seconds": "second",
    "m": "minute", "min": "minute", "mins": "minute", "minute": "minute", "minutes": "minute",
    "h": "hour", "hr": "hour", "hrs": "hour", "hour": "hour", "hours": "hour", "hpf": "hour", "hpi": "hour",
    "d": "day", "day": "day", "days": "day", "dpi": "day", "dpf": "day", "e": "day", "p": "day",
    "w": "week", "wk": "week", "wks": "week", "week": "week", "weeks": "week", "pcw": "week", "gw": "week",
    "mo": "month", "mon": "month", "month": "month", "months": "month",
    "y": "year", "yr": "year", "yrs": "year", "year": "year", "years": "year",
}  # fmt: skip
"""What units are called. ``E8.5`` is embryonic day 8.5 and ``P3`` postnatal day 3; both count days, from different zeros."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"^\s*([<>≤≥]?)\s*({NUMBER})\s*(?:-|–|to)\s*({NUMBER})\s*([A-Za-z]*)\s*$")
AFTER = re.compile(rf"^\s*[<>≤≥]?\s*({NUMBER})\s*_?([A-Za-z]*)\s*$")
BEFORE = re.compile(rf"^\s*([A-Za-z]+)[\s_.-]*({NUMBER})\s*$")
COUNTED = ("t", "time", "tp", "timepoint", "stage", "step", "round", "passage", "bin")
"""Words before a number that are no unit: the number counts."""


@dataclass(frozen=True)
class Times:
    """Times of cells as numbers.

    Attributes
    ----------
    values
        ``(n,)`` times in ``unit``.
    unit
        ``"hour"``, ``"day"``, ...; ``""`` where it is unknown, ``"rank"`` where categories have an order and no numbers.
    labels
        How each distinct time was written, in ascending order of time.
    levels
        ``(T,)`` the distinct times, ascending.
    """

    values: FloatArray
    unit: str
    labels: tuple[str, ...]
    levels: FloatArray

    def label(self, time: float) -> str:
        """Return how a time was written, or the number with its unit where it was not measured.

        Examples
        --------
        >>> from scjepa.dynamics import read_times
        >>> times = read_times(["day 2", "day 4"])
        >>> times.label(4.0), times.label(3.0)
        ('day 4', '3 days')
        """
        near = np.flatnonzero(np.isclose(self.levels, time, rtol=1e-9, atol=1e-12))
        if len(near):
            return self.labels[int(near[0])]
        return f"{time:g} {self.units}".rstrip()

    @property
    def units(self) -> str:
        """The unit as it stands behind a number: ``"days"``, or ``""`` without a unit that is known."""
        return f"{self.unit}s" if self.unit in UNITS else ""

    def read(self, times: Any) -> FloatArray:
        """Return times that are asked for as numbers in the same unit, ``(m,)``.

        Parameters
        ----------
        times
            Numbers in ``unit``, or text as in the column or with a unit of its own (``"36 h"`` where times are days).

        Raises
        ------
        ValueError
            For text without a number that is none of the labels, and for units that can't be converted.

        Examples
        --------
        >>> from scjepa.dynamics import read_times
        >>> read_times(["day 2", "day 4"]).read(["36 h", 3, "day 4"]).tolist()
        [1.5, 3.0, 4.0]
        """
        given = [times] if isinstance(times, (str, int, float, np.number)) else list(times)
        if not given:
            raise ValueError("no times were given. Name at least one.")
        out = []
        for value in given:
            if isinstance(value, str) and value in self.labels:
                out.append(float(self.levels[self.labels.index(value)]))
                continue
            number, unit = _read(value)
            if number is None or not np.isfinite(number):
                raise ValueError(f"time {value!r}: expected a number, or one of {some(self.labels)}.")
            if unit and unit != self.unit:
                if self.unit not in UNITS:
                    raise ValueError(
                        f"time {value!r} has the unit {unit!r}, but times of the data have none. Give a number."
                    )
                number = number * UNITS[unit] / UNITS[self.unit]
            out.append(float(number))
        return np.array(out)


def read_times(column: Sequence[Any] | np.ndarray | pd.Series, name: str = "time_key") -> Times:
    """Read a column of times.

    Parameters
    ----------
    column
        ``(n,)`` numbers; text with a number and perhaps a unit (``"6h"``, ``"day 4"``, ``"E8.5"``, ``"100-130"`` for the
        middle of a range, ``"> 650"`` for the number); or ordered categories, which become 0, 1, ....
    name
        Name of the argument, for messages.

    Returns
    -------
    The times. With several units all are in the shortest one that occurs.

    Raises
    ------
    ValueError
        For missing or infinite values, text without a number that is no ordered category, embryonic beside postnatal days,
        and two labels of the same time.

    Examples
    --------
    >>> from scjepa.dynamics import read_times
    >>> read_times(["E8.5", "E7.5"]).values.tolist(), read_times(["6h", "2 days"]).values.tolist()
    ([8.5, 7.5], [6.0, 48.0])
    >>> read_times(["day 10", "day 2"]).labels
    ('day 2', 'day 10')
    """
    series = pd.Series(column).reset_index(drop=True)
    missing = int(series.isna().sum())
    if missing:
        raise ValueError(
            f"{name}: {missing} of {len(series)} times are missing. Drop these cells: adata[adata.obs[key].notna()]."
        )
    if isinstance(series.dtype, pd.CategoricalDtype):
        distinct: list[Any] = [c for c in series.cat.categories if (series == c).any()]
    else:
        distinct = list(pd.unique(series))
    read = [_read(value) for value in distinct]
    unread = [str(value) for value, (number, _) in zip(distinct, read, strict=True) if number is None]
    if unread:
        if isinstance(series.dtype, pd.CategoricalDtype) and series.cat.ordered:
            levels = np.arange(len(distinct), dtype=float)
            number_of = {value: i for i, value in enumerate(distinct)}
            values = series.map(number_of).to_numpy(dtype=float)
            return Times(values, "rank", tuple(str(v) for v in distinct), levels)
        raise ValueError(
            f"{name}: {len(unread)} of {len(distinct)} times have no number in them: {some(unread)}. Give numbers, text such as "
            "'6h' or 'day 4', or an ordered categorical: pandas.Categorical(values, [...], ordered=True)."
        )
    prefixes = {
        str(v).strip()[0].upper() for v, (_, unit) in zip(distinct, read, strict=True) if unit and _is_staged(v)
    }
    if len(prefixes) > 1:
        raise ValueError(
            f"{name}: embryonic (E) and postnatal (P) days count from different zeros. Give one number for each time, for "
            "example days after conception."
        )
    used = [unit for _, unit in read if unit]
    unit = min(used, key=lambda u: UNITS[u]) if used else ""
    if used and len(used) < len(read):
        bare = [str(v) for v, (_, u) in zip(distinct, read, strict=True) if not u and float(_ or 0) != 0]
        if bare:
            raise ValueError(
                f"{name}: {some(bare)} have no unit, others have ({some(sorted(set(used)))}). Give all or none."
            )
    numbers = np.array([float(n or 0.0) * (UNITS[u] / UNITS[unit] if u else 1.0) for n, u in read])
    if not np.isfinite(numbers).all():
        bad = [str(v) for v, ok in zip(distinct, np.isfinite(numbers), strict=True) if not ok]
        raise ValueError(f"{name}: {some(bad)} are no finite times. Drop these cells.")
    order = np.argsort(numbers, kind="stable")
    twice = np.flatnonzero(np.isclose(np.diff(numbers[order]), 0.0, rtol=0, atol=1e-12))
    if len(twice):
        a, b = distinct[order[twice[0]]], distinct[order[twice[0] + 1]]
        raise ValueError(f"{name}: {str(a)!r} and {str(b)!r} are the same time. Write them alike.")
    number_of = dict(zip(distinct, numbers, strict=True))
    values = series.map(number_of).to_numpy(dtype=float)
    return Times(values, unit, tuple(_written(distinct[i]) for i in order), numbers[order])


def _written(value: Any) -> str:
    """Return a time as it stands in the table; of numbers no more digits than needed."""
    return f"{value:g}" if isinstance(value, (float, np.floating)) and float(f"{value:g}") == value else str(value)


def _is_staged(value: Any) -> bool:
    """Return whether a time is written as an embryonic or postnatal day."""
    return bool(re.match(r"^\s*[EePp]\s*\d", str(value)))


def _read(value: Any) -> tuple[float | None, str]:
    """Return the number and the unit of one time; None where there is no number, or a word that is no unit."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value), ""
    text = str(value)
    if found := RANGE.match(text):
        _, low, high, word = found.groups()
        if float(high) > float(low):
            return _with_unit((float(low) + float(high)) / 2, word)
    if found := AFTER.match(text):
        return _with_unit(float(found.group(1)), found.group(2))
    if found := BEFORE.match(text):
        word, number = found.groups()
        if word.lower() in COUNTED:
            return float(number), ""
        return _with_unit(float(number), word)
    return None, ""


def _with_unit(number: float, word: str) -> tuple[float | None, str]:
    if not word:
        return number, ""
    unit = NAMES.get(word.lower())
    return (number, unit) if unit else (None, "")
