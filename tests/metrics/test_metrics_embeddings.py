"""Collapse metrics: constructed spectra with known answers, invariances, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from scjepa.metrics import alpha_req, lidar, rankme


def _spectrum(s: np.ndarray, n: int = 40, *, center: bool = False) -> np.ndarray:
    """Matrix with singular values ``s``; with ``center`` its columns have mean zero."""
    rng = np.random.default_rng(0)
    left = rng.normal(size=(n, len(s)))
    left = np.linalg.qr(left - left.mean(0) if center else left)[0]
    return (left * s) @ np.linalg.qr(rng.normal(size=(len(s), len(s))))[0]


def test_rankme_formula():
    s = np.array([5.0, 3.0, 1.0])
    p = s / s.sum() + 1e-5
    assert rankme(_spectrum(s)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_rankme_extremes():
    assert rankme(_spectrum(np.ones(8))) == pytest.approx(8, rel=1e-3)
    # collapse to one vector: not centered, so the effective rank is about one
    assert rankme(np.tile([1.0, 2.0, 3.0], (20, 1))) == pytest.approx(1, abs=1e-3)


def test_rankme_ignores_scale_and_rotation():
    z = np.random.default_rng(1).normal(size=(30, 5)) * [5, 3, 1, 1, 0.1]
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))[0]
    assert rankme(7 * z @ turn) == pytest.approx(rankme(z), rel=1e-9)


def test_alpha_req_recovers_the_exponent():
    k = np.arange(1, 11)
    assert alpha_req(_spectrum(k**-0.75, center=True)) == pytest.approx(1.5, rel=1e-9)
    assert alpha_req(_spectrum(np.ones(10), center=True)) == pytest.approx(0, abs=1e-9)
    assert alpha_req(_spectrum(k**-0.75, center=True) + 100) == pytest.approx(1.5, rel=1e-6)


def test_lidar_counts_the_directions_that_separate_groups():
    """Four groups at the corners of a tetrahedron are separated by three directions equally."""
    corners = np.eye(4)[:, :4] * 10
    noise = np.vstack([np.eye(4), -np.eye(4)]) * 0.5
    z = np.vstack([c + noise for c in corners])
    groups = np.repeat(list("abcd"), 8)
    assert lidar(z, groups) == pytest.approx(3, rel=1e-6)
    line = np.vstack([[10.0 * i, 0, 0, 0] + noise for i in range(4)])
    assert lidar(line, groups) == pytest.approx(1, abs=1e-6)


def test_lidar_agrees_with_the_formula():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(5), 12)
    z = rng.normal(size=(5, 6))[groups] * [3, 2, 1, 1, 0.5, 0] + rng.normal(size=(60, 6)) * [1, 2, 1, 0.5, 1, 1]
    means = np.stack([z[groups == g].mean(0) for g in range(5)])
    within = sum((len(z[groups == g]) - 1) * np.cov(z[groups == g].T) for g in range(5)) / (60 - 5) + 1e-4 * np.eye(6)
    w, v = np.linalg.eigh(within)
    root = v / np.sqrt(w) @ v.T
    eigenvalues = np.linalg.eigvalsh(root @ np.cov(means.T) @ root).clip(1e-300)
    p = eigenvalues / eigenvalues.sum()
    assert lidar(z, groups) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-8)


def test_lidar_ignores_order_and_names_of_groups():
    rng = np.random.default_rng(4)
    z, groups = rng.normal(size=(30, 3)), rng.integers(0, 4, 30)
    order = rng.permutation(30)
    assert lidar(z[order], np.array(list("zyxw"))[groups][order]) == pytest.approx(lidar(z, groups), rel=1e-9)


def test_undefined_is_nan_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(rankme(np.zeros((4, 3))))
        assert np.isnan(rankme([[np.nan, 1.0]]))
        assert np.isnan(alpha_req(np.full((6, 3), 0.1)))
        assert np.isnan(alpha_req([[1.0, 2.0]]))
        assert np.isnan(lidar(np.full((6, 3), 0.1), list("aaabbb")))
        assert np.isnan(lidar(np.eye(3), list("abc")))


@pytest.mark.parametrize("metric", [rankme, alpha_req, lambda z: lidar(z, [0, 1])])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match="z has shape .*expected a matrix"):
        metric(np.ones(3))


def test_lidar_checks_groups():
    with pytest.raises(ValueError, match=r"groups has shape \(2,\), z has 3 rows"):
        lidar(np.ones((3, 2)), ["a", "b"])
    with pytest.raises(ValueError, match=r"one label only \('a'\)"):
        lidar(np.ones((3, 2)), ["a", "a", "a"])
