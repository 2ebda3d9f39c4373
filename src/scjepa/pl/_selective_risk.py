"""Selective risk: how much smaller errors become when the least certain predictions are left out."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from scjepa._checks import require_member
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.pl._figure import COLORS, INK, MUTED, axes_for, counted, describe, finish, grid, legend, tidy
from scjepa.pl._written import written

IDEAL = "ideal"
NAMES = {"width": "interval width", "distance": "distance from training"}
"""What the uncertainties of :func:`scjepa.tl.evaluate_intervals` are."""


@docs
def selective_risk(
    curves: Any,
    *,
    genes: str = "expressed",
    level: float | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the mean error of the most certain conditions against the share of conditions that is kept.

    Stated uncertainty is of use where its line lies below the dotted one, the error of keeping all, which is also that
    of leaving conditions out at random. The dashed line drops the largest errors first: no order can do better. The
    legend says how much of the gain of that ideal order, in area, each uncertainty reaches.

    Parameters
    ----------
    curves
        AnnData that :func:`scjepa.tl.evaluate_intervals` wrote to, or its table ``uns["jepa"]["selective_risk"]``.
    genes
        Set of genes that errors and widths are of: ``"expressed"``, ``"all"`` or ``"top_20"``.
    level
        Level whose widths order the conditions, by default the highest.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If there is no such table, set of genes or level, or no condition has an error.

    References
    ----------
    Geifman and El-Yaniv. Selective classification for deep neural networks. NeurIPS 2017.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import selective_risk
    >>> columns = ["level", "genes", "uncertainty", "kept", "risk"]
    >>> width = [(0.9, "expressed", "width", 0.5, 1.5), (0.9, "expressed", "width", 1.0, 2.0)]
    >>> ideal = [(0.9, "expressed", "ideal", 0.5, 1.0), (0.9, "expressed", "ideal", 1.0, 2.0)]
    >>> ax = selective_risk(pd.DataFrame(width + ideal, columns=columns))
    >>> ax.get_legend().get_texts()[0].get_text()
    'interval width: 50 % of the ideal gain'
    """
    made_by = "scjepa.tl.evaluate_intervals"
    columns = ["level", "genes", "uncertainty", "kept", "risk"]
    table = written(curves, Keys.uns.selective_risk, columns, made_by, "curves")
    table = table.dropna(subset=["kept", "risk"])
    require_member(genes, table["genes"].unique(), "genes", where="the sets of genes in curves")
    table = table[table["genes"] == genes]
    level = float(table["level"].max()) if level is None else level
    require_member(level, table["level"].unique(), "level", where="the levels in curves")
    lines = {
        str(name): part.sort_values("kept") for name, part in table[table["level"] == level].groupby("uncertainty")
    }
    if IDEAL not in lines:
        raise ValueError(f"curves lacks the uncertainty {IDEAL!r}: expected a table written by {made_by}.")

    ax = axes_for(ax, (4.6, 3.8))
    best = lines.pop(IDEAL)
    all_kept = float(best["risk"].iloc[-1])
    for i, (name, line) in enumerate(sorted(lines.items(), key=lambda item: list(NAMES).index(item[0]))):
        ax.plot(
            *_from_left(line),
            color=COLORS[i],
            lw=1.8,
            marker="o" if len(line) <= 30 else None,
            ms=3.5,
            label=f"{NAMES[name]}: {_gain(line, best)}",
            zorder=3,
        )
    ax.axhline(all_kept, color=INK, lw=0.9, ls=":", zorder=2, label=f"all kept: {all_kept:.3g}")
    ax.plot(*_from_left(best), color=MUTED, lw=1.4, ls="--", zorder=2, label="ideal order: largest errors left out")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    describe(
        ax,
        title=f"selective risk, {counted(len(best))}",
        x="conditions kept, most certain first",
        y=f"mean L2 error of what is kept\n({genes.replace('_', ' ')} genes, log-normalized)",
    )
    grid(ax)
    tidy(ax)
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    finish(ax, save)
    return ax


def _from_left(line: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return line["kept"], line["risk"]


def _gain(line: pd.DataFrame, best: pd.DataFrame) -> str:
    """Say which share of the area between keeping all and the ideal order lies above the line."""
    all_kept = best["risk"].iloc[-1]
    possible = all_kept - best["risk"].mean()
    if len(line) != len(best) or not possible > 0:
        return "no ideal gain to compare with"
    return f"{100 * (all_kept - line['risk'].mean()) / possible:.0f} % of the ideal gain"
