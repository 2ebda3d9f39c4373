"""The frame around the stages of a training, with a fake model: history, failures, and what continues what."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from scjepa.data import Split
from scjepa.model.core import _run
from scjepa.model.core._run import TrainingRun, fingerprint_of, goes_on

SPLIT = Split(np.array([0, 1, 2]), np.array([3]), np.array([4]))


class Fake:
    """What a training needs of a model."""

    init_params_, registry_ = {"non_kwargs": {}, "kwargs": {}}, {"setup_args": {"layer": None}, "field_registries": {}}
    start_ = rows_ = reference_ = None

    def __init__(self) -> None:
        self.module = nn.Linear(2, 2)
        self.history_: dict[str, pd.DataFrame] | None = None
        self.is_trained_ = False
        self.train_indices = self.validation_indices = self.test_indices = None


def curve(*values: float) -> dict[str, pd.DataFrame]:
    return {"train_loss": pd.DataFrame({"train_loss": values}, index=pd.Index(range(len(values)), name="epoch"))}


@pytest.fixture(autouse=True)
def trainer(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Stages that only add one to all weights; returns what they were called with."""
    calls = []

    def fake(model: Fake, stage: SimpleNamespace, split: Split, *, checkpoints: Any, **options: Any) -> dict:
        calls.append((stage.name, options))
        with torch.no_grad():
            for p in model.module.parameters():
                p += 1
        model.history_, model.is_trained_, model.train_indices = None, True, split.train
        return curve(*stage.losses)

    monkeypatch.setattr(_run, "run_stage", fake)
    return calls


def run(model: Fake, *, going_on: bool = False, seed: int = 0, folder: Path | None = None, **more: Any) -> TrainingRun:
    options = {"arguments": {"max_epochs": 1}, "data": (np.arange(3),), "early_stopping": True, **more}
    return TrainingRun(model, SPLIT, seed=seed, goes_on=going_on, checkpoint_dir=folder, **options)


def stage(name: str, *losses: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, losses=losses)


# ---------------------------------------------------------------- history
def test_one_stage_keeps_its_names() -> None:
    model = Fake()
    with run(model, seed=5) as training:
        training.stage(stage("encoder", 2.0, 1.0))
    assert model.history_["train_loss"]["train_loss"].tolist() == [2, 1] and list(model.history_) == ["train_loss"]
    assert model.seed_ == 5


def test_stages_are_merged_and_the_last_one_is_the_whole() -> None:
    model = Fake()
    with run(model) as training:
        training.stage(stage("encoder", 2.0))
        training.stage(stage("predictor", 7.0))
    found = {name: frame.iloc[:, 0].tolist() for name, frame in model.history_.items()}
    assert found == {"encoder_train_loss": [2.0], "predictor_train_loss": [7.0], "train_loss": [7.0]}


def test_a_stage_that_was_left_out_is_noted() -> None:
    model = Fake()
    with run(model) as training:
        training.note("encoder")
        training.stage(stage("predictor", 7.0))
    assert set(model.history_) == {"predictor_train_loss", "train_loss"}


def test_a_training_without_stages_records_its_split() -> None:
    model = Fake()
    with run(model) as training:
        training.nothing_trained()
    assert model.is_trained_ and not model.module.training and model.history_ == {}
    np.testing.assert_array_equal(model.train_indices, SPLIT.train)
    np.testing.assert_array_equal(model.test_indices, SPLIT.test)


def test_trainer_options_reach_every_stage(trainer: list) -> None:
    with run(Fake(), early_stopping=False, accelerator="cpu") as training:
        training.stage(stage("one", 1.0))
        training.stage(stage("two", 1.0))
    assert trainer == [(name, {"early_stopping": False, "accelerator": "cpu"}) for name in ("one", "two")]


@pytest.mark.parametrize(("going_on", "epochs"), [(True, [3.0, 2.0, 1.0]), (False, [1.0])])
def test_a_training_that_goes_on_extends_the_history(going_on: bool, epochs: list[float]) -> None:
    model = Fake()
    with run(model) as training:
        training.stage(stage("encoder", 3.0, 2.0))
    with run(model, going_on=going_on) as training:
        assert training.fresh != going_on and training.extends == going_on
        training.stage(stage("encoder", 1.0))
    assert model.history_["train_loss"]["train_loss"].tolist() == epochs
    assert model.history_["train_loss"].index.tolist() == list(range(len(epochs)))


