"""Claim: ExpressionJEPA tells cell types apart better than as many principal components, most so in shallow cells.

Each data set is cut to 3,000 cells, its counts are thinned binomially to a share of them (before everything else),
genes in fewer than 5 cells are dropped, counts are scaled to the median library over all genes and log1p'd, and the
2,000 most variable genes are kept. All methods see these cells and genes and no labels, and give 32 dimensions.
scanpy's ``pbmc68k_reduced`` ships log-normalised values of 765 genes; its counts are recovered with the totals it keeps.
Scored over 5 stratified folds of the cells (types of fewer than 10 cells are left out):

``linear``, ``knn``
    Balanced accuracy of logistic regression and of the 15 nearest neighbors: :func:`scjepa.tl.linear_probe`, which fits
    PCA on training folds.
``heldout_r2``
    Mean R2 of a ridge regression to the 200 most abundant other genes, which no method has seen, at full depth
    (``pbmc68k`` has no other genes).
``cpu_seconds``
    Processor time of one fit and the embedding of all cells.

``--scvi`` and ``--joint-embedding`` (scvi-tools 1.5 or later) train SCVI and JointEmbeddingSCVI on the counts of the same
genes, with their default epochs. They take many minutes, so what they scored is kept in
``representation_<data>_peers.csv`` and taken from there the next time; ``--seeds 0`` runs them alone. Example::

    python benchmarks/representation.py --datasets kang pbmc8k --seeds 1 --scvi
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from _common import parser, read, save, start
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scjepa import ExpressionJEPA, tl

DATASETS = {
    "kang": ("kang18_combined.h5ad", "cell_type"),
    "packer": ("packer19_celegans_embryo.h5ad", "cell.type"),
    "pbmc8k": ("pbmc8k_10x.h5ad", "cell_type_marker"),
    "pbmc68k": (None, "bulk_labels"),  # scanpy brings it
}
SHARES = [1.0, 0.3, 0.1]
N_CELLS, N_GENES, N_HELD_OUT, N_LATENT, RARE = 3000, 2000, 200, 32, 10
UNSEEN = "counts of all other genes"
Embed = Callable[[ad.AnnData, int], np.ndarray]


# ------------------------------------------------------------------------------------------------------------- data
def pbmc68k() -> ad.AnnData:
    """Return the counts of scanpy's ``pbmc68k_reduced``, the rest of each cell's library in a last column.

    Its ``raw`` holds ``log1p(1e4 * count / n_counts)`` to three decimals, which tells every count.
    """
    cells = sc.datasets.pbmc68k_reduced()
    total = cells.obs["n_counts"].to_numpy(dtype=float)[:, None]
    exact = np.expm1(cells.raw.X.toarray().astype(float)) * total / 1e4
    counts = np.rint(exact)
    if (np.abs(exact - counts) > 0.01 * np.maximum(counts, 1)).any():
        raise SystemExit("pbmc68k_reduced of this scanpy does not hold log1p of counts per ten thousand.")
    x = sp.csr_matrix(np.hstack([counts, total - counts.sum(1, keepdims=True)]))
    return ad.AnnData(x, obs=cells.obs, var=pd.DataFrame(index=[*cells.raw.var_names, UNSEEN]))


def lognormalised(counts: sp.csr_matrix, var: pd.DataFrame) -> ad.AnnData:
    """Scale counts to the median library and log1p them, as scanpy does by default."""
    cells = ad.AnnData(counts.astype(np.float32), var=var)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    return cells


def prepare(cells: ad.AnnData, column: str, share: float) -> tuple[ad.AnnData, np.ndarray]:
    """Return thinned, log-normalised cells x variable genes (counts in a layer, types in ``obs``), and held-out genes."""
    keep = np.random.default_rng(0).permutation(cells.n_obs)[:N_CELLS]
    cells = cells[keep]
    full = sp.csr_matrix(cells.X).astype(np.int64)
    thin = full.copy()
    if share < 1:
        thin.data = np.random.default_rng(1).binomial(thin.data, share)
        thin.eliminate_zeros()
    genes = np.asarray(cells.var_names) != UNSEEN
    filled = np.asarray(thin[:, genes].sum(1)).ravel() > 0
    thin, full = thin[filled], full[filled]
    seen = lognormalised(thin, cells.var[[]])
    seen.layers["counts"] = thin.astype(np.float32)
    seen.obs_names = cells.obs_names[filled]
    seen.obs["type"] = cells.obs[column].astype(str).to_numpy()[filled]
    seen = seen[:, genes & (np.asarray((thin > 0).sum(0)).ravel() >= 5)].copy()
    sc.pp.highly_variable_genes(seen, n_top_genes=min(N_GENES, seen.n_vars))
    variable = seen.var["highly_variable"].to_numpy()
    deep = lognormalised(full, cells.var[[]])[:, genes]
    abundance = pd.Series(np.asarray(deep.X.mean(0)).ravel(), deep.var_names).drop(seen.var_names[variable])
    held_out = deep[:, abundance.nlargest(N_HELD_OUT).index].X.toarray() if len(abundance) >= N_HELD_OUT else None
    return seen[:, variable].copy(), np.zeros((seen.n_obs, 0)) if held_out is None else held_out


# ---------------------------------------------------------------------------------------------------------- scoring
def probe(cells: ad.AnnData, z: np.ndarray | None) -> dict[str, float]:
    """Return balanced accuracies of an embedding, or with None of principal components fitted on training folds."""
    common = cells.obs["type"].map(cells.obs["type"].value_counts()).to_numpy() >= RARE
    scored = ad.AnnData(cells.X[common], obs=cells.obs[common])
    # without an embedding, one column per component only says how many components are wanted
    scored.obsm["z"] = np.zeros((scored.n_obs, N_LATENT)) if z is None else z[common]
    table = tl.linear_probe(scored, "type", obsm=["z"], compare=["PCA"] if z is None else [])
    table = table[(table["metric"] == "balanced_accuracy") & ((table["representation"] == "z") == (z is not None))]
    mean = table.groupby("probe")["value"].mean()
    return {"linear": float(mean["logistic"]), "knn": float(mean["knn"])}


def heldout_r2(z: np.ndarray, held_out: np.ndarray) -> float:
    """Return the mean R2 of genes that no method has seen; NaN without such genes."""
    if not held_out.shape[1]:
        return float("nan")
    ridge = make_pipeline(StandardScaler(), Ridge(1.0))
    guess = cross_val_predict(ridge, z, held_out, cv=KFold(5, shuffle=True, random_state=0))
    left = ((held_out - guess) ** 2).sum(0) / np.maximum(((held_out - held_out.mean(0)) ** 2).sum(0), 1e-9)
    return float(1 - left.mean())


# ---------------------------------------------------------------------------------------------------------- methods
def jepa(cells: ad.AnnData, seed: int) -> np.ndarray:
    """Embed cells with the package's defaults."""
    ExpressionJEPA.setup_anndata(cells)
    model = ExpressionJEPA(cells, n_latent=N_LATENT)
    model.train(seed=seed, enable_progress_bar=False)
    return model.get_latent_representation()


