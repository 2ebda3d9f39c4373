"""Run one stage of training on scvi-tools' runner, and put the histories of stages together."""

from __future__ import annotations

import io
import logging
import signal
import warnings
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from scvi.train import TrainRunner
from torch.utils.data import DataLoader

from scjepa.data import SeededBatches, Split
from scjepa.train._callbacks import BestWeights
from scjepa.train._plan import JEPATrainingPlan, PlanConfig
from scjepa.train._resume import (
    Checkpoints,
    EpochCheckpoint,
    read_history,
    stage_result,
    take_result,
    write_atomically,
)
from scjepa.train._rows import OnlyRows
from scjepa.train._threads import pinned_threads


@dataclass
class Stage:
    """What one stage of training needs.

    Attributes
    ----------
    name
        Prefix of the stage's metrics in the history (``"encoder"``, ``"predictor"``).
    objective
        Objective of the module.
    config
        Optimizer and schedule.
    train, validation
        Batches; validation may be None.
    max_epochs
        Passes over ``train``.
    callbacks
        Further Lightning callbacks.
    rows
        Name of a parameter -> boolean tensor of its shape: only these entries train. None: all that the objective
        trains.
    """

    name: str
    objective: str
    config: PlanConfig
    train: SeededBatches
    max_epochs: int
    validation: SeededBatches | None = None
    callbacks: list[pl.Callback] = field(default_factory=list)
    rows: dict[str, torch.Tensor] | None = None


