"""``evaluate_trajectory``: values against POT and the metrics, plain rows from training cells only, words."""

import anndata as ad
import numpy as np
import ot
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.metrics import energy_distance, mmd
from scjepa.tl import evaluate_trajectory, format_scores
from scjepa.tl.evaluation._snapshots import training_axes

PLAIN = ["previous copy", "next copy", "union", "OT interpolation"]


def cells(x, day, **obs):
    names = [f"cell{i}" for i in range(len(x))]
    genes = [f"g{i}" for i in range(x.shape[1])]
    return ad.AnnData(x, obs=pd.DataFrame({"day": day, **obs}, index=names), var=pd.DataFrame(index=genes))


@pytest.fixture
def course():
    """Five days of cells that move along a line, 30 a day; non-negative and not whole numbers."""
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(5), 30)
    return cells(4 + day[:, None] * [1.0, 0.5, 0, 0] + rng.uniform(0, 1, (150, 4)), day)


@pytest.fixture
def pred(course):
    """Day 2 as day 1 moved by the true speed."""
    out = course[course.obs["day"] == 1].copy()
    out.X, out.obs["day"] = out.X + [1.0, 0.5, 0, 0], 2
    return out


def value(scores, method="model", metric="w1"):
    return scores[(scores["method"] == method) & (scores["metric"] == metric)]["value"].item()


def test_scores_are_those_of_pot_and_metrics_in_components_of_training_cells(course, pred):
    scores = evaluate_trajectory(pred, course, "day", n_pcs=3)
    held = (course.obs["day"] == 2).to_numpy()
    to = training_axes(course.X[~held], 3, 0)
    z, true, seen = to(pred.X), to(course.X[held]), to(course.X[~held])
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    assert seen.std(0, ddof=1).mean() == pytest.approx(1, rel=1e-4)
    even = ot.unif(30)
    expected = {
        "w1": ot.emd2(even, even, ot.dist(z, true, metric="euclidean")),
        "w2": np.sqrt(ot.emd2(even, even, ot.dist(z, true))),
        "mmd": mmd(z, true),
        "e_distance": energy_distance(z, true),
    }
    assert {m: value(scores, metric=m) for m in expected} == pytest.approx(expected)
    previous = to(course.X[(course.obs["day"] == 1).to_numpy()])
    assert value(scores, "previous copy", "e_distance") == pytest.approx(energy_distance(previous, true))
    assert value(scores, "OT interpolation") < 0.5 * value(scores, "previous copy")
    assert scores["method"].unique().tolist() == ["model", *PLAIN, "replicate ceiling"]
    assert set(scores["context"]) == {"between"} and set(scores["time"]) == {2.0}


def test_held_out_cells_reach_no_row(course, pred):
    first = evaluate_trajectory(pred, course, "day", ceiling=False)
    shifted = course.copy()
    held = (course.obs["day"] == 2).to_numpy()
    shifted.X[held] += [0, 0, 5.0, 0]  # an axis of its own, which training cells do not have
    second = evaluate_trajectory(pred, shifted, "day", ceiling=False)
    twin = course.copy()
    twin.X[held] = course.X[held][::-1]
    pd.testing.assert_frame_equal(first, evaluate_trajectory(pred, twin, "day", ceiling=False), atol=1e-9)
    assert not np.allclose(first["value"], second["value"])
    only = course[~held].copy()
    with_train = evaluate_trajectory(pred, course[held].copy(), "day", train=only, ceiling=False)
    pd.testing.assert_frame_equal(first, with_train, atol=1e-9)


def test_order_of_cells_and_sparse_do_not_matter(course, pred):
    first = evaluate_trajectory(pred, course, "day", n_pcs=3, ceiling=False)
    order = np.random.default_rng(1).permutation(150)
    mixed = course[order].copy()
    mixed.X = sp.csr_matrix(mixed.X)
    second = evaluate_trajectory(pred[::-1].copy(), mixed, "day", n_pcs=3, ceiling=False)
    np.testing.assert_allclose(first["value"], second["value"], rtol=1e-4)


