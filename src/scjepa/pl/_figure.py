"""What every figure shares: colors, panels, saving."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's palette, which color-blind readers can tell apart."""

MUTED = "#B8B8B8"
"""What is there for comparison: baselines, genes without a label."""

INK = "#333333"


def panels(n: int, ax: Axes | Sequence[Axes] | None, *, size: tuple[float, float], columns: int) -> list[Axes]:
    """Return ``n`` axes: new ones in rows of ``columns`` (``size`` inches each), or those given as ``ax``."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) < n:
            raise ValueError(f"ax holds {len(given)} axes, {n} panels are to be drawn. Give {n} axes or ax=None.")
        return given[:n]
    rows = -(-n // columns)
    columns = -(-n // rows)  # four panels are two by two, not three and one
    figure, grid = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, layout="constrained"
    )
    for spare in grid.ravel()[n:]:
        figure.delaxes(spare)
    return list(grid.ravel()[:n])


def tidy(ax: Axes) -> None:
    """Take away the frame that carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def finish(ax: Axes, save: str | os.PathLike[str] | None) -> Figure:
    """Return the figure of ``ax``, written to ``save`` first if that is given."""
    figure = cast(Figure, ax.get_figure(root=True))
    if save is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")
    return figure
