"""Where one population becomes several, on an embedding."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from scjepa._checks import require_column, some
from scjepa._docs import docs
from scjepa.pl._embedding import dots, embedding, places_of
from scjepa.pl._figure import INK, axes_for, finish, legend

NEEDED = ("from_time", "to_time", "branches", "shares", "stability", "stable", "cells")
MARK = "#D40000"


@docs
def branch_points(
    adata: AnnData,
    table: pd.DataFrame,
    *,
    basis: str = "X_umap",
    color: str | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw where branch points are on an embedding, at the middle of the cells nearest to each.

    Stable ones are filled, others hollow. The legend gives time, share of each way and stability.

    Parameters
    ----------
    adata
        Cells with ``obsm[basis]``.
    table
        What ``TrajectoryJEPA.branch_points`` returned.
    basis
        Key of the embedding.
    color
        ``obs`` column that colors cells: a number by shade, anything else by label.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError, ValueError
        For an absent embedding or column, a table of something else, and branch points of other cells.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.pl import branch_points
    >>> adata = anndata.AnnData(np.zeros((50, 1)), obsm={"X_umap": np.random.default_rng(0).uniform(size=(50, 2))})
    >>> point = {"from_time": 1.0, "to_time": 2.0, "branches": (("B",), ("T",)), "shares": (0.3, 0.7)}
    >>> point |= {"stability": 0.9, "stable": True, "cells": tuple(adata.obs_names[:10])}
    >>> ax = branch_points(adata, pd.DataFrame([point]))
    >>> ax.get_legend().get_texts()[0].get_text()
    'A: 1 to 2, 30 % B, 70 % T, stability 0.90'
    """
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise ValueError(
            f"table lacks the columns {some(missing)}: expected what TrajectoryJEPA.branch_points returned."
        )
    places = places_of(adata, basis)
    ax = axes_for(ax, (6.4, 4.8))
    dots(ax, places, None if color is None else require_column(adata.obs, color, "color"), color)
    background = ax.get_legend()
    unit = f" {table.attrs['unit']}" if table.attrs.get("unit") else ""
    handles = []
    for i, (_, point) in enumerate(table.iterrows()):
        at = adata.obs_names.get_indexer(list(map(str, point["cells"])))
        if (at < 0).all():
            raise ValueError(
                f"none of the cells of a branch point is in adata ({some(list(point['cells']), 3)}). Draw it on the cells that it was "
                "found in."
            )
        x, y = places[at[at >= 0]].mean(0)
        name = chr(ord("A") + i) if i < 26 else str(i + 1)
        look: dict[str, Any] = {"s": 230, "edgecolor": MARK, "lw": 1.8, "zorder": 4}
        handles.append(
            ax.scatter(
                [x], [y], facecolor=MARK if point["stable"] else "white", **look, label=_words(name, point, unit)
            )
        )
        ax.text(
            x,
            y,
            name,
            color="white" if point["stable"] else MARK,
            ha="center",
            va="center_baseline",
            fontsize=9,
            weight="bold",
            zorder=5,
        )
    if len(table):
        described = legend(
            ax, handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), markerscale=0.5, borderaxespad=0.2
        )
        if background is not None:
            ax.add_artist(background)
            ax.legend_ = described  # the one with the words is the axes' own
    title = f"{len(table)} branch point{'s' * (len(table) != 1)}" if len(table) else "no branch point found"
    embedding(ax, places, basis, title)
    ax.title.set_color(INK)
    finish(ax, save)
    return ax


def _words(name: str, point: pd.Series, unit: str) -> str:
    ways = ", ".join(
        f"{share:.0%}".replace("%", " %") + f" {' / '.join(map(str, way))}"
        for way, share in zip(point["branches"], point["shares"], strict=True)
    )
    where = f" ({point['condition']})" if "condition" in point else ""
    stable = "" if point["stable"] else ", not stable"
    return f"{name}{where}: {point['from_time']:.3g} to {point['to_time']:.3g}{unit}, {ways}, stability {point['stability']:.2f}{stable}"
