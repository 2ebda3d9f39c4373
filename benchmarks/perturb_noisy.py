"""Claim: on screens made noisy, small, null and odd, PerturbJEPA is never below a simple baseline.

``norman-*``, ``replicates-*``, ``pairs-*``
    The Norman 2019 part of perturbench_norman19_mcfaline23.h5ad (K562, 500 genes), thinned to few cells per condition.
    Controls and eight singles that can hardly be told from them are one pool, from which controls and conditions without
    effect are drawn. Held out: each double with both singles measured in turn (``doubles``); the perturbed cells of
    each of 2 to 4 pseudo-replicates in turn (with two there is one context to learn from, and nothing can be left out of
    it); every perturbation in one of the replicates (``pairs``).
``kang-*``
    kang18_combined.h5ad, interferon in each cell type in turn, 2,000 variable genes chosen on training cells: few cells,
    null conditions beside it, two or three types to learn from, effects exchanged between types (in full or by half).
    ``kang-replicates-3``: CD4 T cells alone, dealt to three pseudo-replicates.
``simulated-*``, ``programmes-*``
    Knock-downs of scjepa.datasets.simulate_perturbseq, 8 real and 18 null, in contexts that share their effects or don't;
    gene programmes whose strength differs from context to context, told by the controls or not, learned from 2 to 4.
``unseen-genes``
    Norman singles that were never perturbed, one at a time, described by priors/go_svd128_human.npz; null conditions
    carry the names of other genes.

The truth is the measured effect against the controls that the prediction starts from, with all cells of the held-out
condition, also those that were thinned away; null conditions are measured like others (their true effect is zero).
Scores are means over conditions, then over splits and seeds. "Strong" are the real perturbations, all but relabelled
controls. Correlations of a constant prediction count as 0. The best simple baseline of a setting (no change, mean,
context transfer, additive, ridge, those that apply to all its conditions) has the least mean L2; the correlation is
compared with the highest of any.

A setting passes with L2 at most 1.01 of the best simple baseline (1.03 where three or four training contexts truly differ),
a correlation not more than .005 lower, and L2 of strong conditions, where there are null ones, not above context transfer.

By default the anchor alone is scored: its closed form is what decides in noisy screens, and takes minutes. ``--model``
trains PerturbJEPA with its defaults in a few settings and splits, and prints coverage and width of 90 % intervals of
``predict_effect`` (genes detected in the condition or its controls; half-widths relative to effects by root mean squares;
effects measured with the kept cells, as many as training conditions have, and with all cells), and what the model loses
where it abstains and where it does not. Examples::

    python benchmarks/perturb_noisy.py --quick
    python benchmarks/perturb_noisy.py --settings kang-10 unseen-genes
    python benchmarks/perturb_noisy.py --model
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _common import parser, save, start
from _noisy import CONTEXT, PERTURBATION, Case
from _noisy_settings import Setting, settings

from scjepa import PerturbJEPA, metrics
from scjepa.baselines import Additive, ContextTransfer, KernelEffect, MeanEffect, NoChange, Ridge

SIMPLE = (NoChange, MeanEffect, ContextTransfer, Additive, Ridge)
MODEL, ANCHOR, TRANSFER = "PerturbJEPA", KernelEffect.name, ContextTransfer.name
SCORES = ("l2", "pearson", "l2_strong", "pearson_strong")
LIMIT, LIMIT_DIFFERENT, LIMIT_PEARSON, LIMIT_MEAN = 1.01, 1.03, -0.005, 0.92
COVERAGE = (0.85, 0.95)
MODEL_SETTINGS = (
    "norman-doubles-20",
    "norman-doubles-null-80",
    "replicates-2",
    "replicates-3-null-50",
    "pairs-3-null-50",
    "kang-20",
    "kang-2-types",
    "simulated-differing",
    "programmes-own-3",
    "unseen-genes",
)


# ---------------------------------------------------------------------------------------------------- predictions
def closed_forms(case: Case) -> dict[str, np.ndarray]:
    """Return the effects ``(m, genes)`` that the anchor and the simple baselines predict; NaN where one does not apply."""
    methods = [KernelEffect(features=case.features), *(cls() for cls in SIMPLE)]
    return {method.name: method.fit(case.table).effects(case.query) for method in methods}


def train_and_predict(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Train PerturbJEPA with its defaults on the training cells; returns effect, lower, upper and abstain, ``(m, genes)``."""
    torch.set_num_threads(1)  # again: scanpy's choice of variable genes raises the number
    PerturbJEPA.setup_anndata(case.cells, PERTURBATION, context_key=CONTEXT)
    model = PerturbJEPA(case.cells, gene_embeddings=case.features)
    model.train(seed=seed, embed=False, enable_progress_bar=False)  # predictions don't read it
    columns = ["effect", "lower", "upper", "abstain"]
    out = {name: np.empty(case.truth.shape) for name in columns}
    labels = np.array(["+".join(action) for action in case.query.actions])
    places = case.query.contexts.astype(str)
    for place in dict.fromkeys(places):
        frame = model.predict_effect(labels[places == place].tolist(), context=place)
        for row in np.flatnonzero(places == place):
            mine = frame[frame[PERTURBATION] == labels[row]]
            for name in columns:
                out[name][row] = mine[name].to_numpy()
    return out


