"""pl.scores: bars are the numbers of the printed table."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scjepa import pl
from scjepa.pl._scores import TITLES
from scjepa.pl._written import ALL_CONDITIONS
from scjepa.tl import summarize_scores
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS as tl_name
from scjepa.tl.evaluation._profiles import GOALS, PROFILES


@pytest.fixture
def table() -> pd.DataFrame:
    """One model, three baselines; one applies to one condition of five, one has no correlation."""
    rng = np.random.default_rng(0)
    rows = []
    for method, kind in [("model", "model"), ("mean", "baseline"), ("no change", "baseline"), ("additive", "baseline")]:
        for p in ["A", "B", "C", "D", "E"][: 1 if method == "additive" else 5]:
            if method == "mean" and p == "E":
                continue
            rows.append((method, kind, p, "x", "l2", rng.uniform(1, 3)))
            rows.append(
                (method, kind, p, "x", "pearson_delta", np.nan if method == "no change" else rng.uniform(-1, 1))
            )
    return pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"])


def names(axis) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def test_bars_are_the_means_of_the_printed_table(table):
    figure = pl.scores(table)
    means = summarize_scores(table)
    assert [a.get_title() for a in figure.axes] == [TITLES["l2"], TITLES["pearson_delta"]]
    for axis, metric in zip(figure.axes, ["l2", "pearson_delta"], strict=True):
        widths = [bar.get_width() for bar in axis.patches]
        np.testing.assert_allclose(widths, means[metric].fillna(0), rtol=1e-12)
    assert [n.split(" (")[0] for n in names(figure.axes[0])] == means.index.tolist()


def test_fewer_conditions_and_undefined_values_are_named(table):
    figure = pl.scores(table)
    assert "additive (1 of 4)" in names(figure.axes[0])
    assert [t.get_text() for t in figure.axes[1].texts] == ["undefined"]


def test_one_dot_per_condition(table):
    axis = pl.scores(table, "l2").axes[0]
    dots = axis.collections[0].get_offsets()
    shown = table[(table.metric == "l2") & (table.perturbation != "E")]  # E has no mean baseline
    np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(shown["value"]))
    assert np.abs(dots[:, 1] - np.rint(dots[:, 1])).max() <= 0.2  # each within its bar


def test_model_in_color_baselines_gray(table):
    colors = [bar.get_facecolor() for bar in pl.scores(table, "l2").axes[0].patches]
    assert len({c[:3] for c in colors[1:]}) == 1 and colors[0] != colors[1]
    red, green, blue, _ = colors[1]
    assert red == green == blue


def bars(figure, axis) -> dict:
    return dict(zip([n.split(" (")[0] for n in names(figure.axes[0])], axis.patches, strict=True))


def test_bars_over_fewer_conditions_are_pale(table):
    figure = pl.scores(table)
    for axis in figure.axes:
        assert [m for m, bar in bars(figure, axis).items() if bar.get_facecolor()[3] < 1] == ["additive"]
    undefined = (table.method == "mean") & (table.metric == "pearson_delta") & (table.perturbation == "A")
    figure = pl.scores(table.assign(value=table["value"].mask(undefined)))
    assert bars(figure, figure.axes[0])["mean"].get_facecolor()[3] == 1
    assert bars(figure, figure.axes[1])["mean"].get_facecolor()[3] < 1
    assert [t.get_text() for t in figure.axes[1].texts if "undefined" not in t.get_text()] == ["3 of 4"]


def test_the_ceiling_is_a_hatched_bar_at_the_end_with_a_line(table):
    extra = table[table.method == "mean"].assign(method="replicate ceiling", kind="ceiling", value=0.5)
    axis = pl.scores(pd.concat([extra[extra.perturbation != "A"], table]), "l2").axes[0]
    assert names(axis)[0] == "model" and names(axis)[-1] == "replicate ceiling (3 of 4)"
    assert [bool(bar.get_hatch()) for bar in axis.patches] == [False] * 4 + [True]
    assert axis.patches[-1].get_width() == 0.5
    assert [list(line.get_xdata()) for line in axis.lines] == [[0.5, 0.5]]


def test_the_same_prediction_is_one_bar(table):
    twin = table[table.method == "mean"].assign(method="kNN")
    figure = pl.scores(pd.concat([table, twin]), "l2")
    assert [n.split(" (")[0] for n in names(figure.axes[0])].count("mean = kNN") == 1
    assert len(figure.axes[0].patches) == 4
    width = bars(figure, figure.axes[0])["mean = kNN"].get_width()
    assert width == pytest.approx(summarize_scores(table).loc["mean", "l2"])
    third = twin.assign(method="context transfer")
    assert "mean = kNN = context\ntransfer" in names(pl.scores(pd.concat([table, twin, third]), "l2").axes[0])


def test_a_beaten_ceiling_says_that_it_is_no_limit(table):
    said = lambda *tables: ["not a limit" in [t.get_text() for t in a.texts] for a in pl.scores(pd.concat(tables)).axes]
    ceiling = table[table.method == "mean"].assign(method="replicate ceiling", kind="ceiling", value=1.0)
    assert said(table, ceiling) == [False, False]  # an L2 of 1 and a correlation of 1: nobody is better
    assert said(table, ceiling.assign(value=-1.0)) == [False, True]
    assert said(table, ceiling[ceiling.perturbation != "A"].assign(value=-1.0)) == [False, False]  # not comparable


def test_arrows_agree_with_the_printed_table():
    assert list(TITLES) == list(GOALS)
    assert all(TITLES[m].endswith(GOALS[m]) for m in GOALS)


def test_scores_of_all_conditions_at_once_have_one_dot(table):
    rows = [(m, k, ALL_CONDITIONS, ALL_CONDITIONS, "centroid_ami", v)
            for m, k, v in [("model", "model", 0.9), ("mean", "baseline", 0.2)]]  # fmt: skip
    figure = pl.scores(pd.concat([table, pd.DataFrame(rows, columns=table.columns)]))
    axis = figure.axes[2]
    assert axis.get_title() == "centroid AMI ↑"
    widths = {m: bar.get_width() for m, bar in bars(figure, axis).items()}
    assert widths == {"model": 0.9, "mean": 0.2, "no change": 0, "additive": 0}
    assert sorted(axis.collections[0].get_offsets()[:, 0]) == [0.2, 0.9]
    assert len(figure.axes[0].collections[0].get_offsets()) == 13  # the others are as they were
    assert ALL_CONDITIONS == tl_name


def test_of_many_metrics_those_of_the_minimal_profile_are_drawn(table):
    part = table[table.metric == "l2"]
    many = pd.concat([table, *(part.assign(metric=m) for m in list(TITLES)[4:14])])
    titles = [a.get_title() for a in pl.scores(many).axes]
    assert titles == [TITLES[m] for m in (*PROFILES["minimal"][:2], *list(TITLES)[4:7])]
    assert len(pl.scores(many, list(TITLES)[7:10]).axes) == 3


def test_anndata_given_axes_and_file(table, tmp_path):
    scored = ad.AnnData(np.ones((1, 1)), uns={"jepa": {"scores": table}})
    figure, axes = plt.subplots(1, 2)
    assert pl.scores(scored, ax=axes, save=tmp_path / "scores.png") is figure
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert names(axes[0]) == names(axes[1])  # panels of one's own are all labelled
    assert len(pl.scores(table, ["pearson_delta"]).axes) == 1


def test_errors(table):
    with pytest.raises(ValueError, match="metric='L2' is not among.*Did you mean 'l2'"):
        pl.scores(table, "L2")
    with pytest.raises(ValueError, match="no table 'scores'.*run scjepa.tl.evaluate first"):
        pl.scores(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(ValueError, match="no values to draw"):
        pl.scores(table.assign(value=np.nan))
    with pytest.raises(ValueError, match="scores lacks the columns \\['kind'\\]"):
        pl.scores(table.drop(columns="kind"))
    with pytest.raises(ValueError, match="ax holds 1 axes, 2 panels"):
        pl.scores(table, ax=plt.subplots()[1])
