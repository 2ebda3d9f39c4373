"""Tipping points are found when they are; asynchrony, unequal depth and steady rises are none."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scjepa._scale import lognormalise
from scjepa.dynamics import critical_transitions, thin_counts
from scjepa.dynamics._critical import _prominence

FEW = {"n_permutations": 59}


def system(tip=None, size=1.2, times=6, n=70, genes=40, seed=0, shape=None):
    rng = np.random.default_rng(seed)
    t = np.repeat(np.arange(times), n)
    x = 6 + rng.normal(size=(len(t), genes)) + np.outer(rng.normal(size=len(t)) * 2, rng.normal(size=genes))
    if tip is not None:
        shape = np.where(np.arange(times) == tip, 1.0, 0.0)
    if shape is not None:
        x[:, :10] += size * (np.asarray(shape)[t] * rng.normal(size=len(t)))[:, None] * np.tile([1, -1], 5)
    return 7 + (x - 6) / 5, t.astype(float)


@pytest.mark.parametrize("tip", [1, 3])
def test_time_and_module(tip):
    x, t = system(tip)
    found = critical_transitions(x, t, **FEW)
    assert found.p == pytest.approx(1 / 60) and (found.step, found.time) == (tip, tip)
    assert set(found.module[:5]) <= set(range(10)), "below a common state of greater variance"
    sign = found.loadings[:5] * np.tile([1, -1], 20)[found.module[:5]]
    assert (sign > 0).all() or (sign < 0).all(), "genes of both signs fluctuate against each other"
    assert np.nanargmax(found.prominence) == tip and np.isnan(found.prominence[[0, -1]]).all()
    again = critical_transitions(x, t, **FEW)
    np.testing.assert_array_equal(found.index, again.index)


def test_false_positives_without_a_tip():
    p = [critical_transitions(*system(seed=s), n_permutations=19).p for s in range(12)]
    assert sum(v <= 0.05 for v in p) <= 2


def test_a_steady_rise_has_no_peak():
    assert critical_transitions(*system(shape=np.linspace(0, 1, 6)), **FEW).p > 0.05
    np.testing.assert_allclose(_prominence(np.array([0.0, 1, 2, 3])), [-1, -1])
    np.testing.assert_allclose(_prominence(np.array([1.0, 4, 2, 3, 0])), [3, 1, 2])


def test_early_and_late_cells_on_a_fast_path_are_no_tip():
    t, found = np.repeat(np.arange(6.0), 70), {True: [], False: []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        progress = 1 / (1 + np.exp(-3 * (t + 0.6 * rng.normal(size=len(t)) - 2.5)))
        x = 7 + (rng.normal(size=(len(t), 40)) + np.outer(progress, rng.normal(0, 3, 40))) / 3
        for off, ps in found.items():
            ps.append(critical_transitions(x, t, off_path=off, n_permutations=39).p)
    assert sum(p <= 0.05 for p in found[True]) <= 1 and sum(p <= 0.05 for p in found[False]) >= 3


def counts(depth, n=60, genes=50, seed=0):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(genes))
    rate = np.exp(0.3 * rng.normal(size=(len(depth) * n, genes))) * share
    rate = (
        rate
        / rate.sum(1, keepdims=True)
        * np.repeat(depth, n)[:, None]
        * np.exp(0.3 * rng.normal(size=(len(depth) * n, 1)))
    )
    return rng.poisson(rate).astype(float), np.repeat(np.arange(len(depth)), n).astype(float)


def test_unequal_depth_is_thinned_or_refused():
    x, t = counts([2000, 2000, 300, 2000, 2000])
    assert critical_transitions(x, t, **FEW).p > 0.05
    with pytest.raises(
        ValueError, match=r"of time \d were sequenced [5-8]\.\d times as deep as those of time 2.*raw counts"
    ):
        critical_transitions(lognormalise(x, target_sum=1e4), t, **FEW)
    with pytest.raises(ValueError, match="as deep"):
        critical_transitions(sp.csr_matrix(lognormalise(x, target_sum=1e4)), t, **FEW)
    critical_transitions(lognormalise(thin_counts(x, t), target_sum=1e4), t, n_permutations=19)


def test_thinned_counts_have_one_distribution_of_depth():
    x, t = counts([2000, 500, 1000])
    thin = thin_counts(x, t, seed=1)
    assert ((thin <= x) & (thin >= 0) & (thin == thin.round())).all()
    depth = [np.quantile(thin[t == k].sum(1), [0.1, 0.5, 0.9]) for k in range(3)]
    np.testing.assert_allclose(depth[0], depth[1], rtol=0.1)
    np.testing.assert_allclose(depth[2], depth[1], rtol=0.1)
    np.testing.assert_array_equal(thin[t == 1], x[t == 1]), "the shallowest cells stay as they are"
    sparse = thin_counts(sp.csr_matrix(x), t, seed=1)
    assert sp.issparse(sparse) and np.allclose(sparse.sum(), thin.sum(), rtol=0.01)
    share = [m[t == 0].sum(0) / m[t == 0].sum() for m in (x, thin)]
    np.testing.assert_allclose(share[0], share[1], atol=0.01)


def test_sparse_and_dense_agree():
    x, t = counts([1000, 1000, 1000])
    values = lognormalise(x, target_sum=1e4)
    a, b = (critical_transitions(m, t, n_permutations=19) for m in (values, sp.csr_matrix(values)))
    np.testing.assert_allclose(a.index, b.index, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.repeat([0.0, 1.0], 60)}, "2 distinct values: a peak needs a time before and one after"),
        ({"times": np.repeat([0.0, 1.0, 2.0], [70, 45, 5])}, r"'2 \(5 cells\)': expected 20 or more"),
        ({"x": np.ones((3, 2))}, "expected"),
        ({"n_permutations": 5}, "n_permutations=5: expected a whole number of at least 19"),
        ({"x": np.tile(np.arange(1.0, 5.0) / 3, (120, 1))}, "0 genes vary"),
    ],
)
def test_refusals(change, message):
    rng = np.random.default_rng(0)
    given = {"x": 5 + rng.normal(size=(120, 10)), "times": np.repeat([0.0, 1.0, 2.0], 40)} | change
    with pytest.raises(ValueError, match=message):
        critical_transitions(**given)


def test_only_counts_can_be_thinned():
    with pytest.raises(ValueError, match="counts"):
        thin_counts(np.array([[0.5, 1.0], [2.0, 0.0]]), np.array([0, 1]))
