"""Cells as the models read them: same numbers from counts and log values, and views that add up to the cell."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scjepa.data import EmbeddingCache, ExpressionMatrix, group_cells, largest_values, shift_cells


def counts(n: int = 40, genes: int = 30, seed: int = 0) -> np.ndarray:
    """Counts with a wide range of depths; gene 0 has one count in every cell, so that the unit is visible."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(1, 3, genes) * rng.lognormal(0, 0.5, (n, 1))).astype(np.float32)
    x[:, 0] = 1
    return x


def test_counts_equal_scanpy() -> None:
    adata = ad.AnnData(counts())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    from_counts = ExpressionMatrix(counts(), "counts")
    np.testing.assert_allclose(from_counts.values.toarray(), adata.X, atol=1e-6, rtol=1e-6)
    from_logs = ExpressionMatrix(adata.X, "lognorm")
    np.testing.assert_allclose(from_logs.unit, from_counts.unit, rtol=1e-5)
    np.testing.assert_allclose(from_logs.unit, 1e4 / counts().sum(1), rtol=1e-5)
    assert from_logs.reference_unit(np.arange(40)) == pytest.approx(from_counts.reference_unit(np.arange(40)), rel=1e-5)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_dense_equals_sparse(form) -> None:
    dense, sparse = ExpressionMatrix(counts(), "counts"), ExpressionMatrix(form(counts().astype(int)), "counts")
    assert sparse.shape == (40, 30)
    np.testing.assert_array_equal(dense.rows([3, 1]), sparse.rows([3, 1]))
    a = dense.views(np.arange(5), np.random.default_rng(0))
    b = sparse.views(np.arange(5), np.random.default_rng(0))
    np.testing.assert_array_equal(a, b)


def test_input_is_not_changed_and_not_copied() -> None:
    x = sp.csr_matrix(np.log1p(counts()))
    before = x.toarray()
    cells = ExpressionMatrix(x, "lognorm")
    assert np.shares_memory(cells.values.data, x.data)
    cells.at_depth(3.0)
    cells.views(np.arange(9), np.random.default_rng(0))
    np.testing.assert_array_equal(x.toarray(), before)


def test_averaged_profiles_have_no_unit() -> None:
    means = ExpressionMatrix(counts(), "counts").values.toarray().reshape(10, 4, 30).mean(1)
    cells = ExpressionMatrix(means, "lognorm")
    assert cells.unit is None and cells.reference_unit(np.arange(10)) == 1.0
    first, second = cells.views(np.array([2, 0]), np.random.default_rng(0))
    np.testing.assert_array_equal(first, cells.rows([2, 0]))
    np.testing.assert_array_equal(second, first)
    assert not np.shares_memory(first, second)


def test_reference_unit_is_the_median_over_the_given_cells() -> None:
    x = np.array([[1.0, 1], [4, 0], [0, 5], [0, 0], [50, 50]])
    cells = ExpressionMatrix(x, "counts", target_sum=20)
    assert cells.unit.tolist() == pytest.approx([10, 5, 4, 0, 0.2])
    assert cells.reference_unit(np.array([0, 1, 2])) == 5
    assert cells.reference_unit(np.array([0, 2, 3])) == 7  # the empty cell does not count
    assert cells.reference_unit(np.array([3])) == 1.0


def test_library_of_more_genes_than_given() -> None:
    cells = ExpressionMatrix(np.array([[1.0, 3]]), "counts", target_sum=100, library=[10.0])
    np.testing.assert_allclose(np.expm1(cells.rows([0])), [[10, 30]], rtol=1e-6)


