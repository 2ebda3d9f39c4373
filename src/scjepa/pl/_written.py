"""Tables that :mod:`scjepa.tl` wrote, as figures read them: given as they are, or inside the AnnData."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from scjepa._checks import require_member
from scjepa._keys import Keys

ALL_CONDITIONS = "(all conditions)"
"""Perturbation and context of rows about all conditions at once."""

SCORES = ("method", "kind", "perturbation", "context", "metric", "value")
"""Columns of a table of scores."""


def written(given: Any, key: str, columns: Sequence[str], made_by: str, name: str, hint: str = "") -> pd.DataFrame:
    """Return the table ``given``, or the one under ``key`` in its ``uns["jepa"]``; raise unless it has ``columns``.

    Parameters
    ----------
    given
        DataFrame, or AnnData with one in ``uns``.
    key
        Key in ``uns["jepa"]``.
    columns
        Columns that must be there.
    made_by
        Function of :mod:`scjepa.tl` that writes the table, for messages.
    name
        Name of the argument, for messages.
    hint
        What else the argument may be, for messages.
    """
    if hasattr(given, "uns"):
        root = given.uns.get(Keys.uns.root, {})
        if key not in root:
            raise ValueError(f"the AnnData has no table {key!r} in uns[{Keys.uns.root!r}]: run {made_by} first.")
        given = root[key]
    if not isinstance(given, pd.DataFrame):
        raise TypeError(
            f"{name} is a {type(given).__name__}: expected the AnnData or a table written by {made_by}.{hint}"
        )
    missing = [c for c in columns if c not in given]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}: expected a table written by {made_by}.{hint}")
    text = [c for c in given.columns if c in SCORES[:-1] or not pd.api.types.is_numeric_dtype(given[c])]
    return given.astype(dict.fromkeys(text, str))  # files give categories back


def chosen(asked: str | Sequence[str] | None, available: Iterable[str], argument: str, where: str) -> list[str]:
    """Return the names asked for, one or several, all that are available for None; raise for others."""
    known = list(dict.fromkeys(available))
    if asked is None:
        return known
    names = [asked] if isinstance(asked, str) else [str(name) for name in asked]
    for name in names:
        require_member(name, known, argument, where=where)
    return names


class Comparable(NamedTuple):
    """Rows over conditions that methods share, so that means over them can be compared."""

    rows: pd.DataFrame
    kind: pd.Series
    """``"model"``, ``"baseline"`` or ``"ceiling"`` by method"""
    count: pd.Series
    """Conditions by method"""
    most: int
    """Conditions of the broadest method"""
    n: int
    """Conditions kept"""

    def label(self, method: str, name: str | None = None) -> str:
        """Write the name of a method; one with fewer conditions than the others, which can't be compared, says so."""
        name = str(method) if name is None else name
        return name if self.count[method] == self.most else f"{name} ({self.count[method]} of {self.most})"


def comparable(filled: pd.DataFrame, kind: pd.Series) -> Comparable:
    """Keep the conditions that the methods share which have at least half of the conditions.

    ``filled`` has no missing values; ``kind`` is ``"model"``, ``"baseline"`` or ``"ceiling"`` by method. Means over
    other conditions would compare methods on easy and on hard ones.
    """
    condition = ["perturbation", "context"]
    has = filled.drop_duplicates(["method", *condition]).pivot(index=condition, columns="method", values="value")
    contenders = has.notna()[[m for m in has.columns if kind[m] != "ceiling"]]
    broad = contenders.columns[contenders.mean() >= 0.5]
    common = contenders[broad].all(axis=1)
    keep = common.index[common] if common.any() else common.index
    rows = filled[pd.MultiIndex.from_frame(filled[condition]).isin(keep)]
    count = rows.drop_duplicates(["method", *condition])["method"].value_counts()
    most = max((n for m, n in count.items() if kind[str(m)] != "ceiling"), default=count.max())
    return Comparable(rows, kind, count, int(most), len(keep))
