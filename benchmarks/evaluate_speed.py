"""Claim: the full table of ``tl.evaluate``, all methods and the ceiling, takes a few of scanpy's tests of one method.

Simulated counts, log-normalised and sparse: 20,000 cells x 2,000 genes, 25 perturbations (10 of single genes, 5 pairs of
them, 10 more), 700 cells each, the rest controls. All 25 are predicted (``--predicted 25``: by independent draws from the
truth), or only the last 15 and baselines learn from the first ten. Timed, in one run:

``evaluate, full``
    The prediction, every baseline that applies, the replicate ceiling; 43 scores, leak checks.
``evaluate, minimal``
    The default profile.
``scanpy``
    ``scanpy.tl.rank_genes_groups(method="wilcoxon", tie_correct=True)`` of the real cells: one side of one method's tests.

Example::

    python benchmarks/evaluate_speed.py
"""

from __future__ import annotations

import time

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from _common import parser, save, start

from scjepa import tl

N_CELLS, N_GENES, PER_CONDITION = 20_000, 2_000, 700
SINGLES = [f"p{i}" for i in range(10)]
DOUBLES = [f"p{i}+p{i + 1}" for i in range(0, 10, 2)]
OTHERS = [f"q{i}" for i in range(10)]


def draw(labels: np.ndarray, seed: int) -> ad.AnnData:
    """Draw counts of cells; effects depend on the genes perturbed only."""
    fixed = np.random.default_rng(0)
    base = fixed.gamma(0.5, 0.6, N_GENES)
    genes = sorted({g for label in labels for g in label.split("+")} | set(SINGLES) | set(OTHERS))
    effect = {g: np.exp(fixed.normal(0, 0.8, N_GENES) * (fixed.random(N_GENES) < 0.05)) for g in genes}
    effect["control"] = np.ones(N_GENES)
    rng = np.random.default_rng(seed)
    blocks = []
    for label in dict.fromkeys(labels):
        fold = np.prod([effect[g] for g in label.split("+")], axis=0)
        n = int((labels == label).sum())
        counts = rng.poisson(base * fold * np.exp(rng.normal(0, 0.3, (n, 1)))).astype(np.float32)
        blocks.append(sp.csr_matrix(np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 2000)))
    obs = pd.DataFrame({"p": pd.Categorical(labels)}, index=[f"{seed}-{i}" for i in range(len(labels))])
    return ad.AnnData(
        sp.vstack(blocks, format="csr"), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)])
    )


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--predicted", nargs="+", type=int, choices=[15, 25], default=[15, 25])
    args = options.parse_args()
    start(args)
    perturbations = SINGLES + DOUBLES + OTHERS
    labels = np.repeat([*perturbations], PER_CONDITION)
    labels = np.concatenate([np.repeat("control", N_CELLS - len(labels)), labels])
    real = draw(labels, 1)
    rows = []
    for n in args.predicted:
        pred = draw(np.repeat(perturbations[-n:], PER_CONDITION), 2)
        for profile in ("minimal", "full"):
            wall, cpu = time.perf_counter(), time.process_time()
            scores = tl.evaluate(pred, real, perturbation_key="p", profile=profile)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            rows.append((f"evaluate, {profile}", n, scores["method"].nunique(), scores["metric"].nunique(), *spent))
    wall, cpu = time.perf_counter(), time.process_time()
    sc.tl.rank_genes_groups(real, "p", reference="control", method="wilcoxon", tie_correct=True)
    rows.append(("scanpy, real cells", 25, 1, 0, time.perf_counter() - wall, time.process_time() - cpu))
    columns = ["what", "conditions", "methods", "scores", "wall_seconds", "cpu_seconds"]
    table = pd.DataFrame(rows, columns=columns)
    table["cpu_ratio"] = table["cpu_seconds"] / table["cpu_seconds"].iloc[-1]
    print(table.to_string(index=False, float_format="{:.1f}".format))
    save(table, args.out, "evaluate_speed.csv")


if __name__ == "__main__":
    main()
