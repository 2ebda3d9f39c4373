"""Benchmark scripts: every one explains itself, and what they compute beside training is right."""

import importlib
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("benchmarks/ is not part of this installation", allow_module_level=True)
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.fixture
def load(monkeypatch):
    """Import a script or helper as the scripts import each other."""
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_states_the_claim(load, script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        load(script).main()
    assert stop.value.code == 0
    assert "Claim:" in capsys.readouterr().out


def test_readme_lists_every_script():
    text = (FOLDER / "README.md").read_text()
    assert [s for s in SCRIPTS if f"`{s}.py`" not in text] == []


# ------------------------------------------------------------------------------------------------ splits and peers
@pytest.fixture
def cells():
    obs = pd.DataFrame({"p": ["control", "A", "A", "B"], "c": ["x", "x", "y", "x"]}, index=list("abcd"))
    return ad.AnnData(np.arange(8, dtype=np.float32).reshape(4, 2) / 2, obs=obs)


def test_held_out_cells(load, cells):
    common = load("_common")
    columns = common.Columns("p", context="c")
    assert common.Run("r", cells, ["A"], "x").held_out(columns).tolist() == [False, True, False, False]
    assert common.Run("r", cells, ["A", "B"]).held_out(columns).tolist() == [False, True, True, True]


def test_absent_environment_is_named_before_anything_runs(load, tmp_path):
    with pytest.raises(SystemExit, match=r"make_env\.py scgen --envs"):
        load("_peers").require_peers(tmp_path, ["scgen"])


def test_environments_lie_where_the_variable_says(load, monkeypatch, tmp_path):
    make_env = load("make_env")
    monkeypatch.setenv("SCJEPA_PEER_ENVS", str(tmp_path))
    assert make_env.default_envs() == tmp_path
    assert set(make_env.REQUIREMENTS) >= {"scgen", "biolord", "scvi"}
    assert "torch==" in make_env.CONSTRAINTS.read_text()


def test_unknown_peer_is_refused(load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_env.py", "scgan"])
    with pytest.raises(SystemExit):
        load("make_env").main()
    assert "no peer scgan" in capsys.readouterr().err


def test_peers_get_no_held_out_cells_and_are_trained_once(load, cells, monkeypatch, tmp_path):
    peers, common = load("_peers"), load("_common")
    calls = []

    def fake(peer, envs, training, **options):
        calls.append((peer, training.obs_names.tolist(), options["predict"], options["seed"]))
        predicted = training[[0, 0]].copy()
        predicted.obs["p"] = "A"
        predicted.obs_names = ["e", "f"]
        spent = {f"{part}_{clock}_seconds": 2.0 for part in ("train", "predict") for clock in ("wall", "cpu")}
        return predicted, spent | {"epochs": 3, "peak_mb": 7.0}

    monkeypatch.setattr(peers, "run_peer", fake)
    run, columns = common.Run("x", cells, ["A"], "x"), common.Columns("p", context="c")
    options = {"peers": ["scgen"], "envs": tmp_path, "seeds": 1, "file": tmp_path / "out" / "peers.csv"}
    cells.obs["c"] = ["x", "x", "x", "x"]
    cells.obs["p"] = ["control", "A", "B", "B"]
    first = peers.score_peers(run, columns, **options)
    again = peers.score_peers(run, columns, **options)
    assert calls == [("scgen", ["a", "c", "d"], [("A", "x")], 0)]
    for scores in (first, again):
        error = scores.loc[scores["metric"] == "l2", "value"].item()
        assert error == pytest.approx(np.hypot(1, 1), abs=1e-4)  # the prediction was the control
        assert scores["method"].unique().tolist() == ["scGen"] and scores["kind"].unique().tolist() == ["peer"]
        assert scores["cpu_seconds"].unique().tolist() == [4.0]


def test_failed_peer_shows_its_error(load, cells, monkeypatch, tmp_path):
    peers = load("_peers")
    monkeypatch.setattr(peers, "interpreter", lambda envs, peer: Path(sys.executable))
    monkeypatch.setattr(peers, "HERE", tmp_path)
    (tmp_path / "run_scgen.py").write_text("raise SystemExit('no luck')")
    with pytest.raises(RuntimeError, match="scgen failed with exit code 1:\nno luck"):
        peers.run_peer("scgen", tmp_path, cells, perturbation_key="p", control="control", context_key="c")


def test_peer_gets_its_task_and_gives_cells_back(load, cells, monkeypatch, tmp_path):
    peers = load("_peers")
    monkeypatch.setattr(peers, "interpreter", lambda envs, peer: Path(sys.executable))
    monkeypatch.setattr(peers, "HERE", tmp_path)
    (tmp_path / "run_scgen.py").write_text(
        "import json, pathlib, shutil, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "task = json.loads((folder / 'task.json').read_text())\n"
        "shutil.copy(folder / 'cells.h5ad', folder / 'predicted.h5ad')\n"
        "(folder / 'measured.json').write_text(json.dumps({'asked': task['predict'], 'seed': task['seed']}))\n"
    )
    options = {"perturbation_key": "p", "control": "control", "context_key": "c"}
    predicted, measured = peers.run_peer("scgen", tmp_path, cells, predict=[("A", "x")], seed=3, **options)
    np.testing.assert_array_equal(predicted.X, cells.X)
    assert measured == {"asked": [["A", "x"]], "seed": 3}


def test_runner_parts(load, cells):
    task = load("task")
    what = {"perturbation_key": "p", "control": "control", "context_key": "c"}
    assert task.controls_of(cells, what, "x").obs_names.tolist() == ["a"]
    assert task.controls_of(cells, what, "y").n_obs == 0
    found = task.as_prediction(sp.csr_matrix([[-1.0, 2.0]]), cells[:1], what, "A", "y")
    assert found.X.tolist() == [[0.0, 2.0]] and found.obs.iloc[0].to_dict() == {"p": "A", "c": "y"}
    clock = task.Clock()
    assert clock.run("train", lambda: 5) == 5
    before = clock.measured["train_wall_seconds"]
    clock.run("train", lambda: sum(range(10_000)))
    assert clock.measured["train_wall_seconds"] > before >= 0 and "train_cpu_seconds" in clock.measured


# ------------------------------------------------------------------------------------------------------- speed
def test_simulated_screen(load):
    speed = load("speed")
    cells, again = speed.simulate(2500, 60, 2, 3), speed.simulate(2500, 60, 2, 3)
    assert cells.shape == (2500, 60) and sp.issparse(cells.X) and cells.X.dtype == np.float32
    assert (cells.X != again.X).nnz == 0
    np.testing.assert_array_equal(cells.X.data, np.rint(cells.X.data))
    assert set(cells.obs["perturbation"]) == {"control", "G0", "G1", "G2"}
    totals = np.asarray(cells.X.sum(1)).ravel()
    assert 480 < np.median(totals) < 520  # lognormal around 500
    kept = speed.without(cells, ("G0", "C0"))
    assert kept.n_obs == 2500 - ((cells.obs["perturbation"] == "G0") & (cells.obs["context"] == "C0")).sum()


def test_recovered_counts_are_the_counts(load):
    speed = load("speed")
    counts = speed.simulate(200, 40, 2, 2)
    cells = counts.copy()
    speed.sc.pp.normalize_total(cells, target_sum=1e4)
    speed.sc.pp.log1p(cells)
    cells.obs = pd.DataFrame({"condition": cells.obs["perturbation"], "cell_type": cells.obs["context"]})
    case = speed.screens(cells)
    assert case.own_input == "lognorm" and case.question == ("G0", "C0")
    kept = counts[case.counts.obs_names]
    share = (case.counts.X != kept.X).nnz / kept.X.nnz
    assert share < 0.05  # a cell without a count of one can't tell its unit


def test_megabytes_of_the_matrix(load):
    speed = load("speed")
    x = ad.AnnData(sp.csr_matrix(np.eye(4, dtype=np.float32)))
    case = speed.Case("c", x, x, ("A", "x"), "counts")
    assert case.megabytes * 2**20 == 4 * 4 + 4 * 4 + 5 * 4  # values, columns, row starts


def test_long_trainings_are_scaled(load, monkeypatch):
    speed = load("speed")
    x = ad.AnnData(np.ones((4, 2), np.float32))
    case = speed.Case("c", x, x, ("A", "x"), "counts")
    asked = []

    def race(case, peer, envs, epochs):
        asked.append(epochs)
        seconds = 10.0 + 5 * (epochs or 7)
        return {"epochs": epochs or 7, "train_wall_seconds": seconds, "train_cpu_seconds": seconds / 2}

    monkeypatch.setattr(speed, "race", race)
    same = race(case, "biolord", None, 3)
    long = speed.own_default(case, "biolord", None, same, patience=10)
    assert long["scaled"] and long["train_wall_seconds"] == pytest.approx(10 + 5 * 210)
    assert long["train_cpu_seconds"] == pytest.approx((10 + 5 * 210) / 2)
    short = speed.own_default(case, "scgen", None, same, patience=10)
    assert not short["scaled"] and short["epochs"] == 7
    assert asked == [3, 1, 1, None]


def test_linear_layers_of_the_encoder(load):
    from scjepa.nn import GeneExpressionEncoder

    found = load("_run_scjepa").layers(GeneExpressionEncoder(20, 4, n_hidden=8, n_layers=2, n_modules=3))
    assert sorted(found) == [(8, 4, False), (8, 8, False), (20, 4, True), (20, 8, True)]


# ---------------------------------------------------------------------------------------------------- ablation
def test_every_variant_changes_something(load):
    variants = load("ablation").variants()
    names = [v.name for v in variants]
    assert variants[0].name == "default: " and not variants[0].model and len(set(names)) == len(names)
    assert all(v.model or v.train for v in variants[1:])
    parts = {v.part for v in variants}
    assert parts >= {"anchor", "link", "network", "set loss", "predictor input", "stages", "ensemble"}


def test_ablation_table(load):
    ablation = load("ablation")
    rows = [
        {"variant": "default: ", "l2": 2.0, "pearson_delta": 0.5, "cpu_seconds": 3.0},
        {"variant": "default: ", "l2": 4.0, "pearson_delta": 0.7, "cpu_seconds": 5.0},
        {"variant": "anchor: none", "l2": 6.0, "pearson_delta": np.nan, "cpu_seconds": 1.0},
    ]
    assert ablation.format_table(ablation.summary(rows)).splitlines() == [
        "| variant | L2, against the default | Pearson delta | CPU s |",
        "|---|---|---|---|",
        "| default | 3.000 | 0.600 | 4 |",
        "| anchor: none | 6.000 +100.0% | – | 1 |",
    ]