def test_rescaling_to_a_reference_depth() -> None:
    cells = ExpressionMatrix(counts(), "counts")
    np.testing.assert_allclose(
        np.expm1(cells.rows(slice(4, 9), 25.0)), np.expm1(cells.rows(slice(4, 9))) / 25, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(cells.at_depth(25.0).toarray(), cells.rows(slice(None), 25.0))
    assert cells.rows([0, 2], 25.0).dtype == np.float32


def test_both_views_add_up_to_the_counts() -> None:
    x, reference = counts(), 7.0
    cells = ExpressionMatrix(x, "counts")
    chosen = np.array([5, 0, 17])
    first, second = cells.views(chosen, np.random.default_rng(3), reference=reference)
    p = np.random.default_rng(3).uniform(0.3, 0.7, 3)[:, None]  # the first thing that is drawn
    worth = cells.unit[chosen][:, None] / reference
    a, b = np.expm1(first) * p / worth, np.expm1(second) * (1 - p) / worth
    for part in (a, b):
        np.testing.assert_allclose(part, np.rint(part), atol=2e-3)  # whole counts
    np.testing.assert_allclose(a + b, x[chosen], atol=2e-3)
    assert (a < x[chosen]).any() and (b < x[chosen]).any()


def test_views_of_log_values_equal_views_of_counts() -> None:
    from_counts = ExpressionMatrix(counts(), "counts")
    from_logs = ExpressionMatrix(from_counts.values.toarray(), "lognorm")
    a = from_counts.views(np.arange(40), np.random.default_rng(1))
    b = from_logs.views(np.arange(40), np.random.default_rng(1))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_views_are_unbiased_and_independent() -> None:
    """For Poisson counts the two views of a gene are uncorrelated, and each has the mean of the gene."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.poisson(4.0, (20000, 1)), np.full((20000, 1), 2)], 1)
    cells = ExpressionMatrix(x, "counts", target_sum=1, library=np.ones(20000))
    first, second = (np.expm1(v) for v in cells.views(np.arange(20000), rng, low=0.5, high=0.5))
    assert first[:, 0].mean() == pytest.approx(4, abs=0.08)  # standard error .02
    assert second[:, 0].mean() == pytest.approx(4, abs=0.08)
    assert np.corrcoef(first[:, 0], second[:, 0])[0, 1] == pytest.approx(0, abs=0.03)
    assert first[:, 1].mean() == pytest.approx(2, abs=0.06)


def test_views_are_deterministic_and_differ_between_draws() -> None:
    cells = ExpressionMatrix(counts(), "counts")
    rng = np.random.default_rng(5)
    a, again = cells.views(np.arange(4), rng), cells.views(np.arange(4), rng)
    b = cells.views(np.arange(4), np.random.default_rng(5))
    np.testing.assert_array_equal(a, b)
    assert (a[0] != again[0]).any()
    assert a[0].dtype == np.float32


def test_views_of_empty_cells_and_explicit_zeros() -> None:
    x = sp.csr_matrix(np.array([[1.0, 2, 3], [0, 0, 0], [4, 1, 0]]))
    x.data[1] = 0  # a stored zero
    first, second = ExpressionMatrix(x, "counts").views(np.array([0, 1, 2]), np.random.default_rng(0))
    assert np.isfinite(first).all() and np.isfinite(second).all()
    assert first[1].tolist() == second[1].tolist() == [0, 0, 0]
    assert first[0, 1] == second[0, 1] == 0


# ---------------------------------------------------------------- cache and predicted cells
def test_cache_gathers_by_position() -> None:
    z, h = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6, dtype=np.float32)[:, None]
    cells = np.array([[5, 0, 5], [1, 2, 3]])
    got = EmbeddingCache(z, h).gather(cells)
    assert got["z"].shape == (2, 3, 2) and got["h"].shape == (2, 3, 1)
    np.testing.assert_array_equal(got["z"].numpy(), z[cells])
    assert got["h"][..., 0].tolist() == cells.tolist()
    assert set(EmbeddingCache(z).gather(cells)) == {"z"}
    got["z"][:] = -1
    assert z.min() == 0  # the cache itself is never handed out


def test_shift_keeps_means_and_sign() -> None:
    rng = np.random.default_rng(0)
    cells = np.log1p(rng.poisson(0.5, (200, 50))).astype(np.float32)
    shift = rng.normal(0, 0.4, 50)
    moved = shift_cells(cells, shift)
    assert moved.dtype == np.float32 and (moved >= 0).all()
    np.testing.assert_allclose(moved.mean(0), np.maximum(cells.mean(0) + shift, 0), atol=1e-5)
    per_cell = rng.normal(-0.1, 0.4, (200, 50))
    moved = shift_cells(cells, per_cell)
    assert (moved >= 0).all()
    np.testing.assert_allclose(moved.mean(0), np.maximum((cells + per_cell).mean(0), 0), atol=1e-5)


def test_shift_by_hand() -> None:
    cells = np.array([[0.0, 1.0, 0.0], [4.0, 3.0, 1.0]], dtype=np.float32)
    before = cells.copy()
    # gene 0: -1 -> (-1, 3), mean 1, clipped (0, 3), rescaled (0, 2); gene 1: up, plain; gene 2: below zero on average
    np.testing.assert_allclose(shift_cells(cells, np.array([-1, 0.5, -2])), [[0, 1.5, 0], [2, 3.5, 0]])
    np.testing.assert_array_equal(cells, before)
    np.testing.assert_array_equal(shift_cells(cells, np.zeros(3)), cells)


def screen_like(n: int = 400, genes: int = 60, seed: int = 3) -> np.ndarray:
    """Log-normalised cells of negative binomial counts, many of them zero; the last gene is never expressed."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(2, 1, (n, genes)) / 2 * rng.gamma(0.5, 1, genes) * rng.lognormal(0, 0.3, (n, 1)))
    x[:, -1] = 0
    return np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1)).astype(np.float32)


