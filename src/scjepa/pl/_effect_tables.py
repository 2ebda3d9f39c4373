"""Tables of effects as figures read them: which rows are one condition, and which measured value belongs to a row."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scjepa._checks import closest, some
from scjepa._compat import as_text
from scjepa._labels import CONTROL_TOKENS
from scjepa._types import FloatArray

logger = logging.getLogger(__name__)

PERTURBATION, GENE, EFFECT = "perturbation", "gene", "effect"

SURE = "interval excludes 0"
"""How legends name effects whose sign is known."""


def check_columns(table: object, needed: Sequence[str], made_by: str, name: str) -> pd.DataFrame:
    """Return the table; raise unless it has the columns that the method ``made_by`` writes, and rows."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name} is a {type(table).__name__}: expected the DataFrame of {made_by}.")
    missing = [c for c in needed if c not in table]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}: expected the table of {made_by}. "
            f"Columns found: {some(list(table.columns), 10) or 'none'}."
        )
    if not len(table):
        raise ValueError(f"{name} has no rows to draw.")
    return table


def keys_before(table: pd.DataFrame, column: str) -> list[str]:
    """Return the columns that tell conditions apart: the perturbation and all others before ``column``."""
    before = list(table.columns[: list(table.columns).index(column)])
    return [PERTURBATION, *(c for c in before if c != PERTURBATION)]


