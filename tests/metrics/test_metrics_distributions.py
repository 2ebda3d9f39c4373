"""Metrics of sets of cells: brute force, scipy, known values, invariances, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import pearsonr
from sklearn.metrics.pairwise import rbf_kernel

from scjepa.metrics import (
    _distributions,
    energy_distance,
    mmd,
    pearson_edistance,
    sliced_wasserstein,
    variance_ratio,
)


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 4)), rng.normal(0.7, 1.5, size=(33, 4))


def test_energy_distance_agrees_with_brute_force(sets):
    x, y = sets

    def mean(a, b):
        return np.mean([np.sqrt(((p - q) ** 2).sum()) for p in a for q in b])

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_agrees_with_scipy(sets):
    x, y = sets
    expected = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)
    # in one dimension scipy.stats has the square root of the same quantity
    assert energy_distance(x[:, :1], y[:, :1]) == pytest.approx(scipy_energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-9)


def test_blocks_do_not_change_the_value(sets, monkeypatch):
    whole = energy_distance(*sets), mmd(*sets)
    monkeypatch.setattr(_distributions, "BLOCK", 7)
    assert (energy_distance(*sets), mmd(*sets)) == pytest.approx(whole, rel=1e-12)


def test_energy_distance_invariances(sets):
    x, y = sets
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    value = energy_distance(x, y)
    assert energy_distance(y, x) == pytest.approx(value)
    assert energy_distance(x @ turn + 5, y @ turn + 5) == pytest.approx(value)
    assert energy_distance(3 * x, 3 * y) == pytest.approx(3 * value)
    assert energy_distance(np.repeat(x, 3, axis=0), y) == pytest.approx(value)  # V-statistic: weights, not counts
    assert energy_distance(x, x[::-1]) == pytest.approx(0, abs=1e-12)


def test_variance_ratio_known_values(sets):
    x, y = sets
    assert variance_ratio(x, y) == pytest.approx(np.trace(np.cov(x.T, ddof=0)) / np.trace(np.cov(y.T, ddof=0)))
    assert variance_ratio(2 * y + 1, y) == pytest.approx(4.0)
    assert variance_ratio(np.ones((5, 4)), y) == 0.0


def test_variance_ratio_undefined_is_nan_without_warnings(sets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(variance_ratio(sets[0], np.ones((5, 4))))
        assert np.isnan(variance_ratio(sets[0][:1], sets[1]))
        assert np.isnan(variance_ratio(sets[0], sets[1][:1]))


@pytest.mark.parametrize("metric", [energy_distance, variance_ratio, mmd, sliced_wasserstein])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match=r"has shape \(3,\): expected a matrix"):
        metric(np.ones(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="has 2 features and .* has 3"):
        metric(np.ones((3, 2)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="at least one cell"):
        metric(np.ones((0, 2)), np.ones((3, 2)))


def test_mmd_agrees_with_scikit_learn(sets):
    x, y = sets
    gammas = (0.3, 0.02)
    expected = [
        rbf_kernel(x, x, g).mean() + rbf_kernel(y, y, g).mean() - 2 * rbf_kernel(x, y, g).mean() for g in gammas
    ]
    assert mmd(x, y, gammas) == pytest.approx(np.mean(expected), rel=1e-12)
    assert mmd(x, y, gammas[:1]) == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("metric", [mmd, sliced_wasserstein])
def test_distances_are_symmetric_and_zero_for_equal_sets(sets, metric):
    x, y = sets
    assert metric(x, y) == pytest.approx(metric(y, x), rel=1e-12) and metric(x, y) > 0.01
    assert metric(np.repeat(x, 2, axis=0), x[::-1]) == pytest.approx(0, abs=1e-7)
    assert metric(x, x + 0.5) < metric(x, x + 2)
    assert np.isnan(metric(x, np.full_like(y, np.nan)))


def test_gammas_are_checked(sets):
    for gammas in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match="gammas=.*expected one or more positive numbers"):
            mmd(*sets, gammas=gammas)


@pytest.mark.parametrize("sizes", [(6, 6), (6, 4), (5, 7), (1, 3)])
def test_sliced_wasserstein_in_one_dimension_is_wasserstein(sizes):
    """Cells repeated to a common number can be matched in order."""
    rng = np.random.default_rng(3)
    x, y = (np.sort(rng.normal(size=n)) for n in sizes)
    matched = np.repeat(x, len(y)) - np.repeat(y, len(x))
    assert sliced_wasserstein(x[:, None], y[:, None]) == pytest.approx(np.sqrt((matched**2).mean()), rel=1e-12)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_root_d(sets):
    """The mean squared projection of a vector on random directions is its squared length over d."""
    x, _ = sets
    value = sliced_wasserstein(x, x + [3.0, 0.0, 4.0, 0.0], n_projections=20000)
    assert value == pytest.approx(5 / np.sqrt(4), rel=0.02)
    assert sliced_wasserstein(3 * x, 3 * x + 3) == pytest.approx(3 * sliced_wasserstein(x, x + 1), rel=1e-9)


def test_sliced_wasserstein_is_reproducible(sets):
    assert sliced_wasserstein(*sets, seed=1) == sliced_wasserstein(*sets, seed=1)
    assert sliced_wasserstein(*sets, seed=1) != sliced_wasserstein(*sets, seed=2)
    with pytest.raises(ValueError, match="n_projections=0: expected a positive number"):
        sliced_wasserstein(*sets, n_projections=0)


def test_pearson_edistance_is_the_correlation_of_distances():
    rng = np.random.default_rng(4)
    true = [rng.normal(i, 1, size=(9 + i, 3)) for i in range(4)]
    pred = [rng.normal(4 * (i % 2), 1, size=(12, 3)) for i in range(4)]
    control, other = rng.normal(size=(2, 15, 3))
    expected = pearsonr(
        [energy_distance(p, other) for p in pred], [energy_distance(t, control) for t in true]
    ).statistic
    assert pearson_edistance(pred, true, other, control) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(pearson_edistance(pred[:1], true[:1], other, control))
    with pytest.raises(ValueError, match="pred_cells has 3 conditions and true_cells has 4"):
        pearson_edistance(pred[:3], true, other, control)
    with pytest.raises(ValueError, match="cells of a condition has 3 features and control has 2"):
        pearson_edistance(pred, true, other[:, :2], control)