def test_a_shift_leaves_about_as_many_zeros_as_real_cells_have() -> None:
    cells = screen_like()
    count = np.expm1(cells).mean(0)[:-1]
    for fold in (1.5, 4.0):
        zeros = (cells[:, :-1] == 0).mean(0)
        target = np.log1p(count * fold)
        shift = np.append(target - np.log1p(count), 0.0)
        moved = shift_cells(cells, shift)
        np.testing.assert_allclose(moved.mean(0), np.maximum(cells.mean(0) + shift, 0), atol=1e-4)
        left = (moved[:, :-1] == 0).mean(0)
        assert (left <= zeros).all() and (left[zeros > 0.3] > 0).all()
        assert left.mean() < zeros.mean() - 0.02 and left.mean() > 0.5 * zeros.mean()


def test_zeros_that_stay_do_not_depend_on_the_order_of_cells_or_genes() -> None:
    cells, rng = screen_like(), np.random.default_rng(0)
    shift = rng.normal(0.1, 0.4, cells.shape)
    rows, genes = rng.permutation(len(cells)), rng.permutation(cells.shape[1])
    moved = shift_cells(cells, shift)
    np.testing.assert_allclose(shift_cells(cells[rows], shift[rows]), moved[rows], atol=1e-5)
    np.testing.assert_allclose(shift_cells(cells[:, genes], shift[:, genes]), moved[:, genes], atol=1e-5)


def test_cells_that_no_gene_asks_to_move_stay() -> None:
    cells = screen_like()
    np.testing.assert_allclose(shift_cells(cells, np.zeros(60)), cells, atol=1e-5)
    down = shift_cells(cells, np.full(60, -0.2))
    assert (down[cells == 0] == 0).all()  # lowering a gene never makes a cell express it
    np.testing.assert_allclose(down.mean(0), np.maximum(cells.mean(0) - 0.2, 0), atol=1e-5)


