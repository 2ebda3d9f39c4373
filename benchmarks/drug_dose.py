"""Claim: the drug anchor predicts doses and times that were not measured better than copies, lines and means.

Row Pearson and RMSE over conditions.

``lincs``
    lincs_l1000_ljp005_a375_plate.h5ad: 58 compounds x 6 doses in A375, one replicate (RMSE between vehicle wells .667 for one
    well): each inner dose, the highest and the lowest are left out for all compounds, and a random fifth of the rows.
    Structures from the tables in priors/, by name; what is not found there has none.
``tggates``
    tggates_human_hepatocyte_small.h5ad: 146 drugs x doses of their own x 2, 8, 24 h in hepatocytes, averages of replicates
    less those of the matched controls: the middle dose or the middle time left out for all drugs, the highest, the last, and
    a random fifth.
``sciplex``
    sciplex2_a549_dex_small.h5ad: dexamethasone in A549 cells, 7 doses, each inner one left out in turn, beside the observed
    curve, with the L2 of halves of the cells as its noise; weak and few cells.

With ``--model`` DrugJEPA itself beside its anchor: trained on cells (sciplex), or on differences from controls as signatures.

Example::

    python benchmarks/drug_dose.py --datasets lincs
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _common import parser, read, start
from _drugs import Molecules, Scores, drugs_of, keep, molecules, question
from _drugs import by_model as as_signatures

import scjepa
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable, condition_table


def lincs(folder: Path) -> tuple[ConditionTable, Molecules]:
    """Read wells as rows, against the mean of the vehicle wells."""
    wells = read(folder, "lincs_l1000_ljp005_a375_plate.h5ad")
    x, name = np.asarray(wells.X, dtype=float), wells.obs["pert_iname"].astype(str).to_numpy()
    vehicle = name == "DMSO"
    dose = wells.obs["pert_dose"].astype(float).to_numpy()[~vehicle]
    control = np.tile(x[vehicle].mean(0), (int((~vehicle).sum()), 1))
    actions = tuple((n,) for n in name[~vehicle])
    table = ConditionTable(actions, np.array(["A375"] * len(actions)), control, x[~vehicle], dose=dose)
    known = structures(folder)
    return table, molecules({n: known[plain(n)] for n in np.unique(name[~vehicle]) if plain(n) in known})


def plain(name: object) -> str:
    """Return a name without case and signs."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def structures(folder: Path) -> dict[str, str]:
    """Return SMILES by plain name from the tables of three public screens; names in brackets count too."""
    out: dict[str, str] = {}
    path = folder / "priors" / "drug_smiles_tahoe_sciplex_op3.csv"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Name the folder with the data: --data DIR, or set SCJEPA_DATA.")
    for row in pd.read_csv(path).itertuples():
        for name in (row.perturbagen, row.original_pert_name):
            for alias in (name, re.sub(r"\(.*?\)", "", str(name)), *re.findall(r"\(([^)]*)\)", str(name))):
                out.setdefault(plain(alias), row.smiles)
    other = folder / "priors" / "sciplex_drug_smiles_pathway_chemCPA.csv"
    if other.is_file():
        for row in pd.read_csv(other, header=None).itertuples(index=False):
            for alias in (row[0], re.sub(r"\(.*?\)", "", str(row[0])), *re.findall(r"\(([^)]*)\)", str(row[0]))):
                out.setdefault(plain(alias), row[1])
    return out


def tggates(folder: Path) -> ConditionTable:
    """Average replicates of drug x dose x time, against the matched controls."""
    arrays = read(folder, "tggates_human_hepatocyte_small.h5ad")
    x, obs = np.asarray(arrays.X, dtype=float), arrays.obs.reset_index(drop=True)
    actions, control, treated, dose, time = [], [], [], [], []
    for (drug, hours), group in obs.groupby(["treatmentid", "duration"], observed=True):
        vehicle = group.index[group["concentration"] == 0]
        for amount, rows in group[group["concentration"] > 0].groupby("concentration", observed=True):
            actions.append((str(drug),))
            control.append(x[vehicle].mean(0))
            treated.append(x[rows.index].mean(0))
            dose.append(float(amount))
            time.append(float(hours))
    where = np.array(["hepatocyte"] * len(actions))
    return ConditionTable(
        tuple(actions), where, np.array(control), np.array(treated), dose=np.array(dose), time=np.array(time)
    )


