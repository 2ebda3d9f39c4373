"""pl.shift_magnitude: dots are lengths of effects, from scores and from tables alike."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from scjepa import pl
from scjepa.tl import evaluate

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value"]


@pytest.fixture
def true() -> pd.DataFrame:
    return pd.DataFrame([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], index=["A", "B", "A+B"], columns=["g1", "g2"])


@pytest.fixture
def scores() -> pd.DataFrame:
    """Ratios 1.0, 0.5 and 1.3 of effects of length 5, 1 and 2."""
    rows = [("no change", "baseline", p, "all", "l2", v) for p, v in (("A", 5.0), ("B", 1.0), ("A+B", 2.0))]
    rows += [("model", "model", p, "all", "shift_ratio", v) for p, v in (("A", 1.0), ("B", 0.5), ("A+B", 1.3))]
    rows += [("mean", "baseline", p, "all", "shift_ratio", 9.0) for p in ("A", "B", "A+B")]
    return pd.DataFrame(rows, columns=COLUMNS)


def dots(ax) -> list[np.ndarray]:
    return [np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_lengths_of_scores(scores):
    ax = pl.shift_magnitude(scores)
    np.testing.assert_allclose(dots(ax), [[[5, 5], [1, 0.5], [2, 2.6]]])
    assert texts(ax) == ["1 of 3 within 0.85–1.15, median 1.00"]
    assert [t.get_text() for t in ax.texts] == ["B", "A+B"]  # the worst first


def test_several_models_have_colors_of_their_own(scores):
    other = scores[scores.kind == "model"].assign(method="other", value=0.9)
    ax = pl.shift_magnitude(pd.concat([scores, other, scores[scores.method == "no change"]]))
    np.testing.assert_allclose(dots(ax)[1], [[5, 4.5], [1, 0.9], [2, 1.8]])
    assert texts(ax) == [
        "model: 1 of 3 within 0.85–1.15, median 1.00",
        "other: 3 of 3 within 0.85–1.15, median 0.90",
    ]


def test_lengths_of_tables(true):
    ax = pl.shift_magnitude(0.5 * true, true)
    np.testing.assert_allclose(dots(ax), [[[5, 2.5], [1, 0.5], [2, 1]]])
    tidy = (0.5 * true).stack().rename("effect").rename_axis(["perturbation", "gene"]).reset_index()
    shuffled = true[["g2", "g1"]].rename({"A+B": "B+A"}).assign(extra=100.0)[::-1]
    np.testing.assert_allclose(dots(pl.shift_magnitude(tidy, shuffled)), dots(ax))  # over the genes in both
    contexts = true.set_index(pd.Index(["t", "t", "u"], name="type"), append=True).rename_axis(["perturbation", "type"])
    ax = pl.shift_magnitude(2 * contexts, contexts)
    assert {t.get_text() for t in ax.texts} == {"A, t", "B, t", "A+B, u"}


def test_both_ways_agree_on_cells():
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A", "B", "A+B"], 20)
    x = rng.uniform(1, 3, size=(80, 8)) + (label == "A+B")[:, None] * np.linspace(0, 1, 8)
    real = ad.AnnData(x, obs=pd.DataFrame({"p": label}, index=[f"c{i}" for i in range(80)]))
    pred = real[np.isin(label, ["A", "A+B"])].copy()
    pred.X = pred.X + 0.2
    evaluate(pred, real, perturbation_key="p", ceiling=False)
    base = x[label == "control"].mean(0)
    true = pd.DataFrame([x[label == p].mean(0) - base for p in ("A", "A+B")], index=["A", "A+B"])
    np.testing.assert_allclose(
        np.vstack(dots(pl.shift_magnitude(pred))), np.vstack(dots(pl.shift_magnitude(true + 0.2, true)))
    )


def test_band_and_identity(scores):
    ax = pl.shift_magnitude(scores)
    corners = ax.collections[0].get_paths()[0].vertices
    x, y = corners[corners[:, 0] > 0].T
    assert {round(v, 9) for v in y / x} == {0.85, 1.15}
    assert ax.lines[0].get_slope() == 1 and ax.lines[0].get_xy1() == (0, 0)
    assert ax.get_xlim() == ax.get_ylim() and ax.get_xlim()[1] > 5


def test_no_line_through_a_name(true):
    names = [f"LONGGENE{i}+OTHERGENE{i}" for i in range(8)]
    table = pd.DataFrame(np.linspace(1, 2, 8)[:, None] * [3.0, 4.0], index=names, columns=["g1", "g2"])
    ax = pl.shift_magnitude(0.7 * table, table)
    ax.get_figure().canvas.draw()
    assert len(ax.texts) == 8
    boxes = [Text.get_window_extent(t) for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for label, box in zip(ax.texts, boxes, strict=True):
        path = label.arrow_patch.get_path()
        middle = label.arrow_patch.get_transform().transform(path.interpolated(20).vertices)[1:-1]
        crossed = [box.padded(-2).contains(*point) for point in middle]
        assert not label.arrow_patch.get_visible() or not any(crossed)


def test_conditions_without_an_effect_are_left_out(true):
    true.loc["B"] = 0.0
    np.testing.assert_allclose(dots(pl.shift_magnitude(true + 0.0, true)), [[[5, 5], [2, 2]]])
    with pytest.raises(ValueError, match="no effect that differs from zero: there is no size"):
        pl.shift_magnitude(true, true * 0)


def test_own_axes_file_and_number_of_names(scores, tmp_path):
    _, ax = plt.subplots()
    assert pl.shift_magnitude(scores, ax=ax, n_labels=1, save=tmp_path / "s.png") is ax
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert [t.get_text() for t in ax.texts] == ["B"]


def test_errors(scores, true):
    with pytest.raises(ValueError, match="no table 'scores'.*run scjepa.tl.evaluate first"):
        pl.shift_magnitude(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(
        TypeError, match="predicted is a list: expected the AnnData or a table written by scjepa.tl.evaluate"
    ):
        pl.shift_magnitude([1.0])
    with pytest.raises(ValueError, match="predicted lacks the columns .*give the measured ones too: true="):
        pl.shift_magnitude(true)
    with pytest.raises(ValueError, match="scores has no shift_ratio of a model"):
        pl.shift_magnitude(scores[scores.kind != "model"])
    with pytest.raises(ValueError, match="scores has no l2 of the baseline 'no change'"):
        pl.shift_magnitude(scores[scores.metric != "l2"])
    with pytest.raises(TypeError, match="predicted is a list: expected the DataFrame of PerturbJEPA.predict_effect"):
        pl.shift_magnitude([1.0], true)
    with pytest.raises(ValueError, match="predicted has row numbers for an index"):
        pl.shift_magnitude(true.reset_index(drop=True), true)
