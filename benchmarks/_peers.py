"""Runs peers on the splits of a benchmark, each in its own process and environment (see ``peers/``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
from _common import Columns, Run

from scjepa import tl

HERE = Path(__file__).resolve().parent / "peers"
sys.path.append(str(HERE))

from make_env import REQUIREMENTS, default_envs, interpreter  # noqa: E402

PEERS = tuple(
    peer for peer in REQUIREMENTS if peer not in ("moscot", "torchcfm")
)  # these know snapshots, not conditions
TITLES = {
    "scgen": "scGen",
    "biolord": "biolord",
    "scvi": "scVI",
    "gears": "GEARS",
    "cellflow": "CellFlow",
    "scjepa": "PerturbJEPA",
}
METRICS = ("l2", "pearson_delta", "pearson_delta_systema", "e_distance", "variance_ratio", "shift_ratio")
NO_CONTEXT = "context"
"""Column of a constant context that peers get where there is none."""


def add_peer_options(options: Any, choices: Sequence[str]) -> None:
    """Add ``--peers`` and ``--peer-envs`` to a parser."""
    options.add_argument(
        "--peers", nargs="+", choices=choices, default=[], help="other tools to run on the same splits (default: none)"
    )
    options.add_argument(
        "--peer-envs",
        type=Path,
        default=default_envs(),
        metavar="DIR",
        help="folder with their environments, made by peers/make_env.py (default: $SCJEPA_PEER_ENVS)",
    )


def require_peers(envs: Path, peers: Sequence[str]) -> None:
    """Stop with one clear line when an environment is not there: before, not after, hours of training."""
    for peer in peers:
        if not interpreter(envs, peer).exists():
            raise SystemExit(
                f"{interpreter(envs, peer)}: no such interpreter. Make it with: "
                f"python benchmarks/peers/make_env.py {peer} --envs {envs}"
            )


def run_peer(
    peer: str,
    envs: Path,
    cells: ad.AnnData,
    *,
    perturbation_key: str,
    control: str,
    context_key: str = "",
    predict: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    max_epochs: int | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
) -> tuple[ad.AnnData | None, dict[str, Any]]:
    """Train a peer on ``cells`` and let it predict.

    Parameters
    ----------
    peer
        One of :data:`PEERS`.
    envs
        Folder with the environments.
    cells
        Training cells with all controls, log-normalised in ``X``: what is held out must be gone. Counts, for peers
        that need them, in ``layers["counts"]``.
    perturbation_key, control, context_key
        Columns of ``obs``, label of controls. Without contexts all cells are of the context ``"all"``.
    predict
        Pairs of perturbation and context (which is not read where there are no contexts).
    seed
        Of the training.
    max_epochs
        None: the peer's own default.
    gene_sets
        Terms of each perturbed gene, for peers that use prior knowledge.

    Returns
    -------
    Predicted cells (None for a peer that predicts nothing), and what was measured.

    Raises
    ------
    RuntimeError
        When it fails, with the end of what it printed.
    """
    task = {
        "perturbation_key": perturbation_key,
        "control": control,
        "context_key": context_key or NO_CONTEXT,
        "predict": [[perturbation, context if context_key else "all"] for perturbation, context in predict],
        "seed": seed,
        "threads": 1,
        "max_epochs": max_epochs,
        "gene_sets": {gene: sorted(terms) for gene, terms in (gene_sets or {}).items()},
    }
    obs = cells.obs[[perturbation_key]].astype(str)
    obs[task["context_key"]] = cells.obs[context_key].astype(str) if context_key else "all"
    layers = {"counts": cells.layers["counts"]} if "counts" in cells.layers else None
    cells = ad.AnnData(cells.X, obs=obs, var=cells.var[[]], layers=layers)
    own = peer == "scjepa"  # speed.py times it like the others
    script = HERE.parent / "_run_scjepa.py" if own else HERE / f"run_{peer}.py"
    with tempfile.TemporaryDirectory(prefix="scjepa_peer_") as name:
        folder = Path(name)
        cells.write_h5ad(folder / "cells.h5ad")
        (folder / "task.json").write_text(json.dumps(task))
        command = [sys.executable if own else str(interpreter(envs, peer)), str(script), str(folder)]
        # scjepa's path is not for peers: they must find nothing of this environment
        env = {k: v for k, v in os.environ.items() if own or k != "PYTHONPATH"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{peer} failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        measured = json.loads((folder / "measured.json").read_text())
        predicted = ad.read_h5ad(folder / "predicted.h5ad") if (folder / "predicted.h5ad").exists() else None
    return predicted, measured


def score_peers(
    run: Run,
    columns: Columns,
    *,
    peers: Sequence[str],
    envs: Path,
    seeds: int,
    file: Path,
    epochs: Mapping[str, int] | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Score peers on one split, like :func:`_common.score_run` does the model.

    Peers take hours and stay as they are while scjepa changes: what ``file`` holds of them is taken from there, what
    is new is added to it. Delete the file to train them again. ``epochs`` by peer cap the training; a peer that is not
    named there trains as long as its authors say.
    """
    known = pd.read_csv(file, dtype={"perturbation": str, "context": str}) if file.is_file() else pd.DataFrame()
    out = []
    for peer in peers:
        for seed in range(seeds):
            if len(known):
                old = known[(known["method"] == TITLES[peer]) & (known["run"] == run.name) & (known["seed"] == seed)]
                if len(old):
                    out.append(old)
                    continue
            predicted, measured = run_peer(
                peer,
                envs,
                run.cells[~run.held_out(columns)].copy(),
                perturbation_key=columns.perturbation,
                control=columns.control,
                context_key=columns.context or "",
                predict=[(p, run.context or "") for p in run.perturbations],
                seed=seed,
                max_epochs=(epochs or {}).get(peer),
                gene_sets=gene_sets,
            )
            assert predicted is not None
            scores = tl.evaluate(
                predicted,
                run.cells,
                **columns.for_evaluate(),
                metrics=METRICS,
                baselines=None,
                ceiling=False,
                method=TITLES[peer],
            )
            spent = {
                f"{k}_seconds": sum(measured[f"{p}_{k}_seconds"] for p in ("train", "predict")) for k in ("cpu", "wall")
            }
            more = {"kind": "peer", "context": run.name, "run": run.name, "seed": seed, **spent}
            scores = scores.assign(**more, epochs=measured["epochs"], peak_mb=measured["peak_mb"])
            out.append(scores)
            known = pd.concat([known, scores])
            file.parent.mkdir(parents=True, exist_ok=True)
            known.to_csv(file, index=False, float_format="%.5f")
            error = scores.loc[scores["metric"] == "l2", "value"].mean()
            print(
                f"   {run.name}, {TITLES[peer]}, seed {seed}: l2 {error:.3f}, {spent['cpu_seconds']:.0f} CPU s, "
                f"{measured['epochs']} epochs",
                flush=True,
            )
    return pd.concat(out)
