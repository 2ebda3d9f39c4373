"""Connectivity: values by hand and by slow formulas, signs, invariances."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.pharma import effect_size, reversal, signature_score, target_progress

METHODS = ["cosine", "extreme", "ks", "weighted"]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 60)), rng.normal(size=(20, 60))


@pytest.mark.parametrize("method", METHODS)
def test_the_opposite_is_best_and_the_same_is_worst(data, method):
    query, library = data
    scores = reversal(query[0], np.vstack([library, -query[0], query[0]]), method)
    assert scores.argmax() == 20 and scores.argmin() == 21
    assert scores[20] == pytest.approx(-scores[21])
    if method in ("cosine", "weighted"):
        assert scores[20] == pytest.approx(1)


def test_extreme_cosine_by_hand():
    signature, profile = np.array([1.0, 2.0, -3.0, 0.0]), np.array([0.5, -4.0, 3.0, 0.1])
    kept = np.array([0, -4.0, 3.0, 0])
    expected = -(signature @ kept) / np.linalg.norm(signature) / 5
    np.testing.assert_allclose(reversal(signature, profile, "extreme", n_genes=1), [expected])


def test_ks_by_hand():
    """Ten genes; up-tags at ranks 1, 3 and down-tags at 9, 10 of the profile."""
    signature = np.array([5.0, 4, 0, 0, 0, 0, 0, 0, -4, -5])
    profile = np.array([9.0, 7, 8, 6, 5, 4, 3, 2, 1, 0])
    up = max(1 / 2 - 1 / 10, 1 - 3 / 10)  # a = .7, b = max(.1, .3 - .5)
    down = -max(9 / 10, 1 - 1 / 2)
    np.testing.assert_allclose(reversal(signature, profile, "ks", n_genes=2), [-(up - down)])


def test_weighted_score_equals_the_running_sum(data):
    query, library = data
    got = reversal(query, library, "weighted", n_genes=5)

    def enrichment(tags, profile):
        running, sums = 0.0, []
        for g in np.argsort(-profile):
            running += abs(profile[g]) / np.abs(profile[tags]).sum() if g in tags else -1 / (len(profile) - len(tags))
            sums.append(running)
        return sums[int(np.argmax(np.abs(sums)))]

    for i, q in enumerate(query):
        order = np.argsort(-q)
        for j, p in enumerate(library):
            up, down = enrichment(order[:5], p), enrichment(order[-5:], p)
            expected = 0.0 if np.sign(up) == np.sign(down) else (up - down) / 2
            assert got[i, j] == pytest.approx(-expected)


@pytest.mark.parametrize("method", METHODS)
def test_queries_blocks_scale_and_the_order_of_genes_do_not_matter(data, method, monkeypatch):
    query, library = data
    library = np.round(library, 1)  # ties
    scores = reversal(query, library, method)
    assert scores.shape == (3, 20)
    np.testing.assert_allclose(reversal(query[1], library, method), scores[1])
    np.testing.assert_allclose(reversal(3 * query, 0.5 * library, method), scores, atol=1e-12)
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(reversal(query[:, order], library[:, order], method), scores, atol=1e-12)
    monkeypatch.setattr("scjepa.pharma._connectivity.BLOCK", 7)
    np.testing.assert_allclose(reversal(query, library, method), scores)


@pytest.mark.parametrize("method", METHODS)
def test_a_drug_without_effect_scores_zero(data, method):
    assert reversal(data[0][0], np.zeros((1, 60)), method).tolist() == [0]


def test_progress_and_sizes():
    assert target_progress([1.0, 1.0], [1.0, 1.0], [0.0, 0.0]) == 1
    assert target_progress([0.0, 0.0], [1.0, 1.0], [0.0, 0.0]) == 0
    assert signature_score([2.0, 0.0], [0.0, 1.0]) == 0
    np.testing.assert_allclose(signature_score([[3.0, 4.0]], [6.0, 8.0]), [5])
    np.testing.assert_allclose(effect_size([[2.0, 2.0]], noise=[2.0, 1.0]), [np.sqrt(5)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reversal([1, 2], [[1, 2, 3]]), "signature has 2 genes and library has 3"),
        (lambda: reversal([1, np.nan], [[1, 2]]), "signature has 1 missing or infinite"),
        (lambda: reversal([1, 2], [[1, np.inf]]), "library has 1 missing or infinite"),
        (lambda: reversal([[1, 2], [0, 0]], [[1, 2]]), "1 of 2 signatures are all 0"),
        (lambda: reversal([1, 2], np.zeros((0, 2))), r"library has shape \(0, 2\)"),
        (lambda: reversal([1, 2], [[1, 2]], "cosin"), "method='cosin' is not among .*Did you mean 'cosine'"),
        (
            lambda: reversal([1, 2, 3], [[1, 2, 3]], "ks", n_genes=2),
            "n_genes=2 on each side of 3 genes: expected at most 1",
        ),
        (lambda: signature_score([1, 2], [[1, 2], [2, 1]]), r"signature has shape \(2, 2\): expected \(genes,\)"),
        (
            lambda: target_progress([1, 2], [1, 2, 3], [1, 2]),
            r"predicted has shape \(2,\), target \(3,\) and source \(2,\)",
        ),
        (lambda: target_progress([1, 2], [1, 2], [1, 2]), "source and target are the same"),
        (lambda: effect_size([1, 2], noise=[1, 0]), "noise has shape .* smallest value of 0"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
