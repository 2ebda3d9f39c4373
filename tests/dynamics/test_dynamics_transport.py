"""Transport between snapshots: plans with known answers, fields that move cells, how far snapshots overlap."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from scjepa.dynamics import displacements, nearest, overlap, transport_plan, wasserstein

ot = pytest.importorskip("ot")


def snapshots(n: int = 40, m: int = 50, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 2


def test_the_exact_plan_is_the_one_of_pot() -> None:
    p, q = snapshots()
    plan = transport_plan(p, q)
    matrix = np.zeros((40, 50))
    matrix[plan.source, plan.target] = plan.mass
    np.testing.assert_allclose(matrix, ot.emd(ot.unif(40), ot.unif(50), ot.dist(p, q)), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1 / 40)


@pytest.mark.parametrize("method", ["entropic", "unbalanced"])
def test_soft_plans_go_to_the_exact_one_and_let_masses_differ(method: str) -> None:
    p, q = snapshots()
    cost = ot.dist(p, q)
    of = lambda plan: float((plan.mass * cost[plan.source, plan.target]).sum())
    soft, softer = (transport_plan(p, q, method=method, epsilon=e, marginal=100.0) for e in (0.01, 1.0))
    assert len(soft.mass) < len(softer.mass) and abs(soft.mass.sum() - 1) < 1e-9
    assert of(transport_plan(p, q)) * 0.95 < of(soft) < of(softer)


def test_cells_may_die_where_masses_are_not_held() -> None:
    p, q = np.array([[0.0], [50.0]]), np.array([[0.0], [1.0]])
    held, free = (transport_plan(p, q, method="unbalanced", marginal=m) for m in (100.0, 0.01))
    lost = [plan.mass[plan.source == 1].sum() for plan in (held, free)]
    assert lost[0] > 0.4 and lost[1] < 0.05


def test_in_one_dimension_cells_keep_their_order() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(30, 1)), 5 + rng.normal(size=(30, 1))
    plan = transport_plan(p, q)
    np.testing.assert_array_equal(np.argsort(p[plan.source, 0]), np.argsort(q[plan.target, 0]))


def test_masses_say_who_counts() -> None:
    p, q = np.array([[0.0], [10.0]]), np.array([[0.0], [10.0]])
    plan = transport_plan(p, q, source_mass=np.array([3.0, 1.0]), target_mass=np.array([1.0, 1.0]))
    assert dict(zip(zip(plan.source.tolist(), plan.target.tolist(), strict=True), plan.mass.tolist(), strict=True)) == {
        (0, 0): 0.5, (0, 1): 0.25, (1, 1): 0.25,
    }  # fmt: skip


def test_large_snapshots_are_matched_block_by_block() -> None:
    p, q = snapshots(300, 200)
    plan = transport_plan(p, q, block=50)
    np.testing.assert_allclose(np.bincount(plan.source, plan.mass, 300), 1 / 300, atol=1e-9)
    assert len(np.unique(plan.target)) == 200
    again = transport_plan(p, q, block=50)
    np.testing.assert_array_equal(plan.mass, again.mass)
    cost = ot.dist(p, q)
    whole = transport_plan(p, q)
    of = lambda x: (x.mass * cost[x.source, x.target]).sum()
    assert of(whole) <= of(plan) < 1.4 * of(whole)


def test_a_shift_is_found_and_its_noise_averaged() -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(200, 2))
    q = rng.normal(size=(200, 2)) + [4.0, 0.0]
    plan = transport_plan(p, q)
    rough, smooth = (displacements(p, q, plan, n_neighbors=k) for k in (1, 10))
    for a, b in zip(rough, smooth, strict=True):
        np.testing.assert_allclose(b.mean(0), [4.0, 0.0], atol=0.3)
        assert b.std(0).mean() < a.std(0).mean()
    np.testing.assert_allclose(rough[0].mean(0), q.mean(0) - p.mean(0))


def test_cells_without_mass_move_as_their_neighbours() -> None:
    p, q = np.array([[0.0], [0.1], [5.0]]), np.array([[1.0], [6.0]])
    plan = transport_plan(p, q, source_mass=np.array([1.0, 0.0, 1.0]))
    forward, _ = displacements(p, q, plan, n_neighbors=2)
    np.testing.assert_allclose(forward.ravel(), [1.0, 1.0, 1.0])


def test_overlap_runs_from_none_to_all_whatever_the_sizes() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    assert overlap(x, x + 50) == 0
    same = [overlap(x, rng.normal(size=(n, 3))) for n in (50, 400)]
    assert all(0.85 < value <= 1 for value in same)
    assert same[1] > overlap(x, rng.normal(size=(400, 3)) + 1.5) > overlap(x, rng.normal(size=(400, 3)) + 3)
    assert overlap(x[:1], x[1:3]) >= 0


def test_distances_agree_with_pot_and_closed_forms() -> None:
    p, q = snapshots()
    assert wasserstein(p, q) == pytest.approx(ot.emd2(ot.unif(40), ot.unif(50), ot.dist(p, q, metric="euclidean")))
    assert wasserstein(p, p + [3.0, 4.0, 0.0], order=2) == pytest.approx(5.0)
    assert wasserstein(p, p) == pytest.approx(0.0, abs=1e-9)
    assert wasserstein(np.array([[0.0], [1.0]]), np.array([[0.0]]), source_mass=np.array([1.0, 3.0])) == 0.75


def test_nearest_takes_what_there_is() -> None:
    assert nearest(np.array([[0.0]]), np.array([[2.0], [1.0]]), 5).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p, q: transport_plan(p, q[:, :2]), "source has 3 coordinates, target 2"),
        (lambda p, q: transport_plan(p[:0], q), r"source has shape \(0, 3\): expected \(cells, coordinates\)"),
        (lambda p, q: transport_plan(p * np.nan, q), "source has 120 missing or infinite values"),
        (lambda p, q: transport_plan(p, q, method="greedy"), "method='greedy' is not among the methods"),
        (lambda p, q: transport_plan(p, q, source_mass=np.ones(3)), r"source_mass has shape \(3,\): expected \(40,\)"),
        (lambda p, q: transport_plan(p, q, target_mass=np.zeros(50)), "target_mass has shape .*not all 0"),
        (lambda p, q: transport_plan(p, q, block=1), "block=1"),
    ],
)
def test_what_is_refused(ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(*snapshots())


def test_without_pot_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"needs POT. Install it with: pip install 'scjepa\[trajectories\]'"):
        transport_plan(*snapshots())
