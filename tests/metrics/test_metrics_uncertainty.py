"""Uncertainty metrics: hand-computed curves, ties as the mean over orders, NaN, messages."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from scjepa.metrics import selective_risk_curve, uncertainty_spearman


def test_spearman_agrees_with_scipy_and_drops_nan():
    rng = np.random.default_rng(0)
    u, e = rng.normal(size=(2, 30))
    assert uncertainty_spearman(u, e) == pytest.approx(spearmanr(u, e).statistic)
    assert uncertainty_spearman(np.append(u, np.nan), np.append(e, 9.0)) == pytest.approx(uncertainty_spearman(u, e))
    assert np.isnan(uncertainty_spearman([1.0], [2.0])) and np.isnan(uncertainty_spearman([1.0, 1.0], [2.0, 3.0]))


def test_curve_by_hand_and_end_at_the_mean():
    coverage, risk = selective_risk_curve([3.0, 1.0, np.nan, 2.0], [0.9, 0.1, 0.0, 0.2])
    assert coverage == pytest.approx([1 / 3, 2 / 3, 1]) and risk == pytest.approx([1, 1.5, 2])
    empty = selective_risk_curve([np.nan], [1.0])
    assert [len(part) for part in empty] == [0, 0]


def test_ties_are_the_mean_over_their_orders():
    error, uncertainty = np.array([5.0, 1.0, 3.0, 8.0]), np.array([0.2, 0.2, 0.2, 0.1])
    curves = [np.cumsum([8.0, *error[list(p)]]) / np.arange(1, 5) for p in permutations(range(3))]
    assert selective_risk_curve(error, uncertainty)[1] == pytest.approx(np.mean(curves, axis=0))


def test_the_errors_themselves_are_the_best_uncertainty():
    rng = np.random.default_rng(1)
    error = rng.exponential(size=40)
    best = selective_risk_curve(error, error)[1]
    for _ in range(5):
        other = selective_risk_curve(error, rng.normal(size=40))[1]
        assert (best <= other + 1e-12).all() and best[-1] == pytest.approx(other[-1])


@pytest.mark.parametrize("metric", [selective_risk_curve, uncertainty_spearman])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match="expected two vectors of one length, one value per condition"):
        metric([1.0, 2.0], [1.0])