class _Batches(pl.LightningDataModule):
    """Hands ready-made batches to the trainer and the split's indices to scvi-tools' runner."""

    def __init__(self, stage: Stage, split: Split) -> None:
        super().__init__()
        self.stage = stage
        self.train_idx, self.val_idx, self.test_idx = split
        self.n_train, self.n_val = len(split.train), len(split.validation)

    def transfer_batch_to_device(
        self, batch: dict[str, torch.Tensor], device: torch.device, dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Move a batch; Lightning looks for tensors in anything that may hold some, which takes longer than a small step."""
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.stage.train, batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        return [] if self.stage.validation is None else DataLoader(self.stage.validation, batch_size=None)


class _Runner(TrainRunner):
    """The runner, with errors and Ctrl-C as Python has them: raised, and nothing else.

    scvi-tools prints a line about every exception that it raises on; Lightning turns Ctrl-C into an exit, which a
    notebook shows as ``SystemExit: 1``, and leaves later ones ignored.
    """

    def _run_training_core(self) -> None:
        fit, handler = self.trainer.fit, signal.getsignal(signal.SIGINT)
        with ExitStack() as after:

            def fit_and_hush(*args: Any, **kwargs: Any) -> None:
                try:
                    fit(*args, **kwargs)
                except BaseException:
                    after.enter_context(redirect_stdout(io.StringIO()))  # from here on only the line is printed
                    raise

            self.trainer.fit = fit_and_hush
            try:
                super()._run_training_core()
            except SystemExit as stop:
                if isinstance(stop.__context__, KeyboardInterrupt):
                    raise stop.__context__ from None
                raise
            finally:
                del self.trainer.fit  # the method of the class again
                if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
                    signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet_lightning():
    """Silence Lightning's adverts and hardware lines, and hints that do not apply to ready-made batches."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for text in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*", ".*`__len__`.*"):
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


@contextmanager
def seeded(seed: int):
    """Draw torch's random numbers from ``seed`` inside, and leave the caller's generators as they were.

    The number of threads is given as well, since last digits depend on it: same seed, same numbers.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), pinned_threads():
        torch.manual_seed(seed)
        yield


def run_stage(
    model: Any,
    stage: Stage,
    split: Split,
    *,
    early_stopping: bool = True,
    checkpoints: Checkpoints | None = None,
    **trainer_kwargs: Any,
) -> dict[str, pd.DataFrame]:
    """Train one stage and return its history.

    Parameters
    ----------
    model
        A model class of this package; its ``module`` is trained in place.
    stage
        What to train, on what.
    split
        Cells that train, validate and test, recorded on the model.
    early_stopping
        Stop when the validation loss has not improved for ``early_stopping_patience`` epochs (default 45), and keep
        the weights of the epoch where it was lowest; acts only when the stage has validation batches.
    checkpoints
        Where every finished epoch is written, and where training goes on after an interruption.
    **trainer_kwargs
        For :class:`scvi.train.Trainer`: ``accelerator``, ``devices``, ``strategy``, ``enable_progress_bar``, ...

    Returns
    -------
    Metric name -> one-column data frame indexed by epoch.
    """
    module = model.module
    path, held = (None, None) if checkpoints is None else checkpoints.stage(stage.name)
    if held is not None and held["done"]:
        record_split(model, split)
        return take_result(model, held)
    wanted = {name for name, _ in module.trained_by(stage.objective)}
    if stage.rows is not None:
        wanted &= set(stage.rows)
        if not wanted:
            record_split(model, split)
            return {}
    frozen = [p for name, p in module.named_parameters() if name not in wanted and p.requires_grad]
    for p in frozen:  # distributed training waits for gradients of every parameter that asks for one
        p.requires_grad_(False)
    stops = early_stopping and stage.validation is not None
    best = [BestWeights(p for name, p in module.named_parameters() if name in wanted)] if stops else []
    rows = []
    if stage.rows is not None:
        parts = [(p, stage.rows[name]) for name, p in module.named_parameters() if name in wanted]
        rows = [OnlyRows([p for p, _ in parts], [mask for _, mask in parts])]
    keeper = [] if path is None else [EpochCheckpoint(path, stage.train, held)]
    plan = JEPATrainingPlan(module, stage.objective, stage.config, stage.max_epochs * len(stage.train))
    options: dict[str, Any] = {
        "early_stopping": stops,
        "early_stopping_monitor": "validation_loss",
        "check_val_every_n_epoch": 1 if stage.validation is not None else None,
        "gradient_clip_val": stage.config.gradient_clip or None,
        "log_every_n_steps": 1,
        "callbacks": [*stage.callbacks, *best, *rows, *keeper],
    }
    options |= {k: v for k, v in trainer_kwargs.items() if k != "callbacks"}
    options["callbacks"] = options["callbacks"] + list(trainer_kwargs.get("callbacks") or [])
    model.history_, model.is_trained_ = None, False  # the runner would append to another stage's history
    module.train()
    try:
        with quiet_lightning(), pinned_threads(stage.config.threads):
            runner = _Runner(
                model, training_plan=plan, data_splitter=_Batches(stage, split), max_epochs=stage.max_epochs, **options
            )
            for callback in keeper:
                callback.place(runner.trainer)
            runner()
    finally:
        module.eval()
        for p in frozen:
            p.requires_grad_(True)
    history = {name: frame for name, frame in (model.history_ or {}).items() if isinstance(frame, pd.DataFrame)}
    if path is not None:
        history = read_history(keeper[0].history, history)
        if runner.trainer.is_global_zero:
            write_atomically(path, stage_result(model, history))
    return history


def record_split(model: Any, split: Split) -> None:
    """Note on a model what it was trained on, where no runner did."""
    model.train_indices, model.validation_indices, model.test_indices = split
    model.is_trained_ = True
    model.module.eval()


def merge_histories(stages: list[tuple[str, dict[str, pd.DataFrame]]]) -> dict[str, pd.DataFrame]:
    """Put the histories of stages under one roof.

    A single stage keeps its names. With several, every metric is stored as ``<stage>_<metric>``, and ``train_loss``
    and ``validation_loss`` are those of the last stage: both or, when nothing validated it, ``train_loss`` alone.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.train import merge_histories
    >>> a, b = {"train_loss": pd.DataFrame([2.0])}, {"train_loss": pd.DataFrame([1.0])}
    >>> sorted(merge_histories([("encoder", a), ("predictor", b)]))
    ['encoder_train_loss', 'predictor_train_loss', 'train_loss']
    """
    if len(stages) == 1:
        return dict(stages[0][1])
    merged: dict[str, pd.DataFrame] = {}
    for name, history in stages:
        merged |= {f"{name}_{metric}": frame for metric, frame in history.items()}
    last = (
        stages[-1][1] if stages else {}
    )  # losses of different stages are different quantities: never one's beside the other's
    return merged | {metric: last[metric] for metric in ("train_loss", "validation_loss") if metric in last}


def extend_history(earlier: dict[str, pd.DataFrame] | None, new: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Append the history of a training that went on to that of the earlier one; epochs are counted on.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.train import extend_history
    >>> one = {"train_loss": pd.DataFrame({"train_loss": [2.0, 1.0]})}
    >>> extend_history(one, one)["train_loss"].index.tolist()
    [0, 1, 2, 3]
    """
    merged = dict(new)
    for name, frame in (earlier or {}).items():
        if name in new:
            later = new[name].set_axis(np.arange(len(new[name])) + len(frame), axis=0)
            merged[name] = pd.concat([frame, later])
            merged[name].index.name = frame.index.name
        else:
            merged[name] = frame
    return merged


def epochs_for(steps: int, per_epoch: int) -> int:
    """Number of epochs that make about ``steps`` steps, at least one.

    Examples
    --------
    >>> from scjepa.train import epochs_for
    >>> epochs_for(400, 11), epochs_for(400, 5000)
    (37, 1)
    """
    return max(int(np.ceil(steps / max(per_epoch, 1))), 1)
