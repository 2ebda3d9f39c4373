"""Metrics of mean profiles and effects: known values, invariances, scipy's Pearson, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr

from scjepa.metrics import l2, pearson_delta, shift_magnitude_ratio


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    true = rng.normal(size=300)
    return true + rng.normal(size=300), true


def test_l2_known_value_and_translation():
    assert l2([1.0, 2.0, 2.0], [0.0, 0.0, 0.0]) == 3.0
    assert l2([11.0, 12.0, 12.0], [10.0, 10.0, 10.0]) == pytest.approx(3.0)


def test_pearson_delta_agrees_with_scipy(effects):
    assert pearson_delta(*effects) == pytest.approx(pearsonr(*effects).statistic, abs=1e-12)


def test_pearson_delta_ignores_scale_and_offset(effects):
    pred, true = effects
    assert pearson_delta(0.1 * pred + 3, true) == pytest.approx(pearson_delta(pred, true), abs=1e-12)
    assert pearson_delta(-pred, true) == pytest.approx(-pearson_delta(pred, true), abs=1e-12)


def test_pearson_delta_reference_is_subtracted_from_both(effects):
    pred, true = effects
    reference = np.linspace(-1, 1, 300)
    expected = pearsonr(pred - reference, true - reference).statistic
    assert pearson_delta(pred, true, reference=reference) == pytest.approx(expected, abs=1e-12)


def test_predicting_the_reference_scores_nothing(effects):
    """The float32 copy of the training mean differs from it by rounding only: no correlation may be read off that."""
    _, true = effects
    reference = np.random.default_rng(1).normal(size=300)
    assert np.isnan(pearson_delta(reference.astype(np.float32), true, reference=reference))


@pytest.mark.parametrize("pred", [np.zeros(300), np.full(300, 0.1)])
def test_constant_effect_is_nan_without_warnings(effects, pred):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(pearson_delta(pred, effects[1]))
        assert np.isnan(pearson_delta(effects[1], pred))
        assert np.isnan(pearson_delta(pred, pred))


def test_small_effects_are_not_constant():
    assert pearson_delta([1e-9, 2e-9, 4e-9], [1.0, 2.0, 4.0]) == pytest.approx(1.0)


def test_shift_magnitude_ratio():
    assert shift_magnitude_ratio([0.0, 0.0], [3.0, 4.0]) == 0.0
    assert shift_magnitude_ratio([6.0, 8.0], [3.0, 4.0]) == pytest.approx(2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(shift_magnitude_ratio([1.0, 2.0], [0.0, 0.0]))


def test_nan_in_nan_out():
    bad, good = [1.0, np.nan, 3.0], [1.0, 2.0, 4.0]
    assert np.isnan(l2(bad, good)) and np.isnan(pearson_delta(bad, good)) and np.isnan(shift_magnitude_ratio(bad, good))


@pytest.mark.parametrize("metric", [l2, pearson_delta, shift_magnitude_ratio])
@pytest.mark.parametrize("pred", [np.zeros(4), np.zeros((1, 5)), np.zeros(0)])
def test_shapes_are_checked(metric, pred):
    with pytest.raises(ValueError, match=r"has shape \(.*expected two vectors of one length"):
        metric(pred, np.ones(5))


def test_reference_shape_is_checked():
    with pytest.raises(ValueError, match=r"reference has shape \(2,\)"):
        pearson_delta(np.ones(5), np.ones(5), reference=np.ones(2))
