"""Checks at the door: one place that words what was found, what was expected and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def closest(name: object, options: Iterable[object], n: int = 3) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of ``options``, or an empty string.

    Examples
    --------
    >>> from scjepa._checks import closest
    >>> closest("contrl", ["control", "KLF1"])
    " Did you mean 'control'?"
    """
    known = {str(o).lower(): str(o) for o in options}
    hits = [known[h] for h in difflib.get_close_matches(str(name).lower(), list(known), n=n, cutoff=0.6)]
    return f" Did you mean {' or '.join(repr(h) for h in hits)}?" if hits else ""


def some(names: Sequence[object], n: int = 5) -> str:
    """Write the first ``n`` names and the number of the others, for messages.

    Examples
    --------
    >>> from scjepa._checks import some
    >>> some(["a", "b", "c"], n=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(str(x)) for x in list(names)[:n])
    rest = len(names) - n
    return f"{shown} and {rest} more" if rest > 0 else shown


def require_column(obs: pd.DataFrame, key: str, argument: str) -> pd.Series:
    """Return ``obs[key]``; raise a :class:`KeyError` with the nearest column names when it is absent."""
    if key not in obs.columns:
        raise KeyError(
            f"{argument}={key!r} is not a column of adata.obs.{closest(key, obs.columns)} "
            f"Columns found: {some(list(obs.columns), 10) or 'none'}."
        )
    return obs[key]


def require_labels(obs: pd.DataFrame, key: str, argument: str) -> pd.Series:
    """Return ``obs[key]`` as strings; raise when the column is absent or has missing values."""
    column = require_column(obs, key, argument)
    missing = int(column.isna().sum())
    if missing == len(column) and len(column):
        raise ValueError(f"{argument}={key!r}: all {missing} values are missing. Fill adata.obs[{key!r}] with labels.")
    if missing:
        raise ValueError(
            f"{argument}={key!r}: {missing} of {len(column)} cells have a missing value. Label these cells or drop "
            f"them: adata = adata[adata.obs[{key!r}].notna()].copy()."
        )
    return column.astype(str)


def require_member(value: object, options: Iterable[object], argument: str, *, where: str = "") -> None:
    """Raise a :class:`ValueError` that names the nearest options when ``value`` is not one of them."""
    known = [str(o) for o in options]
    if str(value) not in known:
        raise ValueError(
            f"{argument}={value!r} is not among {where or 'the known values'}.{closest(value, known)} "
            f"Found: {some(sorted(known), 8) or 'none'}."
        )


def require_numbers(obs: pd.DataFrame, key: str, argument: str, *, minimum: float | None = None) -> np.ndarray:
    """Return ``obs[key]`` as float64; raise when values are no numbers, missing, infinite or below ``minimum``."""
    column = require_column(obs, key, argument)
    values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"{argument}={key!r}: {int(bad.sum())} of {len(values)} values are missing or not finite numbers "
            f"(for example {some(list(column[bad].unique()), 3)}). Convert the column with pandas.to_numeric, and fill in what is "
            "missing or drop these rows."
        )
    if minimum is not None and (values < minimum).any():
        raise ValueError(
            f"{argument}={key!r}: {int((values < minimum).sum())} values are below {minimum:g}; "
            f"the smallest is {values.min():g}. Give non-negative values."
        )
    return values


def require_positive_int(value: object, argument: str, *, minimum: int = 1) -> int:
    """Return ``value`` as an int; raise unless it is a whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{argument}={value!r}: expected a whole number of at least {minimum}.")
    return int(value)


def require_levels(levels: Iterable[object], name: str) -> None:
    """Raise unless all levels of intervals are numbers between 0 and 1."""
    wrong = [v for v in levels if isinstance(v, bool) or not isinstance(v, (int, float, np.floating)) or not 0 < v < 1]
    if wrong:
        raise ValueError(f"{name} has the levels {some(wrong)}: expected numbers between 0 and 1, for example 0.9.")


def check_gate(gate: float | str) -> None:
    """Raise a :class:`ValueError` unless ``gate`` is ``"auto"`` or a number from 0 to 1."""
    number = isinstance(gate, (int, float)) and not isinstance(gate, bool) and 0 <= gate <= 1
    if not (number or gate == "auto"):
        raise ValueError(f"gate={gate!r}: expected 'auto' or a number from 0 (anchor alone) to 1 (network in full).")
