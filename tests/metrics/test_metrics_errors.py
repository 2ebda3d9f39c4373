"""Errors per gene: hand-computed values, scikit-learn, invariances, several conditions at once, messages."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from scjepa.metrics import de_weights, mae, mse, weighted_mse, weighted_r2


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(5, 30))
    return true + rng.normal(size=(5, 30)), true, rng.uniform(size=(5, 30)) ** 2


def test_agreement_with_scikit_learn(data):
    pred, true, weights = data
    rows = range(len(true))
    assert mse(pred, true) == pytest.approx([mean_squared_error(true[i], pred[i]) for i in rows])
    assert mae(pred, true) == pytest.approx([mean_absolute_error(true[i], pred[i]) for i in rows])
    assert weighted_mse(pred, true, weights) == pytest.approx(
        [mean_squared_error(true[i], pred[i], sample_weight=weights[i]) for i in rows]
    )
    assert weighted_r2(pred, true, weights) == pytest.approx(
        [r2_score(true[i], pred[i], sample_weight=weights[i]) for i in rows]
    )


@pytest.mark.parametrize("metric", [mse, mae])
def test_matrix_is_its_rows_and_a_vector_gives_a_float(data, metric):
    pred, true, _ = data
    assert isinstance(metric(pred[0], true[0]), float)
    assert metric(pred, true).tolist() == [metric(p, t) for p, t in zip(pred, true, strict=True)]


def test_equal_weights_are_no_weights(data):
    pred, true, _ = data
    assert weighted_mse(pred, true, np.full_like(true, 7.0)) == pytest.approx(mse(pred, true))
    assert weighted_r2(true, true, np.ones_like(true)) == pytest.approx(np.ones(5))


def test_only_weighted_genes_count():
    assert weighted_mse([9.0, 1.0], [0.0, 0.0], [0.0, 5.0]) == 1.0


def test_mean_of_all_effects_explains_nothing_against_itself(data):
    """Against the mean of all perturbations that prediction is zero: at most 0, whatever the weights."""
    _, true, weights = data
    assert (weighted_r2(np.zeros_like(true), true - true.mean(0), weights) <= 0).all()


def test_de_weights_by_hand():
    weights = de_weights([[-4.0, 0.0, 2.0], [5.0, 5.0, 5.0], [np.nan, 1.0, 3.0]])
    assert weights.tolist() == [[1.0, 0.0, 0.25], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_undefined_is_nan_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(weighted_mse([1.0, 2.0], [0.0, 0.0], [0.0, 0.0]))
        assert np.isnan(weighted_r2([1.0, 2.0], [0.0, 1.0], [0.0, 0.0]))
        assert np.isnan(weighted_r2([1.0, 2.0], [0.1, 0.1], [1.0, 3.0]))
        assert np.isnan(mse([np.nan, 1.0], [1.0, 1.0])) and np.isnan(mae([np.nan, 1.0], [1.0, 1.0]))
        assert de_weights([np.nan, np.nan]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [[-1.0, 1.0], [np.nan, 1.0]])
@pytest.mark.parametrize("metric", [weighted_mse, weighted_r2])
def test_weights_are_checked(metric, bad):
    with pytest.raises(ValueError, match="1 of 2 weights are negative or NaN"):
        metric([1.0, 2.0], [1.0, 2.0], bad)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"pred has shape \(2,\) and true has shape \(3,\): expected vectors"):
        mse(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=r"weights has shape \(3,\): expected vectors"):
        weighted_mse(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"de_scores has shape \(\): expected vectors"):
        de_weights(1.0)
