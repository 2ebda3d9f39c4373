"""Score tables as they are read again: checked, with plain labels, and turned so that lower is better."""

from __future__ import annotations

import pandas as pd

from scjepa.tl.evaluation._profiles import GOALS

COLUMNS = ("method", "kind", "perturbation", "context", "metric", "value")
STATED = ("basis", "support", "abstain")
"""Further columns of tables of predictions that say something of themselves."""


def check_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a score table with plain labels; raise when it is none."""
    missing = [c for c in COLUMNS if c not in getattr(scores, "columns", ())]
    if missing:
        raise ValueError(
            f"scores lacks the columns {missing}: expected the table returned by scjepa.tl.evaluate "
            "(or several of them joined with pandas.concat)."
        )
    if not len(scores):
        raise ValueError("scores has no rows.")
    if scores["value"].isna().all():
        raise ValueError(f"scores has no values: all {len(scores)} are undefined.")
    plain = scores.astype(dict.fromkeys(COLUMNS[:-1], str))  # files give categories back
    if not set(STATED) & set(scores.columns):
        return plain
    stated = scores.reindex(columns=list(STATED))  # joined tables may have no statements in some rows
    return plain.assign(
        basis=words(stated["basis"]), support=words(stated["support"]), abstain=flags(stated["abstain"])
    )


def words(column: pd.Series) -> pd.Series:
    """Return text, empty where it is missing."""
    return column.astype(object).where(column.notna(), "").astype(str)


def flags(column: pd.Series) -> pd.Series:
    """Return bools, also from what files make of them ("True", 1); False where they are missing."""
    return words(column).str.lower().isin(["true", "1", "1.0"])


def distance_from_goal(values: pd.Series, metric: str) -> pd.Series:
    """Return ``values`` turned so that lower is better."""
    goal = GOALS.get(metric, "↑")
    return values if goal == "↓" else (-values if goal == "↑" else (values - 1).abs())
