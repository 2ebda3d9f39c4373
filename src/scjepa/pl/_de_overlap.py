"""Overlap of predicted and true differentially expressed genes, by the length of the lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.pl._figure import INK, counted, describe, figure_of, finish, grid, laid_out, model_colors, panels, tidy
from scjepa.pl._names import spread
from scjepa.pl._written import chosen, comparable, written

PREFIX = "overlap_at_"
TITLES = {"fold_change": "DE genes by fold change", "test": "DE genes by test"}
BASELINE = "#7F7F7F"
"""Lines of baselines: darker than their bars, which have more area."""
PALE = 0.5
"""Opacity of lines over fewer conditions than the others."""


@docs
def de_overlap(
    recovery: Any,
    definition: str | Sequence[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw which share of the true top k differentially expressed genes is among the predicted ones, by k.

    One line per method, the mean over conditions (those that all methods with at least half of the conditions have),
    with its standard error around models. Baselines are gray, the replicate ceiling is dotted. A method with fewer
    conditions than the others is pale and says so: it can't be compared with them. One panel per definition of a
    differentially expressed gene.

    Parameters
    ----------
    recovery
        AnnData that :func:`scjepa.tl.deg_recovery` wrote to, or its table; call it with several ``top_k``.
    definition
        ``"fold_change"``, ``"test"`` or both; by default all in the table with any value.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If there is no such table or definition, or it has the overlap at fewer than two k.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import de_overlap
    >>> rows = [("A", "all", "test", "overlap_at_5", 0.4), ("A", "all", "test", "overlap_at_10", 0.6)]
    >>> table = pd.DataFrame(rows, columns=["perturbation", "context", "definition", "metric", "value"])
    >>> figure = de_overlap(table)
    >>> figure.axes[0].lines[0].get_xydata().tolist()
    [[5.0, 0.4], [10.0, 0.6]]
    """
    columns = ["perturbation", "context", "definition", "metric", "value"]
    table = written(recovery, Keys.uns.deg_recovery, columns, "scjepa.tl.deg_recovery", "recovery")
    for column in ("method", "kind"):  # tables without baselines
        table = table if column in table else table.assign(**{column: "model"})
    table = table[table["metric"].str.startswith(PREFIX)].dropna(subset="value")
    table = table.assign(k=table["metric"].str.removeprefix(PREFIX).astype(int))
    lengths = sorted(table["k"].unique())
    if len(lengths) < 2:
        raise ValueError(
            f"recovery has the overlap at {len(lengths)} k: a curve needs several, for example "
            "scjepa.tl.deg_recovery(..., top_k=(5, 10, 20, 50, 100, 200))."
        )
    where = "the definitions with values in recovery"
    definitions = chosen(definition, table["definition"], "definition", where)

    axes = panels(len(definitions), ax, size=(4.9, 3.5), columns=2)
    for name, axis in zip(definitions, axes, strict=True):
        part = table[table["definition"] == name]
        n = _draw(axis, part, lengths)
        describe(axis, title=f"{TITLES.get(name, name)}, {counted(n)}")
    describe(axes[0], y="share of the true top k found")
    laid_out(axes[0])  # names are as far apart as they must be from now on
    for axis in axes:
        _name_lines(axis)
    return finish(axes[0], save)


def _draw(ax: Axes, part: pd.DataFrame, lengths: list[int]) -> int:
    """Draw the lines of one definition; return the number of conditions behind them."""
    kind = part.drop_duplicates("method").set_index("method")["kind"]
    shown = comparable(part, kind)
    color = model_colors(m for m in kind.index if kind[m] == "model")
    top = 0.0
    for method, mine in shown.rows.groupby("method", sort=False):
        values = mine.groupby("k")["value"]
        mean: pd.Series = values.mean()
        model, ceiling = kind[method] == "model", kind[method] == "ceiling"
        ax.plot(
            mean.index,
            mean,
            color=color.get(method, INK if ceiling else BASELINE),
            lw=2.0 if model else 1.1,
            ls=":" if ceiling else "-",
            marker="o" if model else None,
            ms=4,
            zorder=4 if model else 3,
            alpha=PALE if shown.count[method] < shown.most and not ceiling else 1,
            label=shown.label(str(method)),
        )
        top = max(top, float(mean.max()))
        if model:
            error: pd.Series = (values.std(ddof=1) / np.sqrt(values.count())).fillna(0.0)
            ax.fill_between(mean.index, mean - error, mean + error, color=color[method], alpha=0.18, lw=0, zorder=2)
            top = max(top, float((mean + error).max()))
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(_apart(lengths)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_ylim(0, min(1.06 * top, 1.02) or 1.0)
    describe(ax, x="k, length of both lists (genes)")
    grid(ax)
    tidy(ax)
    return shown.n


def _apart(lengths: list[int]) -> list[int]:
    """Return the numbers that can be written under a logarithmic axis without touching one another."""
    span = np.log(lengths[-1] / lengths[0])
    kept = [lengths[-1]]
    for k in reversed(lengths[:-1]):
        if np.log(kept[-1] / k) >= span / 12:
            kept.append(k)
    return kept


def _name_lines(ax: Axes) -> None:
    """Write the name of each line behind its end, names one above the other where ends meet."""
    lines = ax.get_lines()
    last = [(float(np.asarray(line.get_xdata())[-1]), float(np.asarray(line.get_ydata())[-1])) for line in lines]
    ends = ax.transData.transform(np.array(last))
    point = figure_of(ax).dpi / 72
    low, high = ax.get_window_extent().get_points()[:, 1]
    places = spread(ends[:, 1], 9.5 * point, low, high)
    for line, where, end, at in zip(lines, last, ends, places, strict=True):
        ax.annotate(
            str(line.get_label()),
            where,
            xytext=(14, (at - end[1]) / point),
            textcoords="offset points",
            fontsize=7.5,
            color=line.get_color(),
            va="center",
            alpha=line.get_alpha(),
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.5,
                "color": line.get_color(),
                "alpha": line.get_alpha(),
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 3,
            },
            annotation_clip=False,
        )
