"""Summaries of score tables: means per method, and a table to print."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa.tl._evaluate import METRICS

GOALS = {
    "l2": "↓",
    "pearson_delta": "↑",
    "pearson_delta_systema": "↑",
    "e_distance": "↓",
    "variance_ratio": "→1",
    "shift_ratio": "→1",
}
"""What a good value of each metric is: low, high, or close to one."""

COLUMNS = ("method", "kind", "perturbation", "context", "metric", "value")


def _check_scores(scores: pd.DataFrame) -> pd.DataFrame:
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
    return scores.astype(dict.fromkeys(COLUMNS[:-1], str))  # files give categories back


def distance_from_goal(values: pd.Series, metric: str) -> pd.Series:
    """Return ``values`` turned so that lower is better."""
    goal = GOALS.get(metric, "↑")
    return values if goal == "↓" else (-values if goal == "↑" else (values - 1).abs())


def summarize_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Average scores over conditions, the same conditions for all methods where possible.

    Methods that score at least half of the conditions are averaged over the conditions that they *all* score, so
    their rows can be compared. A baseline that applies to fewer is averaged over those of them that it has; its
    ``n_conditions`` is then lower than that of the others. The same goes for the replicate ceiling, which never decides
    which conditions count.

    Parameters
    ----------
    scores
        Table of :func:`scjepa.tl.evaluate`, or several joined with :func:`pandas.concat`.

    Returns
    -------
    One row per method (models first, then baselines from low to high L2, the replicate ceiling last), one column per metric (those without any
    value are left out) and ``n_conditions``, the number of conditions averaged.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import summarize_scores
    >>> rows = [("m", "model", p, "all", "l2", v) for p, v in [("A", 1.0), ("B", 2.0)]]
    >>> rows += [("mean", "baseline", p, "all", "l2", v) for p, v in [("A", 3.0), ("B", 5.0)]]
    >>> summarize_scores(pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"]))
            l2  n_conditions
    method
    m      1.5             2
    mean   4.0             2
    """
    scores = _check_scores(scores)
    kind = scores.drop_duplicates("method").set_index("method")["kind"]
    wide = scores.pivot_table(
        index=["method", "perturbation", "context"], columns="metric", values="value", aggfunc="mean", dropna=False
    ).dropna(how="all")
    wide = wide.dropna(axis=1, how="all")
    known = [m for m in METRICS if m in wide.columns]
    wide = wide[known + [m for m in wide.columns if m not in known]]
    has = wide.notna().any(axis=1).unstack("method", fill_value=False).astype(bool)
    contenders = has[[m for m in has.columns if kind[m] != "ceiling"]]
    broad = contenders.columns[contenders.mean() >= 0.5]
    common = has[broad].all(axis=1) if len(broad) else has.any(axis=1)
    if not common.any():
        common[:] = True
    chosen = wide[wide.reset_index("method").index.isin(common.index[common])]
    out = chosen.groupby(level="method", observed=True).mean()
    out["n_conditions"] = chosen.groupby(level="method", observed=True).size()
    order = pd.DataFrame({"group": kind.reindex(out.index).map({"model": 0, "ceiling": 2}).fillna(1)})
    order["place"] = np.arange(len(out)) if "l2" not in out else out["l2"]
    appearance = {m: i for i, m in enumerate(kind.index)}
    models = order["group"] == 0
    order.loc[models, "place"] = [appearance[m] for m in out.index[models]]
    out = out.loc[order.sort_values(["group", "place"], kind="stable").index]
    out.columns.name = None
    return out


def format_scores(scores: pd.DataFrame) -> str:
    """Lay the means of a score table out for printing.

    Models come first, then baselines from low to high L2, the replicate ceiling last. Arrows say where good values
    are, ``*`` marks the best model or baseline of a column among those that are averaged over the same conditions.

    Parameters
    ----------
    scores
        Table of :func:`scjepa.tl.evaluate`, or several joined with :func:`pandas.concat`.

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
    """
    scores = _check_scores(scores)
    means = summarize_scores(scores)
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
        best = (column - column.loc[str(rank.idxmin())]).abs() < 5e-4 if rank.notna().any() else column.isna() & False
        marks = ["*" if b and s else " " for b, s in zip(best, contender, strict=True)]
        cells = [("–" if np.isnan(v) else f"{v:.3f}") + mark for v, mark in zip(column, marks, strict=True)]
        columns.append([f"{metric} {GOALS.get(metric, '')}".rstrip() + " ", *cells])
    columns.append(["n", *(str(int(c)) for c in count)])
    widths = [max(map(len, c)) for c in columns]
    lines = [
        "  ".join(
            cell.ljust(w) if j == 0 else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in zip(*columns, strict=True)
    ]
    total = len(scores.drop_duplicates(["perturbation", "context"]))
    plural = "s" if total != 1 else ""
    scope = (
        f"{total} condition{plural}" if most == total else f"the {most} of {total} conditions that all methods score"
    )
    note = f"Means over {scope}; * best."
    few = [f"{name} ({int(count[name])})" for name in means.index[~shared]]
    if few:
        note += f" Over fewer conditions, not comparable: {', '.join(few)}."
    rule = "-" * len(lines[0])
    return "\n".join([lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), note])
