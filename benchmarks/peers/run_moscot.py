"""Matches two snapshots with moscot's TemporalProblem, and says how long that took.

Runs in its own environment (make_env.py moscot): ``python run_moscot.py FOLDER``. ``FOLDER/pair.npz`` holds ``p`` and ``q``, cells in
components; ``FOLDER/task.json`` ``epsilon``. Writes ``measured.json``: seconds of ``prepare`` and ``solve``, of a second ``solve`` (its
compilation is known by then), and the peak memory of the process in GB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from moscot.problems.time import TemporalProblem


def main() -> None:
    """Match, and write what it took."""
    folder = Path(sys.argv[1])
    held, task = np.load(folder / "pair.npz"), json.loads((folder / "task.json").read_text())
    p, q = held["p"].astype(np.float32), held["q"].astype(np.float32)
    obs = pd.DataFrame({"time": pd.Categorical([0] * len(p) + [1] * len(q), ordered=True)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs, obsm={"X_pca": np.concatenate([p, q])})
    clock = [time.perf_counter()]
    problem = TemporalProblem(adata).prepare(time_key="time", joint_attr="X_pca")
    problem.solve(epsilon=task["epsilon"])
    clock.append(time.perf_counter())
    problem.solve(epsilon=task["epsilon"])
    clock.append(time.perf_counter())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    first, again = np.diff(clock)
    measured = {"moscot": float(first), "moscot_again": float(again), "moscot_peak_gb": memory}
    (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
