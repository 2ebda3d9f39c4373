"""Transforms of modalities: known values, training cells only, sparse as dense, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse as sp

from scjepa.omics import CLR, LSI, TFIDF, LogNormalize, transform_from_state

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2.0, (60, 12)).astype(float)
PEAKS = sp.random(200, 300, 0.08, format="csr", random_state=0, data_rvs=lambda n: RNG.integers(1, 3, n).astype(float))


def test_rna_is_scaled_and_logged_and_logged_values_stay():
    found = LogNormalize(100).fit(COUNTS).transform(COUNTS)
    np.testing.assert_allclose(found, np.log1p(100 * COUNTS / COUNTS.sum(1, keepdims=True)), rtol=1e-5)
    np.testing.assert_allclose(LogNormalize().fit(found).transform(found), found)
    sparse = LogNormalize(100).fit(sp.csr_matrix(COUNTS)).transform(sp.csr_matrix(COUNTS))
    np.testing.assert_allclose(sparse.toarray(), found, rtol=1e-5)


def test_protein_ratios_do_not_depend_on_depth_much_and_sum_to_zero():
    found = CLR().fit(COUNTS).transform(COUNTS)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)
    np.testing.assert_allclose(found, np.log1p(COUNTS) - np.log1p(COUNTS).mean(1, keepdims=True))
    deep = CLR().fit(COUNTS).transform(100 * (COUNTS + 1))
    np.testing.assert_allclose(deep, CLR().fit(COUNTS).transform(10_000 * (COUNTS + 1)), atol=0.02)
    np.testing.assert_allclose(CLR().fit(found).transform(found), found)


def test_peaks_are_weighed_by_training_cells_only():
    train, new = PEAKS[:150], PEAKS[150:]
    fitted = TFIDF(least=0.05).fit(train)
    open_ = (new > 0).astype(float).toarray()
    share = (train > 0).toarray().mean(0)
    kept = np.flatnonzero(share >= 0.05)
    np.testing.assert_array_equal(fitted.kept_, kept)
    expected = np.log1p(100 * open_[:, kept] / open_.sum(1, keepdims=True) / share[kept])
    found = fitted.transform(new)
    assert sp.issparse(found)
    np.testing.assert_allclose(found.toarray(), expected)
    # how often a peak was cut does not matter, whether it was does
    np.testing.assert_allclose(fitted.transform(7 * new).toarray(), expected)


def test_the_component_of_depth_is_left_out():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.02, 0.3, 300)
    state = rng.integers(0, 2, 300)
    odds = np.where(np.arange(400) < 200, 1 + 2 * state[:, None], 3 - 2 * state[:, None]) * depth[:, None]
    x = sp.csr_matrix((rng.random((300, 400)) < odds).astype(float))
    z = LSI(10).fit(x).transform(x)
    total = np.log1p(np.asarray(x.sum(1)).ravel())
    assert max(abs(np.corrcoef(z[:, j], total)[0, 1]) for j in range(z.shape[1])) < 0.9
    assert max(abs(np.corrcoef(z[:, j], state)[0, 1]) for j in range(z.shape[1])) > 0.8
    assert z.shape == (300, 9)


@pytest.mark.parametrize("make", [lambda: LogNormalize(50), CLR, lambda: TFIDF(0.05), lambda: LSI(5)])
def test_state_is_plain_and_rebuilds_the_transform(make):
    x = PEAKS if isinstance(make(), (TFIDF, LSI)) else sp.csr_matrix(COUNTS)
    fitted = make().fit(x[:50])
    state = fitted.state()
    json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items() if k != "weigh"})
    again, known = (t.transform(x[50:]) for t in (transform_from_state(state), fitted))
    dense = lambda m: m.toarray() if sp.issparse(m) else m
    np.testing.assert_array_equal(dense(again), dense(known))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: CLR().transform(COUNTS), RuntimeError, "CLR has seen no cells"),
        (lambda: CLR().fit(COUNTS).transform(COUNTS[:, 1:]), ValueError, "x has 11 features, training cells had 12"),
        (lambda: CLR().fit(COUNTS).transform(COUNTS + 0.5), ValueError, "no whole counts"),
        (lambda: CLR().fit(COUNTS[0]), ValueError, "expected \\(cells, features\\)"),
        (lambda: CLR().fit(COUNTS * np.nan), ValueError, "missing or infinite"),
        (lambda: LogNormalize().fit(COUNTS).transform(np.log1p(COUNTS)), ValueError, "logged values, the training cells counts"),
        (lambda: LogNormalize(0), ValueError, "target_sum"),
        (lambda: TFIDF().fit(-PEAKS), ValueError, "negative values"),
        (lambda: TFIDF(least=0.9).fit(PEAKS), ValueError, "no peak is open in 90.0%"),
        (lambda: TFIDF(least=1), ValueError, "least=1"),
        (lambda: TFIDF(scale=0), ValueError, "scale=0"),
        (lambda: LSI(0), ValueError, "n_components"),
    ],
)  # fmt: skip
def test_errors(ask, error, message):
    with pytest.raises(error, match=message):
        ask()
