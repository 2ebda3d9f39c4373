"""Claim: TrajectoryJEPA takes 100,000 cells x 5 times in minutes on two cores, in memory linear in cells; a plan takes no longer than moscot's.

Data: log-normalized sparse counts of a simulated drift along 10 programs, five snapshots of equal size. Each size runs in a
process of its own:

``train``
    seconds of ``TrajectoryJEPA.train`` (``--embed``: with the encoder, ``--max-epochs`` epochs; by default the courses alone);
``predict``
    seconds of one population between two snapshots, 2,000 cells;
``plan``
    seconds of the blockwise plan between the first two snapshots, in 10 components;
``full plan``
    of one exact plan between them through POT, up to ``--full`` cells a snapshot, in a process of its own: it holds the whole
    matrix of costs.

``moscot``
    of moscot's plan of the same two snapshots (``--moscot``, own environment, see peers/), first and second solve, up to ``--full``
    cells a snapshot.

Memory is the peak of the process, imports and data included. Example::

    python benchmarks/trajectory_scale.py --sizes 25000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _common import parser, save, start
from _peers import HERE, default_envs, interpreter, require_peers

from scjepa import TrajectoryJEPA
from scjepa.dynamics import transport_plan

N_TIMES, N_GENES, N_PROGRAMS, CHUNK = 5, 1000, 10, 5000


def simulate(n: int, seed: int = 0) -> ad.AnnData:
    """Return ``n`` cells of five times, sparse and log-normalized."""
    rng = np.random.default_rng(seed)
    programs = 0.3 * rng.normal(size=(N_PROGRAMS, N_GENES))
    base, drift = rng.normal(-1.5, 1.2, N_GENES), rng.normal(size=N_PROGRAMS)
    times = np.repeat(np.arange(N_TIMES, dtype=float), n // N_TIMES)
    blocks = []
    for at in range(0, len(times), CHUNK):
        t = times[at : at + CHUNK, None]
        rate = np.exp(base + (rng.normal(size=(len(t), N_PROGRAMS)) + 0.5 * t * drift) @ programs)
        counts = rng.poisson(rate / rate.sum(1, keepdims=True) * 1500).astype(np.float32)
        blocks.append(sp.csr_matrix(np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4)))
    names = pd.Index([f"c{i}" for i in range(len(times))])
    return ad.AnnData(sp.vstack(blocks, format="csr"), obs=pd.DataFrame({"time": times}, index=names))


def peak() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)


def measure(n: int, embed: bool, max_epochs: int) -> dict[str, object]:
    """Return a row of the table."""
    adata = simulate(n)
    before = peak()
    TrajectoryJEPA.setup_anndata(adata, "time", input_scale="lognorm")
    model = TrajectoryJEPA(adata)
    clock = [time.perf_counter()]
    model.train(max_epochs=max_epochs, embed=embed, enable_progress_bar=False, accelerator="cpu")
    clock.append(time.perf_counter())
    model.predict_trajectory(1.5, n_cells=2000)
    clock.append(time.perf_counter())
    z, size = model._coordinates(adata.X[: 2 * (n // N_TIMES)]), n // N_TIMES
    clock.append(time.perf_counter())
    transport_plan(z[:size], z[size:])
    clock.append(time.perf_counter())
    train, predict, _, plan = np.diff(clock)
    return {"cells": n, "train": train, "predict": predict, "plan": plan, "data_gb": before, "peak_gb": peak()}


def full(n: int) -> dict[str, float]:
    """Return seconds and memory of one exact plan of all cells."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(n, 10)), rng.normal(size=(n, 10)) + 0.5
    begin = time.perf_counter()
    transport_plan(p, q, block=n)
    return {"full_plan": time.perf_counter() - begin, "full_peak_gb": peak()}


def moscot(n: int, envs: Path) -> dict[str, float]:
    """Return seconds and memory of moscot's entropic plan, and seconds of ours, of the clouds of :func:`full`."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(n, 10)), rng.normal(size=(n, 10)) + 0.5
    with tempfile.TemporaryDirectory(prefix="scjepa_moscot_") as held:
        folder = Path(held)
        np.savez(folder / "pair.npz", p=p, q=q)
        (folder / "task.json").write_text(json.dumps({"epsilon": 0.05}))
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(interpreter(envs, "moscot")), str(HERE / "run_moscot.py"), str(folder)]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"moscot failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        measured = json.loads((folder / "measured.json").read_text())
    begin = time.perf_counter()
    transport_plan(p, q)
    measured["same_plan"] = time.perf_counter() - begin
    begin = time.perf_counter()
    transport_plan(p, q, method="entropic")
    return measured | {"same_entropic": time.perf_counter() - begin}


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", type=int, default=[25_000, 50_000, 100_000])
    options.add_argument("--embed", action="store_true")
    options.add_argument("--max-epochs", type=int, default=5)
    options.add_argument("--full", type=int, default=5000)
    options.add_argument("--moscot", action="store_true")
    options.add_argument("--peer-envs", type=Path, default=default_envs(), metavar="DIR", help="see peers/make_env.py")
    args: argparse.Namespace = options.parse_args()
    if args.moscot:
        require_peers(args.peer_envs, ["moscot"])
    start(args)
    rows = []
    for n in args.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # peak memory is a process's own
            rows.append(pool.apply(measure, (n, args.embed, args.max_epochs)))
        if n // N_TIMES <= args.full:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows[-1] |= pool.apply(full, (n // N_TIMES,))
            if args.moscot:
                rows[-1] |= moscot(n // N_TIMES, args.peer_envs)
        print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="{:.2f}".format), flush=True)
    table = pd.DataFrame(rows)
    print("\n" + table.to_string(index=False, float_format="{:.2f}".format))
    save(table, args.out, "trajectory_scale.csv")


if __name__ == "__main__":
    main()