def of_scvi(kind: type) -> Embed:
    """Return what embeds cells with a model class of scvi-tools, with its defaults."""

    def embed(cells: ad.AnnData, seed: int) -> np.ndarray:
        import scvi

        scvi.settings.seed = seed
        kind.setup_anndata(cells, layer="counts")
        model = kind(cells, n_latent=N_LATENT)
        model.train(enable_progress_bar=False)
        return model.get_latent_representation()

    return embed


def find_peers(scvi: bool, joint_embedding: bool) -> dict[str, Embed]:
    """Return the peers that were asked for and are installed; of one that is not, say so in one line."""
    peers: dict[str, Embed] = {}
    if scvi:
        from scvi.model import SCVI

        peers["SCVI"] = of_scvi(SCVI)
    if joint_embedding:
        try:
            from scvi.external import JointEmbeddingSCVI
        except ImportError:
            from importlib.metadata import version

            print(f"JointEmbeddingSCVI left out: scvi-tools {version('scvi-tools')} is without it, 1.5 has it.\n")
        else:
            peers["JointEmbeddingSCVI"] = of_scvi(JointEmbeddingSCVI)
    return peers


def fits(
    cells: ad.AnnData, seeds: int, peers: dict[str, Embed], known: set[str]
) -> Iterator[tuple[str, int, np.ndarray, float]]:
    """Yield method, seed, embedding and processor seconds."""

    def clocked(embed: Embed, seed: int) -> tuple[np.ndarray, float]:
        torch.set_num_threads(1)  # again: scanpy's choice of variable genes raises the number
        begin = time.process_time()
        z = embed(cells.copy(), seed)
        return z, time.process_time() - begin

    if seeds:
        pca = lambda cells, seed: PCA(N_LATENT, random_state=seed).fit_transform(cells.X.toarray())
        yield "PCA", 0, *clocked(pca, 0)
    for seed in range(seeds):
        yield "ExpressionJEPA", seed, *clocked(jepa, seed)
    for name, embed in peers.items():
        if name not in known:
            yield name, 0, *clocked(embed, 0)


