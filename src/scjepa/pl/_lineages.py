"""Which clusters descend from which: a graph over times."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from scjepa._checks import some
from scjepa._docs import docs
from scjepa.pl._figure import COLORS, INK, MUTED, axes_for, describe, finish, tidy

NEEDED = ("time", "next_time", "source", "target", "flow", "descent", "ancestry")
SWEEPS = 6
"""Passes in which clusters are put next to those that they come from and go to."""


@docs
def lineages(
    flows: pd.DataFrame,
    *,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw clusters at their times, and which descend from which.

    A box is a cluster at a time, as high as its share of the cells; edges are as wide as the flow along them. The edge from the main
    parent is dark; others are pale.

    Parameters
    ----------
    flows
        What ``TrajectoryJEPA.lineage_relations`` returned; without ``attrs["parents"]`` the largest edge into a cluster is
        its parent.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        For a table of something else, or without an edge.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import lineages
    >>> edge = {"time": 0.0, "next_time": 1.0, "source": "stem", "flow": 0.5, "descent": 0.5, "ancestry": 1.0}
    >>> ax = lineages(pd.DataFrame([edge | {"target": "left"}, edge | {"target": "right"}]))
    >>> sorted(text.get_text() for text in ax.texts)
    ['left', 'right', 'stem']
    """
    missing = [name for name in NEEDED if name not in flows.columns]
    if missing:
        raise ValueError(
            f"flows lacks the columns {some(missing)}: expected what TrajectoryJEPA.lineage_relations returned."
        )
    if not len(flows):
        raise ValueError("flows has no edge: ask for edges of smaller shares, lineage_relations(..., least=0.01).")
    flows = flows.assign(source=flows["source"].astype(str), target=flows["target"].astype(str))
    levels = np.unique(flows[["time", "next_time"]].to_numpy(dtype=float))
    size = _sizes(flows)
    height = _heights(flows, levels, size)
    most = max(len([1 for t, _ in size if t == level]) for level in levels)
    ax = axes_for(ax, (max(4.5, 1.6 * len(levels) + 1.5), max(3.2, 0.42 * most + 1.2)))
    names = sorted({name for _, name in size})
    color = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    x = {t: float(i) for i, t in enumerate(levels)}
    parent = _parents(flows)
    widest = float(flows["flow"].max())
    for _, edge in flows.sort_values("flow").iterrows():
        a, b = (float(edge["time"]), edge["source"]), (float(edge["next_time"]), edge["target"])
        main = parent.get(b) == edge["source"]
        ax.add_patch(
            FancyArrowPatch(
                (x[a[0]] + 0.04, height[a]), (x[b[0]] - 0.04, height[b]), connectionstyle="arc3,rad=0", arrowstyle="-",
                lw=0.6 + 7 * float(edge["flow"]) / widest, color=INK if main else MUTED, alpha=0.75 if main else 0.5,
                zorder=2 if main else 1, capstyle="butt",
            )
        )  # fmt: skip
    for (t, name), share in size.items():
        ax.scatter(
            [x[t]], [height[t, name]], s=30 + 330 * share, color=color[name], edgecolor="white", lw=0.8, zorder=3
        )
        ax.annotate(
            name, (x[t], height[t, name]), (0, 5 + 0.5 * np.sqrt(30 + 330 * share)), textcoords="offset points", ha="center",
            fontsize=7, color=INK, zorder=4, bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip
    unit = flows.attrs.get("unit", "")
    ax.set_xticks(range(len(levels)), [f"{t:g}" for t in levels])
    ax.set_xlim(-0.5, len(levels) - 0.5)
    values = list(height.values())
    ax.set_ylim(min(values) - 0.6, max(values) + 0.8)
    ax.set_yticks([])
    describe(ax, title="descent of clusters (dark: main parent)", x=f"time ({unit})" if unit else "time")
    tidy(ax)
    ax.spines["left"].set_visible(False)
    finish(ax, save)
    return ax


def _sizes(flows: pd.DataFrame) -> dict[tuple[float, str], float]:
    """Return clusters at their times and which share of the cells each has, as far as flows tell."""
    leaves = flows.groupby(["time", "source"])["flow"].sum()
    arrives = flows.groupby(["next_time", "target"])["flow"].sum()
    out = {(float(t), str(name)): float(share) for (t, name), share in arrives.items()}
    return out | {(float(t), str(name)): float(share) for (t, name), share in leaves.items()}


def _parents(flows: pd.DataFrame) -> dict[tuple[float, str], str]:
    held = flows.attrs.get("parents")
    if held:
        table = pd.DataFrame(held)
        return {
            (float(t), str(c)): str(p) for t, c, p in zip(table["time"], table["cluster"], table["parent"], strict=True)
        }
    best = flows.loc[flows.groupby(["next_time", "target"])["ancestry"].idxmax()]
    return {(float(t), c): p for t, c, p in zip(best["next_time"], best["target"], best["source"], strict=True)}


def _heights(
    flows: pd.DataFrame, levels: np.ndarray, size: dict[tuple[float, str], float]
) -> dict[tuple[float, str], float]:
    """Put the clusters of each time at distances of one, in the order of the mean place of those that they are linked to."""
    height: dict[tuple[float, str], float] = {}
    for t in levels:
        here = sorted(name for level, name in size if level == t)
        height |= {(float(t), name): i - (len(here) - 1) / 2 for i, name in enumerate(here)}
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for t in levels if forward else levels[::-1]:
            here = [name for level, name in size if level == t]
            edges = flows[flows["next_time" if forward else "time"] == t]
            mine, other, when = ("target", "source", "time") if forward else ("source", "target", "next_time")
            place = {}
            for name in here:
                part = edges[edges[mine] == name]
                weight = part["flow"].to_numpy(dtype=float)
                at = [height[float(s), n] for s, n in zip(part[when], part[other], strict=True)]
                place[name] = float(np.average(at, weights=weight)) if weight.sum() > 0 else height[float(t), name]
            order = sorted(here, key=lambda name: (place[name], name))
            height |= {(float(t), name): i - (len(here) - 1) / 2 for i, name in enumerate(order)}
    return height
