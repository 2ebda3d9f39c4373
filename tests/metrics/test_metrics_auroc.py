"""AUROC with weights, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scjepa.metrics import _auroc, auroc


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    y = rng.random(80) < 0.3
    return y, np.round(y + rng.normal(size=80), 1), rng.integers(0, 4, (30, 80))  # with ties


def test_is_that_of_scikit_learn(case):
    y, score, weights = case
    assert auroc(y, score) == pytest.approx(roc_auc_score(y, score))
    assert auroc(y, score, weights[0]) == pytest.approx(roc_auc_score(y, score, sample_weight=weights[0]))
    expected = [roc_auc_score(y, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(y, score, weights), expected)


def test_whole_weights_are_repeated_cases(case, monkeypatch):
    y, score, weights = case
    monkeypatch.setattr(_auroc, "AT_ONCE", 100)  # one set of weights at a time
    again = [auroc(np.repeat(y, w), np.repeat(score, w)) for w in weights]
    np.testing.assert_allclose(auroc(y, score, weights), again)


def test_undefined_is_nan():
    assert np.isnan(auroc([1, 1], [0.1, 0.2])) and np.isnan(auroc([0, 1], [np.nan, 1])) and np.isnan(auroc([], []))
    assert np.isnan(auroc([0, 1], [0.1, 0.2], [[0, 1], [1, 1]])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("weights", "message"), [([1.0], "expected \\(n,\\), \\(n,\\)"), ([1.0, -1.0], "of at least 0")]
)
def test_errors(weights, message):
    with pytest.raises(ValueError, match=message):
        auroc([0, 1], [0.0, 1.0], weights)
