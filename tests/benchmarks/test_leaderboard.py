"""Leaderboard: what peers are asked, how results are kept, averaged, ordered and drawn."""

import gzip
import importlib
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("benchmarks/ is not part of this installation", allow_module_level=True)


@pytest.fixture
def load(monkeypatch):
    """Import a script or helper as the scripts import each other."""
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def cells():
    """Controls, two singles and their combination, which is the sum of the singles."""
    labels = np.repeat(["control", "A", "B", "A+B"], 5)
    shift = {"control": [0, 0, 0], "A": [2, 0, 0], "B": [0, 1, 0], "A+B": [2, 1, 0]}
    x = 3 + np.array([shift[p] for p in labels]) + np.random.default_rng(0).uniform(size=(20, 3))
    obs = pd.DataFrame({"p": labels}, index=[f"cell{i}" for i in range(20)])
    return ad.AnnData(x.astype(np.float32), obs=obs)


# ------------------------------------------------------------------------------------------------------- runners
def test_every_peer_has_environment_runner_and_title(load):
    peers, board = load("_peers"), load("leaderboard")
    for peer in load("make_env").REQUIREMENTS:
        assert (FOLDER / "peers" / f"run_{peer}.py").is_file()
    assert set(peers.PEERS) < set(peers.TITLES)  # scjepa has a title too
    for dataset in board.DATASETS.values():
        assert set(dataset.epochs) | set(dataset.impossible) == set(peers.PEERS)
        assert not set(dataset.epochs) & set(dataset.impossible)


def test_combinations_are_made_of_their_parts(load, cells):
    task = load("task")
    what = {"perturbation_key": "p", "control": "control", "seed": 0, "predict": [["A+B", "all"]]}
    assert task.combination_rows(cells, what).tolist() == [False] * 15 + [True] * 5
    assert not task.asks_for_unseen(cells, what)
    assert task.asks_for_unseen(cells[:15], what)
    assert task.multi_hot(["control", "B", "B+A"], ["A", "B"]).tolist() == [[0, 0], [0, 1], [1, 1]]


def test_no_single_profile_is_spent_on_validation(load):
    task = load("task")
    labels = [f"A+B{i}" for i in range(500)] + [f"C{i}" for i in range(500)]
    what = {"perturbation_key": "p", "control": "control", "seed": 0}
    names = [str(i) for i in range(1000)]
    profiles = ad.AnnData(np.zeros((1000, 1), np.float32), obs=pd.DataFrame({"p": labels}, index=names))
    chosen = task.validation_rows(profiles, what)
    assert 30 < chosen[:500].sum() < 70 and not chosen[500:].any()
    profiles.obs["p"] = "C"  # of a condition with many cells any may be
    assert task.validation_rows(profiles, what)[500:].any()


def test_peers_get_a_constant_context_counts_and_terms(load, cells, monkeypatch, tmp_path):
    peers = load("_peers")
    monkeypatch.setattr(peers, "interpreter", lambda envs, peer: Path(sys.executable))
    monkeypatch.setattr(peers, "HERE", tmp_path)
    (tmp_path / "run_gears.py").write_text(
        "import pathlib, shutil, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "shutil.copy(folder / 'cells.h5ad', folder / 'predicted.h5ad')\n"
        "shutil.copy(folder / 'task.json', folder / 'measured.json')\n"
    )
    cells.layers["counts"] = 2 * cells.X
    options = {
        "perturbation_key": "p",
        "control": "control",
        "predict": [("A+B", "")],
        "gene_sets": {"A": {"t2", "t1"}},
    }
    found, task = peers.run_peer("gears", tmp_path, cells, max_epochs=3, **options)
    assert set(found.obs["context"]) == {"all"} and task["context_key"] == "context"
    assert task["predict"] == [["A+B", "all"]] and task["max_epochs"] == 3 and task["gene_sets"] == {"A": ["t1", "t2"]}
    np.testing.assert_array_equal(found.layers["counts"], 2 * cells.X)


def test_terms_of_perturbed_genes(load, cells, tmp_path, capsys):
    board, common = load("leaderboard"), load("_common")
    run, columns = common.Run("r", cells, ["A+B"]), common.Columns("p")
    assert board.gene_terms(tmp_path, run, columns) == {"A": [], "B": []}
    assert "no such file" in capsys.readouterr().out
    (tmp_path / "priors").mkdir()
    with gzip.open(tmp_path / board.GENE_SETS, "wt") as file:
        file.write("term1\tA\tC\nterm2\tA\tB\n")
    assert board.gene_terms(tmp_path, run, columns) == {"A": ["term1", "term2"], "B": ["term2"]}


# -------------------------------------------------------------------------------------------------------- tables
def rows(method, kind, l2, r, *, dataset="norman", n=5, e_distance=1.0, cpu=np.nan):
    """Return a row of the leaderboard."""
    scores = {"l2": l2, "pearson_delta": r, "pearson_delta_systema": r, "e_distance": e_distance}
    more = {"variance_ratio": 1.0, "shift_ratio": 1.0, "n_conditions": n, "run": "r", "seed": 0, "epochs": 3}
    costs = {"cpu_seconds": cpu, "wall_seconds": cpu, "peak_mb": cpu}
    return {"dataset": dataset, "method": method, "kind": kind} | scores | more | costs


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            rows("replicate ceiling", "ceiling", 0.1, 0.99),
            rows("few", "baseline", 0.01, 0.99, n=2),
            rows("mean", "baseline", 2.0, 0.1),
            rows("PerturbJEPA", "model", 0.5, 0.8, cpu=30.0),
            rows("GEARS", "peer", 1.0, 0.9, cpu=300.0),
        ]
    )


