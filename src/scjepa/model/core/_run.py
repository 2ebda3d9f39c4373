"""One call of ``train``: its stages in turn, checkpoints, history; a model that fails is given back as it was."""

from __future__ import annotations

import copy
import json
import logging
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd

from scjepa._checks import require_positive_int
from scjepa.data import Split
from scjepa.model.core._plain import Packer
from scjepa.train import (
    Checkpoints,
    Stage,
    describe,
    digest,
    extend_history,
    merge_histories,
    record_split,
    run_stage,
    seeded,
)

logger = logging.getLogger(__name__)


class TrainingRun:
    """The frame around the stages of a training, to be entered with ``with``.

    Leaving it puts the history together and marks the checkpoints finished. An error or an interruption inside gives a
    model that was trained before back as it was.

    Parameters
    ----------
    model
        What is trained.
    split
        Its cells.
    seed
        Of torch's random numbers inside.
    goes_on
        Whether to continue from the model's weights (unless the checkpoints say that the training began from nothing).
    checkpoint_dir
        Folder for :class:`scjepa.train.Checkpoints`, or None.
    arguments
        What else the result depends on, by name: part of the checkpoints' fingerprint.
    data
        Arrays and frames that were trained on: likewise.
    early_stopping, **trainer
        For :func:`scjepa.train.run_stage`.

    Attributes
    ----------
    fresh
        Whether the training starts from nothing.
    extends
        Whether its history continues the model's earlier one; by default that of a training which goes on.
    """

    def __init__(
        self,
        model: Any,
        split: Split,
        *,
        seed: int,
        goes_on: bool,
        checkpoint_dir: str | os.PathLike | None,
        arguments: dict[str, Any],
        data: tuple[Any, ...],
        early_stopping: bool,
        **trainer: Any,
    ) -> None:
        self.model, self.split, self.seed = model, split, seed
        self.trainer = {"early_stopping": early_stopping, **trainer}
        self.checkpoints: Checkpoints | None = None
        self.fresh = not goes_on
        if checkpoint_dir is not None:
            start = digest(*model.module.state_dict().values()) if goes_on else "fresh"
            given = {**arguments, "early_stopping": early_stopping, "seed": seed, **describe(trainer)}
            fingerprint = {
                **fingerprint_of(model),
                "data": digest(*data),
                "split": digest(*split),
                "start": start,
                "arguments": {k: repr(v) for k, v in given.items()},
            }
            self.checkpoints = Checkpoints(checkpoint_dir, fingerprint)
            self.fresh = self.fresh or self.checkpoints.fresh
        self.extends = not self.fresh
        self.histories: list[tuple[str, dict[str, pd.DataFrame]]] = []
        self._after = ExitStack()
        self._before: tuple[dict[str, Any], Any] | None = None

    def __enter__(self) -> Self:
        model = self.model
        self.earlier = model.history_
        if model.is_trained_:
            self._before = {k: v for k, v in vars(model).items() if k != "module"}, copy.deepcopy(model.module)
        self._after.enter_context(seeded(self.seed))
        return self

    def stage(self, stage: Stage) -> None:
        """Train one stage."""
        found = run_stage(self.model, stage, self.split, checkpoints=self.checkpoints, **self.trainer)
        self.note(stage.name, found)

    def note(self, name: str, history: dict[str, pd.DataFrame] | None = None) -> None:
        """Enter a stage into the history; without one of its own, a stage that was left out."""
        self.histories.append((name, history or {}))

    def nothing_trained(self) -> None:
        """Record the split where no stage did."""
        record_split(self.model, self.split)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after.close()
        model = self.model
        if error is not None:
            if self._before is not None:
                vars(model).update(self._before[0])
                model.module = self._before[1]
            return
        model.history_ = extend_history(self.earlier if self.extends else None, merge_histories(self.histories))
        model.seed_ = self.seed
        if self.checkpoints is not None:
            self.checkpoints.finish()


def fingerprint_of(model: Any) -> dict[str, str]:
    """Return a hash of everything about a model that its training depends on before it starts."""
    packer = Packer(strict=False)
    parts = {name: getattr(model, name) for name in ("init_params_", "start_", "rows_", "reference_")}
    setup = {k: v for k, v in model.registry_.items() if k in ("setup_args", "field_registries")}
    record = packer.pack({**parts, "setup": setup}, "")
    return {"model": digest(type(model).__name__, json.dumps(record), *packer.arrays.values())}


def goes_on(model: Any, split: Split) -> bool:
    """Whether a training continues the last one: only on the same training cells, else something would leak."""
    same = model.is_trained_ and np.array_equal(np.asarray(model.train_indices), split.train)
    if model.is_trained_ and not same:
        logger.info("the training cells changed: the model is trained from the start.")
    return bool(same)


def check_sizes(batch_size: int, max_epochs: int | None) -> None:
    """Raise unless there are at least two embeddings a step and, if it is given, one epoch."""
    require_positive_int(batch_size, "batch_size", minimum=2)
    if max_epochs is not None:
        require_positive_int(max_epochs, "max_epochs")


def last_split(model: Any) -> Split:
    """Return the cells of the last training; raise when the model does not hold them."""
    if model.train_indices is None:
        raise RuntimeError(
            "train_embedding trains on the training cells of the last training, and there was none on these query "
            "data. Run model.train() first."
        )
    parts = (model.train_indices, model.validation_indices, model.test_indices)
    split = Split(*(np.zeros(0, int) if cells is None else np.asarray(cells) for cells in parts))
    n = sum(map(len, split))
    same = model.adata is not None and model.adata.n_obs == n
    if same and model.cell_names_ is not None:
        same = digest(model.adata.obs_names.to_numpy()) == model.cell_names_
    if not same:
        held = "no AnnData" if model.adata is None else f"{model.adata.n_obs} cells that are not these"
        raise ValueError(
            f"train_embedding trains on the training cells of the last training, an AnnData of {n} cells; the model "
            f"holds {held}. Load it with that AnnData: {type(model).__name__}.load(folder, adata)."
        )
    return split