def run(
    name: str, raw: ad.AnnData, column: str, shares: list[float], seeds: int, peers: dict[str, Embed], out: Path
) -> pd.DataFrame:
    """Score one data set at every share; writes a row per share, method and seed after every fit, and returns them."""
    own, file = [], f"representation_{name}_peers.csv"
    kept = pd.read_csv(out / file) if (out / file).is_file() else pd.DataFrame(columns=["share", "method"])
    for share in shares:
        cells, held_out = prepare(raw, column, share)
        known = set(kept.loc[np.isclose(kept["share"].astype(float), share), "method"])
        for method, seed, z, seconds in fits(cells, seeds, peers, known):
            scores = probe(cells, None if method == "PCA" else z) | {"heldout_r2": heldout_r2(z, held_out)}
            row = {"data": name, "share": share, "method": method, "seed": seed, **scores, "cpu_seconds": seconds}
            print("   " + "  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
            if method in peers:
                kept = pd.concat([kept, pd.DataFrame([row])])
                save(kept, out, file)
            else:
                own.append(row)
                save(pd.DataFrame(own), out, f"representation_{name}.csv")
    return pd.concat([pd.DataFrame(own), kept[kept["method"].isin(peers) & kept["share"].isin(shares)]])


def summary(table: pd.DataFrame) -> str:
    """Return means over training seeds, and how far each method is above PCA: on average, and where it is least."""
    index = ["data", "share", "method"]
    means = table.drop(columns="seed").groupby(index, sort=False).mean()
    text = means.to_string(formatters={"cpu_seconds": "{:.1f}".format}, float_format="{:.3f}".format)
    wide = means[["linear", "knn"]].unstack("method")
    for method in table["method"].unique():
        if "PCA" in set(table["method"]) and method != "PCA":
            above = pd.DataFrame({k: wide[k][method] - wide[k]["PCA"] for k in ("linear", "knn")}).dropna()
            parts = [f"{k} {above[k].mean():+.3f} on average, {above[k].min():+.3f} at least" for k in above]
            text += f"\n{method} above PCA in {len(above)} settings: {'; '.join(parts)}"
    return text


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    options.add_argument("--shares", nargs="+", type=float, default=SHARES, help="shares of counts kept")
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3; 0: peers alone)")
    options.add_argument("--scvi", action="store_true", help="train SCVI beside")
    options.add_argument(
        "--joint-embedding", action="store_true", help="train scvi.external's joint-embedding SCVI beside"
    )
    args = options.parse_args()
    if not (args.seeds or args.scvi or args.joint_embedding):
        options.error("--seeds 0 runs nothing without --scvi or --joint-embedding")
    start(args)
    peers = find_peers(args.scvi, args.joint_embedding)
    tables = []
    for name in args.datasets:
        file, column = DATASETS[name]
        raw = pbmc68k() if file is None else read(args.data, file)
        tables.append(run(name, raw, column, args.shares, args.seeds, peers, args.out))
    if any(len(table) for table in tables):
        print("\nMeans over training seeds\n" + summary(pd.concat(tables)))


if __name__ == "__main__":
    main()
