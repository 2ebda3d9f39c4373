"""Metrics of mean profiles and effects: known values, invariances, scipy's Pearson, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import pearsonr, spearmanr

from scjepa.metrics import cosine, l2, log_fold_change, pearson_delta, shift_magnitude_ratio, spearman


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
    with pytest.raises(ValueError, match=r"has shape \(.*expected vectors of one length"):
        metric(pred, np.ones(5))


def test_reference_shape_is_checked():
    with pytest.raises(ValueError, match=r"reference has shape \(2,\)"):
        pearson_delta(np.ones(5), np.ones(5), reference=np.ones(2))


@pytest.mark.parametrize("metric", [l2, pearson_delta, shift_magnitude_ratio, cosine, spearman])
def test_matrix_is_its_rows_and_a_vector_gives_a_float(metric):
    rng = np.random.default_rng(2)
    pred, true = rng.normal(size=(2, 4, 50))
    pred[1] = 0.0
    assert isinstance(metric(pred[0], true[0]), float)
    assert metric(pred, true) == pytest.approx([metric(p, t) for p, t in zip(pred, true, strict=True)], nan_ok=True)


def test_pearson_delta_takes_one_reference_or_one_per_condition():
    rng = np.random.default_rng(3)
    pred, true, references = rng.normal(size=(3, 4, 50))
    one = [pearsonr(p - references[0], t - references[0]).statistic for p, t in zip(pred, true, strict=True)]
    each = [pearsonr(p - r, t - r).statistic for p, t, r in zip(pred, true, references, strict=True)]
    assert pearson_delta(pred, true, references[0]) == pytest.approx(one)
    assert pearson_delta(pred, true, references) == pytest.approx(each)


def test_spearman_agrees_with_scipy_with_ties():
    rng = np.random.default_rng(4)
    pred, true = rng.integers(0, 6, size=(2, 3, 40)).astype(float)
    expected = [spearmanr(p, t).statistic for p, t in zip(pred, true, strict=True)]
    assert spearman(pred, true) == pytest.approx(expected, abs=1e-12)
    assert spearman(np.exp(pred), true) == pytest.approx(expected, abs=1e-12)


def test_cosine_agrees_with_scipy_and_ignores_scale_only():
    rng = np.random.default_rng(5)
    pred, true = rng.normal(size=(2, 20))
    assert cosine(pred, true) == pytest.approx(1 - cosine_distance(pred, true), abs=1e-12)
    assert cosine(1e-150 * pred, 1e150 * true) == pytest.approx(cosine(pred, true), abs=1e-12)
    assert cosine(pred, true + 100) != pytest.approx(cosine(pred, true), abs=1e-2)


@pytest.mark.parametrize("metric", [cosine, spearman])
def test_no_direction_is_nan_without_warnings(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metric(np.zeros(5), np.arange(5.0)))
        assert np.isnan(metric(np.arange(5.0), np.zeros(5)))
        assert np.isnan(metric([1.0, np.nan, 2.0], [1.0, 2.0, 3.0]))


def test_log_fold_change_by_hand_and_by_condition():
    assert log_fold_change([0.9, 0.4], [0.4, 0.9], pseudocount=0.1).tolist() == pytest.approx([1.0, -1.0])
    means, controls = np.random.default_rng(6).uniform(size=(2, 3, 4))
    assert log_fold_change(means, controls)[2] == pytest.approx(log_fold_change(means[2], controls[2]))
    assert log_fold_change(means, means[0])[0] == pytest.approx(np.zeros(4))


def test_log_fold_change_input_is_checked():
    with pytest.raises(ValueError, match=r"control_mean has shape \(2,\): expected \(3,\)"):
        log_fold_change(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="pseudocount=0: expected a positive number"):
        log_fold_change(np.ones(3), np.ones(3), pseudocount=0)
    with pytest.raises(ValueError, match="found a mean of -1: .*clip predictions below zero"):
        log_fold_change([-1.0, 2.0], [0.0, 0.0])
