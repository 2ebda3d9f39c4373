"""What every figure shares: colors, axes, words, lines, legends, saving."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorizer import ColorizingArtist
from matplotlib.figure import Figure
from matplotlib.legend import Legend

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's palette, which color-blind readers can tell apart."""

MUTED = "#B8B8B8"
"""What is there for comparison: baselines, genes without a label."""

UNSURE = "#9A9A9A"
"""Intervals that include zero, and what the model abstains from."""

GRID = "#E5E5E5"

INK = "#333333"


def model_colors(models: Iterable[str]) -> dict[str, str]:
    """Return a color for each model; baselines and the ceiling are gray."""
    return {model: COLORS[i % len(COLORS)] for i, model in enumerate(models)}


def axes_for(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes given, else new ones in a figure of ``size`` inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


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


def figure_of(ax: Axes) -> Figure:
    """Return the figure that ``ax`` is part of, whatever lies between."""
    return cast(Figure, ax.get_figure(root=True))


def laid_out(ax: Axes) -> Figure:
    """Return the figure of ``ax`` with its layout decided: from now on places in pixels hold."""
    figure = figure_of(ax)
    figure.draw_without_rendering()
    return figure


def describe(ax: Axes, *, title: str | None = None, x: str | None = None, y: str | None = None) -> None:
    """Write the title and what the two axes are."""
    if title is not None:
        ax.set_title(title, fontsize=10, color=INK)
    if x is not None:
        ax.set_xlabel(x, fontsize=9)
    if y is not None:
        ax.set_ylabel(y, fontsize=9)


def counted(n: int) -> str:
    """Write a number of conditions: ``"1 condition"``, ``"2 conditions"``."""
    return f"{n} condition{'s' * (n != 1)}"


def legend(ax: Axes, *args: Any, **options: Any) -> Legend:
    """Add a legend in small letters without a frame; arguments as in :meth:`matplotlib.axes.Axes.legend`."""
    return ax.legend(*args, **{"frameon": False, "fontsize": 8, "title_fontsize": 8, **options})


def color_bar(figure: Figure, drawn: ColorizingArtist, text: str, **place: Any) -> None:
    """Add a color bar with a label; ``place`` as in :meth:`matplotlib.figure.Figure.colorbar`."""
    bar = figure.colorbar(drawn, **place)
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def grid(ax: Axes, axis: Literal["both", "x", "y"] = "both", *, color: str = GRID, lw: float = 0.6) -> None:
    """Draw pale lines below everything else."""
    ax.grid(axis=axis, color=color, lw=lw)
    ax.set_axisbelow(True)


def line_of_slope(ax: Axes, slope: float = 1.0, *, ls: str = "--", label: str | None = None) -> None:
    """Draw the line through zero on which one axis is ``slope`` times the other, by default equal to it."""
    ax.axline((0, 0), slope=slope, color=INK, lw=0.8, ls=ls, zorder=1, label=label)


def square(ax: Axes, low: float, high: float) -> None:
    """Give both axes the same limits and scale."""
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")


def rows(ax: Axes, names: Sequence[str]) -> None:
    """Name rows at 0, 1, ..., the first at the top."""
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def tidy(ax: Axes) -> None:
    """Take away the frame that carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def finish(ax: Axes, save: str | os.PathLike[str] | None) -> Figure:
    """Return the figure of ``ax``, written to ``save`` first if that is given."""
    figure = figure_of(ax)
    if save is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")
    return figure
