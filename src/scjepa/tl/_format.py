"""``format_scores``: a score table and its verdicts as text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._docs import docs
from scjepa._score_rows import beyond_ceiling, shown_once
from scjepa.tl._summary import summarize_scores
from scjepa.tl._verdict import verdict
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, GOALS
from scjepa.tl.evaluation._scores import check_scores, distance_from_goal
from scjepa.tl.evaluation._stated import stated_lines

WIDE = 9
"""Metrics beyond which methods become columns."""


@docs
def format_scores(scores: pd.DataFrame, *, verdicts: bool = True) -> str:
    """Lay the means of a score table out for printing.

    Models come first, then baselines from low to high L2, the replicate ceiling last. Arrows say where good values
    are, ``*`` marks the best model or baseline of a column among those that are averaged over the same conditions.
    With many metrics methods become columns. Baselines with the same scores throughout are the same prediction and
    share a row ("mean = kNN"). A foot note names the metrics in which a row over the same conditions is better than the
    replicate ceiling. A line for each claim follows, see :func:`scjepa.tl.verdict`; then, for predictions that say
    something of themselves, on how many conditions the model abstains, what the size of its effects was judged by, and
    its error with and without these conditions, beside that of the baseline that is best over all.

    Parameters
    ----------
    %(scores)s
    verdicts
        Whether to add the claims, and what the predictions say of themselves.

    Returns
    -------
    Several lines of text.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import format_scores
    >>> rows = [("model", "model", "A", "all", "l2", 1.0), ("mean", "baseline", "A", "all", "l2", 3.0)]
    >>> print(
    ...     format_scores(pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"]))
    ... )
    method   l2 ↓   n
    -----------------
    model   1.000*  1
    mean    3.000   1
    Means over 1 condition; * best.
    l2: model 1.000, best baseline (mean) 3.000: better in 1 of 1 conditions, too few to tell.
    """
    scores = check_scores(scores)
    shown = shown_once(scores)
    means = summarize_scores(shown)
    metrics = [c for c in means.columns if c != "n_conditions"]
    count = means["n_conditions"]
    ceilings = means.index.isin(scores.loc[scores["kind"] == "ceiling", "method"])
    most = int(count[~ceilings].max() if not ceilings.all() else count.max())
    shared = count == most
    contender = shared & ~ceilings
    columns = [["method", *means.index]]
    for metric in metrics:
        column = means[metric]
        rank = distance_from_goal(column, metric)[contender]
        digits = _digits(column)
        near = 0.5 * 10.0**-digits
        best = (column - column.loc[str(rank.idxmin())]).abs() < near if rank.notna().any() else column.isna() & False
        marks = ["*" if b and s else " " for b, s in zip(best, contender, strict=True)]
        cells = [("–" if np.isnan(v) else f"{v:.{digits}f}") + mark for v, mark in zip(column, marks, strict=True)]
        columns.append([f"{metric} {GOALS.get(metric, '')}".rstrip() + " ", *cells])
    columns.append(["n", *(str(int(c)) for c in count)])
    if len(metrics) > WIDE:
        columns = [list(row) for row in zip(*columns, strict=True)]
        columns[0][0] = "metric"
    widths = [max(map(len, c)) for c in columns]
    lines = [
        "  ".join(
            cell.ljust(w) if j == 0 else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in zip(*columns, strict=True)
    ]
    total = len(shown[shown["perturbation"] != ALL_CONDITIONS].drop_duplicates(["perturbation", "context"]))
    plural = "s" if total != 1 else ""
    scope = (
        f"{total} condition{plural}" if most == total else f"the {most} of {total} conditions that all methods score"
    )
    note = f"Means over {scope}; * best."
    few = [f"{name} ({int(count[name])})" for name in means.index[~shared]]
    if few:
        note += f" Over fewer conditions, not comparable: {', '.join(few)}."
    rule = "-" * len(lines[0])
    notes = [note, *_beyond(means[metrics], ceilings, count)]
    if verdicts:
        claims = verdict(scores)
        notes += [*claims["verdict"], *stated_lines(scores, claims)]
    return "\n".join([lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), *notes])


def _beyond(means: pd.DataFrame, ceilings: np.ndarray, count: pd.Series) -> list[str]:
    """Return a note where a row is better than the ceiling over as many conditions, so that it is not taken for one."""
    found: list[str] = []
    for ceiling in means.index[ceilings]:
        beside = means[(count == count[ceiling]) & (~ceilings | (means.index == ceiling))]
        found += beyond_ceiling(beside, [ceiling], GOALS)
    if not found:
        return []
    return [
        f"Better than the replicate ceiling in some row: {', '.join(dict.fromkeys(found))}. The ceiling is half against "
        "half of the cells, corrected for their number where a formula exists, and no limit: a prediction with less "
        "noise than an experiment can beat it."
    ]


def _digits(column: pd.Series) -> int:
    """Return how many decimals show three figures of the largest value, at least three."""
    largest = column.abs().max()
    return 3 if not 0 < largest < 0.1 else min(2 - int(np.floor(np.log10(largest))), 9)
