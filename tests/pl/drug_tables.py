"""Tables as DrugJEPA returns them, with numbers that are easy to check."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

DOSES = (0.0, 0.1, 1.0, 10.0)


def dose_table(lines: tuple[str, ...] = ("K562",), *, doses=DOSES, drug: str = "D01", **columns) -> pd.DataFrame:
    """Curves of EC50 1, 2, ... (from half to four times that) with slope 1 and top 2; the highest dose is abstained from."""
    rows, curve = [], []
    for i, line in enumerate(lines):
        ec50 = 1.0 + i
        rows.append({"perturbation": drug, "line": line, "bottom": 0.0, "top": 2.0, "ec50": ec50, "slope": 1.0,
                     "ec50_lower": ec50 / 2, "ec50_upper": 4 * ec50})  # fmt: skip
        curve += [(line, d, 2 * d / (d + ec50), "near", d == 10) for d in doses]
    table = pd.DataFrame(rows)
    table.attrs["curve"] = pd.DataFrame(curve, columns=["line", "conc", "response", "support", "abstain"]).assign(
        **columns
    )
    return table


def time_table(onsets: dict[str, tuple[float, float, float]], *, abstain: bool = False) -> pd.DataFrame:
    """Responses 2, 4, 2 and 1 at the times 6, 24, 48 and 72 of each context, and their onsets with intervals."""
    rows = [("D01", line, *onset) for line, onset in onsets.items()]
    table = pd.DataFrame(rows, columns=["perturbation", "line", "onset", "lower", "upper"])
    course = zip((6.0, 24.0, 48.0, 72.0), (2.0, 4.0, 2.0, 1.0), strict=True)
    curve = [(line, 5.0, t, y, abstain and t > 50) for t, y in course for line in onsets]  # contexts mixed
    table.attrs["curve"] = pd.DataFrame(curve, columns=["line", "dose", "hours", "response", "abstain"])
    return table


def dots(ax, *, hollow: bool | None = None) -> np.ndarray:
    """Offsets of all dots, or of those with or without a white face."""
    found = [np.empty((0, 2))]
    for c in ax.collections:
        if not isinstance(c, PathCollection) or not len(c.get_offsets()):
            continue
        faces = c.get_facecolor()
        white = len(faces) > 0 and to_hex(faces[0]) == "#ffffff"
        if hollow is None or hollow == white:
            found.append(np.ma.filled(np.asarray(c.get_offsets(), dtype=float), np.nan))
    return np.concatenate(found)


def texts(legend) -> list[str]:
    return [t.get_text() for t in legend.get_texts()]


def overlaps(artists, renderer=None) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap."""
    shown = [a for a in artists if a.get_visible() and a.get_text()]
    boxes = [Text.get_window_extent(a, renderer) for a in shown]  # of an annotation without its line
    return [
        (shown[i].get_text(), shown[j].get_text())
        for i in range(len(shown))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]