def check_effects(given: object, name: str = "effects", *, interval: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """Return the table and the columns that tell its conditions apart: the perturbation and all others before ``gene``."""
    needed = [PERTURBATION, GENE, EFFECT, *(("lower", "upper") if interval else ())]
    table = check_columns(given, needed, "PerturbJEPA.predict_effect", name)
    keys = keys_before(table, GENE)
    twice = int(table.duplicated([*keys, GENE]).sum())
    if twice:
        raise ValueError(
            f"{name} has {twice} rows that repeat a condition ({', '.join(keys)}) and gene. "
            "Give the effects of one call, at one level."
        )
    return table, keys


def condition_rows(table: pd.DataFrame, keys: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the number of each row's condition, and the conditions in the order of the table."""
    number = table.groupby(keys, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    return number, table.drop_duplicates(keys)[keys].reset_index(drop=True)


def condition_names(conditions: pd.DataFrame) -> list[str]:
    """Write conditions in words: the perturbation, then whatever else is not the same in all."""
    others = [c for c in conditions.columns if c != PERTURBATION and conditions[c].nunique() > 1]
    return [in_words(row) for row in conditions[[PERTURBATION, *others]].itertuples(index=False)]


def in_words(values: Iterable[object]) -> str:
    """Write what tells a condition apart, numbers as short as they are."""
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def gene_positions(genes: Sequence[str], found: pd.Index) -> np.ndarray:
    """Return where the genes asked for are among those found; raise when one is not."""
    asked = [genes] if isinstance(genes, str) else [str(g) for g in genes]
    at = found.get_indexer(pd.Index(asked))
    missing = [g for g, i in zip(asked, at, strict=True) if i < 0]
    if missing or not asked:
        raise ValueError(
            f"genes: {some(missing) or 'none'} asked for, not in effects."
            f"{closest(missing[0], found) if missing else ''} Genes found: {some(list(found))}."
        )
    return at


def tidy_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Bring conditions x genes into the columns of ``predict_effect``; a table that has them stays as it is."""
    if {GENE, EFFECT} <= set(table.columns):
        return table
    index = _index_frame(table, name)
    m, g = table.shape
    long = index.loc[index.index.repeat(g)].reset_index(drop=True)
    long[GENE] = np.tile(table.columns.astype(str), m)
    long[EFFECT] = table.to_numpy(dtype=np.float64).ravel()
    return long


def measured(effects: pd.DataFrame, keys: list[str], true: object, name: str = "true") -> FloatArray:
    """Return the measured effect of each row of ``effects``, NaN where ``true`` has none.

    ``true`` is a Series by gene (for effects of one condition), conditions x genes with the perturbation (and context,
    dose, ... under the names of ``effects``) in the index, or a table with the columns of ``effects``.
    """
    number, conditions = condition_rows(effects, keys)
    index, values = _wide(true, conditions, name)
    for level in [c for c in index.columns if c not in keys]:
        if index[level].nunique() > 1:
            raise ValueError(
                f"{name} tells conditions apart by {level!r}, which is not a column of effects (found: {some(keys)}). "
                f"Name the level of {name}'s index like the column of effects, or keep the rows of one {level}."
            )
    shared = [c for c in keys if c in index.columns]
    for key in keys:
        if key not in shared and conditions[key].nunique() > 1:
            raise ValueError(
                f"effects differ by {key!r}, and {name} does not say of which {key} its rows are: add a level {key!r} "
                f"to its index (found: {some(list(index.columns))}), or give the effects of one {key}."
            )
    asked, known = (pd.MultiIndex.from_frame(_comparable(t[shared])) for t in (conditions, index))
    if known.has_duplicates:
        raise ValueError(f"{name} has {int(known.duplicated().sum())} rows that repeat a condition. Keep one of each.")
    row = known.get_indexer(asked)
    column = values.columns.get_indexer(pd.Index(as_text(effects[GENE])))
    if (row < 0).all():
        found = list(as_text(index[PERTURBATION]).unique())
        raise ValueError(
            f"{name} has none of the {len(row)} conditions of effects: {some(condition_names(conditions))}."
            f"{closest(conditions[PERTURBATION].iloc[0], found)} Perturbations found: {some(found, 8) or 'none'}."
        )
    if (column < 0).all():
        raise ValueError(
            f"{name} has none of the genes of effects: {some(list(effects[GENE].unique()))}. "
            f"Genes found: {some(list(values.columns))}."
        )
    if (row < 0).any():
        lost = [n for n, at in zip(condition_names(conditions), row, strict=True) if at < 0]
        logger.info("%s has no measured effects of %d of %d conditions: %s.", name, len(lost), len(row), some(lost))
    row = row[number]
    out = values.to_numpy(dtype=np.float64)[row, column]
    out[(row < 0) | (column < 0)] = np.nan
    if np.isnan(out).all():
        raise ValueError(f"{name} has no value for any condition and gene of effects: all are missing.")
    return out


def _wide(true: object, conditions: pd.DataFrame, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the conditions of ``true`` and its effects, conditions x genes, row by row."""
    if isinstance(true, pd.Series):
        if len(conditions) > 1:
            raise ValueError(
                f"{name} is a Series, the effects of one condition, but effects has {len(conditions)}: give a "
                f"DataFrame, conditions x genes, with {some(list(conditions.columns))} in its index."
            )
        return conditions, true.to_frame().T.reset_index(drop=True).rename(columns=str)
    if not isinstance(true, pd.DataFrame):
        raise TypeError(
            f"{name} is a {type(true).__name__}: expected a DataFrame of measured effects, conditions x genes with the "
            "perturbation in the index, or a Series by gene."
        )
    wide: pd.DataFrame = true
    if {GENE, EFFECT} <= set(true.columns):
        table, keys = check_effects(true, name, interval=False)
        wide = table.pivot(index=keys, columns=GENE, values=EFFECT)
    return _index_frame(wide, name), wide.reset_index(drop=True).rename(columns=str)


def _index_frame(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the index of a table conditions x genes as columns; its first level is the perturbation if none says so."""
    if isinstance(table.index, pd.RangeIndex):
        raise ValueError(
            f"{name} has row numbers for an index: expected conditions x genes with the perturbation (and the context, "
            "if there are several) in the index, for example true.set_index('perturbation')."
        )
    index = table.index.to_frame(index=False)
    if PERTURBATION not in index.columns:
        index = index.rename(columns={index.columns[0]: PERTURBATION})
    return index


def _comparable(conditions: pd.DataFrame) -> pd.DataFrame:
    """Write conditions so that equal ones are equal: ``"B+A"`` is ``"A+B"``, numbers are numbers, the rest text."""
    written = lambda c: c.astype(float) if pd.api.types.is_numeric_dtype(c) else as_text(c)
    return conditions.apply(lambda c: as_text(c).map(_one_spelling) if c.name == PERTURBATION else written(c))


def _one_spelling(label: str) -> str:
    return "+".join(sorted({part.strip() for part in label.split("+")} - CONTROL_TOKENS))
