"""pl.arrows: the mean direction of cells around a place, nothing where there are none."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

from scjepa import pl
from scjepa.pl._arrows import gridded


@pytest.fixture
def cells() -> ad.AnnData:
    """Cells in a square; the left half goes up, the right half to the right."""
    places = np.random.default_rng(0).uniform(size=(600, 2))
    adata = ad.AnnData(np.zeros((600, 1), np.float32), obsm={"X_umap": places})
    adata.obs["half"] = np.where(places[:, 0] < 0.5, "left", "right")
    return adata


def moves(adata: ad.AnnData) -> pd.DataFrame:
    left = (adata.obs["half"] == "left").to_numpy()
    return pd.DataFrame(np.where(left[:, None], [0.0, 0.1], [0.1, 0.0]), index=adata.obs_names)


def test_arrows_of_the_grid_are_means_around_it(cells):
    ax = pl.arrows(cells, moves(cells), kind="grid", n_grid=11)
    (drawn,) = (c for c in ax.collections if isinstance(c, Quiver))
    left, right = drawn.X < 0.3, drawn.X > 0.7
    np.testing.assert_allclose(drawn.V[left], 0.1, atol=1e-3)
    np.testing.assert_allclose(drawn.U[right], 0.1, atol=1e-3)
    assert np.abs(drawn.U[left]).max() < 1e-3 and left.sum() > 10


def test_places_without_cells_have_no_arrow():
    places = np.vstack([np.random.default_rng(0).uniform(size=(200, 2)), [[5.0, 5.0]]])
    x, y, field = gridded(places, np.ones((201, 2)), 21)
    assert np.isnan(field[:, x > 2]).all() and np.isfinite(field[y < 1][:, x < 1]).any()
    shown = field[np.isfinite(field[..., 0])]
    np.testing.assert_allclose(shown, 1.0)


def test_order_of_the_table_does_not_matter_and_cells_without_a_move_are_dots(cells):
    table = moves(cells).iloc[:300]
    one = pl.arrows(cells, table, kind="grid").collections[-1]
    two = pl.arrows(cells, table.iloc[::-1], kind="grid").collections[-1]
    np.testing.assert_allclose(one.U, two.U)
    ax = pl.arrows(cells, table, color="half", kind="stream")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["left", "right"]
    assert sum(len(c.get_offsets()) for c in ax.collections if not isinstance(c, LineCollection)) == 600
    assert any(isinstance(c, LineCollection) for c in ax.collections)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda a: pl.arrows(a, moves(a), basis="X_uma"), KeyError, "basis='X_uma' is not in adata.obsm.*'X_umap'"),
        (lambda a: pl.arrows(a, moves(a), color="hal"), KeyError, "color='hal'"),
        (lambda a: pl.arrows(a, moves(a), kind="lines"), ValueError, "kind='lines'"),
        (lambda a: pl.arrows(a, moves(a).iloc[:, :1]), ValueError, "arrows has 1 columns: two are drawn"),
        (
            lambda a: pl.arrows(a, moves(a).rename(index="x{}".format)),
            ValueError,
            "arrows has a move of none of the 600",
        ),
        (lambda a: pl.arrows(a, moves(a).iloc[[0, 0]]), ValueError, "arrows names cells twice"),
    ],
)
def test_figures_that_are_refused(cells, ask, error, message):
    with pytest.raises(error, match=message):
        ask(cells)
