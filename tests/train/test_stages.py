"""Stages: histories put together, random numbers left alone, and a small stage run for real."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from tests.modules import jepa

from scjepa.data import ExpressionMatrix, Split, ViewBatches
from scjepa.module import VIEWS
from scjepa.train import PlanConfig, Stage, epochs_for, merge_histories, quiet_lightning, run_stage, seeded


def frame(value: float) -> pd.DataFrame:
    return pd.DataFrame([value])


# ---------------------------------------------------------------- helpers
def test_a_single_history_keeps_its_names() -> None:
    assert set(merge_histories([("encoder", {"train_loss": frame(1), "rankme": frame(2)})])) == {"train_loss", "rankme"}


def test_two_histories() -> None:
    first = {"train_loss": frame(1), "validation_loss": frame(2), "rankme": frame(3)}
    got = merge_histories([("encoder", first), ("predictor", {"train_loss": frame(4), "set_loss_train": frame(5)})])
    values = {name: float(f.iloc[0, 0]) for name, f in got.items()}
    assert values == {
        "encoder_train_loss": 1,
        "encoder_validation_loss": 2,
        "encoder_rankme": 3,
        "predictor_train_loss": 4,
        "predictor_set_loss_train": 5,
        "train_loss": 4,  # and no validation loss beside it: the encoder's is another quantity
    }
    last = {"train_loss": frame(4), "validation_loss": frame(6)}
    both = merge_histories([("encoder", first), ("predictor", last)])
    assert both["train_loss"] is last["train_loss"] and both["validation_loss"] is last["validation_loss"]


@pytest.mark.parametrize(
    ("steps", "per_epoch", "epochs"), [(400, 100, 4), (400, 101, 4), (401, 100, 5), (400, 0, 400), (1, 9, 1)]
)
def test_epochs(steps: int, per_epoch: int, epochs: int) -> None:
    assert epochs_for(steps, per_epoch) == epochs


def test_seeded_repeats_and_leaves_global_generators_alone() -> None:
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with seeded(3):
        a = torch.rand(4)
    with seeded(3):
        b = torch.rand(4)
    with seeded(4):
        c = torch.rand(4)
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(KeyError), seeded(5):
        torch.rand(1)
        raise KeyError  # also when training fails
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_quiet_lightning_restores_the_levels() -> None:
    log = logging.getLogger("lightning.pytorch")
    before = log.level
    with pytest.raises(RuntimeError), quiet_lightning():
        assert log.level == logging.ERROR
        raise RuntimeError
    assert log.level == before


# ---------------------------------------------------------------- a real run
class Recorder(pl.Callback):
    """Notes learning rate and mode of every batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def model() -> SimpleNamespace:
    """What the runner asks of a model."""
    made = jepa(8, n_latent=3, n_pcs=2, regularizer="ema")
    return SimpleNamespace(module=made, history_=None, is_trained_=False, to_device=lambda device: None, adata=None)


def stage(epochs: int = 3, *, poison: bool = False, **options) -> tuple[Stage, Split]:
    cells = ExpressionMatrix(np.random.default_rng(0).poisson(2, (40, 8)) + 1, "counts", target_sum=100)
    if poison:
        cells.values.data[:] = np.nan
        cells.unit = None
    split = Split(np.arange(30), np.arange(30, 40), np.arange(0))
    train = ViewBatches(cells, split.train, 10)
    validation = ViewBatches(cells, split.validation, 10, fixed=True)
    return Stage("encoder", VIEWS, PlanConfig(lr=1e-2, warmup_steps=1), train, epochs, validation, **options), split


