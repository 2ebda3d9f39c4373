"""Where do cells go? Arrows on an embedding, averaged on a grid."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from sklearn.neighbors import NearestNeighbors

from scjepa._checks import require_column, require_member, require_positive_int, some
from scjepa._docs import docs
from scjepa._types import FloatArray
from scjepa.pl._embedding import dots, embedding, places_of
from scjepa.pl._figure import INK, axes_for, finish

NEAR = 30
"""Cells that an arrow of the grid is a mean of, at most."""
LEAST = 3.0
"""Weight of cells around a place from which it has an arrow: fewer are no mean."""
WIDTH = 1.0
"""Width of the Gaussian, in distances of the grid."""


@docs
def arrows(
    adata: AnnData,
    arrows: pd.DataFrame,
    *,
    basis: str = "X_umap",
    color: str | None = None,
    kind: Literal["stream", "grid"] = "stream",
    n_grid: int = 30,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw where cells go, on two coordinates of an embedding.

    Parameters
    ----------
    adata
        Cells with ``obsm[basis]``.
    arrows
        What ``TrajectoryJEPA.velocity_arrows`` returned: two columns or more, indexed by cell names; the first two are drawn.
        Cells without an arrow (NaN, or not in the table) are drawn as dots only.
    basis
        Key of the embedding that arrows were asked on.
    color
        ``obs`` column that colors cells: a number by shade, anything else by label.
    kind
        ``"stream"`` (lines) or ``"grid"`` (arrows at places of a grid, their length that of the mean move, to scale with one
        another).
    n_grid
        Places along the longer side of the grid.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError, ValueError
        For an absent embedding or column, and arrows that are of none of the cells.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.pl import arrows
    >>> places = np.random.default_rng(0).uniform(size=(200, 2))
    >>> adata = anndata.AnnData(np.zeros((200, 1)), obsm={"X_umap": places})
    >>> right = pd.DataFrame([[0.1, 0.0]] * 200, index=adata.obs_names)
    >>> ax = arrows(adata, right, kind="grid")
    """
    require_member(kind, ("stream", "grid"), "kind", where="the kinds of arrows")
    require_positive_int(n_grid, "n_grid", minimum=3)
    places, moves = _read(adata, arrows, basis)
    ax = axes_for(ax, (5.6, 4.4))
    dots(ax, places, None if color is None else require_column(adata.obs, color, "color"), color)
    known = np.isfinite(moves).all(1)
    x, y, field = gridded(places[known], moves[known], n_grid)
    seen = np.isfinite(field[..., 0])
    if kind == "stream" and seen.any():
        u, v = (np.ma.masked_invalid(field[..., i]) for i in (0, 1))
        ax.streamplot(x, y, u, v, color=INK, linewidth=0.9, arrowsize=1.0, density=1.2, zorder=3)
    elif seen.any():
        at = np.stack(np.meshgrid(x, y), -1)[seen]
        length = float(np.quantile(np.linalg.norm(field[seen], axis=1), 0.95)) or 1.0
        scale = length / (
            1.6 * max(x[1] - x[0], y[1] - y[0])
        )  # the longest, but for a few, spans some places of the grid
        ax.quiver(*at.T, *field[seen].T, angles="xy", scale_units="xy", scale=scale, color=INK, width=0.004, zorder=3)
    embedding(ax, places, basis, "where cells go")
    finish(ax, save)
    return ax


def gridded(places: FloatArray, moves: FloatArray, n_grid: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return a grid, equally spaced in both directions, and mean moves around its places ``(y, x, 2)``, NaN where few cells are.

    Parameters
    ----------
    places, moves
        ``(n, 2)``.
    n_grid
        Places along the longer side.
    """
    low, high = places.min(0), places.max(0)
    step = float((high - low).max()) / (n_grid - 1) or 1.0
    sides = [
        np.linspace(a, a + step * m, m + 1)
        for a, m in zip(low, np.ceil((high - low) / step - 1e-9).astype(int).clip(1), strict=True)
    ]
    grid = np.stack(np.meshgrid(*sides), -1)
    k = min(NEAR, len(places))
    distance, near = NearestNeighbors(n_neighbors=k).fit(places).kneighbors(grid.reshape(-1, 2))
    weight = np.exp(-0.5 * (distance / (WIDTH * step)) ** 2)
    total = weight.sum(1)
    mean = (weight[..., None] * moves[near]).sum(1) / np.maximum(total, 1e-300)[:, None]
    mean[total < min(LEAST, 0.5 * k)] = np.nan
    return sides[0], sides[1], mean.reshape(grid.shape)


def _read(adata: AnnData, arrows: pd.DataFrame, basis: str) -> tuple[FloatArray, FloatArray]:
    """Return places and moves of all cells, ``(n, 2)`` each."""
    places = places_of(adata, basis)
    if arrows.shape[1] < 2:
        raise ValueError(f"arrows has {arrows.shape[1]} columns: two are drawn.")
    if not arrows.index.is_unique:
        raise ValueError("arrows names cells twice. Run adata.obs_names_make_unique() before asking for them.")
    moves = arrows.iloc[:, :2].reindex(adata.obs_names).to_numpy(dtype=np.float64)
    if not np.isfinite(moves).all(1).any():
        raise ValueError(
            f"arrows has a move of none of the {adata.n_obs} cells; it names {some(list(arrows.index), 3)}. Give those of "
            "model.velocity_arrows(...) for these cells."
        )
    return places, moves
