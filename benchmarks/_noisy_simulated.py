"""Simulated screens for perturb_noisy.py: mostly null knock-downs, and gene programmes of different strength."""

from __future__ import annotations

import math

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _noisy import CONTEXT, CONTROL, KEPT, PERTURBATION, Screen, dealt, draw, gather

from scjepa.datasets import simulate_perturbseq


def simulated(
    seed: int,
    *,
    n_contexts: int,
    context_effect: float,
    n_real: int = 8,
    n_null: int = 18,
    n_truth: int = 120,
    cells: tuple[int, int] = (8, 25),
    n_genes: int = 300,
) -> Screen:
    """Counts of a few knock-downs and many null conditions cut from the controls, with few cells each."""
    rng = np.random.default_rng(seed)
    most = cells[1]
    source = simulate_perturbseq(
        n_genes,
        20,
        n_real,
        0,
        n_cells=n_truth,
        n_control=100 + most * n_null,
        contexts=[f"c{j}" for j in range(n_contexts)],
        kinds=("KD",),
        context_effect=context_effect,
        n_batches=1,
        batch_effect=0.0,
        depth=2000.0,
        seed=seed,
    )
    sc.pp.normalize_total(source, target_sum=1e4)
    sc.pp.log1p(source)
    label, place = (source.obs[key].to_numpy().astype(str) for key in (PERTURBATION, CONTEXT))
    real = sorted(set(label) - {CONTROL})
    parts = []
    for context in sorted(set(place)):
        deck = {
            p: rng.permutation(np.flatnonzero((label == p) & (place == context))).tolist() for p in [*real, CONTROL]
        }
        deck |= {f"N{j}": draw(deck[CONTROL], most) for j in range(n_null)}
        parts.append(dealt(deck.pop(CONTROL), CONTROL, context))
        for perturbation, members in deck.items():
            parts.append(dealt(draw(members, int(rng.integers(cells[0], most + 1))), perturbation, context))
            parts.append(dealt(members, perturbation, context, kept=False))
    return Screen(gather(source, parts), frozenset(real))


def programmes(
    seed: int,
    *,
    n_contexts: int,
    told: float = 0.0,
    own: float = 0.0,
    common: float = 1.0,
    size: float = 1.0,
    fold: bool = False,
    n_perturbations: int = 1,
    n_programmes: int = 6,
    n_genes: int = 200,
    cells: tuple[int, int] = (30, 200),
    n_truth: int = 300,
) -> Screen:
    r"""Contexts that answer with the same gene programmes, each in its own strength.

    .. math:: \delta_{pc} = \frac{2 s}{\sqrt R} \sum_r (\text{common}\,a_{pr} + \text{told}\,b_{pr} \cdot z_c +
        \text{own}\,u_{pcr})\, w_r

    with :math:`z_c` the state of the context's controls, so that "told" amplitudes can be read from control profiles
    and "own" ones can't. Effects add up on the log-normalised scale, or multiply expression (``fold``). Cells are gamma
    variables with the condition's mean, of the spread that log-normalised values have.
    """
    rng = np.random.default_rng(seed)
    mean = rng.gamma(0.5, 1.2, n_genes) + 0.02
    state = rng.normal(size=(n_contexts, 2))
    axes = rng.normal(0, 0.5, (2, n_genes)) * (rng.random((2, n_genes)) < 0.4) * np.sqrt(mean)
    jitter = 0.1 * rng.normal(size=(n_contexts, n_genes)) * np.sqrt(mean)
    controls = np.clip(mean + state @ axes + jitter, 0.01, None)
    genes = rng.normal(0, 0.5, (n_programmes, n_genes)) * (rng.random((n_programmes, n_genes)) < 0.3)
    genes *= 1.0 if fold else np.sqrt(mean)
    shared = common * rng.normal(size=(n_perturbations, n_programmes))
    slopes = told * rng.normal(0, math.sqrt(0.5), (n_perturbations, n_programmes, 2))
    parts: list[tuple[np.ndarray, str, str, int]] = []  # cells, perturbation, context, how many are kept
    for c in range(n_contexts):
        n = int(rng.integers(80, 300))
        parts.append((gamma_cells(controls[c], n, rng), CONTROL, f"c{c}", n))
        for p in range(n_perturbations):
            amplitude = shared[p] + slopes[p] @ state[c] + own * rng.normal(size=n_programmes)
            effect = size * 2 / math.sqrt(n_programmes) * amplitude @ genes
            if fold:
                target = np.log1p(np.expm1(controls[c]) * np.exp(np.clip(effect, -3, 3)))
            else:
                target = np.clip(controls[c] + effect, 0, None)
            parts.append(
                (gamma_cells(target, n_truth, rng), f"P{p}", f"c{c}", int(rng.integers(cells[0], cells[1] + 1)))
            )
    x = np.vstack([part[0] for part in parts])
    rows = [
        dealt(range(len(values)), label, place).assign(**{KEPT: np.arange(len(values)) < n})
        for values, label, place, n in parts
    ]
    obs = pd.concat(rows, ignore_index=True)[[PERTURBATION, CONTEXT, KEPT]]
    obs.index = [f"cell{i}" for i in range(len(obs))]
    real = frozenset(f"P{p}" for p in range(n_perturbations))
    return Screen(ad.AnnData(x.astype(np.float32), obs=obs), real)


def gamma_cells(mean: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw cells around a log-normalised profile: never negative, often zero where the mean is small."""
    mean = np.clip(mean, 1e-6, 7)
    variance = np.minimum(0.8 * np.sqrt(mean) + 0.05, 1.1 * mean)
    values = rng.gamma(mean**2 / variance, variance / mean, (n, len(mean)))
    return np.minimum(values, 14)  # no real value is larger, and hardly any of these