def test_order_ceiling_last_and_incomparable_before(load, table):
    summary = load("leaderboard").summarize(table)
    assert summary.index.tolist() == ["PerturbJEPA", "GEARS", "mean", "few", "replicate ceiling"]


def test_runs_are_averaged(load, table):
    second = table.assign(l2=table["l2"] + 1)
    summary = load("leaderboard").summarize(pd.concat([table, second]))
    assert summary.loc["GEARS", "l2"] == 1.5 and summary.loc["GEARS", "n_conditions"] == 10


def test_best_of_comparable_methods_is_bold(load, table):
    board = load("leaderboard")
    lines = {line.split("|")[1].strip(): line for line in board.format_table(board.summarize(table)).splitlines()}
    assert "| **0.500** | 0.800 |" in lines["**PerturbJEPA**"] and "| 30 | 30 | 30 |" in lines["**PerturbJEPA**"]
    assert "| 1.000 | **0.900** |" in lines["**GEARS**"]
    assert "**" not in lines["few (2 of 5)"] and "**" not in lines["replicate ceiling"]
    assert lines["mean"].endswith("|  |  |  |")


def test_figure_has_a_row_of_panels_per_data_set(load, table, tmp_path, monkeypatch):
    import matplotlib.figure as mpl

    board = load("leaderboard")
    kept = []
    monkeypatch.setattr(mpl.Figure, "savefig", lambda self, path, **_: kept.append((self, path)))
    other = table.assign(dataset="carpool", e_distance=np.nan)
    board.draw(pd.concat([table, other]), tmp_path / "new" / "board.png")
    figure, path = kept[0]
    assert path == tmp_path / "new" / "board.png" and len(figure.axes) == 6
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["mean", "GEARS", "PerturbJEPA"]  # the best on top; "few" can't be compared
    dots = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in dots] == [2.0, 1.0, 0.5]
    assert "undefined" in figure.axes[5].texts[0].get_text()


# ----------------------------------------------------------------------------------------------------- whole run
def test_everything_is_scored_and_kept(load, cells, monkeypatch, tmp_path, capsys):
    board, peers, common = load("leaderboard"), load("_peers"), load("_common")
    asked = []

    def fake(peer, envs, training, **options):
        asked.append((peer, "A+B" in set(training.obs["p"]), options.get("max_epochs")))
        predicted = cells[cells.obs["p"] == "A+B"].copy()
        predicted.X = predicted.X + np.float32(1e-4 if peer == "scjepa" else 1)
        predicted.obs_names = [f"new{i}" for i in range(5)]
        spent = {f"{part}_{clock}_seconds": 2.0 for part in ("train", "predict") for clock in ("wall", "cpu")}
        return predicted, spent | {"epochs": 3, "peak_mb": 7.0}

    dataset = board.Dataset(
        "toy", lambda folder: [common.Run("r", cells, ["A+B"])], common.Columns("p"), {"scgen": 4, "gears": None}
    )
    monkeypatch.setattr(board, "DATASETS", {"toy": dataset})
    monkeypatch.setattr(board, "run_peer", fake)
    monkeypatch.setattr(peers, "run_peer", fake)
    monkeypatch.setattr(board, "require_peers", lambda envs, peers: None)
    monkeypatch.setattr(board, "start", lambda args: None)
    monkeypatch.setattr(board, "draw", lambda table, path: None)
    command = ["leaderboard.py", "--datasets", "toy", "--peers", "scgen", "gears", "scvi", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    board.main()
    board.main()
    # held-out cells reach nobody; peers train once, with the cap of the data set; scVI can't take the data
    assert asked == [("scjepa", False, None), ("scgen", False, 4), ("gears", False, None), ("scjepa", False, None)]
    table = pd.read_csv(tmp_path / "leaderboard.csv").set_index("method")
    assert {"PerturbJEPA", "scGen", "GEARS", "additive", "no change", "replicate ceiling"} <= set(table.index)
    assert table.index.is_unique and set(table["dataset"]) == {"toy"}
    assert table.loc["PerturbJEPA", "l2"] == pytest.approx(0, abs=1e-3)
    assert table.loc["scGen", "l2"] == pytest.approx(np.sqrt(3), abs=1e-3)
    assert table.loc["scGen", "cpu_seconds"] == 4 and np.isnan(table.loc["additive", "cpu_seconds"])
    assert "toy" in capsys.readouterr().out


def test_nothing_to_show_is_said(load, monkeypatch, tmp_path, capsys):
    board = load("leaderboard")
    monkeypatch.setattr(board, "start", lambda args: None)
    monkeypatch.setattr(sys, "argv", ["leaderboard.py", "--datasets", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        board.main()
    assert "--datasets names none" in capsys.readouterr().err
