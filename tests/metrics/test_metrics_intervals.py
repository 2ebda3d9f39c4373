"""Metrics of intervals against hand-computed values, their limits, and every error message."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa import metrics


def test_coverage_and_width_by_hand() -> None:
    truth = np.array([[0.0, 1.0], [2.0, -3.0]])
    lower, upper = np.array([[0.0, 1.5], [1.0, -2.5]]), np.array([[0.5, 2.0], [2.0, -2.0]])
    assert metrics.interval_coverage(truth, lower, upper) == 0.5  # ends count as inside
    assert metrics.interval_width(lower, upper) == pytest.approx((0.5 + 0.5 + 1.0 + 0.5) / 4)


def test_missing_values_do_not_count() -> None:
    assert metrics.interval_coverage([0.0, np.nan, 5.0], [-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]) == 0.5
    assert metrics.interval_width([0.0, np.nan], [3.0, 1.0]) == 3.0
    assert np.isnan(metrics.interval_coverage([np.nan], [0.0], [1.0]))
    assert np.isnan(metrics.interval_width([np.nan], [1.0]))


def test_normal_quantiles_cover_normal_values() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    z = {0.5: 0.674, 0.8: 1.282, 0.9: 1.645, 0.95: 1.960}
    found = metrics.coverage_by_level(values, lambda level: (np.full(20_000, -z[level]), np.full(20_000, z[level])))
    assert list(found) == [0.5, 0.8, 0.9, 0.95]
    assert np.allclose(list(found.values()), list(found), atol=0.01)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"expected arrays of one shape.*'truth': \(2,\), 'lower': \(3,\)"):
        metrics.interval_coverage([0.0, 1.0], [0.0] * 3, [1.0] * 3)
    with pytest.raises(ValueError, match="expected arrays of one shape with at least one value"):
        metrics.interval_width([], [])


def test_crossed_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 lower ends lie above their upper ends. Swap"):
        metrics.interval_coverage([0.0, 0.0], [0.0, 2.0], [1.0, 1.0])


def test_levels_are_between_zero_and_one() -> None:
    with pytest.raises(ValueError, match=r"levels=\[0.5, 1.0\]: expected one or more numbers between 0 and 1"):
        metrics.coverage_by_level([0.0], lambda level: ([0.0], [0.0]), levels=(0.5, 1.0))
