"""Metrics of sets of cells: brute force, scipy, known values, invariances, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance as scipy_energy_distance

from scjepa.metrics import _distributions, energy_distance, variance_ratio


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
    whole = energy_distance(*sets)
    monkeypatch.setattr(_distributions, "BLOCK", 7)
    assert energy_distance(*sets) == pytest.approx(whole, rel=1e-12)


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


@pytest.mark.parametrize("metric", [energy_distance, variance_ratio])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match=r"has shape \(3,\): expected a matrix"):
        metric(np.ones(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="has 2 features and .* has 3"):
        metric(np.ones((3, 2)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="at least one cell"):
        metric(np.ones((0, 2)), np.ones((3, 2)))
