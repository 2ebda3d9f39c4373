"""Tables that :mod:`scjepa.tl` wrote, as figures read them: given as they are, or inside the AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from scjepa._keys import Keys

ALL_CONDITIONS = "(all conditions)"
"""Perturbation and context of rows about all conditions at once."""


def written(given: Any, key: str, columns: Sequence[str], made_by: str, name: str) -> pd.DataFrame:
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
    """
    if hasattr(given, "uns"):
        root = given.uns.get(Keys.uns.root, {})
        if key not in root:
            raise ValueError(f"the AnnData has no table {key!r} in uns[{Keys.uns.root!r}]: run {made_by} first.")
        given = root[key]
    if not isinstance(given, pd.DataFrame):
        raise TypeError(f"{name} is a {type(given).__name__}: expected the AnnData or a table written by {made_by}.")
    missing = [c for c in columns if c not in given]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}: expected a table written by {made_by}.")
    text = [c for c in given.columns if not pd.api.types.is_numeric_dtype(given[c])]
    return given.astype(dict.fromkeys(text, str))  # files give categories back


def common_conditions(filled: pd.DataFrame, kind: pd.Series) -> pd.Index:
    """Return the (perturbation, context) that the methods share which have at least half of the conditions.

    ``filled`` has no missing values; ``kind`` is ``"model"``, ``"baseline"`` or ``"ceiling"`` by method. Means over
    other conditions would compare methods on easy and on hard ones.
    """
    condition = ["perturbation", "context"]
    has = filled.drop_duplicates(["method", *condition]).pivot(index=condition, columns="method", values="value")
    contenders = has.notna()[[m for m in has.columns if kind[m] != "ceiling"]]
    broad = contenders.columns[contenders.mean() >= 0.5]
    common = contenders[broad].all(axis=1)
    return common.index[common] if common.any() else common.index
