"""pl.reliability: rows for few conditions, dots for many, a panel per context, and counts in words."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from scjepa import pl


def table(n: int = 4, **columns) -> pd.DataFrame:
    """Effects of 3, 1, 0.5 and 0 times their noise (again and again): reliabilities 0.9, 0.5, 0.2 and 0."""
    noise = np.linspace(1, 2, n)
    ratio = np.resize([3.0, 1.0, 0.5, 0.0], n)
    out = pd.DataFrame({"perturbation": [f"P{i}" for i in range(n)], **columns, "n_cells": 20})
    return out.assign(effect_size=ratio * noise, noise=noise, reliability=ratio**2 / (ratio**2 + 1))


def dots(ax) -> np.ndarray:
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)])


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_rows_hold_the_effect_a_bar_of_noise_and_the_name():
    (ax,) = pl.reliability(table().iloc[::-1]).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["P0", "P1", "P2", "P3"]  # the most reliable first
    noise = [1, 4 / 3, 5 / 3, 2]
    np.testing.assert_allclose(dots(ax), [[3, 0], [4 / 3, 1], [5 / 6, 2], [0, 3]])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], noise)
    assert ax.yaxis_inverted()
    assert texts(ax) == [
        "reliable, 0.5 and more: 2 of 4",
        "weak, 0.1 to 0.5: 1 of 4",
        "noise, below 0.1: 1 of 4",
        "length of the noise",
    ]


def test_bands_have_colors_of_their_own():
    (ax,) = pl.reliability(table()).axes
    colors = [tuple(c.get_facecolor()[0]) for c in ax.collections if len(c.get_offsets())]
    assert len(set(colors)) == 3


@pytest.mark.parametrize("n", [41, 300])
def test_many_conditions_are_dots_with_the_line_where_effect_is_noise(n):
    data = table(n)
    (ax,) = pl.reliability(data).axes
    found = dots(ax)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(data[["noise", "effect_size"]], axis=0))
    half, tenth = ax.lines
    assert half.get_slope() == pytest.approx(1) and half.get_linestyle() == "--"
    assert tenth.get_slope() == pytest.approx(1 / 3)  # there the reliability is 1 / (1 + 9)
    assert texts(ax)[0] == f"reliable, 0.5 and more: {-(-n // 4) + -(-(n - 1) // 4)} of {n}"
    assert "effect = noise" in texts(ax)
    names = [t.get_text() for t in ax.texts]
    largest = data.sort_values("effect_size", ascending=False)["perturbation"][:10]
    assert 3 <= len(names) <= 10 and set(names) <= set(largest)


def test_names_can_be_left_out():
    assert not pl.reliability(table(50), n_labels=0).axes[0].texts


def test_contexts_have_panels_on_the_same_axes():
    both = pd.concat([table(4, line="y"), table(3, line="x").assign(noise=9.0)])
    x, y = pl.reliability(both).axes
    assert (x.get_title(), y.get_title()) == ("x", "y")
    assert x.get_xlim() == y.get_xlim()
    assert [t.get_text() for t in x.get_yticklabels()] == ["P0", "P1", "P2"]
    assert texts(x)[0] == "reliable, 0.5 and more: 2 of 3"
    many = pd.concat([table(50, line="y"), table(4, line="x")])
    a, b = pl.reliability(many).axes
    assert a.get_xlim() == b.get_xlim() and a.get_ylim() == b.get_ylim()
    assert len(dots(a)) == 4 and len(dots(b)) == 50


def test_contexts_of_one_condition_each_share_a_panel_and_are_named():
    (ax,) = pl.reliability(table(4, line=list("wxyz")).assign(perturbation="drug")).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["drug, w", "drug, x", "drug, y", "drug, z"]


def test_doses_within_contexts_are_in_the_names():
    data = pd.concat([table(2, line=c, dose=d) for c in "xy" for d in (1.0, 2.5)])
    x, _ = pl.reliability(data).axes
    assert {t.get_text() for t in x.get_yticklabels()} == {"P0, 1", "P0, 2.5", "P1, 1", "P1, 2.5"}


def test_rows_of_unknown_noise_are_left_out():
    data = table()
    data.loc[0, ["noise", "effect_size", "reliability"]] = np.nan
    assert texts(pl.reliability(data).axes[0])[0] == "reliable, 0.5 and more: 1 of 3"


def test_effects_without_any_noise():
    (ax,) = pl.reliability(table().assign(noise=0.0, effect_size=0.0, reliability=0.0)).axes
    assert ax.get_xlim() == (0, 1)
    assert pl.reliability(pd.concat([table().assign(noise=0.0)] * 20)).axes


def test_own_axes_and_file(tmp_path):
    figure, ax = plt.subplots()
    assert pl.reliability(table(), ax=ax, save=tmp_path / "r.png") is figure
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="ax holds 1 axes, 2 panels are to be drawn"):
        pl.reliability(pd.concat([table(line="x"), table(line="y")]), ax=ax)


def test_errors():
    with pytest.raises(TypeError, match="table is a list: expected the DataFrame of PerturbJEPA.get_reliability"):
        pl.reliability([1])
    with pytest.raises(ValueError, match=r"table lacks the columns \['noise'\]"):
        pl.reliability(table().drop(columns="noise"))
    with pytest.raises(ValueError, match="table has no rows to draw"):
        pl.reliability(table().iloc[:0])
    with pytest.raises(ValueError, match="noise is known of none of the 4 conditions in table: it takes single cells"):
        pl.reliability(table().assign(noise=np.nan))
