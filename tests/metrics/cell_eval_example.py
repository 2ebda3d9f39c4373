"""A small screen for comparisons with cell-eval; run it in an environment with cell-eval 0.8.2 to print what that scores.

It imports nothing of scjepa, so that such an environment needs cell-eval only (``pip install cell-eval==0.8.2``).
"""

from __future__ import annotations

import json
import tempfile

import numpy as np

GENES = [f"g{i:02d}" for i in range(40)]
CONDITIONS = ["g01", "g05", "g05+g11", "g11", "g17", "g23"]


def cells() -> dict[str, dict[str, np.ndarray]]:
    """Log-normalised cells x genes of each condition and of controls, true and predicted."""
    rng = np.random.default_rng(0)
    base = rng.gamma(2.0, 1.0, size=len(GENES))
    shared = rng.normal(0, 0.3, size=len(GENES))
    out: dict[str, dict[str, np.ndarray]] = {"real": {}, "pred": {}}
    for i, name in enumerate(["control", *CONDITIONS]):
        effect = np.zeros(len(GENES)) if name == "control" else shared + rng.normal(0, 0.15 * i, size=len(GENES))
        error = rng.normal(0, 0.3, size=len(GENES))
        for side, size in (("real", 14 + i), ("pred", 20 - i)):
            log_rate = effect if side == "real" else 0.6 * effect + error
            counts = rng.poisson(base * np.exp(log_rate), size=(size, len(GENES))) + 0.5
            out[side][name] = np.log1p(counts / counts.sum(1, keepdims=True) * 100)
    return out


def de_tables() -> dict[str, dict[str, np.ndarray]]:
    """Log fold changes and FDRs, conditions x genes; NaN where a gene was not tested.

    The fourth condition has no significant true gene, the fifth no predicted one.
    """
    rng = np.random.default_rng(1)
    shape = (len(CONDITIONS), len(GENES))
    true = rng.normal(size=shape)
    pred = 0.7 * true + rng.normal(size=shape)
    tables = {
        side: {"lfc": lfc.round(5), "fdr": (0.3 * np.exp(-2 * np.abs(lfc)) * rng.uniform(0.1, 2, size=shape)).round(5)}
        for side, lfc in (("real", true), ("pred", pred))
    }
    tables["real"]["fdr"][3] = tables["real"]["fdr"][3] + 0.05
    tables["pred"]["fdr"][4] = tables["pred"]["fdr"][4] + 0.05
    tables["pred"]["fdr"][0, :3] = 0.0  # clipped before the logarithm
    for side, condition, genes in (("pred", 1, [2, 7, 9, 11, 30]), ("real", 2, [4, 8])):
        for values in tables[side].values():
            values[condition, genes] = np.nan
    return tables


def run_cell_eval() -> dict[str, list[float] | float]:
    """Scores of cell-eval: a list in the order of conditions (None where it has none), or one number."""
    import anndata as ad
    import cell_eval
    import pandas as pd
    import polars as pl

    sides = {}
    for side, groups in cells().items():
        obs = pd.DataFrame({"target": [name for name, x in groups.items() for _ in x]})
        obs.index = obs.index.astype(str)
        sides[side] = ad.AnnData(np.vstack(list(groups.values())), obs=obs, var=pd.DataFrame(index=GENES))
    frames = {
        side: pl.DataFrame(
            {
                "target": np.repeat(CONDITIONS, len(GENES)),
                "feature": np.tile(GENES, len(CONDITIONS)),
                "log2_fold_change": table["lfc"].ravel(),
                "p_value": table["fdr"].ravel() / 2,
                "fdr": table["fdr"].ravel(),
            }
        ).filter(pl.col("fdr").is_not_nan())
        for side, table in de_tables().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        evaluator = cell_eval.MetricsEvaluator(
            adata_pred=sides["pred"],
            adata_real=sides["real"],
            control_pert="control",
            pert_col="target",
            outdir=folder,
            num_threads=1,
            de_pred=frames["pred"],
            de_real=frames["real"],
        )
        table, _ = evaluator.compute(
            profile="full",
            skip_metrics=["clustering_agreement"],
            metric_configs={f"{kind}_at_50": {"k": 5} for kind in ("overlap", "precision")},
            write_csv=False,
            break_on_error=True,
        )
    frame = table.to_pandas().set_index("perturbation").loc[CONDITIONS]
    scores: dict[str, list[float] | float] = {}
    for name in frame.columns:
        values = [None if pd.isna(v) else round(float(v), 9) for v in frame[name]]
        # one number for the whole table is repeated in its rows
        scores[name] = values[0] if name in ("de_spearman_sig", "pearson_edistance") else values
    return scores


if __name__ == "__main__":
    print(json.dumps(run_cell_eval(), indent=1))
