"""Samples (donors, animals) as courses, and how far apart they are."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scjepa._checks import some
from scjepa._docs import docs
from scjepa.pl._figure import COLORS, MUTED, color_bar, describe, figure_of, finish, legend, panels, tidy

NEEDED = ("sample", "group", "medoid")
NAMED = 40
"""Samples whose names fit beside the distances."""


@docs
def sample_courses(
    table: pd.DataFrame,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw the courses of samples in two coordinates, by group, and their distances.

    A course is a line through the means of its times, which starts at a ring; the medoid of each group is thick. Distances
    are ordered by group.

    Parameters
    ----------
    table
        What ``TrajectoryJEPA.stratify_samples`` returned.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        For a table of something else, or one that has lost its ``attrs``.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import sample_courses
    >>> table = pd.DataFrame({"sample": ["a", "b"], "group": ["1", "2"], "medoid": True})
    >>> table.attrs = {
    ...     "courses": {"a": [[0, 0, 0], [1, 1, 0]], "b": [[0, 0, 0], [1, 0, 1]]},
    ...     "distances": [[0, 1], [1, 0]],
    ... }
    >>> [ax.get_title() for ax in sample_courses(table).axes[:2]]
    ['2 samples in 2 groups', 'distance between courses']
    """
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise ValueError(
            f"table lacks the columns {some(missing)}: expected what TrajectoryJEPA.stratify_samples returned."
        )
    if not {"courses", "distances"} <= set(table.attrs):
        raise ValueError(
            "table has lost attrs['courses'] or attrs['distances'], as joining or saving tables does. Draw it as "
            "TrajectoryJEPA.stratify_samples returned it."
        )
    left, right = panels(2, ax, size=(4.6, 3.8), columns=2)
    groups = sorted(table["group"].astype(str).unique(), key=lambda g: (len(g), g))
    color = {g: COLORS[i % len(COLORS)] for i, g in enumerate(groups)}
    for _, row in table.sort_values("medoid").iterrows():
        course = np.asarray(table.attrs["courses"][str(row["sample"])], dtype=float)
        of, medoid = color[str(row["group"])], bool(row["medoid"])
        left.plot(
            course[:, 1],
            course[:, 2],
            color=of,
            lw=2.6 if medoid else 0.9,
            alpha=1 if medoid else 0.5,
            marker="o",
            ms=5 if medoid else 2.5,
            zorder=3 + medoid,
        )
        left.scatter(course[:1, 1], course[:1, 2], s=46, facecolor="white", edgecolor=of, lw=1.2, zorder=5 + medoid)
    for g in groups:
        mine = table[table["group"].astype(str) == g]
        center = str(mine.loc[mine["medoid"], "sample"].iloc[0]) if mine["medoid"].any() else ""
        left.plot([], [], color=color[g], lw=2.6, label=f"group {g}: {len(mine)} (medoid {center})")
    legend(left, loc="best")
    n = len(groups)
    describe(left, title=f"{len(table)} samples in {n} group{'s' * (n != 1)}", x="coordinate 1", y="coordinate 2")
    tidy(left)
    order = np.lexsort([table["sample"].astype(str), [groups.index(g) for g in table["group"].astype(str)]])
    distances = np.asarray(table.attrs["distances"], dtype=float)[np.ix_(order, order)]
    drawn = right.imshow(np.maximum(distances, 0), cmap="viridis_r", aspect="equal")
    color_bar(figure_of(right), drawn, "energy distance", ax=right, shrink=0.85)
    edges = np.flatnonzero(np.diff([groups.index(g) for g in table["group"].astype(str).to_numpy()[order]])) + 0.5
    for edge in edges:
        right.axhline(edge, color="white", lw=1.6)
        right.axvline(edge, color="white", lw=1.6)
    right.set_xticks([])
    right.set_yticks([])
    if len(table) <= NAMED:
        right.set_yticks(
            np.arange(len(table)),
            table["sample"].astype(str).to_numpy()[order],
            fontsize=max(4, min(8, 200 / len(table))),
        )
    right.tick_params(length=0)
    right.spines[:].set_color(MUTED)
    describe(right, title="distance between courses")
    return finish(left, save)
