"""Quantiles over exchangeable conditions and scales of genes: by hand, by simulation, and invariances."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.model._conformal import Scores, calibrate


def scores(values, units=None) -> Scores:
    values = np.abs(np.asarray(values, dtype=float))
    return Scores(values, np.arange(len(values)) if units is None else np.asarray(units))


def residuals(seed: int, n: int = 12, genes: int = 60, spread: float = 0.4) -> dict:
    """Left-out conditions with genes of different noise and conditions of different scale; predictions are zero."""
    rng = np.random.default_rng(seed)
    gene = np.exp(rng.normal(size=genes))
    true = rng.normal(size=(n, genes)) * gene * np.exp(spread * rng.normal(size=(n, 1)))
    return {
        "predicted": np.zeros_like(true),
        "true": true,
        "effects": true,
        "together": np.eye(n, dtype=bool),
        "base": np.ones(genes),
        "units": np.arange(n),
        "distances": np.full(n, 0.5),
    }


def test_hierarchical_quantile_by_hand() -> None:
    """Three units: 1/4 at infinity. One has two rows, so that its values weigh half as much."""
    found = scores([[1.0], [4.0], [2.0], [3.0]], ["a", "a", "b", "c"])
    # masses: 1: 1/8, 2: 1/4, 3: 1/4, 4: 1/8; cumulated 1/8, 3/8, 5/8, 3/4
    assert [found.hierarchical(p) for p in (0.125, 0.126, 0.375, 0.5, 0.63, 0.75)] == [1, 2, 2, 3, 4, 4]
    assert found.hierarchical(0.76) == np.inf


def test_hierarchical_quantile_covers_exactly_when_the_level_is_a_multiple() -> None:
    """Coverage of a new unit's only value is level exactly for exchangeable units when level (K + 1) is whole."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(4000):
        values = np.abs(rng.standard_cauchy(10))
        inside.append(values[9] <= scores(values[:9, None]).hierarchical(0.8))
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)  # three standard errors


@pytest.mark.parametrize("n_units", [4, 8, 30])
def test_quantile_covers_new_units_of_any_number(n_units: int) -> None:
    """Average coverage over new units whose scales vary, from few or many calibration units."""
    rng = np.random.default_rng(n_units)
    inside = []
    for _ in range(300):
        values = np.abs(rng.normal(size=(n_units + 1, 100))) * np.exp(0.4 * rng.normal(size=(n_units + 1, 1)))
        inside.append((values[-1] <= scores(values[:-1]).quantile(0.9)).mean())
    assert 0.88 < np.mean(inside) < 0.94


def test_predictive_quantile_is_finite_for_one_unit_and_scales() -> None:
    values = np.linspace(0.1, 1, 10)[None]
    one = scores(values)
    assert np.isfinite(one.quantile(0.99))
    assert one.quantile(0.9) > 0.9  # wider than the unit's own quantile: a new one may be worse
    assert scores(5 * values).quantile(0.9) == pytest.approx(5 * one.quantile(0.9), rel=1e-6)
    assert scores(np.zeros((3, 4))).quantile(0.9) == 0


@pytest.mark.parametrize("n_units", [1, 5, 29, 60])
def test_quantile_rises_with_the_level(n_units: int) -> None:
    found = scores(np.random.default_rng(2).normal(size=(n_units, 40)))
    steps = [found.quantile(level) for level in np.linspace(0.02, 0.999, 120)]
    assert np.isfinite(steps).all()
    assert (np.diff(steps) >= 0).all()


def test_half_widths_do_not_depend_on_the_order_of_conditions_or_genes() -> None:
    given = residuals(3)
    there = calibrate(**given).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9)
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(12), rng.permutation(60)
    moved = {
        "predicted": given["predicted"][rows][:, genes],
        "true": given["true"][rows][:, genes],
        "effects": given["effects"][rows][:, genes],
        "together": given["together"],
        "base": given["base"][genes],
        "units": given["units"][rows],
        "distances": given["distances"][rows],
    }
    again = calibrate(**moved).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9)
    assert np.allclose(again, there[:, genes], rtol=1e-6)


def test_half_widths_scale_with_the_data() -> None:
    given = residuals(4)
    there = calibrate(**given).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9)
    larger = {**given, **{k: 7 * given[k] for k in ("predicted", "true", "effects")}}
    assert np.allclose(calibrate(**larger).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9), 7 * there, rtol=1e-5)


def test_noisy_genes_get_wide_intervals() -> None:
    given = residuals(5, n=30)
    half = calibrate(**given).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9)[0]
    assert np.corrcoef(np.log(half), np.log(given["true"].std(0)))[0, 1] > 0.95


def test_intervals_cover_new_conditions_all_genes_and_the_largest() -> None:
    every, top = [], []
    for seed in range(60):
        given = residuals(seed, n=31)
        new = given["true"][30]
        known = {k: v[:30] for k, v in given.items() if k != "base"}
        known["together"] = known["together"][:, :30]
        half = calibrate(**known, base=given["base"]).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.9)[0]
        inside = np.abs(new) <= half
        every.append(inside.mean())
        top.append(inside[np.argsort(-np.abs(new))[:6]].mean())
    assert 0.88 < np.mean(every) < 0.96
    assert 0.86 < np.mean(top) < 0.97


def test_intervals_widen_with_distance_but_never_shrink() -> None:
    found = calibrate(**residuals(6))
    assert (found.reference, found.farthest) == (0.5, 0.5)
    zero = np.zeros((4, 60))
    half = found.half_widths(zero, np.array([0.1, 0.5, 0.72, 0.98]), 0.9)
    assert np.allclose(half / half[1], np.array([1, 1, 1.2, 1.4])[:, None])


def test_large_predictions_get_wider_intervals_when_errors_grow_with_them() -> None:
    rng = np.random.default_rng(7)
    given = residuals(7, n=20)
    given["predicted"] = 3 * rng.normal(size=(20, 60))
    given["true"] = given["predicted"] * (1 + 0.5 * rng.normal(size=(20, 60)))
    given["effects"] = given["true"]
    half = calibrate(**given).half_widths(np.repeat([[0.0], [6.0]], 60, 1), np.full(2, 0.5), 0.9)
    assert (half[1] > 2 * half[0]).all()


def test_genes_without_expression_do_not_count() -> None:
    """Half of the genes are dead: the other half keeps its coverage at every level, here against no dead genes."""
    given = residuals(8)
    there = calibrate(**given).half_widths(np.zeros((1, 60)), np.array([0.5]), 0.5)
    wide = {k: np.hstack([given[k], np.zeros((12, 60))]) for k in ("predicted", "true", "effects")}
    base = np.concatenate([given["base"], np.zeros(60)])
    both = calibrate(**{**given, **wide, "base": base}).half_widths(np.zeros((1, 120)), np.array([0.5]), 0.5)
    assert np.allclose(both[:, :60], there, rtol=1e-6)


def test_skill_is_what_predictions_take_off_the_squared_error() -> None:
    given = residuals(9)
    assert calibrate(**given).skill == pytest.approx(0.0)
    assert calibrate(**{**given, "predicted": given["true"] / 2}).skill == pytest.approx(0.75)