# ------------------------------------------------------------------------------------------------- plain rows
def plain_rows(table: ConditionTable, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Return predictions by the nearest dose and time, lines in their logarithms, means per drug and per dose."""
    y, drug = table.effects, drugs_of(table)
    x = np.log10(np.asarray(table.dose))
    at = x[:, None] if table.time is None else np.c_[x, np.log10(np.asarray(table.time))]
    out: dict[str, list[np.ndarray]] = {k: [] for k in ("nearest", "linear, per drug", "mean per drug")}
    for i in test:
        own = train[drug[train] == drug[i]]
        gap = np.abs(at[own] - at[i]).sum(1)
        out["nearest"].append(y[own[np.argmin(gap)]])
        middle = at[own].mean(0)
        line = np.linalg.lstsq(at[own] - middle, y[own] - y[own].mean(0), rcond=1e-6)[0]
        out["linear, per drug"].append(y[own].mean(0) + (at[i] - middle) @ line)
        out["mean per drug"].append(y[own].mean(0))
    found = {name: np.array(rows) for name, rows in out.items()}
    if table.time is None:
        levels = np.unique(x[train])
        mean = np.array([y[train[x[train] == level]].mean(0) for level in levels])
        found["mean per dose, interpolated"] = np.array(
            [[np.interp(x[i], levels, mean[:, g]) for g in range(y.shape[1])] for i in test]
        )
    return found


def held_out(
    table: ConditionTable,
    parts: dict[str, list[np.ndarray]],
    found: Molecules | None,
    data: str,
    model_too: bool = False,
) -> list[Scores]:
    """Score questions, each a list of rows left out together."""
    out, drug = [], drugs_of(table)
    for title, sets in parts.items():
        scores = Scores(f"{data}: {title}")
        for k, test in enumerate(sets):
            train = np.setdiff1d(np.arange(len(table)), test)
            test = test[np.isin(drug[test], drug[train])]
            for name, predicted in plain_rows(table, train, test).items():
                scores.add(name, predicted, table.effects[test], k)
            model = DrugEffect().fit(table.rows(train))
            asked = question(table, test)
            scores.add("drug anchor", model.effects(asked), table.effects[test], k)
            if found is not None:
                model = DrugEffect(similarity=found.similarity).fit(table.rows(train))
                scores.add("drug anchor, structures", model.effects(asked), table.effects[test], k)
                model = DrugEffect(similarity=found.shuffled(0)).fit(table.rows(train))
                scores.add("drug anchor, shuffled structures", model.effects(asked), table.effects[test], k)
            if model_too:
                scores.add("drug anchor as DrugJEPA", as_signatures(table.rows(train), asked), table.effects[test], k)
        scores.show(["mean per drug"])
        out.append(scores)
    return out


def fifths(n: int) -> list[np.ndarray]:
    """Return five random parts of the rows."""
    order = np.random.default_rng(0).permutation(n)
    return [np.sort(order[k::5]) for k in range(5)]


def ranks(table: ConditionTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's dose among those of its drug at any time, and how many there are."""
    drug, x = drugs_of(table), np.asarray(table.dose)
    levels = {d: np.unique(x[drug == d]) for d in np.unique(drug)}
    number = np.array([int(np.searchsorted(levels[d], v)) for d, v in zip(drug, x, strict=True)])
    return number, np.array([len(levels[d]) for d in drug])


def by_model(cells: ad.AnnData, dose: float) -> np.ndarray:
    """Return the effect at a dose as DrugJEPA predicts it, trained on the cells of all other doses."""
    train = cells[(cells.obs["dose"] != dose).to_numpy()].copy()
    scjepa.DrugJEPA.setup_anndata(train, "drug", "control", dose_key="dose")
    model = scjepa.DrugJEPA(train)
    model.train(embed=False, enable_progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.predict_effect("dexamethasone", dose=dose)
    return found["effect"].to_numpy()[None]


def halves(cells: ad.AnnData, dose: float, draws: int = 20) -> float:
    """Return the L2 between the effects of two halves of the cells of a dose, scaled to halves as large as the whole."""
    x = read_expression(cells)
    own, rng = np.flatnonzero((cells.obs["dose"] == dose).to_numpy()), np.random.default_rng(0)
    apart = []
    for _ in range(draws):
        order = rng.permutation(own)
        one, other = order[: len(own) // 2], order[len(own) // 2 :]
        apart.append(float(np.linalg.norm(x[one].mean(0) - x[other].mean(0))))
    return float(np.mean(apart)) / np.sqrt(2)


def read_expression(cells: ad.AnnData) -> np.ndarray:
    """Return log-normalised expression, as the models read counts."""
    x = np.asarray(cells.X.todense() if hasattr(cells.X, "todense") else cells.X, dtype=float)
    return np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))


def sciplex(folder: Path, model_too: bool = False) -> None:
    """Print the observed and the predicted size of dexamethasone's effect at doses left out."""
    cells = read(folder, "sciplex2_a549_dex_small.h5ad")
    cells.obs["drug"] = np.where(cells.obs["dose"].astype(float) == 0, "control", "dexamethasone")
    cells.obs["dose"] = cells.obs["dose"].astype(float)
    table = condition_table(cells, "drug", dose_key="dose")
    table = table.rows(np.argsort(np.asarray(table.dose)))
    effects, dose = table.effects, np.asarray(table.dose)
    axis = np.linalg.svd(effects, full_matrices=False)[2][0]
    axis *= np.sign(effects.mean(0) @ axis)
    rows = []
    for i in range(len(table)):
        train = np.setdiff1d(np.arange(len(table)), [i])
        model = DrugEffect().fit(table.rows(train))
        said = {**plain_rows(table, train, np.array([i])), "drug anchor": model.effects(question(table, np.array([i])))}
        if model_too:
            said["DrugJEPA"] = by_model(cells, float(dose[i]))
        inner = 0 < i < len(table) - 1
        part = {"dose": dose[i], "cells": int(table.n_cells[i]), "inside": inner, "observed": float(effects[i] @ axis)}
        part |= {
            f"{name}, curve": float(v[0] @ axis)
            for name, v in said.items()
            if name in ("drug anchor", "DrugJEPA", "nearest")
        }
        part |= {name: float(np.linalg.norm(v[0] - effects[i])) for name, v in said.items()}
        rows.append(
            part | {"no change": float(np.linalg.norm(effects[i])), "half against half": halves(cells, float(dose[i]))}
        )
    found = pd.DataFrame(rows)
    print(
        "== sciplex2, dexamethasone: effect along its main axis (observed, predicted while left out) and L2 of all genes"
    )
    print(found.round(3).to_string(index=False))
    methods = ["nearest", "linear, per drug", "mean per drug", "no change", "half against half"]
    means = found.groupby("inside")[["drug anchor", *["DrugJEPA"] * model_too, *methods]].mean()
    print(means.round(3).to_string() + "\n", flush=True)


def main() -> None:
    """Run the benchmark."""
    names = ["lincs", "tggates", "sciplex"]
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=names, default=names)
    options.add_argument("--model", action="store_true", help="DrugJEPA itself beside its anchor")
    args = options.parse_args()
    start(args)
    scores: list[Scores] = []
    for name in args.datasets:
        if name == "sciplex":
            sciplex(args.data, args.model)
            continue
        table, found = lincs(args.data) if name == "lincs" else (tggates(args.data), None)
        x = np.asarray(table.dose)
        parts: dict[str, list[np.ndarray]] = {}
        if name == "lincs":
            print(
                f"lincs: {len(found.names) if found else 0} of {len(table.vocabulary())} compounds have a sourced structure"
            )
            levels = np.unique(x)
            parts["inner dose"] = [np.flatnonzero(x == level) for level in levels[1:-1]]
            parts["highest dose"] = [np.flatnonzero(x == levels[-1])]
            parts["lowest dose"] = [np.flatnonzero(x == levels[0])]
        else:
            number, count = ranks(table)
            time = np.asarray(table.time)
            parts["middle dose of three"] = [np.flatnonzero((number == 1) & (count == 3))]
            parts["highest dose"] = [np.flatnonzero((number == count - 1) & (count > 1))]
            parts["lowest dose"] = [np.flatnonzero((number == 0) & (count > 1))]
            parts["8 h"] = [np.flatnonzero(time == 8)]
            parts["24 h"] = [np.flatnonzero(time == 24)]
            parts["2 h"] = [np.flatnonzero(time == 2)]
        parts["random fifth"] = fifths(len(table))
        scores += held_out(table, parts, found, name, args.model)
        keep(scores, args.out, "drug_dose.csv")


if __name__ == "__main__":
    main()
