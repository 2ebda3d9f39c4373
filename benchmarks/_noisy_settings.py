"""The settings of perturb_noisy.py: which screens, how noisy, and what is held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _common import read
from _noisy import (
    CONTEXT,
    CONTROL,
    N_VARIABLE,
    PERTURBATION,
    Case,
    Screen,
    contexts_of,
    each_context,
    each_label,
    few_types,
    labels_of,
    measured_doubles,
    replicates,
    some_pairs,
    swapped,
    thinned_types,
)
from _noisy_simulated import programmes, simulated

WEAK = ("FOXO4", "HK2", "IER5L", "MIDN", "NIT1", "PLK4", "SLC38A2", "TMSB4X")
"""Norman singles that can hardly be told from controls: with these they are the pool of controls and of null conditions."""


# ------------------------------------------------------------------------------------------------- real data
@lru_cache(maxsize=1)
def norman(folder: Path) -> ad.AnnData:
    """Return the K562 cells of Norman 2019, log-normalised."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    cells.obs[PERTURBATION] = ["+".join(sorted(label.split("+"))) for label in cells.obs["condition"].astype(str)]
    return cells


@lru_cache(maxsize=1)
def kang(folder: Path) -> ad.AnnData:
    """Return the PBMC of Kang 2018, log-normalised; types are contexts."""
    cells = read(folder, "kang18_combined.h5ad")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.obs[PERTURBATION], cells.obs[CONTEXT] = cells.obs["condition"].astype(str), cells.obs["cell_type"].astype(str)
    return cells


@lru_cache(maxsize=1)
def gene_ontology(folder: Path) -> pd.DataFrame:
    """Return gene x 128 components of Gene Ontology annotations."""
    path = folder / "priors" / "go_svd128_human.npz"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Name the folder with the data: --data DIR, or set SCJEPA_DATA.")
    with np.load(path, allow_pickle=True) as file:
        return pd.DataFrame(file["emb"].astype(np.float64), index=file["genes"].astype(str))


def singles(source: ad.AnnData) -> list[str]:
    """Return the single perturbations with an effect."""
    return sorted(p for p in set(source.obs[PERTURBATION]) - {CONTROL, *WEAK} if "+" not in p)


# ---------------------------------------------------------------------------------------------- the settings
@dataclass(frozen=True)
class Setting:
    """A kind of screen, and the questions asked about it.

    Attributes
    ----------
    cases
        Called with the folder of the data and a seed.
    seeds
        How many seeds by default.
    n_differ
        Number of training contexts, where contexts truly differ in their effects.
    """

    cases: Callable[[Path, int], Iterator[Case]]
    seeds: int = 10
    n_differ: int = 0


def norman_doubles(folder: Path, seed: int, n_cells: int) -> Iterator[Case]:
    """All of Norman, thinned; each double with measured singles in turn."""
    source = norman(folder)
    real = sorted(set(source.obs[PERTURBATION]) - {CONTROL})
    screen = replicates(source, seed, real=real, cells=(n_cells, n_cells), n_control=100)
    return each_label(screen, measured_doubles(screen))


def norman_doubles_null(folder: Path, seed: int, share: float) -> Iterator[Case]:
    """Doubles in turn, a share of all conditions null; at 80 % only perturbations that doubles are made of."""
    source = norman(folder)
    labels = sorted(set(source.obs[PERTURBATION]) - {CONTROL, *WEAK})
    if share > 0.5:
        doubles = [p for p in labels if "+" in p and set(labels).issuperset(p.split("+"))]
        labels = sorted({*doubles, *(gene for p in doubles for gene in p.split("+"))})
    n_null = nulls(len(labels), share)
    screen = replicates(source, seed, real=labels, n_null=n_null, cells=(10, 22), n_control=120, pooled=WEAK)
    return each_label(screen, measured_doubles(screen))


def norman_replicates(
    folder: Path, seed: int, n: int, share: float, cells: tuple[int, int] = (10, 25), n_real: int = 10
) -> Screen:
    """Singles of Norman in ``n`` pseudo-replicates."""
    source = norman(folder)
    real = sorted(np.random.default_rng(seed).permutation(singles(source))[:n_real].tolist())
    contexts = [f"r{j}" for j in range(n)]
    return replicates(source, seed, real=real, contexts=contexts, n_null=nulls(n_real, share), cells=cells, pooled=WEAK)


def replicate_out(folder: Path, seed: int, **how: object) -> Iterator[Case]:
    """Hold out the perturbed cells of each pseudo-replicate in turn."""
    return each_context(norman_replicates(folder, seed, **how))


def pairs_out(folder: Path, seed: int, **how: object) -> Iterator[Case]:
    """Hold out every perturbation in one pseudo-replicate."""
    return some_pairs(norman_replicates(folder, seed, **how), seed)


def kang_thinned(folder: Path, seed: int, n_cells: int, share: float = 0.0) -> Iterator[Case]:
    """Interferon in an unseen cell type, with few cells."""
    return each_context(thinned_types(kang(folder), seed, n_cells=n_cells, n_null=nulls(1, share)))


def kang_replicates(folder: Path, seed: int, n: int, n_null: int) -> Iterator[Case]:
    """Interferon in CD4 T cells, dealt to pseudo-replicates of which each is held out in turn."""
    source = kang(folder)
    source = source[source.obs[CONTEXT] == "CD4 T"]
    contexts = [f"r{j}" for j in range(n)]
    screen = replicates(source, seed, real=["stimulated"], contexts=contexts, n_null=n_null, n_control=60)
    return each_context(replace(screen, n_variable=N_VARIABLE))


