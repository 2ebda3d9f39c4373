"""Strata: groups that are there are found, one cloud stays one, biomarkers equal scipy's tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from scjepa.pharma import biomarkers, responder_groups
from scjepa.pharma._strata import _cluster


def patients(sizes: list[int], shift: float, features: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    if features is None:
        return truth, rng.normal(size=len(truth)) + shift * truth
    return truth, rng.normal(size=(len(truth), features)) + shift * truth[:, None]


@pytest.mark.parametrize(
    ("sizes", "shift", "features"), [([10, 10], 7, None), ([12, 4], 7, None), ([12, 6], 2, 30), ([9, 8, 9], 9, None)]
)
def test_groups_are_found(sizes, shift, features):
    truth, x = patients(sizes, shift, features)
    found = responder_groups(x)
    assert found.n_groups == len(sizes)
    assert adjusted_rand_score(truth, found.labels) >= 0.8
    assert found.support.mean() > 0.9 and found.table.loc[len(sizes), "p_value"] <= 0.05
    assert list(found.labels) == list(truth), "group 0 responds least"


@pytest.mark.parametrize("features", [None, 30])
def test_one_cloud_is_one_group(features):
    found = [responder_groups(patients([20], 0, features, seed)[1], n_resamples=80, seed=seed) for seed in range(10)]
    assert sum(f.n_groups > 1 for f in found) <= 1
    one = next(f for f in found if f.n_groups == 1)
    assert not one.labels.any() and (one.support == 1).all() and len(one.table) == 3


def test_equal_patients_and_few_patients_are_one_group():
    assert responder_groups(np.ones(8)).n_groups == 1
    assert responder_groups([1.0, 2.0, 1.5, 1.2, 1.9]).n_groups == 1


def test_order_scale_and_seed():
    _, x = patients([10, 6], 7, None)
    found = responder_groups(x)
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(responder_groups(x[order]).labels, found.labels[order])
    np.testing.assert_array_equal(responder_groups(3 * x + 100, seed=5).labels, found.labels)
    pd.testing.assert_frame_equal(responder_groups(x).table, found.table)


def test_k_means_of_many_sets_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 30, 2)) + 5 * rng.integers(0, 3, size=(6, 30, 1))
    labels, centers, within = _cluster(x, 3, rng)
    for points, got, center, share in zip(x, labels, centers, within, strict=True):
        model = KMeans(3, n_init=20, random_state=0).fit(points)
        assert share == pytest.approx(model.inertia_ / ((points - points.mean(0)) ** 2).sum(), rel=0.02)
        assert adjusted_rand_score(model.labels_, got) > 0.9 or share <= model.inertia_
        np.testing.assert_allclose(center[got[0]], points[got == got[0]].mean(0))


# ---------------------------------------------------------------- biomarkers


def test_biomarkers_are_scipys_tests():
    rng = np.random.default_rng(0)
    labels = np.repeat(["no", "yes"], 8)
    x = rng.normal(size=(16, 12))
    x[labels == "yes", 3] += 3
    x[:, 5] = 1.0
    table = biomarkers(pd.DataFrame(x, columns=[f"g{i}" for i in range(12)]), labels)
    assert table.loc[0, "gene"] == "g3" and table.loc[0, "auc"] > 0.9 and table.loc[0, "q_value"] < 0.05
    by_gene = table.set_index("gene")
    assert by_gene.loc["g5", ["auc", "p_value"]].tolist() == [0.5, 1.0]
    expected = [mannwhitneyu(x[8:, i], x[:8, i]).pvalue if i != 5 else 1.0 for i in range(12)]
    np.testing.assert_allclose(by_gene.loc[[f"g{i}" for i in range(12)], "p_value"], expected)
    np.testing.assert_allclose(by_gene.loc[[f"g{i}" for i in range(12)], "q_value"], false_discovery_control(expected))


def test_more_groups_are_each_compared_with_the_others():
    table = biomarkers([[0.0], [0.1], [1.0], [1.1], [2.0], [2.1]], [0, 0, 1, 1, 2, 2])
    auc = table.set_index("group")["auc"]
    assert auc[[0, 1, 2]].tolist() == [0.0, 0.5, 1.0] and set(table["gene"]) == {"0"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: responder_groups([1, 2, 3]), r"responses has shape \(3,\): expected .*at least 4 patients"),
        (lambda: responder_groups([1, 2, 3, np.nan]), "responses has 1 missing"),
        (lambda: responder_groups(np.ones(5), max_groups=1), "max_groups=1"),
        (lambda: responder_groups(np.ones(5), min_size=0), "min_size=0"),
        (lambda: responder_groups(np.ones(5), n_resamples=1), "n_resamples=1"),
        (lambda: responder_groups(np.ones(5), min_stability=2), "min_stability=2: expected"),
        (lambda: responder_groups(np.ones(5), alpha=0), "alpha=0: expected"),
        (lambda: biomarkers(np.ones((3, 2)), [0, 1]), r"untreated has shape \(3, 2\) and groups has shape \(2,\)"),
        (lambda: biomarkers([[1.0], [np.inf]], [0, 1]), "untreated has 1 missing or infinite"),
        (lambda: biomarkers(np.ones((3, 2)), [0, 0, 0]), r"groups has only \[0\]: expected at least 2"),
        (lambda: biomarkers(np.ones((3, 2)), [0, 0, 1], genes=["a"]), "genes has 1 names and untreated has 2 columns"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
