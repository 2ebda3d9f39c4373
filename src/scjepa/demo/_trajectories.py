"""Time courses in the demo: a time that is left out, predicted from the others, and what is asked of a course."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import torch

from scjepa import pl, tl
from scjepa._checks import require_column, require_labels, some
from scjepa._scale import lognormalise
from scjepa.datasets import simulate_trajectory
from scjepa.demo._messages import UserError, say
from scjepa.demo._results import Results
from scjepa.demo._screen import TARGET_SUM, read_file, with_values
from scjepa.dynamics import Times, read_times
from scjepa.model import TrajectoryJEPA


class Course(NamedTuple):
    """Log-normalised cells and the columns that say when they are."""

    adata: anndata.AnnData
    time_key: str
    batch_key: str | None = None

    def times(self) -> Times:
        """Return the times of the cells."""
        return read_times(self.adata.obs[self.time_key], f"--time-key {self.time_key}")


def simulated_course(seed: int) -> Course:
    """Simulate the time course of the demo without ``--data``: seven snapshots, two fates."""
    adata = simulate_trajectory(300, times=list(range(7)), n_cells=150, seed=seed)
    adata.X = lognormalise(adata.X, TARGET_SUM)
    return Course(adata, "time")


def read_course(path: object, time_key: str, batch_key: str | None = None, layer: str | None = None) -> Course:
    """Read a time course from a file.

    Raises
    ------
    UserError, KeyError, ValueError
        For a file, a column, times or values that can't be used.
    """
    raw = read_file(str(path))
    obs = pd.DataFrame({time_key: require_column(raw.obs, time_key, "--time-key")}, index=raw.obs_names)
    if batch_key is not None:
        if batch_key == time_key:
            raise UserError(f"--batch-key and --time-key are both {time_key!r}; give different columns.")
        obs[batch_key] = require_labels(raw.obs, batch_key, "--batch-key")
    course = Course(with_values(raw, obs, layer, str(path)), time_key, batch_key)
    if len(course.times().levels) < 2:
        raise UserError(f"--time-key {time_key}: all cells are of one time; a course needs two, to hold one out three.")
    return course


def held_times(asked: list[str] | None, times: Times) -> tuple[list[str], str]:
    """Return labels of the times to hold out, and why: those asked for, else the one in the middle.

    Examples
    --------
    >>> from scjepa.demo._trajectories import held_times
    >>> from scjepa.dynamics import read_times
    >>> held_times(None, read_times(["0h", "6h", "1d"]))
    (['6h'], 'a time between others')
    """
    if len(times.levels) < 3:
        raise UserError(
            f"there are {len(times.levels)} times ({some(times.labels)}): with one of them held out no course is left. Three at least."
        )
    if not asked:
        return [times.labels[len(times.levels) // 2]], "a time between others"
    held = []
    for text in asked:
        near = np.flatnonzero(np.isclose(times.levels, float(times.read([text])[0])))
        if not len(near):
            raise UserError(f"--holdout {text} is not a time of the data. Found: {some(times.labels, 10)}.")
        held.append(times.labels[int(near[0])])
    if len(times.levels) - len(set(held)) < 2:
        raise UserError(
            f"--holdout leaves {len(times.levels) - len(set(held))} of {len(times.levels)} times; a course needs two."
        )
    return list(dict.fromkeys(held)), "as asked"


def run_course(args: argparse.Namespace, results: Results) -> None:
    """Run all stages; each result is on disk before the next stage starts."""
    start = time.monotonic()
    if args.data is None:
        say("[1/5] data: simulated time course")
        course = simulated_course(args.seed)
    else:
        say(f"[1/5] data: {args.data}")
        course = read_course(args.data, args.time_key, args.batch_key, args.layer)
    times = course.times()
    held, reason = held_times(args.holdout, times)
    out = np.isin(times.values, times.read(held))
    n_genes = course.adata.n_vars
    course = course._replace(adata=_variable(course.adata, ~out, args.n_top_genes))
    say(
        f"      {course.adata.n_obs:,} cells, {len(times.levels)} times ({some(times.labels, 10)}), {course.adata.n_vars:,} of "
        f"{n_genes:,} genes"
    )
    say(f"      held out: {reason}: {some(held, 10)}")

    say("[2/5] train")
    TrajectoryJEPA.setup_anndata(course.adata, course.time_key, batch_key=course.batch_key)
    model = TrajectoryJEPA(course.adata)
    torch.set_num_threads(1)  # as for the other models: small networks wait for their threads
    model.train(max_epochs=args.max_epochs, holdout=held, seed=args.seed, enable_progress_bar=sys.stderr.isatty())
    with results.write("model") as path:
        model.save(str(path))
    with results.write("history.png") as path:
        pl.history(model, save=path)

    say("[3/5] predict")
    predicted = model.predict_trajectory(held, seed=args.seed)
    with results.write("predictions.h5ad") as path:
        predicted.write_h5ad(path, compression="gzip")

    say("[4/5] evaluate")
    real = course.adata[out].copy()
    scores = tl.evaluate_trajectory(predicted, real, course.time_key, train=course.adata[~out].copy(), seed=args.seed)
    with results.write("scores.csv") as path:
        scores.to_csv(path, index=False)
    say(tl.format_scores(scores))

    say("[5/5] figures")
    with results.write("scores.png") as path:
        pl.scores(scores, save=path)
    say(f"done in {time.monotonic() - start:.0f} s; {results.directory}: {', '.join(results.written)}")


def _variable(adata: anndata.AnnData, train: np.ndarray, n_top: int) -> anndata.AnnData:
    """Keep the most variable genes of training cells; held-out cells have no say."""
    keep: Any = np.asarray(adata.X[train].sum(0)).ravel() > 0
    if keep.sum() > n_top:
        cells = anndata.AnnData(adata.X[train][:, keep], var=adata.var[keep])
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top, flavor="seurat")
        keep[keep] = cells.var["highly_variable"].to_numpy()
    return adata[:, keep].copy() if not keep.all() else adata
