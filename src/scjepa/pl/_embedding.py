"""Cells on an embedding: the background of everything that is drawn on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.axes import Axes

from scjepa._checks import closest, some
from scjepa._types import FloatArray
from scjepa.pl._figure import COLORS, MUTED, color_bar, describe, figure_of, legend

MOST = 20
"""Labels that a legend names at most; of more, the rest share gray."""


MARKERS = "os^Dv"
"""Shapes for labels beyond the colors."""


def places_of(adata: AnnData, basis: str) -> FloatArray:
    """Return the first two coordinates ``(n, 2)`` of an embedding; raise where it is absent or has one only."""
    if basis not in adata.obsm:
        raise KeyError(
            f"basis={basis!r} is not in adata.obsm. Found: {some(sorted(adata.obsm), 10)}.{closest(basis, adata.obsm)}"
        )
    held: Any = adata.obsm[basis]
    places = np.asarray(held.toarray() if sp.issparse(held) else held, dtype=np.float64)
    if places.shape[1] < 2:
        raise ValueError(f"adata.obsm[{basis!r}] has {places.shape[1]} column(s): two are drawn.")
    return places[:, :2]


def dots(ax: Axes, places: FloatArray, values: pd.Series | None, name: str | None) -> None:
    """Draw cells, coloured by numbers or by labels, or all gray."""
    look: dict[str, Any] = {"s": 7, "lw": 0, "alpha": 0.7, "zorder": 1, "rasterized": True}
    if values is None:
        ax.scatter(*places.T, color=MUTED, **look)
    elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        drawn = ax.scatter(places[:, 0], places[:, 1], c=values.to_numpy(dtype=float), cmap="viridis", **look)
        color_bar(figure_of(ax), drawn, str(name), ax=ax)
    else:
        text = values.astype(object).where(values.notna(), "missing").astype(str)
        names = text.value_counts().index.tolist()
        shown = sorted(names[:MOST])
        for i, label in enumerate(shown):
            mine = (text == label).to_numpy()
            ax.scatter(
                *places[mine].T, color=COLORS[i % len(COLORS)], marker=MARKERS[i // len(COLORS)], label=label, **look
            )
        if len(names) > MOST:
            mine = ~text.isin(shown).to_numpy()
            ax.scatter(*places[mine].T, color=MUTED, label=f"{len(names) - MOST} others", **look)
        legend(ax, title=name, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)


def embedding(ax: Axes, places: FloatArray, basis: str, title: str) -> None:
    """Write the title and name the axes, whose units mean nothing; every cell is inside."""
    short = basis.removeprefix("X_")
    describe(ax, title=title, x=f"{short} 1", y=f"{short} 2")
    low, high = places.min(0), places.max(0)
    room = 0.03 * np.maximum(high - low, 1e-12)  # lines would cut off cells without an arrow
    ax.set_xlim(low[0] - room[0], high[0] + room[0])
    ax.set_ylim(low[1] - room[1], high[1] + room[1])
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["top", "right"]].set_visible(False)
