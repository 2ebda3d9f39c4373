"""Principal components: the same as scikit-learn's full decomposition, whatever the shape and storage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scjepa.data import fit_components


def data(n: int, genes: int, seed: int = 0) -> np.ndarray:
    """Sparse, non-negative data with a few strong axes well apart."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, 4)) * [8, 5, 3, 2] @ np.linalg.qr(rng.normal(size=(genes, 4)))[0].T
    return np.maximum(signal + rng.normal(0, 0.1, (n, genes)), 0).astype(np.float32)


def check(components, x: np.ndarray, d: int = 4) -> None:
    full = PCA(d, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(components.mean, full.mean_, atol=1e-5)
    np.testing.assert_allclose(components.std, np.sqrt(full.explained_variance_), rtol=1e-3)
    np.testing.assert_allclose(np.abs((components.loadings * full.components_).sum(1)), 1, atol=1e-3)
    np.testing.assert_allclose(components.loadings @ components.loadings.T, np.eye(d), atol=1e-4)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    ("n", "genes"),
    [(200, 30), (40, 90), (650, 610)],
    ids=["eigenproblem", "full", "Lanczos"],
)
def test_agrees_with_scikit_learn(form, n: int, genes: int) -> None:
    x = data(n, genes)
    got = fit_components(form(x), 4)
    assert {a.dtype for a in got} == {np.dtype(np.float32)}
    check(got, x)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_shapes_are_fixed_beyond_the_rank(form) -> None:
    rng = np.random.default_rng(0)
    few = fit_components(form(rng.random((4, 9)).astype(np.float32)), 7)
    assert few.loadings.shape == (7, 9) and few.std.shape == (7,) and few.mean.shape == (9,)
    assert (few.std[:3] > 0).all()
    assert not few.std[3:].any() and not few.loadings[3:].any()
    # 50 cells, but only 2 directions: what is left after them is rounding
    flat = (rng.normal(size=(50, 2)) @ rng.normal(size=(2, 9)) + 5).astype(np.float32)
    got = fit_components(form(flat), 5)
    assert (got.std[:2] > 0.1).all()
    assert not got.std[2:].any() and not got.loadings[2:].any()


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_no_variance_no_components(form) -> None:
    for x in (np.ones((5, 3), np.float32), np.ones((1, 3), np.float32)):
        got = fit_components(form(x), 2)
        assert not got.std.any() and not got.loadings.any()
        assert got.mean.tolist() == [1, 1, 1]


def test_order_of_cells_does_not_matter() -> None:
    x = data(120, 40)
    a, b = fit_components(x, 4), fit_components(x[np.random.default_rng(1).permutation(120)], 4)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-4)
    np.testing.assert_allclose(a.loadings, b.loadings, atol=1e-3)  # signs included


def test_input_stays_as_it_was() -> None:
    x = data(30, 8)
    before = x.copy()
    fit_components(x, 3)
    np.testing.assert_array_equal(x, before)
