"""Training that survives a kill: the state of every finished epoch on disk, and the way back from there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from scjepa._checks import some

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files of a checkpoint folder."""


def digest(*parts: Any) -> str:
    """Return a short hash of arrays, sparse matrices, tensors, data frames and of anything else that prints alike.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.train import digest
    >>> digest(np.arange(3), "a") == digest(np.arange(3), "a"), digest(np.arange(3)) == digest(np.arange(4))
    (True, False)
    """
    found = hashlib.blake2b(digest_size=12)
    for part in parts:
        if sp.issparse(part):
            csr = part.tocsr()
            found.update(digest(csr.shape, csr.data, csr.indices, csr.indptr).encode())
        elif isinstance(part, pd.DataFrame):
            rows = pd.util.hash_pandas_object(part.astype(str), index=False).to_numpy()
            found.update(digest(list(part.columns), rows).encode())
        elif isinstance(part, (np.ndarray, torch.Tensor)):
            array = part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part
            if array.dtype == object:
                array = array.astype(str)
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data if array.size else b"")
        else:
            found.update(repr(part).encode())
    return found.hexdigest()


def write_atomically(path: Path, payload: Any) -> None:
    """Write a checkpoint beside its place and move it there: at any moment the file is whole, old or new."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        torch.save(payload, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


class Checkpoints:
    """A folder with the state of one training.

    ``training.json`` says what is trained and whether it is finished; ``<number>-<stage>.pt`` holds the state of each
    stage after its last finished epoch. Files are read with ``weights_only=True``: no code is run from them.

    Parameters
    ----------
    folder
        The folder; made when absent.
    fingerprint
        What the result depends on: part -> hash, or -> dictionary of values that are named when they differ. The part
        ``"start"`` is ``"fresh"``, or a hash of the weights that a training goes on from.

    Raises
    ------
    ValueError
        When the folder holds a training with another fingerprint, or was written in another format.
    """

    def __init__(self, folder: str | os.PathLike, fingerprint: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.count = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = self.folder / "training.json"
        held = json.loads(self.record.read_text()) if self.record.exists() else None
        if held is None:
            self._write(finished=False)
            return
        if held.get("format") != FORMAT:
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} was written in format {held.get('format')}, this scjepa reads "
                f"{FORMAT}. Give another folder."
            )
        # a model that is trained already repeats a training that had begun from nothing: the folder decides
        self.fresh = held["fingerprint"].get("start") == "fresh"
        if self.fresh:
            self.fingerprint["start"] = "fresh"
        odd = _differences(held["fingerprint"], self.fingerprint)
        if odd:
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} holds another training; what differs: {'; '.join(odd)}. Repeat the "
                "call that it was written by, or give another folder."
            )
        if held["finished"]:
            logger.info("the training in %s is finished: its result is taken, nothing is trained anew.", folder)
        else:
            logger.info("the training in %s goes on where it stopped.", folder)

    fresh: bool = False
    """Whether the folder held a training that began from nothing (False for a new folder)."""

    @rank_zero_only
    def _write(self, *, finished: bool) -> None:
        text = json.dumps({"format": FORMAT, "finished": finished, "fingerprint": self.fingerprint}, indent=1)
        beside = self.record.with_name(f".training.json.{os.getpid()}")
        beside.write_text(text)
        os.replace(beside, self.record)

    def stage(self, name: str) -> tuple[Path, dict[str, Any] | None]:
        """Return the file of the next stage, in the order of training, and what it holds."""
        self.count += 1
        path = self.folder / f"{self.count}-{name}.pt"
        return path, torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def finish(self) -> None:
        """Note that nothing is left to train."""
        self._write(finished=True)


def _differences(held: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in words where two fingerprints differ."""
    out = []
    for part in sorted(held.keys() | now.keys()):
        old, new = held.get(part), now.get(part)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            names = sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))
            out += [f"{name}={old.get(name)!r} there, {new.get(name)!r} here" for name in names]
        else:
            out.append({"start": "the weights that training starts from"}.get(part, f"the {part}"))
    return out


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Put the state of torch's generators back."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def write_history(frames: dict[str, pd.DataFrame]) -> dict[str, dict[str, list]]:
    """Turn a history into lists."""
    return {
        name: {"epoch": [int(i) for i in frame.index], "value": [float(v) for v in frame.iloc[:, 0]]}
        for name, frame in frames.items()
    }