RUN = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def test_a_stage_trains_logs_and_leaves_the_module_as_it_should() -> None:
    made, recorder = model(), Recorder()
    before = {k: v.clone() for k, v in made.module.state_dict().items()}
    own, split = stage(callbacks=[recorder])
    with seeded(0):
        history = run_stage(made, own, split, callbacks=[Recorder()], **RUN)
    assert {"train_loss", "validation_loss", "agreement_train", "reconstruction_validation"} <= set(history)
    assert len(history["train_loss"]) == len(history["validation_loss"]) == 3
    assert np.isfinite(history["train_loss"].to_numpy(dtype=float)).all()
    assert len(recorder.rates) == 9
    assert recorder.rates[-1] < 0.1 * recorder.rates[0]  # the schedule is laid out for these 9 steps
    assert made.is_trained_ and not made.module.training
    assert made.train_indices.tolist() == list(range(30)) and made.validation_indices.tolist() == list(range(30, 40))
    after = made.module.state_dict()
    assert not torch.equal(after["encoder.skip.weight"], before["encoder.skip.weight"])
    assert not torch.equal(after["target_encoder.module.skip.weight"], before["target_encoder.module.skip.weight"])
    assert torch.equal(after["readout.weight"], before["readout.weight"])
    slow = {id(p) for p in made.module.target_encoder.parameters()}
    assert all(p.requires_grad == (id(p) not in slow) for p in made.module.parameters())


def test_a_stage_repeats_with_its_seed() -> None:
    ends = []
    for seed in (1, 1, 2):
        made = model()
        own, split = stage(epochs=1)
        with seeded(seed):
            history = run_stage(made, own, split, **RUN)
        ends.append((float(history["train_loss"].iloc[-1, 0]), made.module.encoder.skip.weight.detach()))
    assert ends[0][0] == ends[1][0] and torch.equal(ends[0][1], ends[1][1])
    assert not torch.equal(ends[0][1], ends[2][1])  # the masks differ


def test_early_stopping_waits_and_stops() -> None:
    own, split = stage(epochs=40)
    own.config = PlanConfig(lr=0.0)  # nothing improves
    history = run_stage(model(), own, split, early_stopping_patience=2, early_stopping_min_delta=1e3, **RUN)
    assert len(history["train_loss"]) == 3
    own, split = stage(epochs=4)
    own.config = PlanConfig(lr=0.0)
    options = {"early_stopping_patience": 2, "early_stopping_min_delta": 1e3}
    assert len(run_stage(model(), own, split, early_stopping=False, **options, **RUN)["train_loss"]) == 4


class Spoiled(pl.Callback):
    """Spoils the weights from the third epoch on; notes validation loss and weights after every epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.states: list[dict[str, torch.Tensor]] = []

    @torch.no_grad()
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch >= 2:
            pl_module.module.decoder.weight.add_(10.0)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["validation_loss"]))
        self.states.append({k: v.clone() for k, v in pl_module.module.state_dict().items()})


@pytest.mark.parametrize("stopping", [True, False])
def test_early_stopping_keeps_the_weights_of_the_best_epoch(stopping: bool) -> None:
    made, notes = model(), Spoiled()
    own, split = stage(epochs=4, callbacks=[notes])
    with seeded(0):
        run_stage(made, own, split, early_stopping=stopping, **RUN)
    assert len(notes.losses) == 4 and notes.losses[1] < notes.losses[0] < notes.losses[3]
    kept, end = notes.states[1 if stopping else 3], made.module.state_dict()
    trained = [name for name, _ in made.module.trained_by(VIEWS)]
    assert len(trained) > 5
    for name in trained:
        assert torch.equal(end[name], kept[name]), name
        assert torch.equal(end[name], notes.states[-1][name]) == (not stopping), name
    for name in set(end) - set(trained):  # what the stage does not train is as it was at the end
        assert torch.equal(end[name], notes.states[-1][name]), name


def test_without_validation_every_epoch_runs() -> None:
    own, split = stage(epochs=2)
    own.validation = None
    history = run_stage(model(), own, split, early_stopping=True, **RUN)
    assert len(history["train_loss"]) == 2 and "validation_loss" not in history


def test_a_failing_stage_raises_and_unfreezes(capsys: pytest.CaptureFixture) -> None:
    made = model()
    own, split = stage(poison=True)
    with pytest.raises(FloatingPointError, match="the views loss became nan at step 0. Lower the learning rate"):
        run_stage(made, own, split, **RUN)
    capsys.readouterr()  # the runner prints the error as well
    assert not made.module.training and not made.is_trained_
    slow = {id(p) for p in made.module.target_encoder.parameters()}
    assert all(p.requires_grad == (id(p) not in slow) for p in made.module.parameters())
