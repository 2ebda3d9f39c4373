"""Responses over exposure time, and when they fade."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scjepa._docs import docs
from scjepa.pl._drug_tables import (
    ABSTAINS,
    RESPONSE,
    SHARED,
    colors_of,
    course_legend,
    course_panels,
    courses,
    draw_course,
    flags,
    is_left,
    shortened,
    wrapped,
)
from scjepa.pl._figure import INK, describe, finish, grid, tidy

NEEDED = ("onset", "lower", "upper")
MADE_BY = "DrugJEPA.resistance_emergence"


@docs
def resistance(
    table: pd.DataFrame,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw predicted responses over exposure time, with a mark where each fades.

    The mark stands on the line where the response falls below its share of the maximum; the bar through it spans the
    interval of the onset. Predictions are dots, hollow where the model abstains. Up to three contexts share a panel,
    more have one each, on the same axes.

    Parameters
    ----------
    table
        What ``DrugJEPA.resistance_emergence`` returned.
    %(panel_axes)s
        Up to three contexts take one.
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of onsets or has lost its predictions.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import resistance
    >>> table = pd.DataFrame(
    ...     {"perturbation": ["A"], "line": ["K562"], "onset": [36.0], "lower": [24.0], "upper": [48.0]}
    ... )
    >>> table.attrs["curve"] = pd.DataFrame({"line": "K562", "time": [6.0, 24.0, 48.0], "response": [4.0, 3.0, 1.0]})
    >>> figure = resistance(table)
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['K562: fades at 36 (24 to 48)', 'onset of resistance, interval']
    """
    found = courses(table, NEEDED, MADE_BY, last=True)
    parts = list(found.parts())
    axes = course_panels(len(parts), ax, found.drug, (7.0, 3.4))
    last = float(found.curve[found.axis].max())
    marks: set[str] = set()
    for panel, color, (where, row, curve) in zip(axes, colors_of(len(parts)), parts, strict=True):
        x, y = (curve[name].to_numpy(dtype=float) for name in (found.axis, RESPONSE))
        sure = ~flags(curve)
        marks |= set() if sure.all() else {"abstains"}
        panel.plot(x, y, color=color, lw=1.6, zorder=3)
        draw_course(panel, x, y, sure, color)
        onset, low, high = (float(row[name]) for name in NEEDED)
        if np.isfinite(onset):
            height = float(np.interp(onset, x, np.maximum(y, 0)))  # responses below 0 count as none
            low, high = (low if np.isfinite(low) else onset), min(high if np.isfinite(high) else last, last)
            panel.plot([low, high], [height, height], color=color, lw=5, alpha=0.3, solid_capstyle="butt", zorder=2)
            panel.scatter([onset], [height], marker="X", s=70, color=color, edgecolor="white", lw=0.8, zorder=5)
            marks.add("onset")
        text = _in_words(row)
        if len(parts) <= SHARED:
            panel.plot([], [], color=color, lw=1.6, marker="o", ms=4.5, label=f"{where}: {text}")
        else:
            describe(panel, title=f"{shortened(where)}\n{text}")
    shared = list(dict.fromkeys(axes))
    values = np.append(found.curve[RESPONSE].to_numpy(dtype=float), 0.0)
    margin = 0.08 * float(np.ptp(values)) or 1.0
    for panel in shared:
        panel.axhline(0, color=INK, lw=0.8, zorder=1)
        panel.set_ylim(values.min() - margin, values.max() + margin)
        describe(panel, x=found.axis, y="response along the effect" if is_left(panel, ax) else None)
        grid(panel)
        tidy(panel)
    if len(parts) <= SHARED:
        describe(shared[0], title=wrapped(found.drug))
    handles = list(shared[0].get_legend_handles_labels()[0])
    gray: dict[str, Any] = {"color": "#777777", "label": "onset of resistance, interval"}
    if "onset" in marks:
        handles.append(Line2D([], [], marker="X", ms=7, mec="white", lw=0, **gray))
    if "abstains" in marks:
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mfc="white", **gray | {"label": ABSTAINS}))
    course_legend(shared[0], handles, beside=len(parts) <= SHARED, inside=ax is not None)
    return finish(axes[0], save)


def _in_words(row: pd.Series) -> str:
    """Write when the response fades."""
    onset, low, high = (float(row[name]) for name in NEEDED)
    if not np.isfinite(onset):
        return "does not fade"
    if not np.isfinite(low):
        return f"fades at {onset:.3g}"
    return (
        f"fades at {onset:.3g} ({low:.3g} to {high:.3g})"
        if np.isfinite(high)
        else f"fades at {onset:.3g} (from {low:.3g})"
    )