def test_a_training_may_say_that_it_extends_what_it_did_not_begin_with() -> None:
    """As an embedding that is trained later: a fresh encoder, and the history of the predictor before it."""
    model = Fake()
    with run(model) as training:
        training.stage(stage("encoder", 3.0))
    with run(model) as training:
        training.stage(stage("encoder", 1.0))
        training.extends = True
    assert model.history_["train_loss"]["train_loss"].tolist() == [3, 1]


# ---------------------------------------------------------------- failures
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_trained_model_is_given_back_as_it_was(error: type[BaseException]) -> None:
    model = Fake()
    with run(model) as training:
        training.stage(stage("encoder", 3.0))
    model.note_ = "before"
    weights = {k: v.clone() for k, v in model.module.state_dict().items()}
    history = model.history_
    with pytest.raises(error), run(model, seed=9) as training:
        model.note_ = "after"
        training.stage(stage("encoder", 1.0))
        model.module.weight.data.fill_(float("nan"))
        raise error
    assert (model.note_, model.is_trained_, model.history_, model.seed_) == ("before", True, history, 0)
    assert all(torch.equal(model.module.state_dict()[k], w) for k, w in weights.items())


def test_a_model_that_was_never_trained_has_nothing_to_go_back_to() -> None:
    model = Fake()
    with pytest.raises(RuntimeError), run(model):
        raise RuntimeError
    assert not model.is_trained_ and model.history_ is None and not hasattr(model, "seed_")


# ---------------------------------------------------------------- random numbers
@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_are_the_seeds_inside_and_the_users_outside(fails: bool) -> None:
    models, draws = [Fake() for _ in range(3)], []
    torch.manual_seed(123)
    wanted = torch.rand(1)
    for model, seed in zip(models, (3, 3, 4), strict=True):
        torch.manual_seed(123)
        try:
            with run(model, seed=seed):
                draws.append(torch.rand(2))
                if fails:
                    raise InterruptedError
        except InterruptedError:
            assert fails
        assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


# ---------------------------------------------------------------- checkpoints
def test_checkpoints_are_marked_finished_only_when_all_went_well(tmp_path: Path) -> None:
    finished = lambda: json.loads((tmp_path / "training.json").read_text())["finished"]
    model = Fake()
    with pytest.raises(RuntimeError), run(model, folder=tmp_path):
        raise RuntimeError
    assert not finished()
    with run(model, folder=tmp_path) as training:
        training.stage(stage("encoder", 1.0))
    assert finished()


def test_checkpoints_of_a_fresh_training_make_the_repetition_fresh(tmp_path: Path) -> None:
    """The same call, by a model that is trained by now, repeats the training that the folder holds."""
    model = Fake()
    with run(model, folder=tmp_path) as training:
        training.stage(stage("encoder", 1.0))
    again = run(model, going_on=True, folder=tmp_path)
    assert again.fresh and not again.extends


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed='0' there, '1' here"),
        ({"arguments": {"max_epochs": 2}}, "max_epochs='1' there, '2' here"),
        ({"data": (np.arange(4),)}, "the data"),
        ({"early_stopping": False}, "early_stopping='True' there, 'False' here"),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val"),
    ],
)
def test_checkpoints_of_another_training_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(Fake(), folder=tmp_path)
    with pytest.raises(ValueError, match=message):
        run(Fake(), folder=tmp_path, **change)


def test_the_fingerprint_is_that_of_setup_arguments_and_start() -> None:
    one, other = Fake(), Fake()  # weights at the start don't count: a fresh training draws them anew
    assert fingerprint_of(one) == fingerprint_of(other)
    changes: list[tuple[str, Any]] = [
        ("init_params_", {"non_kwargs": {"n_latent": 3}, "kwargs": {}}),
        ("registry_", {**Fake.registry_, "setup_args": {"layer": "counts"}}),
        ("start_", {"w": torch.ones(1)}),
        ("rows_", {"w": torch.ones(1, dtype=torch.bool)}),
    ]
    found = set()
    for name, value in changes:
        model = Fake()
        setattr(model, name, value)
        found.add(fingerprint_of(model)["model"])
    assert len(found) == len(changes) and fingerprint_of(one)["model"] not in found


# ---------------------------------------------------------------- going on
def test_only_the_same_training_cells_go_on(caplog: pytest.LogCaptureFixture) -> None:
    model = Fake()
    assert goes_on(model, SPLIT) is False
    model.is_trained_, model.train_indices = True, np.array([0, 1, 2])
    assert goes_on(model, SPLIT) is True
    assert goes_on(model, SPLIT._replace(validation=np.array([4]), test=np.array([3]))) is True
    with caplog.at_level("INFO"):
        assert goes_on(model, SPLIT._replace(train=np.array([0, 1]))) is False
    assert "the training cells changed" in caplog.text
