"""rank_sum_test: equal to scipy and to scanpy with its correction for ties, whatever the form of the cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import mannwhitneyu

from scjepa.metrics import rank_sum_test
from scjepa.metrics._rank_sum import sort_cells


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray]:
    """Rounded values with many ties and zeros, negative ones too; gene 5 is zero and gene 6 constant."""
    rng = np.random.default_rng(0)
    a, b = (np.round(rng.normal(shift, 2, size=(n, 40))) / 2 for n, shift in ((30, 0.0), (50, 0.4)))
    for x in (a, b):
        x[:, 5], x[:, 6] = 0, 1.5
    return a, b


def test_equals_scipy(cells):
    got, expected = rank_sum_test(*cells), mannwhitneyu(*cells, axis=0, method="asymptotic", use_continuity=False)
    np.testing.assert_allclose(got.p_value, expected.pvalue, rtol=1e-10)
    assert np.isnan(got.p_value[[5, 6]]).all() and np.isfinite(np.delete(got.p_value, [5, 6])).all()
    middle = 30 * 50 / 2
    assert (np.sign(got.z) == np.sign(expected.statistic - middle))[np.isfinite(got.z)].all()


def test_equals_scanpy_on_sparse_cells(cells):
    a, b = (np.maximum(x, 0) for x in cells)
    adata = ad.AnnData(np.vstack([a, b]), obs=pd.DataFrame({"g": ["a"] * 30 + ["b"] * 50}))
    adata.obs_names = adata.obs_names.astype(str)
    sc.tl.rank_genes_groups(adata, "g", groups=["a"], reference="b", method="wilcoxon", tie_correct=True)
    found = sc.get.rank_genes_groups_df(adata, "a").set_index("names").loc[adata.var_names]
    got = rank_sum_test(sp.csr_matrix(a), sp.csc_matrix(b))
    varied = np.isfinite(got.z)
    assert varied.sum() == 38
    np.testing.assert_allclose(got.z[varied], found["scores"].to_numpy()[varied], rtol=1e-5)
    np.testing.assert_allclose(got.p_value[varied], found["pvals"].to_numpy()[varied], rtol=1e-5)


def test_form_order_and_stored_zeros_do_not_matter(cells):
    a, b = cells
    expected = rank_sum_test(a, b)
    explicit = sp.csr_matrix(np.where(a == 0, 7, a))
    explicit.data[explicit.data == 7] = 0  # zeros that are stored
    rng = np.random.default_rng(1)
    for x, y in ((sp.csr_matrix(a), b), (explicit, sp.csc_matrix(b)), (rng.permutation(a), rng.permutation(b)),
                 (a, sort_cells(b)), (a.astype(np.float32), b)):  # fmt: skip
        got = rank_sum_test(x, y)
        np.testing.assert_allclose(got.z, expected.z, rtol=1e-12)
    np.testing.assert_allclose(rank_sum_test(b, a).z, -expected.z, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "cells has 3 genes and control has 4"),
        (np.ones((0, 3)), np.ones((2, 3)), "cells has 0 rows and control has 2"),
        (np.array([[1.0, np.nan]]), np.ones((2, 2)), "cells has 1 NaN values"),
        (np.ones(3), np.ones((2, 3)), "cells has shape \\(3,\\)"),
    ],
)
def test_errors(a, b, message):
    with pytest.raises(ValueError, match=message):
        rank_sum_test(a, b)