# --------------------------------------------------------------------------------------------------------- scores
def score(case: Case, predicted: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return a row per method and held-out condition; methods that don't apply to all conditions are left out."""
    parts = []
    for method, effects in predicted.items():
        if np.isfinite(effects).all():
            r = np.nan_to_num(np.atleast_1d(metrics.pearson_delta(effects, case.truth)))
            error = np.atleast_1d(metrics.l2(effects, case.truth))
            labels = ["+".join(action) for action in case.query.actions]
            rows = {
                "perturbation": labels,
                "context": case.query.contexts,
                "strong": case.strong,
                "l2": error,
                "pearson": r,
            }
            parts.append(pd.DataFrame(rows).assign(split=case.name, method=method))
    return pd.concat(parts)


def score_intervals(case: Case, found: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return coverage, width and abstention of each held-out condition."""
    rows = []
    for i in range(len(case.truth)):
        expressed = (case.query.control[i] > 0) | (case.measured[i] != 0)  # others are covered for nothing
        effect_size = max(float(np.sqrt((case.measured[i, expressed] ** 2).mean())), 1e-12)
        low, high = found["lower"][i, expressed], found["upper"][i, expressed]
        rows.append(
            {
                "coverage": metrics.interval_coverage(case.measured[i, expressed], low, high),
                "coverage_all_cells": metrics.interval_coverage(case.truth[i, expressed], low, high),
                "width": float(np.median(high - low)),
                "half-width / effect": float(np.sqrt(((high - low) ** 2).mean())) / 2 / effect_size,
                "abstain": bool(found["abstain"][i, 0]),
                "l2": metrics.l2(found["effect"][i], case.truth[i]),
                "l2_no_change": float(np.linalg.norm(case.truth[i])),
            }
        )
    return pd.DataFrame(rows)


def average(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over the conditions of a split, then over splits: a row per method that applies to all of them."""
    by = ["method", "seed", "split"]
    every = scores.groupby(by, sort=False)[["l2", "pearson"]].mean()
    strong = scores[scores["strong"]].groupby(by, sort=False)[["l2", "pearson"]].mean().add_suffix("_strong")
    splits = every.join(strong).reset_index()
    count = splits.groupby("method")["split"].count()
    whole = splits[splits["method"].map(count) == count.max()]
    return whole.groupby("method", sort=False)[list(SCORES)].mean()


def compare(table: pd.DataFrame, judged: str) -> dict[str, object]:
    """Compare a method with the simple baselines of a setting; ``table`` is from :func:`average`."""
    simple = table.loc[[name for name in table.index if name not in (MODEL, ANCHOR)]]
    best = simple["l2"].idxmin()
    transfer = table["l2_strong"].get(TRANSFER, np.nan)
    return {
        "method": judged,
        "best": best,
        "ratio": table.loc[judged, "l2"] / simple.loc[best, "l2"],
        "pearson_difference": table.loc[judged, "pearson"] - simple["pearson"].max(),
        "strong_to_transfer": table.loc[judged, "l2_strong"] / transfer,
    }


def judge(comparison: dict[str, object], setting: Setting, has_null: bool) -> dict[str, object]:
    """Add the limit of a setting, and what it fails: "L2", "r", "strong", or nothing."""
    limit = LIMIT_DIFFERENT if setting.n_differ in (3, 4) else LIMIT
    failed = {
        "L2": comparison["ratio"] > limit,
        "r": comparison["pearson_difference"] < LIMIT_PEARSON,
        "strong": has_null and comparison["strong_to_transfer"] > 1.0,  # false for NaN: no context transfer here
    }
    return comparison | {"limit": limit, "fails": " ".join(name for name, wrong in failed.items() if wrong)}


# ------------------------------------------------------------------------------------------------------- the runs
def run(
    name: str, setting: Setting, folder: Path, seeds: int, model_splits: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the splits of a setting; with PerturbJEPA ``model_splits`` of each seed, drawn at random (0: all, without it).

    Returns scores and intervals (empty without PerturbJEPA), a row per condition.
    """
    scores, intervals = [], [pd.DataFrame()]
    for seed in range(seeds):
        cases = setting.cases(folder, seed)
        if model_splits:
            cases = list(cases)
            rng = np.random.default_rng(seed)
            cases = [cases[i] for i in sorted(rng.permutation(len(cases))[:model_splits])]
        for case in cases:
            predicted = closed_forms(case)
            if model_splits:
                found = train_and_predict(case, seed)
                predicted = {MODEL: found["effect"]} | predicted
                intervals.append(score_intervals(case, found).assign(setting=name, seed=seed, split=case.name))
            scores.append(score(case, predicted).assign(seed=seed))
    return pd.concat(scores), pd.concat(intervals)


def summarise(name: str, setting: Setting, scores: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return the scores of every method of a setting, and how PerturbJEPA (or its anchor) compares and is judged."""
    table = average(scores)
    judged = MODEL if MODEL in table.index else ANCHOR
    comparison = compare(table, judged)
    verdict = judge(comparison, setting, has_null=not scores["strong"].all())
    best = table.loc[comparison["best"], "l2"]
    return table.assign(ratio=table["l2"] / best), {"setting": name} | verdict


def show_setting(name: str, scores: pd.DataFrame, table: pd.DataFrame, seconds: float) -> None:
    """Print the scores of a setting."""
    conditions = scores[scores["method"] == ANCHOR]
    splits = len(conditions[["seed", "split"]].drop_duplicates())
    print(
        f"== {name}: {conditions['seed'].nunique()} seeds, {splits} splits, {len(conditions)} conditions, "
        f"{conditions['strong'].mean():.0%} strong, {seconds:.0f} s"
    )
    names = {"l2": "L2", "pearson": "r", "l2_strong": "L2 strong", "pearson_strong": "r strong", "ratio": "L2 / best"}
    print(
        table.rename(columns=names).rename_axis(None).to_string(float_format="{:.3f}".format, na_rep="-") + "\n",
        flush=True,
    )


def show_verdicts(verdicts: pd.DataFrame) -> None:
    """Print how every setting compares with its best simple baseline, and over all settings."""
    table = verdicts.assign(mark=verdicts["fails"].map(lambda f: f"FAIL {f}" if f else "pass")).drop(columns="fails")
    names = {
        "best": "best simple",
        "ratio": "L2 / best",
        "pearson_difference": "r - highest",
        "strong_to_transfer": "strong / transfer",
    }
    print(f"== {verdicts['method'].iloc[0]} against the best simple baseline")
    shown = table.drop(columns="method").set_index("setting").rename(columns=names).rename_axis(None)
    print(shown.to_string(float_format="{:.3f}".format, na_rep="-"))
    ratio = verdicts["ratio"]
    mean = float(np.exp(np.log(ratio).mean()))
    print(
        f"L2 to the best simple baseline: geometric mean {mean:.3f} ({mark(mean <= LIMIT_MEAN)}), worst {ratio.max():.3f}, "
        f"above {LIMIT}: {(ratio > LIMIT).sum()} of {len(ratio)}, above its limit: {(ratio > verdicts['limit']).sum()}\n"
        f"strong conditions to context transfer: worst {verdicts['strong_to_transfer'].max():.3f}; "
        f"correlation to the highest: mean {verdicts['pearson_difference'].mean():+.3f}, "
        f"worst {verdicts['pearson_difference'].min():+.3f}\n"
        f"settings that fail: {(verdicts['fails'] != '').sum()} of {len(verdicts)}\n",
        flush=True,
    )


def show_intervals(intervals: pd.DataFrame) -> None:
    """Print coverage and width of 90 % intervals, and errors where the model abstains and where it doesn't."""
    columns = {"coverage": "mean", "coverage_all_cells": "mean", "width": "median"}
    columns |= {"half-width / effect": "median", "abstain": "mean"}
    table = intervals.groupby("setting", sort=False).agg(columns)
    table["mark"] = table["coverage"].between(*COVERAGE).map(mark)
    print("== 90 % intervals of predict_effect, expressed genes")
    print(table.rename_axis(None).to_string(float_format="{:.3g}".format))
    mean = float(table["coverage"].mean())
    print(f"mean coverage {mean:.3f} ({mark(COVERAGE[0] <= mean <= COVERAGE[1])})\n")
    told = intervals.assign(answer=intervals["abstain"].map({True: "abstains", False: "answers"}))
    errors = told.groupby(["setting", "answer"], sort=False)[["l2", "l2_no_change"]].mean()
    errors.insert(0, "conditions", told.groupby(["setting", "answer"]).size())
    print("== L2 where the model abstains and where it doesn't")
    print(errors.assign(ratio=errors["l2"] / errors["l2_no_change"]).to_string(float_format="{:.3f}".format) + "\n")


def mark(right: bool) -> str:
    """Return "pass" or "FAIL"."""
    return "pass" if right else "FAIL"


def main() -> None:
    """Run the benchmark."""
    known = settings()
    options = parser(__doc__)
    options.add_argument("--settings", nargs="+", choices=list(known), metavar="NAME", help=", ".join(known))
    options.add_argument("--seeds", type=int, help="screens per setting (default: by setting; with --model: 1)")
    options.add_argument("--quick", action="store_true", help="a tenth of the seeds")
    how = options.add_mutually_exclusive_group()
    how.add_argument("--anchor-only", action="store_true", help="closed forms only (the default)")
    how.add_argument("--model", action="store_true", help="train PerturbJEPA too, by default in a few settings")
    options.add_argument(
        "--splits", type=int, default=2, help="with --model: splits of a seed, drawn at random (default: 2)"
    )
    args = options.parse_args()
    start(args)
    chosen = args.settings or (MODEL_SETTINGS if args.model else list(known))
    partial = "_some" * bool(args.settings)  # does not overwrite the whole
    csv = f"perturb_noisy{'_model' * args.model}{'_quick' * args.quick}{partial}"
    tables, verdicts, intervals = [], [], []
    for name in chosen:
        setting, begin = known[name], time.perf_counter()
        seeds = args.seeds or (1 if args.model else math.ceil(setting.seeds / (10 if args.quick else 1)))
        scores, found = run(name, setting, args.data, seeds, args.splits if args.model else 0)
        table, verdict = summarise(name, setting, scores)
        show_setting(name, scores, table, time.perf_counter() - begin)
        tables.append(table.reset_index().assign(setting=name, seeds=seeds))
        verdicts.append(verdict)
        intervals.append(found)
        save(pd.concat(tables).merge(pd.DataFrame(verdicts)[["setting", "fails"]]), args.out, f"{csv}.csv")
    if args.model:
        save(pd.concat(intervals), args.out, f"{csv}_intervals.csv")
        show_intervals(pd.concat(intervals))
    show_verdicts(pd.DataFrame(verdicts))


if __name__ == "__main__":
    main()