def kang_types(folder: Path, seed: int, n_train: int) -> Iterator[Case]:
    """Interferon in an unseen cell type, learned from few others."""
    return few_types(kang(folder), seed, n_train)


def kang_swapped(folder: Path, seed: int, keep: float) -> Iterator[Case]:
    """Interferon in an unseen cell type, with effects exchanged between types."""
    rng = np.random.default_rng(seed)
    return (swapped(case, keep, rng) for case in few_types(kang(folder), seed, 4))


def simulated_contexts(_: Path, seed: int, **how: object) -> Iterator[Case]:
    """Simulated knock-downs, mostly null; each context in turn."""
    return each_context(simulated(seed, **how))


def programme_contexts(_: Path, seed: int, n_train: int, **how: object) -> Iterator[Case]:
    """Simulated programmes; up to four contexts in turn."""
    screen = programmes(seed, n_contexts=n_train + 1, **how)
    return each_context(screen, contexts_of(screen)[:4])


def unseen_genes(folder: Path, seed: int, n_null: int = 10) -> Iterator[Case]:
    """Genes never perturbed, described by Gene Ontology; null conditions carry the names of other genes."""
    source, features = norman(folder), gene_ontology(folder)
    screen = replicates(source, seed, real=singles(source), n_null=n_null, cells=(20, 50), n_control=150, pooled=WEAK)
    spare = np.random.default_rng(seed).permutation(sorted(set(features.index) - {*singles(source), *WEAK}))
    names = {f"N{j}": str(spare[j]) for j in range(n_null)}
    screen.cells.obs[PERTURBATION] = [names.get(p, p) for p in screen.cells.obs[PERTURBATION]]
    described = [p for p in labels_of(screen) if p in features.index]
    return each_label(replace(screen, features=features.loc[described]), described)


def nulls(n_real: int, share: float) -> int:
    """Return how many null conditions make up a share of all conditions."""
    return round(n_real * share / (1 - share))


def settings() -> dict[str, Setting]:
    """Return all settings by name."""
    out = {f"norman-doubles-{n}": Setting(partial(norman_doubles, n_cells=n)) for n in (10, 20, 40)}
    out |= {
        f"norman-doubles-null-{share}": Setting(partial(norman_doubles_null, share=share / 100)) for share in (50, 80)
    }
    out |= {
        "replicates-2": Setting(partial(replicate_out, n=2, share=0.5, cells=(8, 35))),
        "replicates-2-null-80": Setting(partial(replicate_out, n=2, share=0.8, cells=(8, 20), n_real=5)),
        "replicates-3-null-0": Setting(partial(replicate_out, n=3, share=0.0)),
        "replicates-3-null-50": Setting(partial(replicate_out, n=3, share=0.5)),
        "replicates-3-null-80": Setting(partial(replicate_out, n=3, share=0.8, cells=(8, 12), n_real=5)),
        "replicates-3-10-cells": Setting(partial(replicate_out, n=3, share=0.5, cells=(10, 10))),
        "replicates-4": Setting(partial(replicate_out, n=4, share=0.5, cells=(8, 16))),
        "pairs-3-null-50": Setting(partial(pairs_out, n=3, share=0.5), 30),
        "pairs-2-null-80": Setting(partial(pairs_out, n=2, share=0.8, cells=(8, 20), n_real=5), 30),
    }
    out |= {f"kang-{n}": Setting(partial(kang_thinned, n_cells=n), n_differ=4) for n in (10, 20, 40)}
    out |= {
        f"kang-20-null-{share}": Setting(partial(kang_thinned, n_cells=20, share=share / 100), n_differ=4)
        for share in (50, 80)
    }
    out["kang-replicates-3"] = Setting(partial(kang_replicates, n=3, n_null=4))
    out |= {f"kang-{n}-types": Setting(partial(kang_types, n_train=n), n_differ=n) for n in (2, 3)}
    out |= {
        "kang-half-swapped": Setting(partial(kang_swapped, keep=0.5), n_differ=4),
        "kang-swapped": Setting(partial(kang_swapped, keep=0.0), n_differ=4),
        "simulated-shared": Setting(partial(simulated_contexts, n_contexts=3, context_effect=0.0)),
        "simulated-differing": Setting(partial(simulated_contexts, n_contexts=4, context_effect=1.0), n_differ=3),
    }
    for n in (2, 3, 4):
        out[f"programmes-own-{n}"] = Setting(partial(programme_contexts, n_train=n, own=1.0), 40, n)
        out[f"programmes-told-{n}"] = Setting(partial(programme_contexts, n_train=n, told=1.0), 40, n)
    out |= {
        "programmes-own-fold-4": Setting(partial(programme_contexts, n_train=4, own=1.0, fold=True), 40, 4),
        "programmes-own-thin-4": Setting(
            partial(programme_contexts, n_train=4, own=1.0, size=0.6, cells=(10, 40)), 40, 4
        ),
        "programmes-alike-thin-4": Setting(partial(programme_contexts, n_train=4, cells=(15, 60)), 40),
        "programmes-own-6-perturbations": Setting(
            partial(programme_contexts, n_train=3, own=1.0, n_perturbations=6), 10, 3
        ),
        "programmes-told-6-perturbations": Setting(
            partial(programme_contexts, n_train=3, told=1.0, n_perturbations=6), 10, 3
        ),
        "unseen-genes": Setting(unseen_genes, 5),
    }
    return out
