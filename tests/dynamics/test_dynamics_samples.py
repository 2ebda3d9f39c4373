"""Distances between courses of samples, and the places that they are distances of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scjepa.dynamics import course_distances, embed_distances


def three(seed=0, n=60):
    rng = np.random.default_rng(seed)
    samples, times = np.repeat(["a", "b", "c"], 2 * n), np.tile(np.repeat([0.0, 1.0], n), 3)
    z = rng.normal(size=(6 * n, 3))
    z[(samples == "c") & (times == 1)] += 2
    return z, times, samples


def test_distance_is_the_mean_energy_distance_of_shared_times():
    z, times, samples = three()
    found = course_distances(z, times, samples)
    expected = []
    for t in (0, 1):
        a, c = (z[(samples == s) & (times == t)] for s in "ac")
        n = len(a)
        own = [cdist(x, x).sum() / (n * (n - 1)) for x in (a, c)]
        expected.append(2 * cdist(a, c).mean() - sum(own))
    assert found.distances[0, 2] == pytest.approx(np.mean(expected))
    assert (found.shared == 2).all() and np.allclose(found.distances, found.distances.T)


def test_like_samples_are_at_zero_on_average():
    found = [course_distances(*three(seed)).distances[0, 1] for seed in range(30)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(30)


def test_a_missing_time_does_not_count():
    z, times, samples = three()
    kept = ~((samples == "b") & (times == 1))
    found = course_distances(z[kept], times[kept], samples[kept])
    assert found.shared[0, 1] == 1 and found.shared[0, 2] == 2
    only = times == 0
    assert found.distances[0, 1] == pytest.approx(course_distances(z[only], times[only], samples[only]).distances[0, 1])


def test_order_of_cells_does_not_matter():
    z, times, samples = three()
    order = np.random.default_rng(1).permutation(len(z))
    np.testing.assert_allclose(
        course_distances(z[order], times[order], samples[order]).distances,
        course_distances(z, times, samples).distances,
    )


def test_places_have_these_distances():
    places = np.random.default_rng(0).normal(size=(8, 3))
    squared = cdist(places, places) ** 2
    found = embed_distances(squared)
    assert found.shape == (8, 3)
    np.testing.assert_allclose(cdist(found, found) ** 2, squared, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, t, s: (z, t[:-1], s), "expected \\(cells, coordinates\\)"),
        (lambda z, t, s: (np.where(z > 2, np.nan, z), t, s), "missing or infinite"),
        (lambda z, t, s: (z, t, np.repeat("a", len(z))), "two or more"),
        (lambda z, t, s: (z, np.where(s == "a", 5.0, t), s), "no time at which both"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        course_distances(*change(*three()))
