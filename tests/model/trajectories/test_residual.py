"""The network that corrects courses: what it learns, when it counts, and that it is nothing where it does not pay."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa import TrajectoryJEPA
from scjepa.datasets import simulate_trajectory
from scjepa.dynamics import wasserstein
from scjepa.model.trajectories import Courses, Residual, Snapshots
from scjepa.model.trajectories._residual import CONDITION, SHARES, TIME, folds, weigh


def bent(seed=0, n=100, times=7):
    """Cells on a bent way with two ends, some ahead and some behind, in ten coordinates."""
    rng = np.random.default_rng(seed)
    t = np.repeat(np.arange(float(times)), n)
    age = np.maximum(t + rng.normal(0, 0.3, len(t)), 0)
    side = np.where(rng.random(len(t)) < 0.6, 1.0, -1.0)
    z = np.zeros((len(t), 10))
    z[:, 0], z[:, 1], z[:, 2] = age / 2, side * 0.7 * np.maximum(age - 2.5, 0), np.sin(age / 6 * np.pi)
    return z + rng.normal(0, 0.1, z.shape), t, np.repeat("all", len(t))


@pytest.fixture(scope="module")
def learned():
    z, times, labels = bent()
    kept = times != 3
    cells = Snapshots(z[kept], times[kept], labels[kept], None)
    courses = Courses().fit(*cells[:3], np.flatnonzero(kept))
    return cells, courses, Residual().fit(cells, courses), z[times == 3]


def test_the_correction_comes_nearer_to_a_time_left_out(learned):
    cells, courses, residual, true = learned
    assert residual and residual.shares[TIME] in SHARES and residual.judged[TIME] == 4 and residual.gains[TIME] > 0.01
    course = courses.of["all"]
    plain = course.predict(3.0)
    moved = residual.corrected(course, "all", plain, 3.0)
    distance = lambda cloud: wasserstein(course.z_[cloud.cells] + cloud.shift, true, source_mass=cloud.mass)
    assert distance(moved) < 0.98 * distance(plain)


def test_nothing_beyond_the_course_and_state_round_trip(learned):
    cells, courses, residual, _ = learned
    assert residual.share("all", 6.5) == residual.share("all", 0.0) == residual.share("unknown", 3.0) == 0
    again = Residual.from_state(residual.state())
    z, one = cells.z[:5], np.ones(5)
    np.testing.assert_array_equal(again.shift(z, one, one, "all"), residual.shift(z, one, one, "all"))
    assert again.shares == residual.shares and again.share("all", 3.0) == residual.share("all", 3.0)
    assert not Residual.from_state(Residual().state())
    np.testing.assert_array_equal(residual.step("all", z, 6.0, 7.0), 0)


def test_same_seed_same_network(monkeypatch):
    monkeypatch.setattr("scjepa.model.trajectories._residual.STEPS", 40)
    cells = Snapshots(*bent(n=20), None)
    courses = Courses().fit(*cells[:3], np.arange(len(cells.z)))
    one, other, third = (
        Residual(seed=seed).fit(cells, courses, 1.0).shift(cells.z, cells.times, 0.5 + 0 * cells.times, "all")
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, other)
    assert np.abs(one).max() > 0 and not np.allclose(one, third)


def test_it_stays_closed_where_nothing_moves():
    rng = np.random.default_rng(1)
    cells = Snapshots(rng.normal(size=(150, 3)), np.repeat(np.arange(5.0), 30), np.repeat("all", 150), None)
    residual = Residual().fit(cells, Courses().fit(*cells[:3], np.arange(150)))
    assert residual.shares == {TIME: 0.0, CONDITION: 0.0} and not residual


def test_weighing_asks_for_three_snapshots_and_for_sureness():
    better = np.log([[0.97, 0.9, 0.95]] * 3)
    assert weigh(better)[0] == 0.5 and weigh(better)[1] == pytest.approx(0.1)
    assert weigh(better[:2]) == (0.0, 0.0) and weigh(-better) == (0.0, 0.0)
    assert weigh(np.vstack([better, np.log([[1.3, 1.3, 1.3]])]))[0] == 0.0


def test_neighbours_are_never_left_out_together():
    levels = {"a": np.arange(8.0), "b": np.arange(1.0, 9.0), "c": np.array([0.0, 4.0])}
    for fold in folds(levels):
        for label in levels:
            left = sorted(t for name, t in fold.left if name == label)
            assert (np.diff(left) > 1).all() and all(0 < np.searchsorted(levels[label], t) for t in left)
        if fold.cls == CONDITION:
            assert len({t for _, t in fold.left}) == len(fold.left)
    assert {fold.cls for fold in folds(levels)} == {TIME, CONDITION}


def test_a_time_that_another_condition_has_is_a_class_of_its_own():
    residual = Residual()
    residual._levels = {"a": np.arange(5.0), "b": np.array([0.0, 1.0, 3.0, 4.0])}
    residual.shares, residual._predictors = {TIME: 0.25, CONDITION: 0.5}, [object()]
    assert residual.share("b", 2.5) == 0.5 and residual.share("a", 1.5) == 0.25 and residual.share("b", 3.5) == 0.25


def test_the_model_can_do_without_and_can_be_told_how_much(tmp_path):
    adata = simulate_trajectory(60, times=[0, 1, 2, 3, 4], n_cells=30, seed=1)
    TrajectoryJEPA.setup_anndata(adata, "time")
    model = TrajectoryJEPA(adata, residual=False)
    model.train(embed=False, enable_progress_bar=False)
    assert not model.residual_
    full = TrajectoryJEPA(adata, gate=1.0)
    full.train(embed=False, enable_progress_bar=False)
    assert full.residual_ and full.residual_.shares == {TIME: 1.0, CONDITION: 1.0}
    plain, corrected = (m.predict_trajectory([1.5, 2]).X for m in (model, full))
    n = len(plain) // 2
    assert not np.allclose(plain[:n], corrected[:n])
    np.testing.assert_allclose(plain[n:], corrected[n:])  # measured times are what they are
    full.save(tmp_path / "model")
    again = TrajectoryJEPA.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.predict_trajectory([1.5]).X, full.predict_trajectory([1.5]).X)
    with pytest.raises(ValueError, match="gate=2"):
        TrajectoryJEPA(adata, gate=2)


def test_paths_of_a_cell_spread_and_are_coherent():
    adata = simulate_trajectory(60, times=[0, 1, 2, 3], n_cells=50, seed=1)
    TrajectoryJEPA.setup_anndata(adata, "time")
    model = TrajectoryJEPA(adata)
    model.train(embed=False, enable_progress_bar=False)
    start = np.flatnonzero(adata.obs["time"] == 0)[:4]
    paths = model.predict_trajectory([1, 3], indices=start, n_paths=6, seed=3)
    assert paths.n_obs == 2 * 4 * 6 and paths.obs["path"].tolist() == list(range(6)) * 8
    z = model._coordinates(paths.X)
    spread = [
        np.mean(
            [
                z[(paths.obs["time"] == t) & (paths.obs["source"] == s)].std(0).mean()
                for s in paths.obs["source"].unique()
            ]
        )
        for t in (1, 3)
    ]
    assert 0 < spread[0] < spread[1]
    # a path asked for at one time only is the same path
    alone = model.predict_trajectory([3], indices=start, n_paths=6, seed=3)
    np.testing.assert_allclose(alone.X, paths[paths.obs["time"] == 3].X, atol=1e-6)
    with pytest.raises(ValueError, match="a population has no paths"):
        model.predict_trajectory([1], n_paths=3)
