"""Fluctuations over time, and the time at which a system is about to tip."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scjepa._checks import require_positive_int, some
from scjepa._docs import docs
from scjepa.pl._figure import COLORS, INK, MUTED, describe, finish, grid, legend, panels, rows, tidy

NEEDED = ("time", "index", "null_low", "null_high", "peak", "p_value")
SURE = 0.03
"""p-value up to which a peak is drawn as one: where fates part or all genes switch at once p is below .05 too often."""


@docs
def critical_transitions(
    table: pd.DataFrame,
    *,
    n_genes: int = 15,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw the index of fluctuations over time, above what it is where they have nothing to do with time.

    The most prominent time is marked, hollow where its p-value is above .03; beside it are the genes that fluctuate together
    then. Each condition has a row.

    Parameters
    ----------
    table
        What ``TrajectoryJEPA.critical_transitions`` returned.
    n_genes
        Genes that are shown, the strongest ones; 0 for none.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        For a table of something else.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import critical_transitions
    >>> table = pd.DataFrame({"time": [0.0, 1.0, 2.0], "index": [-0.3, 0.4, -0.3], "null_low": -0.5, "null_high": 0.0})
    >>> table = table.assign(peak=[False, True, False], p_value=0.01)
    >>> table.attrs = {"unit": "hours", "module": {"G1": 0.6, "G2": -0.5}}
    >>> figure = critical_transitions(table)
    >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel()
    ('peak at 1 hours, p = 0.01', 'time (hours)')
    """
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise ValueError(
            f"table lacks the columns {some(missing)}: expected what TrajectoryJEPA.critical_transitions returned."
        )
    require_positive_int(n_genes, "n_genes", minimum=0)
    several = "condition" in table.columns
    parts = list(table.groupby("condition", sort=False)) if several else [("", table)]
    module = table.attrs.get("module", {})
    modules = [module.get(str(label), {}) if several else module for label, _ in parts]
    beside = n_genes > 0 and any(modules)
    axes = panels(len(parts) * (1 + beside), ax, size=(4.6, 3.4), columns=1 + beside)
    unit = table.attrs.get("unit", "")
    for i, ((label, part), genes) in enumerate(zip(parts, modules, strict=True)):
        panel = axes[i * (1 + beside)]
        _curve(panel, part, unit, str(label))
        if beside:
            _weights(axes[2 * i + 1], dict(list(genes.items())[:n_genes]))
    return finish(axes[0], save)


def _curve(ax: Axes, part: pd.DataFrame, unit: str, label: str) -> None:
    time, index = (part[name].to_numpy(dtype=float) for name in ("time", "index"))
    ax.fill_between(
        time, part["null_low"], part["null_high"], color=MUTED, alpha=0.35, lw=0, label="95 % if time does not matter"
    )
    ax.plot(time, index, color=COLORS[0], lw=1.6, marker="o", ms=4, label="index of fluctuations")
    at, p = part["peak"].to_numpy(dtype=bool), float(part["p_value"].iloc[0])
    sure = p <= SURE
    ax.scatter(
        time[at], index[at], s=110, facecolor=COLORS[1] if sure else "white", edgecolor=COLORS[1], lw=1.6, zorder=4
    )
    after = f" {unit}" if unit else ""
    word = f"peak at {time[at][0]:.3g}{after}, p = {p:.2g}" if sure else f"no peak (p = {p:.2g})"
    describe(
        ax,
        title=f"{label}: {word}" if label else word,
        x=f"time ({unit})" if unit else "time",
        y="index of fluctuations",
    )
    grid(ax)
    tidy(ax)
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _weights(ax: Axes, genes: dict[str, float]) -> None:
    weights = np.array(list(genes.values()), dtype=float)
    ax.barh(np.arange(len(weights)), weights, color=np.where(weights < 0, COLORS[1], COLORS[0]), height=0.7)
    ax.axvline(0, color=INK, lw=0.8)
    if len(weights):
        rows(ax, list(genes))
    describe(ax, title="genes that fluctuate together then", x="weight")
    tidy(ax)
