"""pl.synergy_surface: colors are the numbers, centered at 0; hatches are abstentions; the mean is in the title."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from tests.pl.drug_tables import texts

from scjepa import pl

A, B = (0.0, 0.1, 1.0), (0.0, 5.0)


def surface(*lines: str, scale: float = 1.0, a=A, b=B) -> pd.DataFrame:
    """Excess of 0 alone, and ``scale * (a - b / 10)`` of both; the highest dose of a is abstained from."""
    rows = [
        (line, x, y, 1.0, scale * (x - y / 10) if x * y else 0.0, x == max(a))
        for line in lines
        for y in b
        for x in a[::-1]
    ]
    table = pd.DataFrame(rows, columns=["line", "dose_a", "dose_b", "response", "synergy", "abstain"])
    table.attrs.update(drugs=("belinostat", "JQ1"), reference="bliss")
    return table


def test_colors_are_synergy_centered_at_zero_with_doses_in_order():
    ax = pl.synergy_surface(surface("K562")).axes[0]
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), [[0, 0], [0, -0.4], [0, 0.5]])
    assert image.get_clim() == (-0.5, 0.5) and image.origin == "lower"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "5"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "0.1", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("JQ1 (dose)", "belinostat (dose)")
    assert image.cmap(1.0)[0] > image.cmap(1.0)[2], "synergy is red"


def test_the_title_has_the_mean_where_both_drugs_are_there():
    assert pl.synergy_surface(surface("K562")).axes[0].get_title() == "K562\nmean synergy +0.05 (bliss)"
    plain = surface("K562").drop(columns="line")
    plain.attrs.clear()
    ax = pl.synergy_surface(plain).axes[0]
    assert ax.get_title() == "mean synergy +0.05" and ax.get_xlabel() == "drug b (dose)"


def test_cells_hold_their_numbers_where_both_drugs_are_there():
    texts_ = {t.get_position(): t.get_text() for t in pl.synergy_surface(surface("K562")).axes[0].texts}
    assert texts_ == {(1, 1): "-0.40", (1, 2): "0.50"}
    wide = surface("K562", a=tuple(np.arange(12.0)))
    assert not pl.synergy_surface(wide).axes[0].texts


def test_abstained_cells_are_hatched():
    figure = pl.synergy_surface(surface("K562"))
    hatched = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert [p.get_xy() for p in hatched] == [(-0.5, 1.5), (0.5, 1.5)]
    assert texts(figure.legends[0]) == ["hatched: the model abstains"]
    none = pl.synergy_surface(surface("K562").assign(abstain=False))
    assert not none.legends and not none.axes[0].patches
    assert not pl.synergy_surface(surface("K562").drop(columns="abstain")).legends


def test_contexts_have_panels_on_one_scale():
    table = pd.concat([surface("a"), surface("b", scale=-3.0)])
    table.attrs.update(drugs=("x", "y"), reference="zip")
    first, second, bar = pl.synergy_surface(table).axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-1.5, 1.5)
    assert second.get_title() == "b\nmean synergy -0.15 (zip)"
    assert bar.get_ylabel() == "synergy: response beyond\nthe expected one"
    assert (first.get_ylabel(), second.get_ylabel()) == ("x (dose)", "")


def test_missing_cells_are_empty_and_out_of_the_mean():
    table = surface("K562")
    table.loc[(table.dose_a == 1) & (table.dose_b == 5), "synergy"] = np.nan
    ax = pl.synergy_surface(table[~((table.dose_a == 0.1) & (table.dose_b == 0))]).axes[0]
    assert np.ma.getmaskarray(ax.images[0].get_array()).tolist() == [[False, False], [True, False], [False, True]]
    assert ax.get_title() == "K562\nmean synergy -0.4 (bliss)"


def test_no_synergy_at_all():
    assert pl.synergy_surface(surface("K562", scale=0.0)).axes[0].images[0].get_clim() == (-1, 1)


def test_own_axes_and_file(tmp_path):
    figure, axes = plt.subplots(1, 2)
    assert pl.synergy_surface(surface("a", "b"), ax=axes, save=tmp_path / "s.png") is figure
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert texts(axes[0].get_legend()) == ["hatched: the model abstains"] and not figure.legends


def test_errors():
    with pytest.raises(
        ValueError, match=r"table lacks the columns \['synergy'\]: expected the table of DrugJEPA.synergy"
    ):
        pl.synergy_surface(surface("a").drop(columns="synergy"))
    with pytest.raises(ValueError, match="table has 6 rows that repeat a pair of doses of 'a'"):
        pl.synergy_surface(surface("a", "a"))
    with pytest.raises(ValueError, match="no value of 'synergy' to draw"):
        pl.synergy_surface(surface("a").assign(synergy=np.nan))
    with pytest.raises(ValueError, match="table has doses below 0"):
        pl.synergy_surface(surface("a").assign(dose_a=-1.0))
    with pytest.raises(ValueError, match="values of 'dose_b' are missing or no finite numbers"):
        pl.synergy_surface(surface("a").assign(dose_b=np.nan))
