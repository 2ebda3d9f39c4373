"""pl.calibration: lines are the coverage of the intervals, pooled and on the genes that respond."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from scjepa import pl, tl
from scjepa.metrics import interval_coverage

LEVELS = (0.5, 0.8, 0.9)


@pytest.fixture
def effects() -> tuple[dict[float, pd.DataFrame], pd.DataFrame]:
    """Predictions of three conditions x 40 genes, true values with an error of known size."""
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(40)]
    true = pd.DataFrame(rng.normal(size=(3, 40)), index=["A", "B", "A+B"], columns=genes)
    effect = true + rng.normal(0, 0.3, true.shape)
    tidy = effect.stack().rename("effect").rename_axis(["perturbation", "gene"]).reset_index()
    return {a: tidy.assign(lower=tidy.effect - 0.4 * a, upper=tidy.effect + 0.4 * a) for a in LEVELS}, true


def curves(ax) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in ax.lines if len(line.get_xdata()) == len(LEVELS)]


def test_lines_are_coverage(effects):
    tables, true = effects
    pooled, top = curves(pl.calibration(tables, true, n_top=5))
    y = true.to_numpy()
    order = np.argsort(-np.abs(y), axis=1)[:, :5]
    for i, level in enumerate(LEVELS):
        low, high = (tables[level][c].to_numpy().reshape(3, 40) for c in ("lower", "upper"))
        pick = lambda m: np.take_along_axis(m, order, axis=1)
        assert pooled[i].tolist() == [level, pytest.approx(interval_coverage(y, low, high))]
        assert top[i, 1] == pytest.approx(interval_coverage(pick(y), pick(low), pick(high)))


def test_the_order_of_levels_genes_and_conditions_does_not_matter(effects):
    tables, true = effects
    shuffled = {a: tables[a].sample(frac=1, random_state=1) for a in reversed(LEVELS)}
    for a, b in zip(curves(pl.calibration(tables, true)), curves(pl.calibration(shuffled, true)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bars_are_standard_errors_over_conditions():
    rows = [(p, g, 0.0, -1.0, 1.0) for p in "ABC" for g in ("g1", "g2")]
    table = pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"])
    true = pd.DataFrame([[0.5, 0.5], [0.5, 3.0], [0.5, 0.5]], index=list("ABC"), columns=["g1", "g2"])
    ax = pl.calibration({0.9: table}, true, n_top=1)
    bars = [c.get_segments()[0][:, 1] for c in ax.collections if isinstance(c, LineCollection)]
    error = np.std([1, 0.5, 1], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(bars[0], [5 / 6 - error, 5 / 6 + error])
    error = np.std([1, 0, 1], ddof=1) / np.sqrt(3)  # the largest effect of B is outside
    np.testing.assert_allclose(bars[1], [2 / 3 - error, 2 / 3 + error])


def test_n_and_the_diagonal_are_shown(effects):
    ax = pl.calibration(*effects, n_top=7)
    texts = [t.get_text().replace("\n", " ") for t in ax.get_legend().get_texts()]
    assert texts == ["expressed genes (n = 120)", "7 largest measured effects of each condition"]
    assert ax.get_title() == "calibration of intervals, 3 conditions"
    assert ax.lines[0].get_slope() == 1 and ax.lines[0].get_xy1() == (0, 0)


def test_genes_that_were_not_detected_do_not_count(effects):
    tables, true = effects
    true[["g0", "g1"]] = 0.0
    ax = pl.calibration(tables, true)
    assert ax.get_legend().get_texts()[0].get_text() == "expressed genes (n = 114)"
    kept = {a: t[~t.gene.isin(["g0", "g1"])] for a, t in tables.items()}
    np.testing.assert_array_equal(curves(ax)[0], curves(pl.calibration(kept, true))[0])


def test_coverage_measured_on_cells_is_drawn_the_same_way(effects):
    tables, true = effects
    genes = true.columns
    control = np.full((1, 40), 9.0)
    real = ad.AnnData(
        np.vstack([control, control + true.to_numpy()]),
        obs=pd.DataFrame({"p": ["control", *true.index]}, index=["c", *true.index]),
        var=pd.DataFrame(index=genes),
    )
    table = tl.evaluate_intervals(tables, real, perturbation_key="p", n_top=5)
    expected = pl.calibration(tables, true, n_top=5)
    for given in (table, real):
        ax = pl.calibration(given)
        for a, b in zip(curves(ax), curves(expected), strict=True):
            np.testing.assert_allclose(a, b)
        bars, wanted = ([c.get_segments() for c in x.collections] for x in (ax, expected))
        np.testing.assert_allclose(bars, wanted)
        assert [t.get_text() for t in ax.get_legend().get_texts()] == [
            t.get_text() for t in expected.get_legend().get_texts()
        ]
        assert ax.get_title() == expected.get_title()


def test_own_axes_and_file(effects, tmp_path):
    _, ax = plt.subplots()
    assert pl.calibration(*effects, ax=ax, save=tmp_path / "c.png") is ax
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_errors(effects):
    tables, true = effects
    with pytest.raises(TypeError, match="expected a dictionary level -> table.*found a DataFrame"):
        pl.calibration(tables[0.5], true)
    with pytest.raises(ValueError, match="effects lacks the columns .*written by scjepa.tl.evaluate_intervals"):
        pl.calibration(tables[0.5])
    with pytest.raises(ValueError, match="true is missing: give the measured effects"):
        pl.calibration(tables)
    with pytest.raises(ValueError, match="no table 'intervals'.*run scjepa.tl.evaluate_intervals first"):
        pl.calibration(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(TypeError, match="found an empty one"):
        pl.calibration({}, true)
    with pytest.raises(ValueError, match="levels '90': expected numbers between 0 and 1"):
        pl.calibration({90: tables[0.9]}, true)
    with pytest.raises(ValueError, match=r"effects\[0.5\] lacks the columns \['upper'\]"):
        pl.calibration({0.5: tables[0.5].drop(columns="upper")}, true)
    with pytest.raises(ValueError, match="n_top=0: expected a whole number"):
        pl.calibration(tables, true, n_top=0)
    with pytest.raises(ValueError, match="no effect that differs from zero: there is nothing to cover"):
        pl.calibration(tables, true * 0)
