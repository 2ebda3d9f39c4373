"""One modality from another, in closed form: five folds of CITE-seq and SNARE-seq, whole, few and thinned.

Claim: the stack of ridge, kernel ridge and two kernel anchors, weighed by refitted inner folds, is never more than 1 % above the best plain row
in root mean squared error, and well below it from RNA to protein.

``protein``
    malt10k (17 proteins, 1,000 cells), RNA to protein and back: proteins as centred log ratios, RNA log-normalised, the 3,000 genes
    most variable in training cells.
``atac``
    SNARE-seq of mouse cortex (``--cells`` of 10,309), peaks to RNA and back: peaks as TF-IDF of training cells.

``100 cells`` trains on so many; ``10 % counts`` thins the counts of RNA. Everything (genes, components, weights of peaks) is learned from
training cells. Scores: RMSE over all cells and features, Pearson of features, mean over folds (proteins: cells of all folds together),
and coverage of 90 % intervals. MultiOmicsJEPA, totalVI and MultiVI are not in this table yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from _common import parser, save, start

from scjepa.baselines.modalities import PLAIN, Stack
from scjepa.omics import CLR, TFIDF, LogNormalize

CITE, SNARE = "malt10k_cite_1k.h5mu", "chen19_snareseq_mop.h5mu"
GENES, SHOWN = 3000, 0.02
"""Genes that are read, and the share of training cells in which a target feature has to be seen (wide targets)."""
SETTINGS = {"whole": (None, 1.0), "100 cells": (100, 1.0), "10 % counts": (None, 0.1)}


class Fold(NamedTuple):
    """Features of training and test cells."""

    task: str
    x: sp.csr_matrix
    y: np.ndarray
    x_test: sp.csr_matrix
    y_test: np.ndarray


def folds(
    mdata: object, names: tuple[str, str], n: int, cells: int | None, thin: float, seed: int = 0
) -> Iterator[Fold]:
    """Yield both directions of ``n`` folds."""
    rng = np.random.default_rng(seed)
    rna, other = (mdata[name].copy() for name in names)  # type: ignore[index]
    rna.X = sp.csr_matrix(rna.X).astype(np.float64)
    rna.X.data = rng.binomial(rna.X.data.astype(int), thin).astype(np.float64)
    rna.X.eliminate_zeros()
    fold = rng.permutation(rna.n_obs) % 5
    for f in range(n):
        train, test = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        if cells is not None:
            train = rng.permutation(train)[:cells]
        logged = LogNormalize().fit(rna.X[train])
        a, b = (sp.csr_matrix(logged.transform(rna.X[i])) for i in (train, test))
        part = sc.AnnData(a, var=rna.var[[]])
        sc.pp.highly_variable_genes(part, n_top_genes=min(GENES, part.n_vars - 1))
        chosen = np.flatnonzero(part.var["highly_variable"])
        a, b = a[:, chosen], b[:, chosen]
        wide = other.n_vars > 1000
        made = (TFIDF() if wide else CLR()).fit(other.X[train])
        c, d = (sp.csr_matrix(made.transform(other.X[i])) for i in (train, test))
        here, there = ("ATAC", "RNA") if wide else ("RNA", "protein")
        one, two = ((c, d), (a, b)) if wide else ((a, b), (c, d))
        for (x, x_test), (y, y_test), task in ((one, two, f"{here}->{there}"), (two, one, f"{there}->{here}")):
            seen = np.asarray((y > 0).mean(0)).ravel() >= (SHOWN if y.shape[1] > 100 else -1)
            yield Fold(task, x, y[:, seen].toarray(), x_test, y_test[:, seen].toarray())


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean correlation of features, 0 for constant predictions."""
    x, y = a - a.mean(0), b - b.mean(0)
    spread = x.std(0) * y.std(0)
    r = np.divide((x * y).mean(0), spread, out=np.zeros_like(spread), where=(x.std(0) > 1e-5) & (spread > 0))
    return float(r[y.std(0) > 0].mean())


def main() -> None:
    """Run every setting, and print the tables."""
    options = parser(__doc__ or "")
    options.add_argument("--cells", type=int, default=1500, help="of SNARE-seq")
    options.add_argument("--folds", type=int, default=5)
    options.add_argument("--data-sets", nargs="+", choices=["protein", "atac"], default=["protein", "atac"])
    options.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    args = options.parse_args()
    start(args)
    import mudata

    rows = []
    for data in args.data_sets:
        mdata = mudata.read_h5mu(args.data / (CITE if data == "protein" else SNARE))
        names = tuple(mdata.mod)
        if data == "atac":
            mdata = mdata[np.sort(np.random.default_rng(0).permutation(mdata.n_obs)[: args.cells])].copy()
        for setting in args.settings:
            kept: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
            for fold in folds(mdata, names, args.folds, *SETTINGS[setting]):
                for make in (*PLAIN, Stack):
                    member = make().fit(fold.x, fold.y)
                    predicted = member.predict(fold.x_test)
                    kept.setdefault((fold.task, make.name), []).append((predicted, fold.y_test))
                    if make is Stack:
                        inside = float((np.abs(predicted - fold.y_test) <= member.half_widths(0.9)).mean())
                        rows.append((data, setting, fold.task, make.name, "coverage", inside))
            for (task, name), found in kept.items():
                narrow = found[0][1].shape[1] <= 100
                pairs = [tuple(np.vstack(part) for part in zip(*found, strict=True))] if narrow else found
                for p, t in pairs:
                    rows.append((data, setting, task, name, "rmse", float(np.sqrt(((p - t) ** 2).mean()))))
                    rows.append((data, setting, task, name, "pearson", pearson(p, t)))
            table = pd.DataFrame(rows, columns=["data", "setting", "task", "method", "metric", "value"])
            save(table, args.out, "multiomics_predict.csv")
            mine = table[(table["data"] == data) & (table["setting"] == setting)]
            wide = mine.groupby(["task", "method", "metric"], sort=False)["value"].mean().unstack("metric")
            print(f"== {data}, {setting}\n{wide.round(4).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
