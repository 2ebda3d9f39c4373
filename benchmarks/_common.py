"""What the benchmarks share: where the data are, what a run was made with, and scoring of left-out conditions."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

from scjepa import PerturbJEPA, tl

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"


# ------------------------------------------------------------------------------------------- command line, files
def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark; ``doc`` is the script's docstring."""
    out = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(os.environ.get("SCJEPA_DATA", ROOT.parent / "shared" / "data"))
    out.add_argument(
        "--data", type=Path, default=folder, metavar="DIR", help="folder with the data (default: $SCJEPA_DATA)"
    )
    out.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where the CSV goes (default: results/)")
    return out


def start(args: argparse.Namespace) -> None:
    """Silence what is not the result, use one thread, and print what the numbers were made with."""
    torch.set_num_threads(1)  # small networks lose time to threads, above all on a busy machine
    warnings.simplefilter("ignore")
    for name in ("scvi", "scjepa", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    packages = ("scjepa", "torch", "scvi-tools", "scikit-learn", "scanpy", "anndata", "numpy")
    found = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"Python {platform.python_version()}, {found}; {torch.get_num_threads()} thread(s)\n", flush=True)


def read(folder: Path, name: str) -> ad.AnnData:
    """Read a data set, or stop with one clear line."""
    path = folder / name
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Name the folder with the data: --data DIR, or set SCJEPA_DATA.")
    return ad.read_h5ad(path)


def save(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write a table of results as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / name, index=False, float_format="%.4f")


# ------------------------------------------------------------------------------------ conditions that are left out
@dataclass(frozen=True)
class Run:
    """One split: conditions that are predicted and never seen in training.

    Attributes
    ----------
    name
        Name of the split.
    cells
        Log-normalised cells (or profiles), in the genes of this split.
    perturbations
        Labels that are left out.
    context
        Where they are left out; None: everywhere.
    """

    name: str
    cells: ad.AnnData
    perturbations: Sequence[str]
    context: str | None = None

    def held_out(self, columns: Columns) -> np.ndarray:
        """Return a mask of the cells that nothing may be trained on."""
        held = self.cells.obs[columns.perturbation].isin(self.perturbations).to_numpy()
        if self.context is not None:
            held = held & (self.cells.obs[columns.context] == self.context).to_numpy()
        return held


@dataclass(frozen=True)
class Columns:
    """Columns of ``obs`` and the label of controls."""

    perturbation: str
    control: str = "control"
    context: str | None = None

    def for_evaluate(self) -> dict[str, str]:
        """Return arguments of :func:`scjepa.tl.evaluate`."""
        return {"perturbation_key": self.perturbation, "control": self.control, "context_key": self.context or ""}


def score_run(run: Run, columns: Columns, seed: int) -> pd.DataFrame:
    """Train PerturbJEPA with its defaults without the left-out conditions, predict these, and score the prediction."""
    torch.set_num_threads(1)  # again: scanpy's choice of variable genes raises the number
    begin = time.process_time()
    PerturbJEPA.setup_anndata(run.cells, columns.perturbation, columns.control, context_key=columns.context)
    model = PerturbJEPA(run.cells)
    held = [p if run.context is None else (p, run.context) for p in run.perturbations]
    model.train(holdout=held, seed=seed, embed=False, enable_progress_bar=False)  # predictions don't read it
    predicted = model.predict_perturbation(list(run.perturbations), context=run.context, seed=seed)
    seconds = time.process_time() - begin
    baselines = "auto" if seed == 0 else None  # closed forms: once is enough
    scores = tl.evaluate(
        predicted, run.cells, **columns.for_evaluate(), baselines=baselines, method="PerturbJEPA", seed=0
    )
    if seed > 0:
        scores = scores[scores["kind"] == "model"]
    return scores.assign(seed=seed, cpu_seconds=np.where(scores["kind"] == "model", seconds, np.nan))


def benchmark(
    title: str,
    runs: Iterable[Run],
    columns: Columns,
    *,
    seeds: int,
    out: Path,
    csv: str,
    ceiling: Callable[[Run, Columns], pd.DataFrame] | None = None,
    peers: Callable[[Run, Columns], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Score all runs, print the table beside baselines and ceiling, and write a row per run, seed and method.

    ``ceiling`` scores replicates where :func:`scjepa.tl.evaluate` can't, for want of single cells. ``peers`` scores
    other tools; with ``seeds=0`` nothing else is scored.
    """
    print(f"== {title}", flush=True)
    parts = []
    for run in runs:
        if peers is not None:
            parts.append(peers(run, columns))
        for seed in range(seeds):
            scores = score_run(run, columns, seed)
            if ceiling is not None and seed == 0:
                scores = pd.concat([scores, ceiling(run, columns).assign(seed=0)])
            # conditions of different splits are different questions, even where their names are the same
            parts.append(scores.assign(run=run.name, context=run.name))
            mine = scores[(scores["kind"] == "model") & (scores["metric"] == "l2")]
            error, seconds = mine["value"].mean(), mine["cpu_seconds"].iloc[0]
            print(f"   {run.name}, seed {seed}: l2 {error:.3f}, {seconds:.0f} CPU s", flush=True)
            save(_wide(pd.concat(parts)), out, csv)  # after every training: a long run may be interrupted
    table = pd.concat(parts)
    print(tl.format_scores(table))
    if not seeds:
        return table
    mine = table[(table["kind"] == "model") & (table["metric"] == "l2")]
    if seeds > 1:
        print("PerturbJEPA, l2 by seed: " + ", ".join(f"{v:.3f}" for v in mine.groupby("seed")["value"].mean()))
    seconds = mine.groupby(["run", "seed"])["cpu_seconds"].first().mean()
    print(f"PerturbJEPA, set-up, training and prediction: {seconds:.0f} CPU seconds a run\n", flush=True)
    return table


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over the conditions of a run: one row per run, seed and method, one column per metric."""
    index = ["run", "seed", "kind", "method"]
    wide = scores.pivot_table(index=index, columns="metric", values="value", aggfunc="mean", sort=False)
    wide["n_conditions"] = scores.groupby(index)["perturbation"].nunique()
    wide["cpu_seconds"] = scores.groupby(index)["cpu_seconds"].first()
    return wide.reset_index()