def test_a_gene_that_no_control_expresses_appears_in_few_cells() -> None:
    cells = screen_like()
    moved = shift_cells(cells, np.append(np.zeros(59), 0.3))[:, -1]
    one = np.median([row[row > 0].min() for row in cells])
    assert moved.mean() == pytest.approx(0.3, abs=1e-5)
    assert (moved > 0).sum() == pytest.approx(0.3 * 400 / one, rel=0.2)


# ---------------------------------------------------------------- possible values
@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
@pytest.mark.parametrize("per_cell", [False, True])
def test_bounded_cells_have_the_mean_asked_for_where_it_is_possible(scale: float, per_cell: bool) -> None:
    cells, rng = screen_like(), np.random.default_rng(1)
    shift = rng.normal(0, scale, cells.shape if per_cell else 60).astype(np.float32)
    upper = (cells.max(0) * rng.uniform(0.7, 1.3, 60)).astype(np.float32)
    upper[-2:] = 9.0, 2.0  # the last gene is not expressed
    bound = np.maximum(upper, cells.max(0))
    moved = shift_cells(cells, shift, upper)
    assert moved.dtype == np.float32 and (moved >= 0).all() and (moved <= bound).all()
    wanted = np.clip((cells + shift).mean(0, dtype=np.float64), 0, bound)
    np.testing.assert_allclose(moved.mean(0, dtype=np.float64), wanted, atol=1e-5)
    free = shift_cells(cells, shift)
    fits = free.max(0) <= bound
    np.testing.assert_array_equal(moved[:, fits], free[:, fits])  # a bound that is not reached changes nothing
    assert 0 < fits.sum() < 60


def test_bounds_by_hand() -> None:
    cells = np.array([[1.0, 0.0, 3.0, 0.0], [3.0, 2.0, 3.0, 0.0], [5.0, 4.0, 3.0, 0.0]], dtype=np.float32)
    moved = shift_cells(cells, np.array([2.0, 1.0, 2.0, 2.5]), np.array([6.0, 4.5, 4.0, 2.0]))
    np.testing.assert_allclose(moved[:, 0], [3.5, 5.5, 6.0])  # (3, 5, 7) does not fit; the others get what is cut off
    np.testing.assert_allclose(moved[:, 1].sum(), 9.0)
    assert moved[:, 1].max() == 4.5
    np.testing.assert_array_equal(moved[:, 2], 4.0)  # the mean itself is beyond the bound
    np.testing.assert_array_equal(moved[:, 3], 2.0)
    # nearly all of what is possible: zeros must go, whatever counts would have
    full = shift_cells(cells, np.array([0, 2.2, 0, 0]), np.array([5.0, 4.4, 3.0, 0.0]))
    np.testing.assert_allclose(full[:, 1].mean(), 4.2, rtol=1e-6)
    assert (full[:, 1] > 3).all() and full[:, 1].max() <= np.float32(4.4)


def test_what_was_measured_is_possible_and_stays() -> None:
    cells = screen_like()
    np.testing.assert_array_equal(shift_cells(cells, np.zeros(60), np.zeros(60)), shift_cells(cells, np.zeros(60)))
    moved = shift_cells(cells, np.full(60, 0.5), np.zeros(60))
    assert (moved <= cells.max(0)).all()
    one = np.array([[2.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(shift_cells(one, np.array([1.0, 1.0]), np.array([1.0, 0.5])), [[2.0, 0.5]])


def test_largest_values_are_those_of_the_cells_that_count() -> None:
    x, labels = screen_like(), np.repeat(["control", "A", "B", "C"], 100)
    groups = group_cells(labels)
    for matrix in (x, sp.csr_matrix(x), x.astype(np.float64)):
        found = largest_values(matrix, groups)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, x.max(0))
        np.testing.assert_array_equal(largest_values(matrix, groups.rows([0, 2])), x[labels != "B"].max(0))
    profiles = group_cells(np.array(["control", "A", "B", "C"]))
    np.testing.assert_array_equal(largest_values(x[::100], profiles), np.full(60, x[::100].max()))
