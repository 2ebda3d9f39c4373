"""Claim: ExpressionJEPA tells cell types apart better than as many principal components, most so in shallow cells.

Each data set is cut to 3,000 cells, its counts are thinned binomially to a share of them (before everything else),
genes in fewer than 5 cells are dropped, counts are scaled to the median library over all genes and log1p'd, and the
2,000 most variable genes are kept. Both methods see these cells and genes and no labels, and give 32 dimensions.
Scored, over 5 stratified folds of the cells (types of fewer than 10 cells are left out):

``linear``
    Balanced accuracy of a class-weighted logistic regression on standardised dimensions.
``knn``
    Balanced accuracy of the 15 nearest neighbours; ``PCA`` as it is, ``PCA, whitened`` with dimensions of equal variance.
``heldout_r2``
    Mean R2 of a ridge regression to the 200 most abundant other genes, which no method has seen, at full depth.
``cpu_seconds``
    Processor time of one fit and the embedding of all cells.

scanpy's bundled ``pbmc68k_reduced`` is not among the data sets: it ships without counts. Example::

    python benchmarks/representation.py --datasets kang pbmc8k --seeds 1
"""

from __future__ import annotations

import time

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from _common import parser, read, save, start
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scjepa import ExpressionJEPA

DATASETS = {
    "kang": ("kang18_combined.h5ad", ["cell_type", "condition"]),
    "pbmc8k": ("pbmc8k_10x.h5ad", ["cell_type_marker"]),
    "packer": ("packer19_celegans_embryo.h5ad", ["cell.type"]),
}
N_CELLS, N_GENES, N_HELD_OUT, N_LATENT = 3000, 2000, 200, 32


def lognormalised(counts: sp.csr_matrix, var: pd.DataFrame) -> ad.AnnData:
    """Scale counts to the median library and log1p them, as scanpy does by default."""
    cells = ad.AnnData(counts.astype(np.float32), var=var)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    return cells


def prepare(cells: ad.AnnData, columns: list[str], share: float) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Return thinned, log-normalised cells x variable genes, their labels, and held-out genes at full depth."""
    keep = np.random.default_rng(0).permutation(cells.n_obs)[:N_CELLS]
    cells = cells[keep]
    labels = cells.obs[columns].astype(str).agg("_".join, axis=1).to_numpy()
    full = sp.csr_matrix(cells.X).astype(np.int64)
    thin = full.copy()
    if share < 1:
        thin.data = np.random.default_rng(1).binomial(thin.data, share)
        thin.eliminate_zeros()
    filled = np.asarray(thin.sum(1)).ravel() > 0
    seen = lognormalised(thin[filled], cells.var)
    seen = seen[:, np.asarray((thin > 0).sum(0)).ravel() >= 5].copy()
    sc.pp.highly_variable_genes(seen, n_top_genes=min(N_GENES, seen.n_vars))
    variable = seen.var["highly_variable"].to_numpy()
    deep = lognormalised(full[filled], cells.var)
    abundance = pd.Series(np.asarray(deep.X.mean(0)).ravel(), deep.var_names).drop(seen.var_names[variable])
    held_out = deep[:, abundance.nlargest(N_HELD_OUT).index].X.toarray()
    return seen[:, variable].copy(), labels[filled], held_out


def scores(z: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Score an embedding."""
    y = np.unique(labels, return_inverse=True)[1]
    keep = np.bincount(y)[y] >= 10
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300))
    out = {}
    for name, classifier in {"linear": linear, "knn": KNeighborsClassifier(15)}.items():
        guess = cross_val_predict(classifier, z[keep], y[keep], cv=folds)
        out[name] = balanced_accuracy_score(y[keep], guess)
    ridge = make_pipeline(StandardScaler(), Ridge(1.0))
    guess = cross_val_predict(ridge, z, held_out, cv=KFold(5, shuffle=True, random_state=0))
    left = ((held_out - guess) ** 2).sum(0) / np.maximum(((held_out - held_out.mean(0)) ** 2).sum(0), 1e-9)
    return out | {"heldout_r2": float(1 - left.mean())}


def jepa(cells: ad.AnnData, seed: int) -> np.ndarray:
    """Embed cells with the package's defaults."""
    ExpressionJEPA.setup_anndata(cells)
    model = ExpressionJEPA(cells, n_latent=N_LATENT)
    model.train(seed=seed, enable_progress_bar=False)
    return model.get_latent_representation()


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    options.add_argument("--shares", nargs="+", type=float, default=[1.0, 0.3, 0.1], help="shares of counts kept")
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3)")
    args = options.parse_args()
    start(args)
    tables = []
    for name in args.datasets:
        file, columns = DATASETS[name]
        raw = read(args.data, file)
        rows = []
        for share in args.shares:
            cells, labels, held_out = prepare(raw, columns, share)
            begin = time.process_time()
            pca = PCA(N_LATENT, random_state=0).fit_transform(cells.X.toarray())
            seconds = time.process_time() - begin
            fits = [("PCA", 0, pca, seconds), ("PCA, whitened", 0, pca / pca.std(0), seconds)]
            for seed in range(args.seeds):
                begin = time.process_time()
                z = jepa(cells, seed)
                fits.append(("ExpressionJEPA", seed, z, time.process_time() - begin))
            for method, seed, z, seconds in fits:
                row = {"data": name, "share": share, "method": method, "seed": seed}
                rows.append(row | scores(z, labels, held_out) | {"cpu_seconds": seconds})
                shown = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in rows[-1].values()]
                print("   " + "  ".join(shown), flush=True)
        tables.append(pd.DataFrame(rows))
        save(tables[-1], args.out, f"representation_{name}.csv")
    means = pd.concat(tables).drop(columns="seed").groupby(["data", "share", "method"], sort=False).mean()
    print("\nMeans over training seeds")
    print(means.to_string(formatters={"cpu_seconds": "{:.1f}".format}, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
