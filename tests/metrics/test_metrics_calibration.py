"""What a metric can tell apart on a data set: hand-computed fractions, limits, messages."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from scjepa.metrics import dynamic_range_fraction, systematic_variation


def test_fraction_is_the_same_for_scores_and_errors():
    pos, neg = np.array([0.9, 0.6, 0.2]), np.array([0.6, 0.6, 0.4])
    expected = [0.75, 0.0, -1 / 3]
    assert dynamic_range_fraction(pos, neg, perfect=1) == pytest.approx(expected)
    assert dynamic_range_fraction(1 - pos, 1 - neg, perfect=0) == pytest.approx(expected)
    assert dynamic_range_fraction(1.0, 0.3, perfect=1) == 1.0


def test_fraction_is_clipped_and_undefined_at_perfect():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dynamic_range_fraction(5.0, 1.0, perfect=0) == -1.0
        assert np.isnan(dynamic_range_fraction(0.5, 1.0, perfect=1))
        assert np.isnan(dynamic_range_fraction([np.nan, 0.5], [0.1, np.nan], perfect=1)).all()


def test_fraction_input_is_checked():
    with pytest.raises(ValueError, match=r"positive has shape \(2,\) and negative has shape \(1,\)"):
        dynamic_range_fraction([0.1, 0.2], [0.1], perfect=1)
    with pytest.raises(ValueError, match="below and above perfect=1"):
        dynamic_range_fraction(1.5, 0.5, perfect=1)


def test_systematic_variation_limits():
    shared = np.array([1.0, -2.0, 0.5])
    assert systematic_variation(np.outer([1.0, 2.0, 3.0], shared)) == pytest.approx(1.0)
    assert systematic_variation(np.eye(16)) == pytest.approx(1 / 4)  # orthogonal: one over the root of their number
    assert systematic_variation([[1.0, 0.0], [0.0, 0.0]]) == pytest.approx(1.0)
    assert np.isnan(systematic_variation([[1.0, 0.0], [-1.0, 0.0]]))


def test_systematic_variation_shape_is_checked():
    with pytest.raises(ValueError, match=r"effects has shape \(2,\): expected a matrix, conditions x genes"):
        systematic_variation([1.0, 2.0])
