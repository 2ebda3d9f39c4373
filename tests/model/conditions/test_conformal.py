"""Quantiles over exchangeable conditions and scales of genes: by hand, by simulation, and invariances."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.data import ConditionTable
from scjepa.model.conditions._conformal import Calibration, SamplingNoise, calibrate
from scjepa.model.conditions._quantiles import Scores


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
        "control": np.ones_like(true),
        "effects": true,
        "together": np.eye(n, dtype=bool),
        "base": np.ones(genes),
        "units": np.arange(n),
        "distances": np.full(n, 0.5),
    }


def halves(found: Calibration, predicted, distance=0.5, level: float = 0.9) -> np.ndarray:
    """Half-widths for control profiles of one."""
    predicted = np.atleast_2d(predicted)
    return found.half_widths(predicted, np.ones_like(predicted), np.full(len(predicted), distance), level)


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
    there = halves(calibrate(**given), np.zeros(60))
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(12), rng.permutation(60)
    moved = {
        "predicted": given["predicted"][rows][:, genes],
        "true": given["true"][rows][:, genes],
        "control": given["control"],
        "effects": given["effects"][rows][:, genes],
        "together": given["together"],
        "base": given["base"][genes],
        "units": given["units"][rows],
        "distances": given["distances"][rows],
    }
    again = halves(calibrate(**moved), np.zeros(60))
    assert np.allclose(again, there[:, genes], rtol=1e-6)


def test_half_widths_scale_with_the_data() -> None:
    given = residuals(4)
    there = halves(calibrate(**given), np.zeros(60))
    larger = {**given, **{k: 7 * given[k] for k in ("predicted", "true", "effects")}}
    assert np.allclose(halves(calibrate(**larger), np.zeros(60)), 7 * there, rtol=1e-5)


def test_noisy_genes_get_wide_intervals() -> None:
    given = residuals(5, n=30)
    half = halves(calibrate(**given), np.zeros(60))[0]
    assert np.corrcoef(np.log(half), np.log(given["true"].std(0)))[0, 1] > 0.95


def test_intervals_cover_new_conditions_all_genes_and_the_largest() -> None:
    every, top = [], []
    for seed in range(60):
        given = residuals(seed, n=31)
        new = given["true"][30]
        known = {k: v[:30] for k, v in given.items() if k != "base"}
        known["together"] = known["together"][:, :30]
        half = halves(calibrate(**known, base=given["base"]), np.zeros(60))[0]
        inside = np.abs(new) <= half
        every.append(inside.mean())
        top.append(inside[np.argsort(-np.abs(new))[:6]].mean())
    assert 0.88 < np.mean(every) < 0.96
    assert 0.83 < np.mean(top) < 0.97  # a standard error below 0.9 was good enough


def test_intervals_widen_with_distance_but_never_shrink() -> None:
    found = calibrate(**residuals(6))
    assert (found.reference, found.farthest) == (0.5, 0.5)
    zero = np.zeros((4, 60))
    half = halves(found, zero, np.array([0.1, 0.5, 0.72, 0.98]))
    assert np.allclose(half / half[1], np.array([1, 1, 1.2, 1.4])[:, None])


def test_large_predictions_get_wider_intervals_when_errors_grow_with_them() -> None:
    rng = np.random.default_rng(7)
    given = residuals(7, n=20)
    given["predicted"] = 3 * rng.normal(size=(20, 60))
    given["true"] = given["predicted"] * (1 + 0.5 * rng.normal(size=(20, 60)))
    given["effects"] = given["true"]
    half = halves(calibrate(**given), np.repeat([[0.0], [6.0]], 60, 1))
    assert (half[1] > 2 * half[0]).all()


def test_genes_without_expression_do_not_count() -> None:
    """Half of the genes are dead: the other half keeps its coverage at every level, here against no dead genes."""
    given = residuals(8)
    there = halves(calibrate(**given), np.zeros(60), level=0.5)
    wide = {k: np.hstack([given[k], np.zeros((12, 60))]) for k in ("predicted", "true", "control", "effects")}
    base = np.concatenate([given["base"], np.zeros(60)])
    both = halves(calibrate(**{**given, **wide, "base": base}), np.zeros(120), level=0.5)
    assert np.allclose(both[:, :60], there, rtol=1e-6)


def test_a_value_that_does_not_count_changes_no_quantile() -> None:
    """Rows weigh the same however many of their values count."""
    given = scores([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    holes = scores([[1.0, 2.0, np.nan], [3.0, np.nan, 4.0], [np.nan, 5.0, 6.0], [7.0, np.nan, 8.0]])
    for level in (0.1, 0.5, 0.75, 0.9, 0.99):
        assert holes.quantile(level) == pytest.approx(given.quantile(level))
    # 1: 1/6, 2 and 3: 1/12 + 1/12 of the other row
    assert [scores([[1.0, np.nan], [2.0, 3.0]]).hierarchical(p) for p in (0.33, 0.34, 0.51)] == [1, 2, 3]


def test_genes_that_were_not_detected_do_not_narrow_the_intervals() -> None:
    """Effects that are zero because neither controls nor perturbed cells have a count are covered for nothing."""
    inside = []
    for seed in range(40):
        given = residuals(seed, n=31)
        given["control"] = np.zeros_like(given["true"])
        given["true"] *= np.random.default_rng(1000 + seed).random(given["true"].shape) < 0.5
        given["effects"] = given["true"]
        new = given["true"][30]
        known = {k: v[:30] for k, v in given.items() if k != "base"}
        known["together"] = known["together"][:, :30]
        half = halves(calibrate(**known, base=given["base"]), np.zeros(60))[0]
        inside.append((np.abs(new) <= half)[new != 0].mean())
    assert 0.87 < np.mean(inside) < 0.95  # a quantile of all genes would leave 0.8


def noisy(seed: int, model: float, n_cells: np.ndarray, new: int = 50) -> tuple[dict, np.ndarray]:
    """Left-out conditions with known sampling noise and a model error of size ``model``, and new ones."""
    rng = np.random.default_rng(seed)
    genes = 200
    variance = np.exp(rng.normal(size=genes))
    draw = lambda cells: (
        rng.normal(size=(len(cells), genes)) * np.sqrt(variance / cells[:, None])
        + model * rng.normal(size=(len(cells), genes)) * np.exp(0.3 * rng.normal(size=(len(cells), 1)))
    )
    true = draw(n_cells)
    given = {
        "predicted": np.zeros_like(true),
        "true": true,
        "control": np.ones_like(true),
        "effects": true,
        "together": np.eye(len(true), dtype=bool),
        "base": np.ones(genes),
        "units": np.arange(len(true)),
        "distances": np.full(len(true), 0.5),
        "noise": SamplingNoise(variance, np.ones(genes), 1 / n_cells),
    }
    return given, draw(np.full(new, np.median(n_cells)))


@pytest.mark.parametrize("model", [0.02, 0.3])
def test_known_noise_makes_intervals_of_few_conditions_narrower_at_the_same_coverage(model: float) -> None:
    """Three conditions with 5, 20 and 80 cells: most of their difference is known beforehand."""
    inside, ratio = [], []
    for seed in range(30):
        given, new = noisy(seed, model, np.array([5.0, 20.0, 80.0]))
        half = halves(calibrate(**given), np.zeros(200))[0]
        inside.append((np.abs(new) <= half).mean())
        ratio.append(np.median(half) / np.median(halves(calibrate(**{**given, "noise": None}), np.zeros(200))[0]))
    assert 0.85 < np.mean(inside) < 0.97
    assert np.mean(ratio) < 0.85


def test_where_all_error_is_noise_half_widths_are_its_quantiles() -> None:
    given = residuals(10, n=40)
    given["true"] = given["effects"] = np.random.default_rng(10).normal(size=(40, 60)) / 5
    given["noise"] = SamplingNoise(np.ones(60), np.ones(60), np.full(40, 1 / 25))
    half = halves(calibrate(**given), np.zeros(60))[0]
    assert half == pytest.approx(np.full(60, 1.645 / 5), rel=0.1)


def test_noise_is_carried_over_to_the_controls_of_the_question() -> None:
    """Twice the mean, twice the variance; a question is expected to have the cells of the median condition."""
    noise = SamplingNoise(np.array([1.0, 4.0]), np.array([0.98, 0.0]), np.array([0.1, 0.2]))
    assert np.allclose(noise.at(np.array([[0.98, 0.0], [1.98, 0.02]]), noise.share), [[0.1, 0.4], [0.4, 1.6]])
    table = ConditionTable(
        (("A",), ("B",)),
        np.array(["x", "y"]),
        np.array([[1.0], [3.0]]),
        np.ones((2, 1)),
        np.array([10, 20]),
        variance=np.array([2.0]),
        n_controls=np.array([5.0, 10.0]),
    )
    at = lambda **how: SamplingNoise.of(table, np.arange(2), **how).at(np.full((2, 1), 2.0), np.array([1.0, 1.0]))
    assert at(new_context=False).ravel().tolist() == [2.0, 2.0]
    assert np.allclose(SamplingNoise.of(table, np.arange(2), new_context=False).share, [0.1, 0.05])
    assert np.allclose(SamplingNoise.of(table, np.array([1]), new_context=True).share, [0.15])
    profiles = ConditionTable(table.actions, table.contexts, table.control, table.perturbed)
    assert SamplingNoise.of(profiles, np.arange(2), new_context=True) is None


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_predictions_of_nothing_do_not_make_those_of_something_explode(level: float) -> None:
    """Left-out predictions of zero can't say how errors grow with them: as large as the predicted effect, no more."""
    for tiny in (0.0, 1e-30, 1e-6):
        given = residuals(11)
        given["predicted"] = tiny * np.random.default_rng(0).normal(size=given["true"].shape)
        found = calibrate(**given)
        assert 0.9 < found.coefficients[3] <= 1
        effect = np.full(60, 100 * np.abs(given["true"]).max())
        half = halves(found, effect, level=level)[0]
        quantile = found.scores.quantile(level)
        assert (half <= 1.05 * quantile * np.sqrt(found.gene) * effect).all()


def test_intervals_are_finite_where_there_is_nothing_to_learn_from() -> None:
    """One condition; conditions without any effect; distances of zero; genes that are all alike."""
    one = residuals(12, n=1)
    none = {**residuals(13), "true": np.zeros((12, 60)), "effects": np.zeros((12, 60))}
    near = {**residuals(14), "distances": np.zeros(12)}
    flat = {**residuals(15), "true": np.ones((12, 60)), "effects": np.ones((12, 60))}
    for given in (one, none, near, flat):
        half = halves(calibrate(**given), np.full(60, 2.0), distance=1.0)
        assert np.isfinite(half).all()
        assert half.max() < 200 * max(1.0, np.abs(given["true"]).max())
