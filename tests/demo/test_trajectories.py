"""The demo of time courses: what is read, what is held out, a run of the real model."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa.datasets import simulate_trajectory
from scjepa.demo import UserError, main
from scjepa.demo._trajectories import held_times, read_course
from scjepa.dynamics import read_times
from scjepa.model import TrajectoryJEPA

COLUMNS = ["--model", "trajectory", "--time-key", "when"]


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    adata = simulate_trajectory(40, times=[0, 6, 12, 24], n_cells=25)
    adata.obs["when"] = [f"{t:g}h" for t in adata.obs["time"]]
    path = tmp_path_factory.mktemp("demo") / "course.h5ad"
    adata.write_h5ad(path)
    return path


def test_a_file_is_read_with_its_times(counts):
    course = read_course(counts, "when")
    assert course.times().levels.tolist() == [0, 6, 12, 24] and course.times().unit
    assert np.isclose(np.expm1(course.adata.X.toarray()).sum(1), 1e4, rtol=1e-3).all()


def test_what_is_held_out():
    times = read_times(["0h", "6h", "12h", "1d"])
    assert held_times(None, times) == (["12h"], "a time between others")
    assert held_times(["1d", "360 min", "6h"], times) == (["1d", "6h"], "as asked")
    with pytest.raises(UserError, match="--holdout 7h is not a time of the data. Found: '0h'"):
        held_times(["7h"], times)
    with pytest.raises(UserError, match="leaves 1 of 4 times; a course needs two"):
        held_times(["0h", "6h", "12h"], times)
    with pytest.raises(UserError, match="there are 2 times .* no course is left"):
        held_times(None, read_times([0, 1]))


def test_a_time_is_predicted_that_nothing_saw(counts, tmp_path):
    out = tmp_path / "out"
    assert (
        main(["demo", "--data", str(counts), *COLUMNS, "--max-epochs", "1", "--holdout", "12h", "--out", str(out)]) == 0
    )
    scores = pd.read_csv(out / "scores.csv")
    assert {"model", "OT interpolation", "previous copy", "next copy", "union"} <= set(scores["method"])
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert read_times(predicted.obs["when"].astype(str).unique()).levels.tolist() == [12]
    real = read_course(counts, "when").adata
    model = TrajectoryJEPA.load(str(out / "model"), real, accelerator="cpu")
    names = set(real.obs_names[(real.obs["when"] == "12h").to_numpy()])
    assert not names & set(predicted.obs["source"]) and model.anchor_.levels("all").tolist() == [0, 6, 24]
    assert (out / "scores.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{data}", "--model", "trajectory"], "--data needs --time-key: the obs column that says when"),
        (["--data", "{data}", *COLUMNS, "--control", "x"], "--control is not for --model trajectory"),
        (["--model", "trajectory", "--time-key", "when"], "--time-key needs --data"),
        (["--data", "{data}", *COLUMNS, "--batch-key", "when"], "--batch-key and --time-key are both 'when'"),
        (["--data", "{data}", "--model", "trajectory", "--time-key", "day"], "day"),
        (["--data", "{data}", "--model", "trajectory", "--time-key", "one"], "all cells are of one time"),
    ],
)
def test_errors_are_one_line(counts, tmp_path, capsys, arguments, words):
    one = ad.read_h5ad(counts)
    one.obs["one"] = 1
    one.write_h5ad(tmp_path / "one.h5ad")
    given = [a.replace("{data}", str(tmp_path / "one.h5ad")) for a in arguments]
    assert main(["demo", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
