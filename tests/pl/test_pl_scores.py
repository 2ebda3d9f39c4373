"""pl.scores: bars are the numbers of the printed table."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scjepa import pl
from scjepa.pl._scores import TITLES
from scjepa.tl import summarize_scores
from scjepa.tl._summary import GOALS


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
    assert len({*colors[1:]}) == 1 and colors[0] != colors[1]
    red, green, blue, _ = colors[1]
    assert red == green == blue


def test_the_ceiling_is_a_hatched_bar_at_the_end_with_a_line(table):
    extra = table[table.method == "mean"].assign(method="replicate ceiling", kind="ceiling", value=0.5)
    axis = pl.scores(pd.concat([extra[extra.perturbation != "A"], table]), "l2").axes[0]
    assert names(axis)[0] == "model" and names(axis)[-1] == "replicate ceiling (3 of 4)"
    assert [bool(bar.get_hatch()) for bar in axis.patches] == [False] * 4 + [True]
    assert axis.patches[-1].get_width() == 0.5
    assert [list(line.get_xdata()) for line in axis.lines] == [[0.5, 0.5]]


def test_arrows_agree_with_the_printed_table():
    assert list(TITLES) == list(GOALS)
    assert all(TITLES[m].endswith(GOALS[m]) for m in GOALS)


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
    with pytest.raises(ValueError, match="no scores: run scjepa.tl.evaluate"):
        pl.scores(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(ValueError, match="no values to draw"):
        pl.scores(table.assign(value=np.nan))
    with pytest.raises(ValueError, match="scores lacks the columns \\['kind'\\]"):
        pl.scores(table.drop(columns="kind"))
    with pytest.raises(ValueError, match="ax holds 1 axes, 2 panels"):
        pl.scores(table, ax=plt.subplots()[1])
