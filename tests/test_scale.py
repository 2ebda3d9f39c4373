"""The scale of a matrix is found, checked and turned into log-normalised values."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp

from scjepa._scale import check_scale, count_unit, lognormalise, stored_values

COUNTS = np.array([[1, 3, 0], [0, 2, 6], [5, 0, 0]])
FORMATS = [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array]


@pytest.mark.parametrize("form", FORMATS)
def test_scale_is_found(form) -> None:
    assert check_scale(form(COUNTS)) == "counts"
    assert check_scale(form(COUNTS.astype(np.float32)), "counts") == "counts"
    assert check_scale(form(np.log1p(COUNTS * 0.7))) == "lognorm"
    assert check_scale(form(np.log1p(COUNTS * 0.7)), "lognorm") == "lognorm"
    assert check_scale(form((COUNTS > 0).astype(float)), "lognorm") == "lognorm"  # zeros and ones may be either


def test_one_fraction_among_many_values_is_found() -> None:
    x = np.ones(2**22 + 5, np.float32).reshape(1, -1)
    assert check_scale(x) == "counts"
    x[0, -1] = 0.5
    assert check_scale(x) == "lognorm"


@pytest.mark.parametrize(
    ("x", "scale", "message"),
    [
        (COUNTS, "raw", "input_scale='raw': expected 'auto', 'counts', 'lognorm' or 'signature'"),
        (np.zeros((2, 2)), "auto", "holds no values other than zero"),
        (sp.csr_matrix((2, 2)), "auto", "holds no values other than zero. Check that the right layer was given"),
        (sp.csr_matrix((np.zeros(1), [0], [0, 1, 1])), "auto", "holds no values other than zero"),
        (np.array([[np.nan, 1], [2, np.nan]]), "auto", "adata.X has 2 NaN or infinite values"),
        (np.array([[np.inf, 1]]), "auto", "adata.X has 1 NaN or infinite values"),
        (np.array([[-0.5, -2.25, 1]]), "auto", "2 negative values (smallest -2.25).*Scaled or z-scored data can't"),
        (COUNTS / 2, "counts", "fractional values (largest 3): these are not counts.*input_scale='lognorm'"),
        (COUNTS, "lognorm", "whole number (largest 6): these look like counts.*normalize_total"),
        (COUNTS * 2.6, "auto", "fractional values up to 15.6: it looks normalised but not logged.*log1p"),
    ],
)
def test_messages(x, scale: str, message: str) -> None:
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(ValueError, match=pattern):
        check_scale(x, scale)


def test_the_name_of_the_matrix_is_told() -> None:
    with pytest.raises(ValueError, match=r"adata.layers\['x'\] has 1 negative"):
        check_scale(np.array([[-1.0]]), name="adata.layers['x']")


def test_stored_values_is_a_view() -> None:
    for x in (np.ones((3, 2)), np.asfortranarray(np.ones((3, 2)))):
        assert np.shares_memory(stored_values(x), x)


@pytest.mark.parametrize("form", FORMATS)
def test_lognormalise_by_hand(form) -> None:
    got = lognormalise(form(COUNTS.astype(np.uint8)), 8.0)
    want = np.log1p([[2, 6, 0], [0, 2, 6], [8, 0, 0]])
    got = got.toarray() if sp.issparse(got) else got
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_lognormalise_leaves_its_input_and_shares_indices() -> None:
    x = sp.csr_matrix(COUNTS.astype(np.float32))
    before = x.toarray()
    got = lognormalise(x, 8.0)
    np.testing.assert_array_equal(x.toarray(), before)
    assert np.shares_memory(got.indices, x.indices)
    dense = COUNTS.astype(np.float32)
    lognormalise(dense, 8.0)
    np.testing.assert_array_equal(dense, before)


def test_lognormalise_with_given_library_and_empty_cells() -> None:
    got = lognormalise(np.array([[2.0, 0.0], [0.0, 0.0]]), 10.0, library=[4.0, 0.0])
    np.testing.assert_allclose(np.expm1(got), [[5, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_count_unit_is_recovered(form) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 4, 200), (60, 200))
    counts[7] = 0
    counts[:, 0] = np.where(counts.sum(1) > 0, 1, 0)  # every cell has a gene with one count
    totals = counts.sum(1)
    unit = count_unit(form(lognormalise(counts.astype(np.float32), 1e4)))
    want = np.divide(1e4, totals, out=np.zeros(60), where=totals > 0)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, want, rtol=1e-5)


def test_count_unit_with_explicit_zeros() -> None:
    x = sp.csr_matrix(np.log1p(np.array([[2.0, 4.0, 6.0], [3.0, 3.0, 9.0]])))
    x.data[1] = 0
    np.testing.assert_allclose(count_unit(x), [2, 3], rtol=1e-6)
    assert x.nnz == 6  # the caller's matrix is left as it was


def test_count_unit_over_several_blocks() -> None:
    x = sp.csr_matrix(np.log1p(np.arange(1, 8401)[:, None] * np.array([[1.0, 2.0]])))
    np.testing.assert_allclose(count_unit(x), np.arange(1, 8401), rtol=1e-6)


def test_no_count_unit() -> None:
    rng = np.random.default_rng(0)
    cells = lognormalise(rng.poisson(2, (50, 40)).astype(float), 100)
    assert count_unit(cells) is not None
    assert count_unit(cells.reshape(10, 5, 40).mean(1)) is None  # averaged profiles
    assert count_unit(np.zeros((2, 3))) is None


def test_count_unit_tolerates_few_odd_cells() -> None:
    x = np.log1p(np.tile([1.0, 2.0, 3.0], (40, 1)))
    x[0] = np.log1p([1.0, 1.5, 2.5])
    assert count_unit(x) is not None  # 1 of 40
    x[:3] = x[0]
    assert count_unit(x) is None  # 3 of 40 are more than a twentieth
