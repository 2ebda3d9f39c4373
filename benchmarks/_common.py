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
    """Silence what is not the result, and print what the numbers were made with."""
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


@dataclass(frozen=True)
class Columns:
    """Columns of ``obs`` and the label of controls."""

    perturbation: str
    control: str = "control"
    context: str | None = None

    def for_evaluate(self) -> dict[str, str]:
        """Return arguments of :func:`scjepa.tl.evaluate`."""
        return {"perturbation_key": self.perturbation, "control": self.control, "context_key": self.context or ""}


Ceiling = Callable[[Run, Columns], pd.DataFrame]


def half_of_cells(run: Run, columns: Columns) -> pd.DataFrame:
    """Score one random half of the left-out cells as a prediction of the other half."""
    label = run.cells.obs[columns.perturbation].astype(str).to_numpy()
    half = np.zeros(run.cells.n_obs, bool)
    rng = np.random.default_rng(0)
    for name in run.perturbations:
        held = label == name
        if run.context is not None:
            held &= run.cells.obs[columns.context].astype(str).to_numpy() == run.context
        held = rng.permutation(np.flatnonzero(held))
        half[held[: len(held) // 2]] = True
    first, rest = run.cells[half].copy(), run.cells[~half].copy()
    return tl.evaluate(first, rest, **columns.for_evaluate(), baselines=None, method="half of the cells")


def score_run(run: Run, columns: Columns, seed: int, baselines: bool) -> pd.DataFrame:
    """Train PerturbJEPA with its defaults without the left-out conditions, predict these, and score the prediction."""
    begin = time.perf_counter()
    PerturbJEPA.setup_anndata(run.cells, columns.perturbation, columns.control, context_key=columns.context)
    model = PerturbJEPA(run.cells)
    held = [p if run.context is None else (p, run.context) for p in run.perturbations]
    model.train(holdout=held, seed=seed, enable_progress_bar=False)
    predicted = model.predict_perturbation(list(run.perturbations), context=run.context, seed=seed)
    seconds = time.perf_counter() - begin
    scores = tl.evaluate(
        predicted,
        run.cells,
        **columns.for_evaluate(),
        baselines="auto" if baselines else None,
        method="PerturbJEPA",
    )
    return scores.assign(seed=seed, seconds=np.where(scores["kind"] == "model", seconds, np.nan))


def benchmark(
    title: str,
    runs: Iterable[Run],
    columns: Columns,
    *,
    seeds: int,
    out: Path,
    csv: str,
    ceiling: Ceiling = half_of_cells,
) -> pd.DataFrame:
    """Score all runs, print the table beside baselines and ceiling, and write a row per run, seed and method.

    Baselines and ceiling are closed forms: they are computed once, not for every seed.
    """
    print(f"== {title}", flush=True)
    scores, ceilings = [], []
    for run in runs:
        for seed in range(seeds):
            part = score_run(run, columns, seed, baselines=seed == 0)
            scores.append(part.assign(run=run.name, context=run.name))
            mine = part[(part["kind"] == "model") & (part["metric"] == "l2")]
            print(
                f"   {run.name}, seed {seed}: l2 {mine['value'].mean():.3f}, {mine['seconds'].iloc[0]:.0f} s",
                flush=True,
            )
        ceilings.append(ceiling(run, columns).assign(run=run.name, context=run.name, seed=0))
    table, limit = pd.concat(scores), pd.concat(ceilings)
    means = limit.groupby("metric", sort=False)["value"].mean().dropna()
    print(tl.format_scores(table))
    print("Ceiling, half of the replicates predicts the other half: "
          + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))  # fmt: skip
    by_seed = table[(table["kind"] == "model") & (table["metric"] == "l2")].groupby("seed")["value"].mean()
    if seeds > 1:
        print(f"PerturbJEPA, l2 by seed: {', '.join(f'{v:.3f}' for v in by_seed)}")
    seconds = table.loc[table["kind"] == "model"].groupby(["run", "seed"])["seconds"].first()
    print(f"PerturbJEPA, set-up, training and prediction: {seconds.mean():.0f} s a run\n", flush=True)
    save(_wide(pd.concat([table, limit.assign(kind="ceiling")])), out, csv)
    return table


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over the conditions of a run: one row per run, seed and method, one column per metric."""
    index = ["run", "seed", "kind", "method"]
    wide = scores.pivot_table(index=index, columns="metric", values="value", aggfunc="mean", sort=False)
    wide["n_conditions"] = scores.groupby(index)["perturbation"].nunique()
    wide["seconds"] = scores.groupby(index)["seconds"].first()
    return wide.reset_index()
