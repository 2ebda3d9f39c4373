"""What all runners of peers share: reading a task, timing it, and writing predicted cells. Imports no peer and no scjepa.

A task is a folder with two files:

``cells.h5ad``
    Training cells (or one profile per condition) and all controls, log-normalised, with ``layers["counts"]`` where
    counts are known; the cells that are held out are not in it.
``task.json``
    ``perturbation_key``, ``control``, ``context_key``, ``predict`` (a list of ``[perturbation, context]``; combinations
    are written ``A+B``), ``seed``, ``threads``, ``max_epochs`` (null: the peer's own default, with early stopping if its
    tutorial has it) and ``gene_sets`` (terms of each perturbed gene, may be empty).

A runner writes ``predicted.h5ad`` (cells x genes of the task, log-normalised, with the two columns of labels) and
``measured.json`` beside them: seconds of wall clock and processor for set-up with training and for prediction, epochs
trained, peak memory, versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = {"scvi": "scvi-tools", "gears": "cell-gears", "cellflow": "cellflow-tools"}
"""Names of packages that differ from what is imported."""


def memory(which: str) -> float:
    """Return resident memory of this process in MB: ``"RSS"`` now, ``"HWM"`` at most so far (Linux; else NaN).

    Not from ``getrusage``: its peak starts at that of the process that started this one.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(f"Vm{which}:"):
            return int(line.split()[1]) / 2**10
    return float("nan")


@dataclass
class Clock:
    """What is measured: seconds of wall clock and processor by phase, memory."""

    measured: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, what: Callable[[], Any]) -> Any:
        """Run ``what`` and add the seconds it takes to phase ``name``."""
        wall, cpu = time.perf_counter(), time.process_time()
        out = what()
        for kind, spent in (("wall", time.perf_counter() - wall), ("cpu", time.process_time() - cpu)):
            key = f"{name}_{kind}_seconds"
            self.measured[key] = self.measured.get(key, 0.0) + spent
        return out


def limit_threads(threads: int) -> None:
    """Limit the threads of BLAS, OpenMP and XLA; must run before numpy, torch or jax are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if threads == 1:  # XLA has no number of threads, but can be told to use one
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main(doc: str, packages: Sequence[str], run: Callable[[Any, dict, Clock], tuple[Any | None, int]]) -> None:
    """Run one peer on the task folder named on the command line.

    ``run`` gets the cells, the task and a clock, and returns predicted cells (None for a peer that predicts nothing)
    and the number of epochs trained.
    """
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("task", type=Path, help="folder with cells.h5ad and task.json")
    folder = options.parse_args().task
    task = json.loads((folder / "task.json").read_text())
    limit_threads(task["threads"])
    warnings.simplefilter("ignore")

    import anndata
    import torch

    torch.set_num_threads(task["threads"])
    for name in packages:  # import time is nobody's training time
        __import__(name)
    clock = Clock()
    clock.measured["imports_mb"] = memory("RSS")
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    predicted, epochs = run(cells, task, clock)
    clock.measured = {"peak_mb": memory("HWM"), "epochs": epochs} | clock.measured
    versions = {name: version(PACKAGES.get(name, name)) for name in ("torch", *packages)}
    record = clock.measured | {"versions": versions | {"python": platform.python_version()}}
    (folder / "measured.json").write_text(json.dumps(record, indent=1))
    if predicted is not None:
        predicted.obs_names_make_unique()
        predicted.write_h5ad(folder / "predicted.h5ad")


def controls_of(cells: Any, task: dict, context: str) -> Any:
    """Return a copy of the control cells of a context."""
    obs = cells.obs
    mine = (obs[task["perturbation_key"]] == task["control"]) & (obs[task["context_key"]] == context)
    return cells[mine.to_numpy()].copy()


def combination_rows(cells: Any, task: dict) -> Any:
    """Return a mask of the cells with several perturbed genes."""
    return cells.obs[task["perturbation_key"]].astype(str).str.contains("+", regex=False).to_numpy()


def asks_for_unseen(cells: Any, task: dict) -> bool:
    """Tell whether a perturbation is asked for that no cell has: then it must be made of its parts."""
    return not {perturbation for perturbation, _ in task["predict"]} <= set(cells.obs[task["perturbation_key"]])


def multi_hot(labels: Any, genes: list[str]) -> Any:
    """Return labels x genes: 1 where a gene is among the perturbed ones."""
    import numpy as np

    return np.array([[gene in label.split("+") for gene in genes] for label in labels], dtype=np.float32)


def validation_rows(cells: Any, task: dict, share: float = 0.1) -> Any:
    """Return a random mask of cells that validate; with one profile per condition only combinations do."""
    import numpy as np

    chosen = np.random.default_rng(task["seed"]).random(cells.n_obs) < share
    alone = ~cells.obs[task["perturbation_key"]].duplicated(keep=False).to_numpy()
    return chosen & (~alone | combination_rows(cells, task))


def as_prediction(values: Any, source: Any, task: dict, perturbation: str, context: str) -> Any:
    """Make an AnnData of predicted ``values``, labelled, with values below zero (no expression) set to zero."""
    import anndata
    import numpy as np
    import pandas as pd

    labels = {task["perturbation_key"]: perturbation, task["context_key"]: context}
    names = [f"{perturbation}:{context}:{name}" for name in source.obs_names]
    obs = pd.DataFrame({key: [label] * len(names) for key, label in labels.items()}, index=names)
    x = np.maximum(np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float32), 0)
    return anndata.AnnData(x, obs=obs, var=source.var[[]])