def test_weights_are_repeated_cells(course, pred):
    pred.obs["weight"] = np.where(np.arange(30) < 10, 2.0, 0.0) + np.where(np.arange(30) >= 25, 1.0, 0.0)
    again = pred[np.r_[np.repeat(np.arange(10), 2), 25:30]].copy()
    again.obs_names_make_unique()
    weighted = evaluate_trajectory(pred, course, "day", weight_key="weight", metrics=["w1", "w2"])
    repeated = evaluate_trajectory(again, course, "day", metrics=["w1", "w2"])
    np.testing.assert_allclose(weighted["value"], repeated["value"], rtol=1e-9)


def test_several_times_beyond_and_between_in_words(course):
    pred = course[course.obs["day"].isin([1, 2])].copy()
    pred.obs["day"] = pred.obs["day"].map({1: "day 2", 2: "day 4"})
    real = course.copy()
    real.obs["day"] = "day " + real.obs["day"].astype(str)
    scores = evaluate_trajectory(pred, real, "day", method="copy")
    places = scores.drop_duplicates("perturbation").set_index("perturbation")["context"]
    assert places.to_dict() == {"day 2": "between", "day 4": "beyond"}
    beyond = scores[(scores["perturbation"] == "day 4") & (scores["metric"] == "w1")].set_index("method")["value"]
    assert beyond[PLAIN].nunique() == 1  # nothing lies beyond: all are a copy of day 3
    text = format_scores(scores)
    assert "w1 ↓" in text and "w1: copy" in text and "best baseline" in text and "replicate ceiling" in text


def test_table_is_written_and_comes_back(course, pred, tmp_path):
    scores = evaluate_trajectory(pred, course, "day")
    pred.write_h5ad(tmp_path / "p.h5ad")
    again = ad.read_h5ad(tmp_path / "p.h5ad").uns["jepa"]["trajectory_scores"]
    assert format_scores(again) == format_scores(scores)


def test_other_baselines_and_none(course, pred):
    from scjepa.baselines.times import Interpolant

    scores = evaluate_trajectory(pred, course, "day", baselines=[Interpolant()], ceiling=False, metrics="w1")
    assert scores["method"].tolist() == ["model", "interpolant"]
    assert evaluate_trajectory(pred, course, "day", baselines=None, ceiling=False, metrics="w1")["method"].tolist() == [
        "model"
    ]


def test_copies_of_held_out_cells_are_noticed(course):
    pred = course[course.obs["day"] == 2].copy()
    with pytest.warns(UserWarning, match="copies of held-out ones at '2' \\(up to 100% of them\\)"):
        evaluate_trajectory(pred, course, "day", metrics="w1")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"time_key": "hour"}, KeyError, "time_key='hour' is not a column"),
        ({"metrics": "w3"}, ValueError, "metrics='w3' is not among"),
        ({"method": "union"}, ValueError, "method='union' is the name of another row"),
        ({"weight_key": "heavy"}, KeyError, "weight_key='heavy'"),
        ({"max_cells": 1}, ValueError, "max_cells=1: expected a whole number of at least 10"),
        ({"n_pcs": 0}, ValueError, "n_pcs=0"),
    ],
)
def test_errors_say_what_was_found(course, pred, change, error, message):
    arguments = {"time_key": "day"} | change
    with pytest.raises(error, match=message):
        evaluate_trajectory(pred, course, **arguments)


def test_errors_of_times(course, pred):
    with pytest.raises(ValueError, match="predicted times are among those of train: '2'"):
        evaluate_trajectory(pred, course, "day", train=course)
    with pytest.raises(ValueError, match="0 training cells: every time of real is predicted"):
        evaluate_trajectory(pred, course[course.obs["day"] == 2].copy(), "day")
    pred.obs["day"] = 7
    with pytest.raises(ValueError, match="1 of 1 predicted times have no cells in real.*'7'"):
        evaluate_trajectory(pred, course, "day")
    pred.obs["day"] = np.nan
    with pytest.raises(ValueError, match="pred: time_key='day': 30 times are missing"):
        evaluate_trajectory(pred, course, "day")
    pred.obs["day"], pred.obs["w"] = 2, 0.0
    with pytest.raises(ValueError, match="weights at time 2 are all 0"):
        evaluate_trajectory(pred, course, "day", weight_key="w")
    pred.obs["w"] = -1.0
    with pytest.raises(ValueError, match="finite numbers of at least 0"):
        evaluate_trajectory(pred, course, "day", weight_key="w")
