"""Where cells end: mean fates of groups, or every cell between the corners of its fates."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scjepa._checks import require_member, some
from scjepa._docs import docs
from scjepa.pl._figure import COLORS, INK, MUTED, axes_for, color_bar, describe, figure_of, finish, legend, tidy

HATCHES = ("", "///", "...", "xxx", "---")
"""Patterns for fates beyond the colors."""
JITTER = 0.28


@docs
def fates(
    probabilities: pd.DataFrame,
    *,
    groups: pd.Series | None = None,
    kind: Literal["bars", "simplex"] = "bars",
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw how likely cells are to reach which fate.

    ``"bars"``: the mean of each group's cells, with their number. ``"simplex"``: every cell between the fates, which lie on a
    circle, at the mean of their places weighted by its probabilities; of two fates the probability of the second, a row a group.
    Cells without fates (NaN) are left out and counted.

    Parameters
    ----------
    probabilities
        Cells x fates, rows of sum one, of ``TrajectoryJEPA.fate_probabilities``.
    groups
        Group of each cell, indexed by cell names, for example ``adata.obs["time"]``; numbers color the simplex by shade. None:
        all cells are one group.
    kind
        ``"bars"`` or ``"simplex"``.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        For a single fate in a simplex, groups of none of the cells, and an unknown kind.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import fates
    >>> table = pd.DataFrame({"B": [0.9, 0.5, 0.1], "T": [0.1, 0.5, 0.9]}, index=["a", "b", "c"])
    >>> ax = fates(table, groups=pd.Series(["early", "early", "late"], index=table.index))
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['early (2)', 'late (1)']
    """
    require_member(kind, ("bars", "simplex"), "kind", where="the kinds of figures")
    known = probabilities.dropna()
    group = pd.Series("all cells", index=probabilities.index) if groups is None else groups.reindex(probabilities.index)
    if not len(known):
        raise ValueError(
            f"probabilities has no row without missing values among {len(probabilities)}: nothing to draw."
        )
    group = group.reindex(known.index)
    kept = group.notna()
    left_out = len(probabilities) - int(kept.sum())
    if not kept.any():
        raise ValueError(
            f"groups names none of the {len(known)} cells with fates ({some(list(groups.index if groups is not None else []), 3)}). Index "
            "it by the cells of probabilities, as adata.obs is."
        )
    known, group = known[kept.to_numpy()], group[kept]
    if kind == "bars":
        ax = _bars(known, group, ax)
    elif known.shape[1] < 2:
        raise ValueError(
            f"probabilities has one fate ({known.columns[0]}): there is nothing between. Draw kind='bars'."
        )
    elif known.shape[1] == 2:
        ax = _line(known, group, ax)
    else:
        ax = _circle(known, group, ax)
    if left_out:
        describe(ax, title=f"{ax.get_title()}\n{left_out} cells without a fate or group left out")
    finish(ax, save)
    return ax


def _order(group: pd.Series) -> list:
    """Return groups in their order: of a categorical its own, else ascending."""
    if isinstance(group.dtype, pd.CategoricalDtype):
        return [c for c in group.cat.categories if (group == c).any()]
    values = group.unique().tolist()
    return sorted(values, key=lambda v: (not isinstance(v, (int, float)), v if isinstance(v, (int, float)) else str(v)))


def _words(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bars(known: pd.DataFrame, group: pd.Series, ax: Axes | None) -> Axes:
    names = _order(group)
    mean = np.stack([known[(group == g).to_numpy()].mean(0).to_numpy() for g in names])
    ax = axes_for(ax, (5.6, 1.3 + 0.36 * len(names)))
    start = np.zeros(len(names))
    for j, fate in enumerate(known.columns):
        ax.barh(
            np.arange(len(names)),
            mean[:, j],
            left=start,
            height=0.74,
            color=COLORS[j % len(COLORS)],
            hatch=HATCHES[(j // len(COLORS)) % len(HATCHES)],
            edgecolor="white",
            lw=0.6,
            label=str(fate),
        )
        start += mean[:, j]
    ax.set_yticks(np.arange(len(names)), [f"{_words(g)} ({int((group == g).sum())})" for g in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    describe(ax, title="where cells end", x="mean fate probability")
    legend(ax, loc="center left", bbox_to_anchor=(1, 0.5), title="fate")
    tidy(ax)
    return ax


def _line(known: pd.DataFrame, group: pd.Series, ax: Axes | None) -> Axes:
    names = _order(group)
    ax = axes_for(ax, (5.6, 1.3 + 0.5 * len(names)))
    rng = np.random.default_rng(0)
    for i, g in enumerate(names):
        chance = known[(group == g).to_numpy()].iloc[:, 1].to_numpy()
        ax.scatter(
            chance,
            i + rng.uniform(-JITTER, JITTER, len(chance)),
            s=8,
            lw=0,
            alpha=0.5,
            color=COLORS[0],
            rasterized=True,
        )
        ax.plot([np.median(chance)] * 2, [i - 0.4, i + 0.4], color=INK, lw=2)
    ax.axvline(0.5, color=MUTED, lw=0.8, zorder=0)
    ax.set_yticks(np.arange(len(names)), [f"{_words(g)} ({int((group == g).sum())})" for g in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    describe(
        ax, title="where cells end (bar: median)", x=f"{known.columns[0]}  ←  fate probability  →  {known.columns[1]}"
    )
    tidy(ax)
    return ax


def _circle(known: pd.DataFrame, group: pd.Series, ax: Axes | None) -> Axes:
    n = known.shape[1]
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    corners = np.stack([np.cos(angle), np.sin(angle)], 1)
    places = known.to_numpy() @ corners
    ax = axes_for(ax, (5.8, 4.8))
    ax.fill(*corners.T, facecolor="none", edgecolor=MUTED, lw=1, zorder=1)
    look: dict[str, Any] = {"s": 9, "lw": 0, "alpha": 0.7, "zorder": 2, "rasterized": True}
    if pd.api.types.is_numeric_dtype(group) and group.nunique() > len(COLORS):
        drawn = ax.scatter(places[:, 0], places[:, 1], c=group.to_numpy(dtype=float), cmap="viridis", **look)
        color_bar(figure_of(ax), drawn, str(group.name or "group"), ax=ax)
    else:
        for i, g in enumerate(names := _order(group)):
            mine = (group == g).to_numpy()
            ax.scatter(
                *places[mine].T,
                color=COLORS[i % len(COLORS)],
                marker="os^Dv"[(i // len(COLORS)) % 5],
                label=f"{_words(g)} ({int(mine.sum())})",
                **look,
            )
        if len(names) > 1:
            legend(
                ax,
                loc="center left",
                bbox_to_anchor=(1.08, 0.5),
                markerscale=2,
                title=None if group.name is None else str(group.name),
            )
    for (x, y), fate in zip(corners, known.columns, strict=True):
        side = "center" if abs(x) < 0.1 else "left" if x > 0 else "right"
        level = "bottom" if y > 0.1 else "top" if y < -0.1 else "center"
        ax.text(1.04 * x, 1.04 * y, str(fate), ha=side, va=level, fontsize=9, color=INK)
    describe(ax, title="where cells end")
    ax.set_xlim(-1.25, 1.25)
    ax.set_ylim(-1.2, 1.25)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax
