"""Claim: in a patient who was not treated, one drug's effect is predicted no smaller, and nearer, than transfer shows.

Each patient's treated cells are left out in turn; the others and all untreated cells are known. One drug, 300 genes.

``kang``
    kang18_combined.h5ad: interferon beta in five cell types instead of patients (the file names the donor of a third of its
    cells only), three draws of genes among the 1,500 most expressed.
``made``
    Five (four, eight) patients who differ: alike, in strength, in what responds, in both, half of them responders, strength
    told by untreated cells, a drug without effect, few cells. Counts of log rates; untreated patients differ strongly.

Rows: no change, the mean effect on the other patients (transfer; the mean per drug is the same here), ridge, the kernel anchor of
PerturbJEPA, the drug anchor, and with ``--model`` DrugJEPA with its network. Columns: L2 and correlation of the effect, its size
over the measured one, E-distance of cells, and over the patients of a set the rank correlation of predicted with measured
responses (along the mean measured effect).

Example::

    python benchmarks/drug_patients.py --sets made --seeds 2
    python benchmarks/drug_patients.py --model --seeds 1 --kinds "told by untreated cells" both
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _common import parser, read, save, start
from scipy.stats import spearmanr

from scjepa import DrugJEPA
from scjepa.baselines import ContextTransfer, DrugEffect, KernelEffect, NoChange, Ridge
from scjepa.data import ConditionTable, condition_table, shift_cells
from scjepa.metrics import energy_distance

GENES = 300
KINDS = {
    "alike": {},
    "strength": {"strength": 0.6},
    "what responds": {"shared": 0.6, "own": 1.2},
    "both": {"strength": 0.4, "own": 0.8},
    "responders": {"responders": True},
    "told by untreated cells": {"strength": 0.5, "told": True},
    "no effect": {"shared": 0.0},
    "few cells": {"strength": 0.4, "own": 0.8, "cells": 8},
    "four patients": {"n": 4, "strength": 0.4, "own": 0.8},
    "eight patients": {"n": 8, "strength": 0.4, "own": 0.8},
}
"""Sets that are made, and how."""


def made(
    seed: int,
    *,
    n: int = 5,
    shared: float = 1.0,
    own: float = 0.0,
    strength: float = 0.0,
    responders: bool = False,
    told: bool = False,
    cells: int = 60,
) -> ad.AnnData:
    """Make cells of patients: log rates that differ, a programme in common and one of each patient's own.

    Parameters
    ----------
    seed
        Of everything.
    n
        Patients.
    shared, own
        Sizes of the programmes.
    strength
        Standard deviation of the log of how strongly patients respond.
    responders
        Whether every other patient has a tenth of the effect.
    told
        Whether twenty genes of untreated cells tell the strength.
    cells
        Treated cells of a patient.
    """
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1.2, GENES) + 0.7 * rng.normal(size=(n, GENES)) * (rng.random((n, GENES)) < 0.5)
    programme = 0.8 * rng.normal(0.5, 1, GENES) * (rng.random(GENES) < 0.25)
    each = 0.8 * rng.normal(size=(n, GENES)) * (rng.random((n, GENES)) < 0.15)
    trait = rng.normal(size=n)
    if told:
        base[:, rng.choice(GENES, 20, replace=False)] += trait[:, None]
    size = np.where(np.arange(n) % 2 == 0, 1.0, 0.1) if responders else np.exp(strength * trait)
    change = size[:, None] * shared * programme + own * each
    counts, obs = [], []
    for i in range(n):
        for label, m in (("control", max(cells, 30)), ("drug", cells)):
            rate = np.exp(base[i] + (change[i] if label == "drug" else 0.0))
            depth = 2000 * np.exp(0.3 * rng.normal(size=(m, 1)))
            counts.append(rng.poisson(depth * rate / rate.sum() * rng.gamma(5, 0.2, size=(m, GENES))))
            obs += [(label, f"P{i + 1}")] * m
    frame = pd.DataFrame(obs, columns=["drug", "patient"], index=[f"c{i}" for i in range(len(obs))])
    genes = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    return ad.AnnData(np.vstack(counts).astype(np.float32), obs=frame, var=genes)


def kang(folder: Path, seed: int) -> ad.AnnData:
    """Read interferon in cell types, normalised, and draw genes."""
    cells = read(folder, "kang18_combined.h5ad")
    counts = cells.X.tocsr()
    total = np.asarray(counts.sum(1)).ravel()
    x = counts.multiply(1e4 / total[:, None]).tocsr()
    x.data = np.log1p(x.data)
    most = np.argsort(-np.asarray(x.mean(0)).ravel(), kind="stable")[:1500]
    genes = np.sort(np.random.default_rng(seed).permutation(most)[:GENES])
    obs = pd.DataFrame(
        {
            "drug": np.where(cells.obs["condition"] == "control", "control", "drug"),
            "patient": cells.obs["cell_type"].astype(str).to_numpy(),
        },
        index=cells.obs_names,
    )
    return ad.AnnData(x[:, genes].toarray(), obs=obs, var=pd.DataFrame(index=cells.var_names[genes]))


def normalised(cells: ad.AnnData) -> ad.AnnData:
    """Return log-normalised cells."""
    x = np.asarray(cells.X, dtype=float)
    if (x == np.rint(x)).all():
        x = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    return ad.AnnData(x.astype(np.float32), obs=cells.obs.copy(), var=cells.var.copy())


def predictions(train: ConditionTable, question: ConditionTable) -> dict[str, np.ndarray]:
    """Return what closed forms say of the patient left out, by name."""
    rows = {"no change": NoChange(), "transfer": ContextTransfer(), "ridge": Ridge(), "kernel anchor": KernelEffect()}
    return {name: rule.fit(train).effects(question)[0] for name, rule in {**rows, "drug anchor": DrugEffect()}.items()}


def by_model(cells: ad.AnnData, patient: str, seed: int) -> np.ndarray:
    """Return what DrugJEPA says, trained without the treated cells of a patient."""
    cells = cells.copy()
    DrugJEPA.setup_anndata(cells, "drug", "control", patient_key="patient")
    model = DrugJEPA(cells)
    model.train(holdout=[("drug", patient)], embed=False, seed=seed, enable_progress_bar=False)
    return model.predict_effect("drug", context=patient)["effect"].to_numpy()


def scored(cells: ad.AnnData, *, model: bool, seed: int) -> pd.DataFrame:
    """Leave each patient out of a set; a row a patient and method."""
    cells = normalised(cells)
    full = condition_table(cells, "drug", context_key="patient")
    along = full.effects.mean(0) / max(float(np.linalg.norm(full.effects.mean(0))), 1e-12)
    labels = cells.obs["patient"].astype(str).to_numpy()
    treated = (cells.obs["drug"] == "drug").to_numpy()
    rows = []
    for i, patient in enumerate(full.contexts.astype(str)):
        mine = labels == patient
        train = condition_table(cells[~(mine & treated)].copy(), "drug", context_key="patient")
        question = ConditionTable(full.actions[i : i + 1], full.contexts[i : i + 1], full.control[i : i + 1])
        said, true = predictions(train, question), full.effects[i]
        if model:
            said["DrugJEPA"] = by_model(cells, patient, seed)
        untreated, real = cells.X[mine & ~treated][:200], cells.X[mine & treated][:200]
        for name, effect in said.items():
            flat = not effect.std() > 0
            rows.append({
                "patient": patient, "method": name,
                "l2": float(np.linalg.norm(effect - true)),
                "r": 0.0 if flat else float(np.corrcoef(effect, true)[0, 1]),
                "size": float(np.linalg.norm(effect) / np.linalg.norm(true)),
                "e": energy_distance(shift_cells(untreated, effect), real),
                "response": float(effect @ along), "true": float(true @ along),
            })  # fmt: skip
    return pd.DataFrame(rows)


def ranking(table: pd.DataFrame) -> float:
    """Return the rank correlation of predicted and measured responses, 0 where all are predicted alike."""
    alike = np.ptp(table["response"]) <= 1e-9 * max(float(table["true"].abs().max()), 1e-12)
    return 0.0 if alike else float(spearmanr(table["response"], table["true"])[0])


def sets(names: list[str], folder: Path, seeds: int, kinds: list[str]) -> Iterator[tuple[str, int, ad.AnnData]]:
    """Yield names, seeds and cells of the sets asked for."""
    for seed in range(seeds):
        if "kang" in names:
            yield "kang", seed, kang(folder, seed)
        if "made" in names:
            for name in kinds:
                yield name, seed, made(seed, **KINDS[name])


def main() -> None:
    """Leave patients out of every set and print means by set."""
    options = parser(__doc__ or "")
    options.add_argument("--sets", nargs="+", choices=("kang", "made"), default=["kang", "made"])
    options.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="which sets are made")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--model", action="store_true", help="train DrugJEPA too (minutes a patient)")
    args = options.parse_args()
    start(args)
    parts = []
    for name, seed, cells in sets(args.sets, args.data, args.seeds, args.kinds):
        parts.append(scored(cells, model=args.model, seed=seed).assign(set=name, seed=seed))
        if args.model:
            print(
                parts[-1].groupby("method", sort=False)[["l2", "r", "size", "e"]].mean().round(3).to_string(),
                flush=True,
            )
    table = pd.concat(parts)
    means = table.groupby(["set", "method"], sort=False)[["l2", "r", "size", "e"]].mean()
    order = {
        key: np.mean([ranking(part) for _, part in group.groupby("seed")])
        for key, group in table.groupby(["set", "method"], sort=False)
    }
    means["ranking"] = pd.Series(order)
    print(means.round(3).to_string())
    save(means.reset_index(), args.out, f"drug_patients{'_model' * args.model}.csv")


if __name__ == "__main__":
    main()
