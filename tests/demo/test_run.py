"""A run of the demo: what it trains on, predicts and writes."""

from __future__ import annotations

import runpy
import signal
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from scjepa.datasets import simulate_perturbseq
from scjepa.demo import main
from scjepa.model import PerturbJEPA
from scjepa.train import CollapseMonitor
from tests.demo.cases import ARGS, FakePlots


def test_a_run_writes_everything_and_trains_without_the_held_out(fake, counts, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predicted_vs_true_old.png").write_text("of an earlier run")
    (out / "notes.txt").write_text("mine")
    code = main(["demo", "--data", str(counts), *ARGS, "--batch-key", "batch", "--holdout", "K562", "--max-epochs", "3",
                 "--seed", "5", "--out", str(out)])  # fmt: skip
    assert code == 0
    table = ad.read_h5ad(counts).obs
    perturbed = sorted(set(table["perturbation"]) - {"control"})
    assert fake.calls["setup"] == {"perturbation_key": "perturbation", "control": "control", "context_key": "context",
                                   "batch_key": "batch"}  # fmt: skip
    wanted = {"max_epochs": 3, "seed": 5, "holdout": [(p, "K562") for p in perturbed], "enable_progress_bar": False}
    assert fake.calls["train"] == wanted  # no bar: the output is not a terminal
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert set(predicted.obs["perturbation"]) == set(perturbed)
    assert set(predicted.obs["context"]) == {"K562"}
    assert predicted.uns["jepa"]["prediction"]["by"] == "fake"
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["perturbation"]) == set(perturbed)
    value = scores.set_index(["method", "metric", "perturbation"])["value"]
    np.testing.assert_allclose(value["model"]["l2"], value["no change"]["l2"], rtol=1e-4)  # the fake predicts controls
    written = sorted(p.name for p in out.iterdir())
    figures = [f"predicted_vs_true_K562_{p}.png" for p in perturbed]
    assert len(figures) == 6
    assert written == sorted(
        ["model", "history.png", "predictions.h5ad", "scores.csv", "scores.png", "notes.txt", *figures]
    )
    assert FakePlots.asked == [(p, "K562") for p in perturbed]
    said = capsys.readouterr().out
    assert "held out: as asked" in said and "model" in said and "no change" in said


def test_several_contexts_are_predicted_each_from_its_own_controls(fake, counts, tmp_path):
    names = sorted(set(ad.read_h5ad(counts).obs["perturbation"]) - {"control"})
    double = next(n for n in names if "+" in n)
    assert main(["demo", "--data", str(counts), *ARGS, "--holdout", double, "--out", str(tmp_path / "o")]) == 0
    predicted = ad.read_h5ad(tmp_path / "o" / "predictions.h5ad")
    assert predicted.obs["context"].value_counts().to_dict() == {"K562": 20, "RPE1": 20}
    assert predicted.obs_names.is_unique
    said = predicted.uns["jepa"]["prediction"]["conditions"]  # of all contexts, not of the first alone
    assert list(zip(said["perturbation"], said["context"], strict=True)) == [(double, "K562"), (double, "RPE1")]
    assert fake.calls["train"]["holdout"] == [(double, "K562"), (double, "RPE1")]
    assert FakePlots.asked == [(double, "K562"), (double, "RPE1")]


def test_without_contexts_conditions_are_named_by_the_perturbation(fake, counts, tmp_path):
    names = sorted(set(ad.read_h5ad(counts).obs["perturbation"]) - {"control"})
    double = next(n for n in names if "+" in n)
    args = ["--perturbation-key", "perturbation", "--holdout", double, "--out", str(tmp_path / "o")]
    assert main(["demo", "--data", str(counts), *args]) == 0
    assert fake.calls["train"]["holdout"] == [double]
    assert FakePlots.asked == [(double, None)]


def test_training_runs_on_one_thread(fake, counts, tmp_path):
    torch.set_num_threads(2)
    args = ["--perturbation-key", "perturbation", "--out", str(tmp_path / "mine")]
    assert main(["demo", "--data", str(counts), *args]) == 0
    assert torch.get_num_threads() == 1


# ---- the real thing


def test_the_command_runs_the_real_model(tmp_path, monkeypatch, capsys):
    simulate_perturbseq(30, 4, 3, 1, n_cells=8, n_control=12, kinds=("KD",)).write_h5ad(tmp_path / "x.h5ad")
    out = tmp_path / "out"
    args = ["demo", "--data", str(tmp_path / "x.h5ad"), *ARGS, "--max-epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["scjepa", *args])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("scjepa", run_name="__main__")
    assert stop.value.code == 0
    assert "1 of 1 combinations whose single perturbations are measured" in capsys.readouterr().out
    scores = pd.read_csv(out / "scores.csv")
    assert {"model", "no change", "additive"} <= set(scores["method"])
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert predicted.obs["context"].value_counts().to_dict() == {"state A": 12, "state B": 12}
    figures = list(out.glob("*.png"))
    assert len(figures) == 4 and all(f.read_bytes().startswith(b"\x89PNG") for f in figures)
    again = PerturbJEPA.load(str(out / "model"), adata=None)
    assert again.trained_on_["perturbation"].str.contains("+", regex=False).sum() == 0  # the double was held out
    assert len(again.trained_on_) == 6


def test_a_screen_of_single_perturbations_without_contexts(tmp_path, capsys):
    kept = simulate_perturbseq(40, 12, 10, 0, n_cells=10, n_control=30, kinds=("KD",), contexts=("K562",))
    kept.write_h5ad(tmp_path / "x.h5ad")
    args = ["demo", "--data", str(tmp_path / "x.h5ad"), "--perturbation-key", "perturbation", "--max-epochs", "1"]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    assert "held out: 1 of 10 perturbations" in capsys.readouterr().out
    (held,) = set(ad.read_h5ad(tmp_path / "out" / "predictions.h5ad").obs["perturbation"])
    assert held not in set(PerturbJEPA.load(str(tmp_path / "out" / "model"), adata=None).trained_on_["perturbation"])


def test_ctrl_c_in_training_ends_the_run(counts, tmp_path, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(CollapseMonitor, "on_train_epoch_end", lambda *args: signal.raise_signal(signal.SIGINT))
    out = tmp_path / "out"
    assert main(["demo", "--data", str(counts), *ARGS, "--max-epochs", "2", "--out", str(out)]) == 130
    said = capsys.readouterr()
    assert said.err.endswith(f"\ninterrupted; {out} holds of this run: nothing yet\n")
    assert "Exception raised" not in said.out
    assert signal.getsignal(signal.SIGINT) is before
