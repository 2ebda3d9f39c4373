"""Hit metrics: equal to RDKit's, mean over orders for ties, undefined is NaN."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from rdkit.ML.Scoring import Scoring
from sklearn.metrics import roc_auc_score

from scjepa.pharma import bedroc, enrichment_factor, hit_rate, roc_auc


@pytest.mark.parametrize("seed", range(5))
def test_equals_rdkit(seed):
    rng = np.random.default_rng(seed)
    active = rng.random(200) < 0.1
    scores = rng.normal(size=200) + active
    ranking = [[bool(active[i])] for i in np.argsort(-scores)]
    assert bedroc(scores, active, 20.0) == pytest.approx(Scoring.CalcBEDROC(ranking, 0, 20.0))
    assert bedroc(scores, active, 100.0) == pytest.approx(Scoring.CalcBEDROC(ranking, 0, 100.0))
    fractions = [0.01, 0.05, 0.25]
    got = [enrichment_factor(scores, active, f) for f in fractions]
    np.testing.assert_allclose(got, Scoring.CalcEnrichment(ranking, 0, fractions))
    assert roc_auc(scores, active) == pytest.approx(roc_auc_score(active, scores))
    assert roc_auc(scores, active) == pytest.approx(Scoring.CalcAUC(ranking, 0), abs=0.01)


@pytest.mark.parametrize(
    "metric", [lambda s, a: enrichment_factor(s, a, 0.4), lambda s, a: hit_rate(s, a, 2), bedroc, roc_auc]
)
def test_ties_count_by_their_mean_over_all_orders(metric):
    scores, active = np.array([3.0, 2.0, 2.0, 2.0, 1.0]), np.array([0, 1, 0, 0, 1])
    orders = [metric([3.0, *(2 + 0.1 * np.array(p)), 1.0], active) for p in permutations(range(3))]
    assert metric(scores, active) == pytest.approx(np.mean(orders))


def test_many_rankings_at_once():
    rng = np.random.default_rng(0)
    scores, active = rng.normal(size=(4, 50)), rng.random((4, 50)) < 0.3
    for metric in (enrichment_factor, hit_rate, bedroc, roc_auc):
        expected = [metric(s, a) for s, a in zip(scores, active, strict=True)]
        np.testing.assert_allclose(metric(scores, active), expected)
        np.testing.assert_allclose(metric(scores, active[0]), [metric(s, active[0]) for s in scores])


def test_extremes():
    scores = np.arange(10.0)
    best, worst = scores >= 8, scores < 2
    assert (bedroc(scores, best), roc_auc(scores, best), hit_rate(scores, best, 2)) == (1, 1, 1)
    assert (bedroc(scores, worst), roc_auc(scores, worst), hit_rate(scores, worst, 2)) == pytest.approx((0, 0, 0))
    assert enrichment_factor(scores, best, 0.2) == 5 and enrichment_factor(scores, worst, 1.0) == 1
    assert np.isnan(
        [bedroc(scores, scores > 99), roc_auc(scores, scores > 99), enrichment_factor(scores, scores > 99)]
    ).all()
    assert np.isnan(roc_auc(scores, scores >= 0)) and bedroc(scores, scores >= 0) == 1
    assert hit_rate(scores, best, 100) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roc_auc([1, 2], [True]), r"scores has shape \(2,\) and active has shape \(1,\)"),
        (lambda: roc_auc([1, np.nan], [True, False]), "scores has 1 NaN values"),
        (lambda: roc_auc([1, 2], [0, 2]), "active has values of type int64 other than 0 and 1"),
        (lambda: roc_auc([1, 2], ["a", "b"]), "active has values of type <U1"),
        (lambda: enrichment_factor([1, 2], [0, 1], 0), "fraction=0: expected"),
        (lambda: bedroc([1, 2], [0, 1], -1), "alpha=-1: expected"),
        (lambda: hit_rate([1, 2], [0, 1], 0), "k=0"),
    ],
)
def test_wrong_rankings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
