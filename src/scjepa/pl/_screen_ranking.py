"""A screened library: score against rank, the first ones by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa.pl._drug_tables import ABSTAINS, check_names, flags, legend_below, numbers, shortened
from scjepa.pl._effect_tables import check_columns
from scjepa.pl._figure import COLORS, INK, MUTED, axes_for, color_bar, describe, figure_of, finish, grid, tidy
from scjepa.pl._names import name_dots

NEEDED = ("rank", "name", "score")
MADE_BY = "DrugJEPA.screen_drugs"
SIMILARITY = "similarity"
MANY = 50
"""Ranks beyond which their axis is a log one: what matters is at its left end."""


@docs
def screen_ranking(
    table: pd.DataFrame,
    *,
    highlight: str | Sequence[str] = (),
    n_labels: int = 10,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the scores of a screened library by rank, with the names of the first.

    Dots are colored by the similarity to the nearest drug of training where the table has it, and hollow where the model
    abstains. Beyond 50 molecules the ranks are on a log axis.

    Parameters
    ----------
    table
        What ``DrugJEPA.screen_drugs`` returned, perhaps with the columns ``similarity`` (0 to 1) and ``abstain``.
    highlight
        Names to ring and to write, for example known hits; the legend says where they rank.
    n_labels
        How many of the first to name; names that find no room are left out.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of a screen, or a name is not in it.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import screen_ranking
    >>> table = pd.DataFrame({"rank": [1, 2, 3], "name": ["A", "B", "C"], "score": [0.9, 0.2, -0.4]})
    >>> ax = screen_ranking(table, highlight="B")
    >>> ax.get_legend().get_texts()[0].get_text()
    'highlighted: rank 2 of 3'
    """
    table = check_columns(table, NEEDED, MADE_BY, "table")
    numbers(table, ["rank", "score"], "table")
    names = as_text(table["name"]).to_numpy()
    asked = check_names(highlight, list(names), "highlight")
    rank, score = (table[c].to_numpy(dtype=float) for c in ("rank", "score"))
    ringed = np.isin(names, asked)
    sure = ~flags(table)

    ax = axes_for(ax, (5.4, 3.8))
    size = 22 if len(table) <= 4 * MANY else 11
    if SIMILARITY in table:
        numbers(table, [SIMILARITY], "table", missing=True)
        shade = table[SIMILARITY].to_numpy(dtype=float)
        scale: dict[str, Any] = {"cmap": plt.get_cmap("viridis").with_extremes(bad=MUTED), "vmin": 0, "vmax": 1}
        drawn = ax.scatter(rank[sure], score[sure], c=shade[sure], s=size, lw=0, zorder=3, plotnonfinite=True, **scale)
        if not sure.all():
            edge = drawn.to_rgba(np.ma.masked_invalid(shade[~sure]))
            ax.scatter(rank[~sure], score[~sure], facecolor="white", edgecolor=edge, s=size, lw=1, zorder=3)
        color_bar(figure_of(ax), drawn, "similarity to the nearest drug of training", ax=ax, pad=0.02)
    else:
        ax.scatter(rank[sure], score[sure], color=COLORS[0], s=size, lw=0, zorder=3)
        if not sure.all():
            ax.scatter(rank[~sure], score[~sure], facecolor="white", edgecolor=COLORS[0], s=size, lw=1, zorder=3)
    if ringed.any():
        at = np.sort(rank[ringed]).astype(int)
        where = ", ".join(map(str, at[:4])) + (f" and {len(at) - 4} more" if len(at) > 4 else "")
        text = f"highlighted: rank{'s' * (len(at) > 1)} {where} of {int(rank.max()):,}"
        ax.scatter(
            rank[ringed], score[ringed], s=70, facecolor="none", edgecolor=COLORS[1], lw=1.6, zorder=4, label=text
        )
    if not sure.all():
        ax.scatter([], [], facecolor="white", edgecolor=INK, s=size, lw=1, label=ABSTAINS)
    if len(table) > MANY:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_xlim(0.8, rank.max() * 1.25)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(rank.min() - 0.04 * len(table) - 0.5, rank.max() + 0.04 * len(table) + 0.5)
    ax.margins(y=0.08)
    if score.min() < 0 < score.max():
        ax.axhline(0, color=INK, lw=0.8, zorder=1)
    describe(ax, title=f"{len(table):,} molecules by predicted response", x="rank", y="score")
    grid(ax)
    tidy(ax)
    if ax.get_legend_handles_labels()[0]:
        legend_below(ax)  # inside it would cover names
    ax.set_ylim(ax.get_ylim())  # names are put where the limits are
    order = np.argsort(rank, kind="stable")
    first = [i for i in order if ringed[i]] + [i for i in order[: max(n_labels, 0)] if not ringed[i]]
    name_dots(ax, rank, score, np.array(first, dtype=int), [shortened(names[i], 22) for i in first])
    finish(ax, save)
    return ax
