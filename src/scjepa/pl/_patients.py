"""Predicted responses of patients, the groups they fall into, and genes that tell the groups before treatment."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scjepa._checks import require_positive_int
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa.pl._drug_tables import ABSTAINS, RESPONSE, flags, legend_below, numbers, shortened
from scjepa.pl._effect_tables import PERTURBATION, check_columns
from scjepa.pl._figure import COLORS, INK, UNSURE, describe, finish, grid, panels, rows, tidy

NEEDED = (RESPONSE, "group")
MARKERS = ("gene", "group", "difference", "q_value")
MADE_BY = "DrugJEPA.stratify_patients"
MOST_ROWS = 40
"""Patients that can all have their names in a row."""
SURE = 0.05
"""Largest false discovery rate of a gene that counts."""


@docs
def patients(
    table: pd.DataFrame,
    *,
    n_genes: int = 12,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw the predicted response of each patient, colored by group, and beside it genes that tell the groups apart.

    Patients are rows, the strongest response first; dots are hollow and names gray where the model abstains, and whiskers
    are intervals where the table has ``lower`` and ``upper``. Genes are those whose expression in untreated cells differs
    most between groups; bars are pale where the difference may be chance (false discovery rate above 0.05).

    Parameters
    ----------
    table
        What ``DrugJEPA.stratify_patients`` returned; the first column holds the patients.
    %(n_genes)s
        Without ``attrs["biomarkers"]``, or with 0, there is one panel.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of patients.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import patients
    >>> table = pd.DataFrame({"patient": ["P1", "P2", "P3"], "response": [3.0, 2.8, 0.1], "group": [1, 1, 0]})
    >>> figure = patients(table)
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['group 1, the strongest: 2', 'group 0, the weakest: 1']
    """
    table = check_columns(table, NEEDED, MADE_BY, "table").drop(columns=PERTURBATION, errors="ignore")
    numbers(table, [RESPONSE, "group"], "table")
    if str(table.columns[0]) in (*NEEDED, "size"):
        raise ValueError(f"table starts with {table.columns[0]!r}: expected the column of patients first.")
    markers = table.attrs.get("biomarkers")
    if isinstance(markers, pd.DataFrame) and len(markers) and n_genes != 0:
        check_columns(markers, MARKERS, MADE_BY, "table.attrs['biomarkers']")
        markers = markers.head(require_positive_int(n_genes, "n_genes"))
    else:
        markers = None
    table = table.sort_values(RESPONSE, ascending=False, kind="stable", ignore_index=True)
    groups = sorted(table["group"].astype(int).unique())
    color = {g: COLORS[i % len(COLORS)] for i, g in enumerate(groups)}

    named = len(table) <= MOST_ROWS
    most = max(len(table) if named else 0, 0 if markers is None else len(markers))
    height = max(1.5 + 0.19 * most, 2.6 if named else 4.4)
    axes = panels(1 if markers is None else 2, ax, size=(4.2, height), columns=2)
    _responses(axes[0], table, color, named=named)
    if markers is not None:
        _genes(axes[1], markers, color, several=len(groups) > 2)
    return finish(axes[0], save)


def _responses(ax: Axes, table: pd.DataFrame, color: dict[int, str], *, named: bool) -> None:
    """Draw a dot per patient, with the legend of groups."""
    y, group = table[RESPONSE].to_numpy(dtype=float), table["group"].to_numpy(dtype=int)
    at = np.arange(len(table)) + (0 if named else 1)  # without names rows are numbered
    sure = ~flags(table)
    shade = np.array([to_rgba(color[g]) for g in group])
    if {"lower", "upper"} <= set(table):
        low, high = table[["lower", "upper"]].to_numpy(dtype=float).T
        ax.hlines(at, low, high, colors=list(shade), lw=1.4, zorder=2)
    elif named:  # a line to each dot from nothing, so that rows are easy to follow
        ax.hlines(at, 0, y, colors=list(shade), lw=1, alpha=0.35, zorder=2)
    size = 30 if named else 12
    ax.scatter(y[sure], at[sure], s=size, color=shade[sure], lw=0, zorder=4, clip_on=False)
    ax.scatter(y[~sure], at[~sure], s=size, facecolor="white", edgecolor=shade[~sure], lw=1.2, zorder=4, clip_on=False)
    ax.axvline(0, color=INK, lw=0.8, zorder=1)
    if named:
        rows(ax, [shortened(name) for name in as_text(table.iloc[:, 0])])
        for label, known in zip(ax.get_yticklabels(), sure, strict=True):
            label.set_color(INK if known else UNSURE)
    else:
        ax.set_ylim(len(table) + 0.6, 0.4)
    patient = str(table.columns[0])
    describe(
        ax, title="predicted response", x="response along the effect", y=None if named else f"{patient}s by response"
    )
    grid(ax, "x")
    tidy(ax)
    ends = {max(color): ", the strongest", min(color): ", the weakest"} if len(color) > 1 else {}
    handles = [
        Line2D(
            [], [], ls="", marker="o", ms=5, color=color[g], label=_group(g, ends, int((group == g).sum()), len(color))
        )
        for g in sorted(color, reverse=True)
    ]
    if not sure.all():
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mfc="white", color="#777777", label=ABSTAINS))
    legend_below(ax, handles=handles, handletextpad=0.2)


def _group(group: int, ends: dict[int, str], n: int, groups: int) -> str:
    return f"no groups: {n} patient{'s' * (n != 1)}" if groups == 1 else f"group {group}{ends.get(group, '')}: {n}"


def _genes(ax: Axes, markers: pd.DataFrame, color: dict[int, str], *, several: bool) -> None:
    """Draw a bar per gene: its difference between groups in untreated cells."""
    at, value = np.arange(len(markers)), markers["difference"].to_numpy(dtype=float)
    group = markers["group"].to_numpy(dtype=int)
    sure = markers["q_value"].to_numpy(dtype=float) <= SURE
    shade = [to_rgba(color.get(g, INK), 1.0 if s else 0.35) for g, s in zip(group, sure, strict=True)]
    ax.barh(at, value, height=0.55, color=shade, lw=0, zorder=2)
    ax.axvline(0, color=INK, lw=0.8, zorder=3)
    names = [shortened(g) for g in as_text(markers["gene"])]
    rows(ax, [f"{name} (group {g})" for name, g in zip(names, group, strict=True)] if several else names)
    than = "against the others" if several else f"group {max(color)} minus group {min(color)}"
    describe(ax, title="genes before treatment", x=f"difference in untreated cells,\n{than} (log-normalized)")
    grid(ax, "x")
    tidy(ax)
    ax.tick_params(axis="y", length=0)
