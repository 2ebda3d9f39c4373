"""pl.de_overlap: lines are means of the table of tl.deg_recovery, names stay apart."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scjepa import pl

LENGTHS = (5, 10, 50)


@pytest.fixture
def table() -> pd.DataFrame:
    """A model, two baselines (one with a third of the conditions) and the ceiling on three conditions."""
    rng = np.random.default_rng(0)
    rows = []
    kinds = {"model": "model", "mean": "baseline", "additive": "baseline", "replicate ceiling": "ceiling"}
    for method, kind in kinds.items():
        for p in ["A", "B", "C"][: 1 if method == "additive" else 3]:
            for k in LENGTHS:
                rows.append((method, kind, p, "x", "fold_change", f"overlap_at_{k}", rng.uniform()))
            rows.append((method, kind, p, "x", "fold_change", "recall", 0.9))
    return pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "definition", "metric", "value"])


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


def test_lines_are_means_over_conditions(table):
    (ax,) = pl.de_overlap(table).axes
    for name, line in lines(ax).items():
        method = name.split(" (")[0]
        part = table[(table.method == method) & table.metric.str.startswith("overlap")]
        wide = part.pivot(index="perturbation", columns="metric", values="value")
        np.testing.assert_allclose(line.get_ydata(), [wide[f"overlap_at_{k}"].mean() for k in LENGTHS])
        assert list(line.get_xdata()) == list(LENGTHS)
    assert list(lines(ax)) == ["model", "mean", "additive (1 of 3)", "replicate ceiling"]
    assert [line.get_alpha() < 1 for line in lines(ax).values()] == [False, False, True, False]
    assert ax.get_title() == "DE genes by fold change, 3 conditions"


def test_band_is_the_standard_error_of_the_model(table):
    (ax,) = pl.de_overlap(table).axes
    (band,) = ax.collections
    first = table[(table.method == "model") & (table.metric == "overlap_at_5")]["value"]
    edge = band.get_paths()[0].vertices
    at = edge[edge[:, 0] == 5][:, 1]
    error = first.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([at.min(), at.max()], [first.mean() - error, first.mean() + error])


def test_conditions_that_a_broad_baseline_lacks_do_not_count(table):
    (ax,) = pl.de_overlap(table[(table.method != "mean") | (table.perturbation != "C")]).axes
    shown = table[(table.method == "model") & (table.metric == "overlap_at_10") & (table.perturbation != "C")]
    assert lines(ax)["model"].get_ydata()[1] == pytest.approx(shown["value"].mean())
    assert ax.get_title().endswith("2 conditions")


def test_look_of_models_baselines_and_ceiling_and_names_apart(table):
    close = table.assign(
        value=0.5 + table["method"].map({"model": 0.0, "mean": 1e-3, "additive": 2e-3, "replicate ceiling": 0})
    )
    figure = pl.de_overlap(close)  # fmt: skip
    (ax,) = figure.axes
    found = lines(ax)
    assert found["replicate ceiling"].get_linestyle() == ":"
    assert found["mean"].get_color() == found["additive (1 of 3)"].get_color() != found["model"].get_color()
    assert found["model"].get_linewidth() > found["mean"].get_linewidth()
    assert {t.get_text() for t in ax.texts} == set(found)
    figure.canvas.draw()
    boxes = sorted((t.get_bbox_patch() or t).get_window_extent().bounds for t in map(_without_line, ax.texts))
    spans = sorted((y, y + h) for _, y, _, h in boxes)
    assert all(a[1] <= b[0] + 1 for a, b in zip(spans, spans[1:], strict=False))


def _without_line(text):
    text.arrow_patch.set_visible(False)
    text.arrowprops = None
    text.arrow_patch = None
    return text


def test_tables_without_methods_and_panels_of_definitions(table):
    plain = table[table.method == "model"].drop(columns=["method", "kind"])
    both = pd.concat([plain, plain.assign(definition="test", value=plain["value"] / 2)])
    figure = pl.de_overlap(both)
    assert [a.get_title().split(",")[0] for a in figure.axes] == ["DE genes by fold change", "DE genes by test"]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata() * 2, figure.axes[0].lines[0].get_ydata())
    assert len(pl.de_overlap(both, "test").axes) == 1


def test_anndata_own_axes_and_file(table, tmp_path):
    cells = ad.AnnData(np.ones((1, 1)), uns={"jepa": {"deg_recovery": table}})
    figure, ax = plt.subplots()
    assert pl.de_overlap(cells, ax=ax, save=tmp_path / "o.png") is figure
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


def test_errors(table):
    with pytest.raises(ValueError, match="the overlap at 1 k: a curve needs several"):
        pl.de_overlap(table[~table.metric.isin(["overlap_at_5", "overlap_at_10"])])
    with pytest.raises(ValueError, match="definition='tests' is not among the definitions"):
        pl.de_overlap(table, "tests")
    with pytest.raises(ValueError, match="no table 'deg_recovery'.*run scjepa.tl.deg_recovery first"):
        pl.de_overlap(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(ValueError, match=r"recovery lacks the columns \['definition'\]"):
        pl.de_overlap(table.drop(columns="definition"))
