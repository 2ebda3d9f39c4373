"""Fates of early cells, with their clones' late cells as truth.

Claim: a random walk with restart over the graph of all cells tells the fates of early haematopoietic cells (LARRY, days 2 and 4) better
than the nearest late cells, a classifier of late cells, and exact or entropic optimal transport: AUROC of at least .875 over all
clonal cells of day 4 and .896 over the undifferentiated ones, and the hardest pair of fates, neutrophil against monocyte, at least .72.

Fates are the four kinds of cells with more than 20 cells on day 6 (basophil, mast cell, monocyte, neutrophil). The truth of an
early cell is the most frequent fate of its clone's cells on day 6; clones with a tie are left out. No clone is used by any row
except "walk + other clones", which learns from clones other than the cell's own (five folds of clones). Standard errors are over
clones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from _common import parser, read, save, start
from _courses import LARRY, dense
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from scjepa import TrajectoryJEPA
from scjepa.dynamics import absorption_probabilities, fate_probabilities, transition_matrix, transport_plan
from scjepa.tl import evaluate_fates, format_fates

LATE, PCS, LEAST, FOLDS = 6.0, 30, 20, 5
Table = pd.DataFrame


class Clones:
    """Cells with components, times, fates of late ones, clones, and the fate of each clone."""

    def __init__(self, adata: Any, least: int = LEAST) -> None:
        sc.pp.log1p(adata)
        self.adata = adata
        x = dense(adata.X)
        centered = x - x.mean(0)
        self.z = centered @ np.linalg.svd(centered, full_matrices=False)[2][:PCS].T
        self.times = adata.obs["time_info"].astype(float).to_numpy()
        self.state = adata.obs["state_info"].astype(str).to_numpy()
        clones = adata.obsm["X_clone"].tocsr()
        self.clone = np.where(np.asarray(clones.sum(1)).ravel() > 0, np.asarray(clones.argmax(1)).ravel(), -1)
        late = pd.Series(self.state[self.times == LATE]).value_counts()
        self.fates = sorted(set(late.index[late > least]) - {"undiff"})
        self.known = np.where((self.times == LATE) & np.isin(self.state, self.fates), self.state, "")
        seen = (self.known != "") & (self.clone >= 0)
        counts = pd.crosstab(self.clone[seen], self.known[seen]).reindex(columns=self.fates, fill_value=0)
        top = counts.max(1)
        clear = counts.eq(top, axis=0).sum(1) == 1
        self.of_clone = counts.idxmax(1)[clear]

    def truth(self, day: float, *, undifferentiated: bool) -> pd.Series:
        """Return fates of clonal cells of a day, empty for all others."""
        asked = self.times == day
        if undifferentiated:
            asked &= self.state == "undiff"
        return pd.Series(self.clone).map(self.of_clone).where(asked, "").fillna("")


def rows(data: Clones) -> dict[str, Callable[[], Table]]:
    """Return what makes the table of each row, cells x fates."""
    labelled = data.known != ""
    table = lambda found: pd.DataFrame(found.probabilities, columns=list(found.names))

    def classifier(model: Any) -> Table:
        model.fit(data.z[labelled], data.known[labelled])
        return pd.DataFrame(model.predict_proba(data.z), columns=list(model.classes_))

    def transport(method: Any) -> Table:
        late = np.flatnonzero(labelled)
        out = np.zeros((len(data.z), len(data.fates)))
        onto = np.stack([data.known[late] == f for f in data.fates], 1)
        for day in (2.0, 4.0):
            cells = np.flatnonzero(data.times == day)
            plan = transport_plan(data.z[cells], data.z[late], method=method)
            np.add.at(out, cells[plan.source], plan.mass[:, None] * onto[plan.target])
        total = out.sum(1, keepdims=True)
        return pd.DataFrame(
            np.where(total > 0, out / np.maximum(total, 1e-300), 1 / len(data.fates)), columns=data.fates
        )

    return {
        "nearest late cells (15)": lambda: classifier(KNeighborsClassifier(15)),
        "nearest late cells (30)": lambda: classifier(KNeighborsClassifier(30)),
        "classifier of day 6": lambda: classifier(LogisticRegression(C=0.1, max_iter=2000)),
        "exact OT": lambda: transport("exact"),
        "entropic OT": lambda: transport("entropic"),
        "unbalanced OT": lambda: transport("unbalanced"),
        "entropic OT, day by day": lambda: table(
            absorption_probabilities(transition_matrix(data.z, data.times), data.known)
        ),
        "walk": lambda: table(fate_probabilities(data.z, data.known)),
        "walk, restart .02": lambda: table(fate_probabilities(data.z, data.known, restart=0.02)),
        "walks of several widths": lambda: several(data),
        "walk + other clones": lambda: with_clones(data),
        "walk of TrajectoryJEPA": lambda: by_model(data),
    }


def by_model(data: Clones) -> Table:
    """Ask the class itself, which reads only cells, times and labels of day 6."""
    adata = data.adata.copy()
    adata.obs["fate"] = data.known
    TrajectoryJEPA.setup_anndata(adata, "time_info", input_scale="lognorm")
    model = TrajectoryJEPA(adata)
    model.train(embed=False, enable_progress_bar=False)
    return model.fate_probabilities("fate").reset_index(drop=True)


def several(data: Clones) -> Table:
    """Average walks over graphs of 10, 15 and 30 neighbours in 10, 20 and 30 components."""
    found = [
        fate_probabilities(data.z[:, :d], data.known, n_neighbors=k, restart=0.05)
        for k in (10, 15, 30)
        for d in (10, 20, 30)
    ]
    return pd.DataFrame(np.mean([f.probabilities for f in found], 0), columns=list(found[0].names))


def with_clones(data: Clones) -> Table:
    """Walk to late cells and to early cells of other clones, which count as their clone's fate; folds of clones in turn."""
    fate = pd.Series(data.clone).map(data.of_clone).fillna("").to_numpy()
    names = np.unique(data.clone[data.clone >= 0])
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([fold_of.get(c, -1) for c in data.clone])
    out = np.zeros((len(data.z), len(data.fates)))
    for f in range(-1, FOLDS):
        # neither the early nor the late cells of a clone that is asked about may say what became of it
        learned = np.where((data.times < LATE) & (fold != f), fate, data.known)
        if f >= 0:
            learned = np.where(fold == f, "", learned)
        asked = (fold == f) & (data.times < LATE)
        out[asked] = fate_probabilities(data.z, learned).probabilities[asked]
    out[data.times == LATE] = 1 / len(data.fates)
    return pd.DataFrame(out, columns=data.fates)


