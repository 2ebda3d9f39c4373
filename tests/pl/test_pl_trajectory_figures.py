"""Figures of courses: what is drawn is what the tables say."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch

from scjepa import pl


@pytest.fixture
def cells() -> ad.AnnData:
    places = np.random.default_rng(0).uniform(size=(60, 2))
    adata = ad.AnnData(np.zeros((60, 1), np.float32), obsm={"X_umap": places})
    adata.obs["label"] = [f"label {i % 30}" for i in range(60)]
    return adata


def points(adata: ad.AnnData) -> pd.DataFrame:
    row = {"from_time": 1.0, "to_time": 2.5, "branches": (("B",), ("T", "NK")), "shares": (0.3, 0.7), "stability": 0.9}
    rows = [row | {"stable": True, "cells": tuple(adata.obs_names[:10])}]
    rows += [row | {"stable": False, "stability": 0.3, "cells": tuple(adata.obs_names[20:25])}]
    table = pd.DataFrame(rows)
    table.attrs["unit"] = "days"
    return table


def test_branch_points_stand_at_the_middle_of_their_cells(cells):
    ax = pl.branch_points(cells, points(cells), color="label")
    marks = [c for c in ax.collections if c.get_zorder() == 4]
    places = cells.obsm["X_umap"]
    np.testing.assert_allclose(marks[0].get_offsets()[0], places[:10].mean(0))
    np.testing.assert_allclose(marks[1].get_offsets()[0], places[20:25].mean(0))
    assert tuple(marks[1].get_facecolor()[0]) == to_rgba("white") != tuple(marks[0].get_facecolor()[0])
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words[0] == "A: 1 to 2.5 days, 30 % B, 70 % T / NK, stability 0.90"
    assert words[1].endswith("stability 0.30, not stable") and ax.get_title() == "2 branch points"


def test_no_branch_point_is_said(cells):
    ax = pl.branch_points(cells, points(cells).iloc[:0])
    assert ax.get_title() == "no branch point found" and ax.get_legend() is None


def tipping(p: float = 0.01) -> pd.DataFrame:
    table = pd.DataFrame({"time": [0.0, 1.0, 2.0], "index": [-0.3, 0.4, -0.2], "null_low": -0.5, "null_high": 0.1})
    table = table.assign(peak=[False, True, False], p_value=p)
    table.attrs = {"unit": "", "module": {f"G{i}": 0.5 - i / 10 for i in range(9)}}
    return table


def test_the_curve_its_band_and_the_genes():
    figure = pl.critical_transitions(tipping(), n_genes=4)
    curve, bars = figure.axes
    np.testing.assert_allclose(curve.lines[0].get_ydata(), [-0.3, 0.4, -0.2])
    band = curve.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == -0.5 and band.max() == 0.1
    assert curve.get_title() == "peak at 1, p = 0.01"
    assert [t.get_text() for t in bars.get_yticklabels()] == ["G0", "G1", "G2", "G3"]
    np.testing.assert_allclose([b.get_width() for b in bars.patches], [0.5, 0.4, 0.3, 0.2])
    plain = pl.critical_transitions(tipping(0.4), n_genes=0)
    assert len(plain.axes) == 1 and plain.axes[0].get_title() == "no peak (p = 0.4)"


def test_each_condition_has_a_row():
    both = pd.concat([tipping().assign(condition=c) for c in ("a", "b")])
    both.attrs = {"unit": "hours", "module": {"a": {"G1": 1.0}, "b": {"G2": 1.0}}}
    figure = pl.critical_transitions(both)
    assert [ax.get_title() for ax in figure.axes][::2] == [f"{c}: peak at 1 hours, p = 0.01" for c in "ab"]


def test_courses_and_distances_by_group():
    table = pd.DataFrame({"sample": ["a", "b", "c"], "group": ["2", "1", "1"], "medoid": [True, True, False]})
    courses = {s: [[t, float(i), float(t)] for t in (0, 1, 2)] for i, s in enumerate("abc")}
    distances = np.array([[0, 4, 5], [4, 0, 1], [5, 1, 0]])
    table.attrs = {"courses": courses, "distances": distances.tolist(), "unit": ""}
    left, right, _ = pl.sample_courses(table).axes
    np.testing.assert_array_equal(right.images[0].get_array(), distances[np.ix_([1, 2, 0], [1, 2, 0])])
    assert [t.get_text() for t in right.get_yticklabels()] == ["b", "c", "a"]
    assert left.get_title() == "3 samples in 2 groups"
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["group 1: 2 (medoid b)", "group 2: 1 (medoid a)"]
    wide = {line.get_xdata()[0]: line.get_linewidth() for line in left.lines if len(line.get_xdata())}
    assert wide[0.0] == wide[1.0] > wide[2.0]


def chances(n: int = 3) -> pd.DataFrame:
    table = pd.DataFrame(np.eye(n)[[0, 1, 1, 2 % n, 0]], index=list("abcde"), columns=[f"F{i}" for i in range(n)])
    table.loc["e"] = np.nan
    return table


def test_bars_are_means_of_groups_and_missing_cells_are_counted():
    groups = pd.Series([1.0, 1.0, 2.0, 2.0, 2.0], index=list("abcde"), name="time")
    ax = pl.fates(chances(), groups=groups)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1 (2)", "2 (2)"]
    widths = np.array([b.get_width() for b in ax.patches]).reshape(3, 2)
    np.testing.assert_allclose(widths, [[0.5, 0], [0.5, 0.5], [0, 0.5]])
    assert "1 cells without a fate or group left out" in ax.get_title()


def test_cells_lie_between_the_corners_of_their_fates():
    ax = pl.fates(chances(), kind="simplex")
    corners = np.array([[0, 1], [np.sqrt(3) / 2, -0.5], [-np.sqrt(3) / 2, -0.5]])
    np.testing.assert_allclose(ax.collections[0].get_offsets(), corners[[0, 1, 1, 2]], atol=1e-9)
    assert {t.get_text() for t in ax.texts} == {"F0", "F1", "F2"}
    two = pl.fates(chances(2), kind="simplex")
    assert sorted(two.collections[0].get_offsets()[:, 0]) == [0, 0, 1, 1]
    shaded = pl.fates(
        pd.DataFrame(np.full((12, 3), 1 / 3), index=map(str, range(12))),
        groups=pd.Series(range(12), index=map(str, range(12))),
        kind="simplex",
    )
    np.testing.assert_allclose(shaded.collections[0].get_offsets(), 0, atol=1e-12)
    np.testing.assert_array_equal(shaded.collections[0].get_array(), range(12))


def flows() -> pd.DataFrame:
    edge = {"time": 0.0, "next_time": 1.0, "source": "stem", "flow": 0.4, "descent": 0.5, "ancestry": 0.9}
    rows = [edge | {"target": "left"}, edge | {"target": "right", "flow": 0.5}]
    rows += [edge | {"source": "other", "target": "left", "flow": 0.1, "ancestry": 0.1}]
    return pd.DataFrame(rows)


def test_main_parents_are_dark_and_flows_are_wide():
    ax = pl.lineages(flows())
    drawn = sorted((p for p in ax.patches if isinstance(p, FancyArrowPatch)), key=lambda p: p.get_linewidth())
    assert [p.get_zorder() for p in drawn] == [1, 2, 2]
    assert drawn[2].get_linewidth() == pytest.approx(7.6) and drawn[0].get_linewidth() == pytest.approx(2.0)
    assert sorted(t.get_text() for t in ax.texts) == ["left", "other", "right", "stem"]
    told = flows()
    told.attrs["parents"] = {"time": [1.0, 1.0], "cluster": ["left", "right"], "parent": ["other", "stem"]}
    drawn = sorted(
        (p for p in pl.lineages(told).patches if isinstance(p, FancyArrowPatch)), key=lambda p: p.get_linewidth()
    )
    assert [p.get_zorder() for p in drawn] == [2, 1, 2]


def test_files_and_given_axes(cells, tmp_path):
    _, ax = plt.subplots()
    assert pl.branch_points(cells, points(cells), ax=ax, save=tmp_path / "b.png") is ax
    assert pl.fates(chances(), ax=plt.subplots()[1], save=tmp_path / "f.png").get_title().startswith("where cells end")
    pl.lineages(flows(), save=tmp_path / "l.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda a: pl.branch_points(a, pd.DataFrame({"x": [1]})), ValueError, "branch_points returned"),
        (lambda a: pl.branch_points(a, points(a), basis="X_pca"), KeyError, "X_umap"),
        (lambda a: pl.branch_points(a[30:], points(a).iloc[:1]), ValueError, "none of the cells"),
        (lambda a: pl.critical_transitions(pd.DataFrame({"time": [1]})), ValueError, "critical_transitions returned"),
        (lambda a: pl.sample_courses(pd.DataFrame({"sample": [1]})), ValueError, "stratify_samples returned"),
        (lambda a: pl.sample_courses(pd.DataFrame(columns=["sample", "group", "medoid"])), ValueError, "has lost attrs"),
        (lambda a: pl.lineages(pd.DataFrame({"time": [1]})), ValueError, "lineage_relations returned"),
        (lambda a: pl.lineages(flows().iloc[:0]), ValueError, "flows has no edge"),
        (lambda a: pl.fates(chances(), kind="pie"), ValueError, "pie"),
        (lambda a: pl.fates(chances().iloc[4:]), ValueError, "no row without missing"),
        (lambda a: pl.fates(chances(), groups=pd.Series([1], index=["z"])), ValueError, "groups names none"),
        (lambda a: pl.fates(chances(), groups=pd.Series([1], index=["e"])), ValueError, "groups names none"),
        (lambda a: pl.fates(chances()[["F0"]], kind="simplex"), ValueError, "one fate"),
    ],
)  # fmt: skip
def test_figures_that_are_refused(cells, draw, error, message):
    with pytest.raises(error, match=message):
        draw(cells)