def read_history(held: dict[str, dict[str, list]], later: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Turn lists into a history again, and append the epochs that came after."""
    out = dict(later)
    for name, column in held.items():
        frame = pd.DataFrame({name: column["value"]}, index=pd.Index(column["epoch"], name="epoch"), dtype=object)
        out[name] = pd.concat([frame, later[name]]) if name in later else frame
        out[name].index.name = "epoch"
    return out


class EpochCheckpoint(pl.Callback):
    """Write the state of training after every epoch, and start from such a state.

    An epoch's state is written, and put back, right before the first step of the next one: only there is everything
    that an epoch leaves behind (metrics, best weights, random numbers) in its place.

    Parameters
    ----------
    path
        Where to write.
    batches
        Training batches; their ``epoch`` says which draws come next.
    held
        The state to start from, or None.
    """

    def __init__(self, path: Path, batches: Any, held: dict[str, Any] | None) -> None:
        self.path, self.batches, self.held = path, batches, held
        self.history = {} if held is None else held["history"]

    def place(self, trainer: pl.Trainer) -> None:
        """Count the epochs that are done; before ``fit``."""
        if self.held is not None:
            current: Any = trainer.fit_loop.epoch_progress.current
            current.processed = current.completed = self.held["epoch"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put weights, optimizer, schedule and other callbacks back."""
        if self.held is None:
            return
        pl_module.module.load_state_dict(self.held["module"])  # type: ignore[union-attr]
        trainer.optimizers[0].load_state_dict(self.held["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.held["scheduler"])
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback).__name__ in self.held["callbacks"]:
                callback.load_state_dict(self.held["callbacks"][type(callback).__name__])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the batches of this epoch."""
        if self.held is not None:
            self.batches.epoch = self.held["epoch"]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Put the random numbers back, or write the state that the last epoch left."""
        if index:
            return
        if self.held is not None:
            set_random_state(self.held["random"])
            self.held = None
        elif trainer.current_epoch and trainer.is_global_zero:
            history = read_history(self.history, getattr(trainer.logger, "history", {}))
            payload = {
                "done": False,
                "epoch": trainer.current_epoch,
                "module": pl_module.module.state_dict(),  # type: ignore[union-attr, operator]
                "optimizer": trainer.optimizers[0].state_dict(),
                "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                "callbacks": {
                    type(c).__name__: state
                    for c in trainer.callbacks  # type: ignore[attr-defined]
                    if (state := c.state_dict())
                },
                "random": random_state(),
                "history": write_history(history),
            }
            write_atomically(self.path, payload)


def stage_result(model: Any, history: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what is kept of a stage that is done."""
    return {
        "done": True,
        "module": model.module.state_dict(),
        "device": str(model.device),
        "random": random_state(),
        "history": write_history(history),
    }


def take_result(model: Any, held: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Give ``model`` the weights of a stage that is done; returns the stage's history."""
    model.module.load_state_dict(held["module"])
    if torch.device(held["device"]).type == "cuda" and torch.cuda.is_available():
        model.to_device(held["device"])
    set_random_state(held["random"])
    return read_history(held["history"], {})


def describe(options: dict[str, Any]) -> dict[str, str]:
    """Return the trainer's options that a result may depend on, as text.

    Examples
    --------
    >>> from scjepa.train import describe
    >>> describe({"early_stopping_patience": 3, "enable_progress_bar": False})
    {'early_stopping_patience': '3'}
    """
    silent = ("enable_", "progress_", "simple_", "log_", "logger", "accelerator", "devices", "strategy", "default_root")
    plain = (str, int, float, bool, type(None))
    kept = {k: v for k, v in options.items() if not k.startswith(silent)}
    odd = sorted(k for k, v in kept.items() if not isinstance(v, plain))
    if odd:
        logger.info("checkpoints do not compare %s: give the same again.", some(odd))
    return {k: repr(v) for k, v in sorted(kept.items()) if isinstance(v, plain)}