def main() -> None:
    """Score every row on every group of cells, print the tables, and write them."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--least", type=int, default=LEAST, help="cells of day 6 that a fate must have more than")
    args = arguments.parse_args()
    start(args)
    data = Clones(read(args.data, LARRY), args.least)
    tables = {name: make() for name, make in rows(data).items()}
    models = {name: tables.pop(name) for name in list(tables) if name.startswith("walk")}
    parts = []
    for day in (4.0, 2.0):
        for undifferentiated in (False, True) if day > 2 else (False,):  # on day 2 all are undifferentiated
            truth = data.truth(day, undifferentiated=undifferentiated)
            name = f"day {day:g}, {'undifferentiated' if undifferentiated else 'all'} clonal cells"
            counts = truth[truth != ""].value_counts()
            print(f"== {name}: {', '.join(f'{f} {n}' for f, n in counts.items())}")
            clones = np.where(data.clone >= 0, data.clone, np.arange(len(data.clone)) + 10_000)
            scores = evaluate_fates(models, truth, clone_key=clones, baselines=tables)
            print(format_fates(scores))
            pair = scores[(scores["fate"] == "Monocyte") & (scores["against"] == "Neutrophil")].set_index("method")[
                "value"
            ]
            print(
                "neutrophil against monocyte: " + ", ".join(f"{m} {v:.3f}" for m, v in pair.items()) + "\n", flush=True
            )
            parts.append(scores.assign(cells=name))
    if args.least == LEAST:
        save(pd.concat(parts), args.out, "trajectory_fate.csv")


if __name__ == "__main__":
    main()
