"""TrajectoryJEPA: times at the door, populations between and beyond snapshots, courses of given cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import TrajectoryJEPA
from scjepa.baselines.times import Interpolant

pytest.importorskip("ot")

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}
GENES = 30
DIRECTION = np.r_[np.full(10, 0.5), np.full(10, -0.5), np.zeros(10)]


def course(times=(0.0, 1.0, 2.0, 4.0), n: int = 60, *, seed: int = 0, conditions: int = 1) -> ad.AnnData:
    """Cells whose mean moves by DIRECTION a day (twice as fast in the second condition), around a state of their own."""
    rng = np.random.default_rng(seed)
    base, state = rng.uniform(6.0, 7.0, GENES), rng.normal(size=(2, GENES)) * 0.3
    rows, obs = [], []
    for speed in range(1, conditions + 1):
        for t in times:
            own = rng.normal(size=(n, 2)) @ state + rng.normal(scale=0.1, size=(n, GENES))
            rows.append(base + speed * t * DIRECTION + own)
            obs += [(t, f"day {t:g}", f"speed {speed}")] * n
    frame = pd.DataFrame(obs, columns=["time", "day", "condition"], index=[f"c{i}" for i in range(len(obs))])
    adata = ad.AnnData(
        np.vstack(rows).astype(np.float32), obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    )
    adata.uns["base"] = base
    return adata


def without_times() -> ad.AnnData:
    adata = course()
    adata.obs.loc["c3", "time"] = np.nan
    return adata


def trained(adata: ad.AnnData, *, train: dict | None = None, init: dict | None = None, **setup) -> TrajectoryJEPA:
    TrajectoryJEPA.setup_anndata(adata, **{"time_key": "time", "input_scale": "lognorm", **setup})
    model = TrajectoryJEPA(adata, n_latent=4, n_pcs=5, **{"residual": False, **(init or {})})
    model.train(**{**QUIET, **(train or {})})
    return model


@pytest.fixture(scope="module")
def model() -> TrajectoryJEPA:
    return trained(course(), train={"holdout": [1.0]})


# ---------------------------------------------------------------- populations
def test_a_time_left_out_is_found_between_its_neighbours(model: TrajectoryJEPA) -> None:
    cells = model.predict_trajectory(1.0, n_cells=500)
    true = course().X[60:120]
    size = np.linalg.norm(DIRECTION)
    assert np.linalg.norm(cells.X.mean(0) - true.mean(0)) < 0.35 * size  # a copy of either neighbour is off by one
    assert 0.6 < np.trace(np.cov(cells.X.T)) / np.trace(np.cov(true.T)) < 1.4
    assert cells.obs["time"].tolist() == [1.0] * 500 and cells.uns["jepa"]["prediction"]["note"] == ""
    assert set(cells.obs["source"]) <= {f"c{i}" for i in [*range(60), *range(120, 180)]}  # not of the time left out
    assert cells.uns["jepa"]["prediction"]["times"]["kind"].tolist() == ["between"]


def test_measured_times_are_the_cells_themselves_and_later_ones_copies(model: TrajectoryJEPA) -> None:
    with pytest.warns(
        UserWarning, match=r"'6' lie beyond the measured times \(0 to 4\): a copy of the nearest snapshot"
    ):
        cells = model.predict_trajectory([2.0, 6.0], n_cells=60)
    np.testing.assert_array_equal(cells.X[:60], course().X[120:180])
    np.testing.assert_array_equal(cells.X[60:], course().X[180:240])
    record = cells.uns["jepa"]["prediction"]
    assert record["times"]["kind"].tolist() == ["measured", "copy"] and record["times"]["abstain"].tolist() == [
        False,
        True,
    ]


def test_as_many_cells_as_asked_for_and_the_seed_decides(model: TrajectoryJEPA) -> None:
    assert model.predict_trajectory(1.5).n_obs == 2000
    one, two, other = (model.predict_trajectory(1.5, n_cells=50, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.X, two.X)
    assert (one.X != other.X).any() and one.obs_names.is_unique


def test_the_order_of_cells_does_not_matter(model: TrajectoryJEPA) -> None:
    shuffled = course()[np.random.default_rng(3).permutation(240)].copy()
    again = trained(shuffled, train={"holdout": [1.0]})
    mean = lambda m: m.predict_trajectory(1.0, n_cells=2000).X.mean(0)
    np.testing.assert_allclose(mean(again), mean(model), atol=0.02)


def test_a_trend_is_followed_where_left_out_times_bear_it_out() -> None:
    model = trained(course((0.0, 1.0, 2.0, 3.0)), init={"trend": True})
    assert 0 < model.anchor_.of["all"].amplitude_ <= 0.3
    with pytest.warns(UserWarning, match="moved along the trend that left-out times bear out"):
        ahead = model.predict_trajectory(4.0, n_cells=60).X.mean(0) - model.predict_trajectory(3.0, n_cells=60).X.mean(
            0
        )
    assert 0.1 < ahead @ DIRECTION / (DIRECTION @ DIRECTION) < 0.5


def test_texts_with_units_are_times() -> None:
    model = trained(course(), time_key="day")
    cells = model.predict_trajectory(["36 h", "day 2"], n_cells=5)
    assert cells.obs["day"].tolist() == ["1.5 days"] * 5 + ["day 2"] * 5
    np.testing.assert_array_equal(cells.X[:5], model.predict_trajectory(1.5, n_cells=5).X)


# ---------------------------------------------------------------- given cells
def test_given_cells_move_through_the_snapshots_and_keep_what_is_their_own(model: TrajectoryJEPA) -> None:
    start = course(seed=0)[:60].copy()
    cells = model.predict_trajectory([2.0, 4.0], start)
    moved = cells.X.reshape(2, 60, GENES) - start.X
    along = moved @ DIRECTION / (DIRECTION @ DIRECTION)
    np.testing.assert_allclose(along.mean(1), [2.0, 4.0], rtol=0.15)
    assert cells.obs["source"].tolist() == [f"c{i}" for i in range(60)] * 2
    own = start.X - start.X.mean(0)
    kept = (cells.X[:60] - cells.X[:60].mean(0)).ravel()
    assert np.corrcoef(own.ravel(), kept)[0, 1] > 0.8
    back = model.predict_trajectory(0.0, indices=np.arange(120, 180))
    assert np.linalg.norm(back.X.mean(0) - start.X.mean(0)) < 0.3 * np.linalg.norm(DIRECTION)
    assert model.predict_trajectory(2.0, start, n_cells=7).n_obs == 7


def test_the_same_start_under_another_condition() -> None:
    adata = course(conditions=2)
    model = trained(adata, condition_key="condition")
    start = adata[:60].copy()
    slow, fast = (
        model.predict_trajectory(2.0, start, condition=c).X.mean(0) - start.X.mean(0) for c in ("speed 1", "speed 2")
    )
    np.testing.assert_allclose([slow @ DIRECTION, fast @ DIRECTION] / (DIRECTION @ DIRECTION), [2.0, 4.0], rtol=0.2)
    own = model.predict_trajectory(2.0, adata, indices=[0, 240])
    assert own.obs["condition"].tolist() == ["speed 1", "speed 2"]
    with pytest.raises(ValueError, match=r"courses of 2 conditions \('speed 1', 'speed 2'\): name one"):
        model.predict_trajectory(1.5)
    with pytest.raises(ValueError, match="condition='speed 9' is not among the conditions"):
        model.predict_trajectory(1.5, condition="speed 9")


def test_growth_weighs_cells() -> None:
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(3, 0.1, (40, GENES)), rng.normal(3, 0.1, (40, GENES))])
    x[:20, 0] += 2  # dies
    obs = pd.DataFrame(
        {"time": np.repeat([0.0, 1.0], 40), "growth": np.r_[np.zeros(20), np.ones(60)]},
        index=[f"c{i}" for i in range(80)],
    )
    adata = ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))
    blind, told = trained(adata.copy()), trained(adata.copy(), growth_key="growth")
    late = adata[40:].copy()
    came = [m.predict_trajectory(0.0, late).X[:, 0].mean() for m in (blind, told)]
    assert came[0] > 3.7 and came[1] < 3.2  # half of the late cells seem to come from those that died; none did
    with pytest.raises(ValueError, match=r"growth has shape \(2,\): expected \(3,\) numbers of at least 0"):
        Interpolant().fit(np.zeros((3, 1)), np.arange(3.0), np.ones(2))


# ---------------------------------------------------------------- keeping
def test_saved_and_loaded_it_predicts_the_same(model: TrajectoryJEPA, tmp_path: Path) -> None:
    model.save(str(tmp_path / "m"), save_anndata=True)
    again = TrajectoryJEPA.load(str(tmp_path / "m"))
    np.testing.assert_allclose(
        again.predict_trajectory(1.0, n_cells=40).X, model.predict_trajectory(1.0, n_cells=40).X, atol=1e-6
    )
    start = course()[:5].copy()
    np.testing.assert_allclose(
        again.predict_trajectory(3.0, start).X, model.predict_trajectory(3.0, start).X, atol=1e-6
    )
    other = TrajectoryJEPA.load(str(tmp_path / "m"), course()[:200].copy())
    with pytest.raises(ValueError, match="predicted from the cells that the model was trained on, and it holds others"):
        other.predict_trajectory(1.0)


def test_query_data_keep_the_courses() -> None:
    model = trained(course())
    new = course(seed=5)[::2].copy()
    new.obs_names = [f"new {i}" for i in range(new.n_obs)]
    query = TrajectoryJEPA.load_query_data(new, model)
    start = new[:10].copy()
    before = query.predict_trajectory(2.0, start).X
    query.train(**QUIET)
    np.testing.assert_array_equal(query.predict_trajectory(2.0, start).X, before)
    np.testing.assert_allclose(before, model.predict_trajectory(2.0, start).X, atol=1e-6)


@pytest.mark.parametrize(
    ("times", "n", "asked"),
    [((0.0, 1.0), 12, 0.5), ((0.0, 0.1, 3.0, 4.0), 12, 2.0), (tuple(np.arange(120) / 30), 3, 2.01)],
    ids=["two times", "unequal steps", "a hundred times of three cells"],
)
def test_few_cells_few_times_and_many_times(times: tuple[float, ...], n: int, asked: float) -> None:
    cells = trained(course(times, n)).predict_trajectory(asked, n_cells=100)
    way = (cells.X.mean(0) - course(times, n).uns["base"]) @ DIRECTION / (DIRECTION @ DIRECTION)
    assert abs(way - asked) < 0.35
    assert cells.uns["jepa"]["prediction"]["times"]["kind"].tolist() == ["between"]


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("spoil", "setup", "error", "message"),
    [
        ({}, {"time_key": "tim"}, KeyError, "time_key='tim' is not a column of adata.obs.*Did you mean 'time'"),
        (
            {"time": 1.0},
            {},
            ValueError,
            r"time_key='time': all cells are of one time \(1\). A course needs at least two",
        ),
        ({"time": [None, *[1.0] * 239]}, {}, ValueError, "time_key='time': 1 of 240 times are missing"),
        (
            {"day": "early"},
            {"time_key": "day"},
            ValueError,
            "time_key='day': 1 of 1 times have no number in them: 'early'",
        ),
        ({"g": -1.0}, {"growth_key": "g"}, ValueError, "growth_key='g': 240 values are below 0"),
        ({}, {"condition_key": "line"}, KeyError, "condition_key='line' is not a column"),
        ({}, {"lineage_key": "clone"}, KeyError, "lineage_key='clone' is not a column"),
    ],
)
def test_setups_that_are_refused(spoil: dict, setup: dict, error: type, message: str) -> None:
    adata = course()
    for name, values in spoil.items():
        adata.obs[name] = values
    with pytest.raises(error, match=message):
        TrajectoryJEPA.setup_anndata(adata, **{"time_key": "time", "input_scale": "lognorm", **setup})


def test_batches_of_one_time_each_are_named() -> None:
    with pytest.warns(UserWarning, match="batch_key='day': each of the 4 batches holds cells of one time only"):
        TrajectoryJEPA.setup_anndata(course(), "time", batch_key="day", input_scale="lognorm")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.predict_trajectory("soon"), "time 'soon': expected a number"),
        (lambda m: m.predict_trajectory([]), "no times were given"),
        (lambda m: m.predict_trajectory(1.0, n_cells=0), "n_cells=0"),
        (lambda m: m.predict_trajectory(1.0, indices=[]), "no cells selected"),
        (lambda m: m.predict_trajectory(1.0, without_times()), "1 of 240 start cells have no time. Drop them"),
        (lambda m: m.train(**QUIET, holdout=[0.0, 1.0, 2.0, 4.0]), "holdout leaves no time to train on"),
        (lambda m: m.train(**QUIET, holdout=[7.0]), "holdout=7 is not a time of the data. Found: '0', '1', '2', '4'"),
        (
            lambda m: m.train(**QUIET, holdout=[0.0, 1.0, 2.0]),
            "training cells are of 1 time: a course needs at least two",
        ),
    ],
)
def test_questions_that_are_refused(model: TrajectoryJEPA, ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(model)
