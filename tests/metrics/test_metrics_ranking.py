"""Rank metrics: brute force, ties, chance, collapse, excluded genes, clusters, messages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scjepa.metrics import (
    centroid_accuracy,
    centroid_ami,
    discrimination_score,
    normalized_inverse_rank,
    perturbench_rank,
)

NAMES = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine"}
RANKS = [discrimination_score, perturbench_rank, centroid_accuracy, normalized_inverse_rank]


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(12, 20))
    return 0.5 * true + rng.normal(size=(12, 20)), true


@pytest.mark.parametrize("metric", NAMES)
def test_ranks_agree_with_sorting(effects, metric):
    pred, true = effects
    distances = cdist(pred, true, NAMES[metric])
    of_truths = [list(np.argsort(distances[i])).index(i) for i in range(12)]
    of_predictions = [list(np.argsort(distances[:, i])).index(i) for i in range(12)]
    assert sum(of_truths) > 0 and of_truths != of_predictions
    assert discrimination_score(pred, true, metric) == pytest.approx(1 - np.array(of_truths) / 12)
    assert perturbench_rank(pred, true, metric) == pytest.approx(np.array(of_predictions) / 12)
    if metric == "l2":
        assert centroid_accuracy(pred, true) == pytest.approx(1 - np.array(of_truths) / 11)


@pytest.mark.parametrize("metric", NAMES)
def test_excluded_genes_are_as_if_they_were_not_there(effects, metric):
    pred, true = (x.copy() for x in effects)
    exclude = np.zeros(pred.shape, dtype=bool)
    exclude[np.arange(12), np.arange(12)] = exclude[3, 15] = True
    true[np.arange(12), np.arange(12)] -= 3  # the perturbed gene itself changes most
    pred[np.arange(12), np.arange(12)] -= 3
    expected = [
        1 - list(np.argsort(cdist(pred[i : i + 1, ~exclude[i]], true[:, ~exclude[i]], NAMES[metric])[0])).index(i) / 12
        for i in range(12)
    ]
    assert discrimination_score(pred, true, metric, exclude=exclude) == pytest.approx(expected)
    assert discrimination_score(pred, true, metric).mean() > np.mean(expected)


def test_perfect_and_collapsed_predictions(effects):
    _, true = effects
    same = np.tile(true.mean(0), (12, 1))
    assert (discrimination_score(true, true) == 1).all() and (perturbench_rank(true, true) == 0).all()
    assert (centroid_accuracy(true, true) == 1).all()
    # one prediction for all: each truth has its own place in one order
    assert sorted(discrimination_score(same, true)) == pytest.approx(np.arange(1, 13) / 12)
    assert perturbench_rank(same, true) == pytest.approx(np.full(12, 11 / 24))
    assert centroid_accuracy(same, true).mean() == pytest.approx(0.5)


def test_ties_up_to_rounding():
    true = np.array([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    pred = np.array([[0.1 + 0.2, 0.3], [0.3, 0.3], [9.0, 9.0]])  # 0.1 + 0.2 is not 0.3
    assert discrimination_score(pred, true, "l2") == pytest.approx([5 / 6, 5 / 6, 1])
    assert centroid_accuracy(pred, true) == pytest.approx([0.5, 0.5, 1])


def test_l1_and_l2_see_size_and_cosine_does_not(effects):
    pred, true = effects
    assert discrimination_score(0.01 * pred, true, "cosine") == pytest.approx(
        discrimination_score(pred, true, "cosine")
    )
    assert (discrimination_score(0.01 * pred, true, "l1") != discrimination_score(pred, true, "l1")).any()


def test_zero_effect_has_no_direction(effects):
    """At cosine distance 1 from all truths, as in scikit-learn: in the middle."""
    pred, true = effects
    pred = pred.copy()
    pred[4] = 0
    assert discrimination_score(pred, true, "cosine")[4] == pytest.approx(1 - 5.5 / 12)


def test_chance_is_half():
    rng = np.random.default_rng(1)
    pred, true = rng.normal(size=(2, 400, 10))
    assert perturbench_rank(pred, true).mean() == pytest.approx(0.5, abs=0.05)
    assert centroid_accuracy(pred, true).mean() == pytest.approx(0.5, abs=0.05)
    assert discrimination_score(pred, true).mean() == pytest.approx(0.5, abs=0.05)


def test_nir_ranks_within_contexts(effects):
    pred, true = effects
    contexts = np.array(["a", "b"] * 6)
    score = normalized_inverse_rank(pred, true, contexts)
    assert score[contexts == "b"] == pytest.approx(centroid_accuracy(pred[1::2], true[1::2]))
    assert normalized_inverse_rank(pred, true) == pytest.approx(centroid_accuracy(pred, true))
    assert (score != centroid_accuracy(pred, true)).any()


@pytest.mark.parametrize("metric", RANKS)
def test_undefined_is_nan(effects, metric):
    pred, true = (x.copy() for x in effects)
    assert np.isnan(metric(pred[:1], true[:1])).tolist() == [True]
    pred[2, 0] = np.nan
    assert np.isnan(metric(pred, true))[2]


def test_ami_finds_the_groups_of_the_truth():
    rng = np.random.default_rng(2)
    centers = 10 * rng.normal(size=(3, 8))
    true = np.repeat(centers, 4, axis=0) + rng.normal(size=(12, 8))
    assert centroid_ami(0.3 * true[:, ::-1] + 5, true, n_clusters=3) == pytest.approx(1.0)
    assert centroid_ami(true, true) == pytest.approx(1.0)
    noise = [centroid_ami(rng.normal(size=(12, 8)), true, n_clusters=3) for _ in range(50)]
    assert abs(np.mean(noise)) < 0.1
    assert centroid_ami(np.tile(true.mean(0), (12, 1)), true) == 0.0
    assert np.isnan(centroid_ami(true[:2], true[:2])) and np.isnan(centroid_ami(np.full_like(true, np.nan), true))


@pytest.mark.parametrize("metric", [*RANKS, centroid_ami])
def test_shapes_are_checked(metric):
    for pred in (np.ones((3, 4)), np.ones(4), np.ones((2, 5))):
        with pytest.raises(ValueError, match="expected two matrices of one shape, conditions x genes"):
            metric(pred, np.ones((2, 4)))


def test_arguments_are_checked(effects):
    with pytest.raises(ValueError, match="metric='l3': expected 'l1', 'l2' or 'cosine'"):
        discrimination_score(*effects, "l3")
    with pytest.raises(ValueError, match=r"exclude has shape \(12,\): expected \(12, 20\)"):
        discrimination_score(*effects, exclude=np.zeros(12))
    with pytest.raises(ValueError, match=r"contexts has shape \(1,\): expected \(12,\)"):
        normalized_inverse_rank(*effects, ["a"])
    with pytest.raises(ValueError, match="n_clusters=12: expected 2 to 11"):
        centroid_ami(*effects, n_clusters=12)
