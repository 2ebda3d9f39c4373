"""Claim: the anchor of a genome-wide screen costs about as much as a few solves of that size, and little memory.

Data: simulated mean profiles of conditions x genes with their sampling noise; four fifths are singles, measured in every
context, the rest pairs of these. Shifts are those of 20 programs. Each size runs in a process of its own on one thread:

``fit``
    :meth:`scjepa.baselines.KernelEffect.fit` with its defaults;
``50 predictions``
    of pairs never measured, the first after the fit;
``again``
    50 more, after that;
``solve``
    one Cholesky solve of conditions x conditions against as many right sides as there are genes.

Seconds are of processor time, which other work on the machine disturbs less; the ratio is that of fit and the first
predictions to the solve. Memory is the peak of the process, imports and table included, before the solve. Example::

    python benchmarks/anchor_scale.py --sizes 5000x2000 --contexts 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time

import numpy as np
import pandas as pd
import scipy.linalg
from _common import parser, save, start

from scjepa.baselines import KernelEffect
from scjepa.data import ConditionTable

N_PROGRAMS, N_QUESTIONS = 20, 50


def simulate(n: int, n_genes: int, n_contexts: int, seed: int = 0) -> tuple[ConditionTable, list[ConditionTable]]:
    """Return a table of ``n`` conditions, and twice 50 questions."""
    rng = np.random.default_rng(seed)
    n_singles = int(0.8 * n) // n_contexts
    pairs = [tuple(sorted(rng.choice(n_singles, 2, replace=False).tolist())) for _ in range(n - n_singles * n_contexts)]
    actions = [(j,) for _ in range(n_contexts) for j in range(n_singles)] + pairs
    place = np.concatenate([np.repeat(np.arange(n_contexts), n_singles), rng.integers(n_contexts, size=len(pairs))])
    programs = 0.1 * rng.normal(size=(N_PROGRAMS, n_genes)) * (rng.random((N_PROGRAMS, n_genes)) < 0.2)
    loads = rng.normal(size=(n_singles, N_PROGRAMS)) * rng.gamma(1, 1, (n_singles, 1))
    base = np.log1p(np.exp(rng.normal(-1, 1.5, n_genes)))
    control = np.maximum(base + rng.normal(0, 0.15, (n_contexts, n_genes)), 0.01)
    cells, variance = rng.integers(20, 200, n), 0.3 * base
    perturbed = control[place]
    for i, action in enumerate(actions):
        perturbed[i] *= np.exp(np.clip(loads[list(action)].sum(0) @ programs, -2, 2))
        perturbed[i] += rng.normal(size=n_genes) * np.sqrt(variance / cells[i])
    np.maximum(perturbed, 0, out=perturbed)
    named = lambda parts: tuple(tuple(f"P{j:05d}" for j in action) for action in parts)
    where = np.array([f"C{c}" for c in place], dtype=object)
    columns = {"variance": variance, "n_controls": np.full(n, 2000.0)}
    table = ConditionTable(named(actions), where, control[place], perturbed, cells, **columns)
    questions = []
    for _ in range(2):
        asked = [tuple(sorted(rng.choice(n_singles, 2, replace=False).tolist())) for _ in range(N_QUESTIONS)]
        at = rng.integers(n_contexts, size=N_QUESTIONS)
        questions.append(ConditionTable(named(asked), np.array([f"C{c}" for c in at], dtype=object), control[at]))
    return table, questions


def solve(n: int, n_genes: int) -> float:
    """Return the seconds of a Cholesky solve."""
    half = np.random.default_rng(0).normal(size=(n, 100))
    matrix, right = half @ half.T, np.ones((n, n_genes), order="F")
    matrix[np.diag_indices(n)] += 1
    begin = time.process_time()
    factor = scipy.linalg.cho_factor(matrix.T, lower=True, overwrite_a=True)
    scipy.linalg.cho_solve(factor, right, overwrite_b=True)
    return time.process_time() - begin


def measure(n: int, n_genes: int, n_contexts: int) -> dict[str, object]:
    """Return a row of the table."""
    table, questions = simulate(n, n_genes, n_contexts)
    clock = [time.process_time()]
    model = KernelEffect().fit(table)
    clock.append(time.process_time())
    for asked in questions:
        model.effects(asked)
        clock.append(time.process_time())
    unit = 2**20 if sys.platform == "linux" else 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    del model, table
    fit, first, again = np.diff(clock)
    one = solve(n, n_genes)
    return {
        "size": f"{n:,} x {n_genes:,}",
        "contexts": n_contexts,
        "fit_seconds": fit,
        "50_predictions": first,
        "again": again,
        "solve": one,
        "ratio": (fit + first) / one,
        "peak_gb": peak,
    }


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    size = lambda text: tuple(int(part) for part in text.split("x"))
    options.add_argument(
        "--sizes", nargs="+", type=size, default=[(1000, 2000), (5000, 2000), (10000, 8000)], metavar="CONDITIONSxGENES"
    )
    options.add_argument("--contexts", nargs="+", type=int, default=[1, 2])
    args: argparse.Namespace = options.parse_args()
    start(args)
    rows = []
    for n, n_genes in args.sizes:
        for n_contexts in args.contexts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # peak memory is a process's own
                rows.append(pool.apply(measure, (n, n_genes, n_contexts)))
            print(
                pd.DataFrame(rows[-1:]).to_string(index=False, header=False, float_format="{:.2f}".format), flush=True
            )
    table = pd.DataFrame(rows)
    print("\n" + table.to_string(index=False, float_format="{:.2f}".format))
    save(table, args.out, "anchor_scale.csv")


if __name__ == "__main__":
    main()
