"""Claim: on simulated screens whose truth is known DrugJEPA finds EC50s, responders, resistance and synergy, and nulls stay null.

``ec50``
    Drugs at six doses in three contexts: DrugJEPA.dose_response against the true half-maximal dose; target: within a factor 2
    for 9 of 10 drugs. Beside it a Hill fit to the measured means (no model), one to the true effects (the most that can be
    had: the true EC50 is of log rates, effects are of log expression), and the middle of the doses.
``responders``
    Twelve patients of whom half lack a drug's target: DrugJEPA.stratify_patients against the truth; target: adjusted Rand
    index of .8 over drugs. Beside it groups of the measured effects (no model) and of shuffled ones.
``resistance``
    Five exposure times, some effects fade from one of them on: DrugJEPA.resistance_emergence; target: within one time step.
    Beside it the onset of measured effects, of true effects (the most that can be had: a response that is still rising when
    it fades may never fall by half, so these are told apart) and the middle of the times; and how often an onset is found
    where nothing fades, and of drugs that do nothing.
``synergy``
    Pairs of drugs at four doses each: the sign of DrugJEPA.synergy's mean score in every context against the truth, for all four
    references; target: right in 9 of 10 of the pairs that interact. Of those that do not, the score over the mean size of scores
    of those that do (only Bliss and ZIP expect what the simulator calls independent; the effect of both is more than HSA expects).
    Beside it the model trained on single drugs, to which pairs are sums, and scores of shuffled pairs. Sums say nothing of
    synergy (they exceed Bliss wherever drugs share a target), so the model must abstain from all of them.
``null``
    A screen in which no drug does anything: size of predicted effects against that of the noise in measured ones, curves that
    are not flat, groups, onsets.

Example::

    python benchmarks/drug_simulated.py --questions ec50 responders --seeds 1 --residual
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from _common import parser, save, start
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

from scjepa import DrugJEPA
from scjepa.data import condition_table
from scjepa.datasets import simulate_drug_screen, true_drug_effects
from scjepa.pharma import fit_hill, resistance_onset, responder_groups, signature_score

DOSES, TIMES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0), (2.0, 8.0, 24.0, 48.0, 72.0)
QUESTIONS = ("ec50", "responders", "resistance", "synergy", "null")
PAIR_DOSES = (0.1, 1.0, 3.0, 10.0)
REFERENCES = ("bliss", "hsa", "loewe", "zip")


def trained(adata: AnnData, *, residual: bool, seed: int, **keys: str) -> DrugJEPA:
    """Train a model on a simulated screen, its drugs told apart by structure too."""
    DrugJEPA.setup_anndata(adata, "drug", smiles_key="smiles", dose_key="dose", **keys)
    model = DrugJEPA(adata, residual="auto" if residual else False)
    model.train(embed=False, seed=seed, enable_progress_bar=False)
    return model


def measured(adata: AnnData, **keys: str) -> pd.DataFrame:
    """Return measured mean effects, indexed by drug, context, dose (and time)."""
    table = condition_table(adata, "drug", "DMSO", dose_key="dose", **keys)
    index = {"drug": ["+".join(a) for a in table.actions], "context": table.contexts.astype(str), "dose": table.dose}
    if table.time is not None:
        index["time"] = table.time
    return pd.DataFrame(table.effects, index=pd.MultiIndex.from_frame(pd.DataFrame(index)))


def hill_of(effects: pd.DataFrame) -> float:
    """Return the EC50 of one drug, the middle of those of its contexts, each along the effect of its highest dose."""
    found = []
    for _, part in effects.groupby(level="context"):
        dose = part.index.get_level_values("dose").to_numpy(dtype=float)
        rows = part.to_numpy()
        along = rows[dose.argmax()]
        if np.abs(along).max() > 0:
            found.append(fit_hill(dose, signature_score(rows, along), bottom=0.0, alpha=1.0)["ec50"].iloc[0])
    return float(np.exp(np.nanmedian(np.log(found)))) if found else float("nan")


def ec50(
    seed: int, *, residual: bool = False, n_drugs: int = 20, n_cells: int = 30, n_genes: int = 200
) -> pd.DataFrame:
    """Return the factor by which EC50s are off, a row a drug and way of finding it."""
    adata = simulate_drug_screen(n_genes, n_drugs, 5, doses=DOSES, n_combinations=0, n_cells=n_cells, seed=seed)
    drugs = adata.uns["jepa"]["simulation"]["drugs"]
    model = trained(adata, residual=residual, seed=seed, context_key="context")
    seen, true = measured(adata, context_key="context"), true_drug_effects(adata)
    rows = []
    for drug, truth in drugs.loc[~drugs["null"], "ec50"].items():
        curve = model.dose_response(str(drug), DOSES)
        ways = {
            "DrugJEPA": float(np.exp(np.nanmedian(np.log(curve["ec50"])))),
            "measured means": hill_of(seen.loc[[drug]]),
            "true effects": hill_of(true.loc[[drug]]),
            "middle dose": float(np.sqrt(DOSES[0] * DOSES[-1])),
        }
        rows += [("ec50", seed, drug, way, float(np.exp(abs(np.log(value / truth))))) for way, value in ways.items()]
    return pd.DataFrame(rows, columns=["question", "seed", "drug", "way", "value"])


def responders(
    seed: int, *, residual: bool = False, n_drugs: int = 8, n_cells: int = 25, n_genes: int = 200
) -> pd.DataFrame:
    """Return adjusted Rand indices of groups with true responders, a row a drug and way of finding them."""
    options = {"contexts": ("line A",), "n_patients": 12, "n_combinations": 0, "n_control": 60}
    adata = simulate_drug_screen(
        n_genes, n_drugs, 3, doses=(1.0, 10.0), off_target=0.0, n_cells=n_cells, seed=seed, **options
    )
    truth = adata.uns["jepa"]["simulation"]["responders"]
    model = trained(adata, residual=residual, seed=seed, patient_key="patient")
    seen = measured(adata, context_key="patient")
    rng, rows = np.random.default_rng(seed), []
    for drug, part in truth.groupby("drug"):
        true = part.set_index("patient")["responder"]
        found = model.stratify_patients(str(drug), dose=10.0).set_index("patient")["group"]
        own = seen.xs((drug, 10.0), level=("drug", "dose"))
        groups = responder_groups(signature_score(own.to_numpy(), own.to_numpy().mean(0))).labels
        ways = {
            "DrugJEPA": adjusted_rand_score(true[found.index], found),
            "measured means": adjusted_rand_score(true[own.index], groups),
            "shuffled": adjusted_rand_score(true[own.index], rng.permutation(groups)),
        }
        rows += [("responders", seed, drug, way, value) for way, value in ways.items()]
    return pd.DataFrame(rows, columns=["question", "seed", "drug", "way", "value"])


def onset_of(effects: np.ndarray) -> float:
    """Return when effects at all times fade along the largest of them, NaN if they don't."""
    along = effects[np.linalg.norm(effects, axis=1).argmax()]
    if not np.abs(along).max() > 0:
        return float("nan")
    return resistance_onset(TIMES, np.maximum(signature_score(effects, along), 0)[None]).onset


def resistance(
    seed: int, *, residual: bool = False, n_drugs: int = 10, n_cells: int = 25, n_genes: int = 200
) -> pd.DataFrame:
    """Return how many time steps onsets of resistance are off (NaN: none found), and whether one is found where nothing fades."""
    adata = simulate_drug_screen(
        n_genes, n_drugs, 3, doses=(10.0,), times=TIMES, n_combinations=0, n_cells=n_cells, n_control=250,
        fading_fraction=0.5, seed=seed,
    )  # fmt: skip
    simulation = adata.uns["jepa"]["simulation"]
    drugs, fading = simulation["drugs"], simulation["fading"].set_index(["drug", "context"])["time"]
    model = trained(adata, residual=residual, seed=seed, context_key="context", time_key="time")
    seen, true = measured(adata, context_key="context", time_key="time"), true_drug_effects(adata)
    step = lambda onset: float(np.interp(onset, TIMES, np.arange(len(TIMES))))
    rows = []
    for drug in drugs.index:
        table = model.resistance_emergence(drug, TIMES, dose=10.0).set_index("context")["onset"]
        for context in table.index:
            own = seen.xs((drug, context), level=("drug", "context")).to_numpy()
            effect = true.xs((drug, context), level=("drug", "context")).to_numpy()
            real = onset_of(effect)
            ways = {
                "DrugJEPA": table[context],
                "measured means": onset_of(own),
                "true effects": real,
                "middle time": TIMES[2],
            }
            for way, onset in ways.items():
                if (drug, context) in fading.index:
                    off = abs(step(onset) - step(fading[drug, context])) if np.isfinite(onset) else np.nan
                    rows.append(("resistance", seed, drug, way, off))
                    if np.isfinite(real):
                        rows.append(("resistance seen", seed, drug, way, off))
                else:
                    question = "null onset" if drugs.loc[drug, "null"] else "false onset"
                    rows.append((question, seed, drug, way, float(np.isfinite(onset))))
    return pd.DataFrame(rows, columns=["question", "seed", "drug", "way", "value"])


def synergies(
    seed: int, *, residual: bool = False, n_drugs: int = 12, n_pairs: int = 9, n_cells: int = 30, n_genes: int = 200
) -> pd.DataFrame:
    """Return whether signs are right, sizes of scores without interaction, and of pairs never measured, a row a pair and context."""
    adata = simulate_drug_screen(
        n_genes, n_drugs, 3, doses=PAIR_DOSES, n_combinations=n_pairs, n_cells=n_cells, seed=seed
    )
    pairs = adata.uns["jepa"]["simulation"]["combinations"]
    alone = adata[~adata.obs["drug"].isin(pairs["combination"])].copy()
    model = trained(adata, residual=residual, seed=seed, context_key="context")
    single = trained(alone, residual=residual, seed=seed, context_key="context")
    rng, rows = np.random.default_rng(seed), []
    for reference in REFERENCES:
        of = lambda who, pair, r=reference: who.synergy(
            pair.drug_a, pair.drug_b, PAIR_DOSES, PAIR_DOSES, reference=r
        ).attrs["scores"]
        found = [of(model, pair) for pair in pairs.itertuples()]
        never = [of(single, pair) for pair in pairs.itertuples()]
        scores, sums = (np.stack([f["synergy"].to_numpy() for f in each]) for each in (found, never))
        sign = pairs["sign"].to_numpy()[:, None]
        real = np.abs(scores[sign[:, 0] != 0]).mean()
        for i, pair in enumerate(pairs["combination"]):
            if sign[i, 0]:
                mixed = scores[rng.choice(np.flatnonzero(sign[:, 0]))]
                for way, values in {"DrugJEPA": scores[i], "sums": sums[i], "shuffled": mixed}.items():
                    rows += [(f"synergy {reference}", seed, pair, way, float(np.sign(v) == sign[i, 0])) for v in values]
            for way, values in {"DrugJEPA": scores[i], "sums": sums[i]}.items():
                if way == "sums" or not sign[i, 0]:
                    what = "never measured" if way == "sums" else "independent"
                    rows += [(f"{what} {reference}", seed, pair, way, float(v / real)) for v in values]
            rows += [("abstains", seed, pair, "sums", v) for v in never[i]["abstain"]]
            rows += [("abstains", seed, pair, "DrugJEPA", v) for v in found[i]["abstain"]]
    return pd.DataFrame(rows, columns=["question", "seed", "drug", "way", "value"])


def null(seed: int, *, residual: bool = False, n_drugs: int = 4, n_cells: int = 25, n_genes: int = 200) -> pd.DataFrame:
    """Return sizes of effects (of the measured noise), and shares of curves that are not flat and of drugs with groups."""
    options = {"contexts": ("line A",), "n_patients": 8, "n_combinations": 0, "null_fraction": 1.0}
    adata = simulate_drug_screen(n_genes, n_drugs, 3, doses=DOSES[1:], n_cells=n_cells, seed=seed, **options)
    model = trained(adata, residual=residual, seed=seed, patient_key="patient")
    noise = np.sqrt((measured(adata, context_key="patient").to_numpy() ** 2).mean())
    rows = []
    for drug in adata.uns["jepa"]["simulation"]["drugs"].index:
        effect = model.predict_effect(drug, dose=10.0)["effect"]
        curves = model.dose_response(drug, DOSES[1:])
        n = model.stratify_patients(drug, dose=10.0)["group"].nunique()
        told = {"size": np.sqrt((effect**2).mean()) / noise, "curves": 1 - curves["flat"].mean(), "groups": n > 1}
        rows += [(f"null {name}", seed, drug, "DrugJEPA", float(value)) for name, value in told.items()]
    return pd.DataFrame(rows, columns=["question", "seed", "drug", "way", "value"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers that targets are about, a row a question and way."""
    said = {
        "ec50": ("within a factor 2", lambda v: (v <= 2).mean(), ">= .9"),
        "responders": ("adjusted Rand index", lambda v: v.mean(), ">= .8"),
        "resistance": ("within one time step", lambda v: (v <= 1).mean(), ""),
        "resistance seen": ("the same, where true effects fade by half", lambda v: (v <= 1).mean(), ">= .9"),
        "false onset": ("found where nothing fades", lambda v: v.mean(), "<= .05"),
        "null onset": ("found in drugs that do nothing", lambda v: v.mean(), "<= .05"),
        "null size": ("of the noise", lambda v: v.mean(), "0"),
        "null curves": ("not flat", lambda v: v.mean(), "<= .05"),
        "null groups": ("of the drugs", lambda v: v.mean(), "0"),
    }
    said |= {f"synergy {r}": ("signs right", lambda v: v.mean(), ">= .9") for r in REFERENCES}
    said |= {
        f"independent {r}": ("score over that of pairs that interact", lambda v: v.mean(), "0") for r in REFERENCES
    }
    said |= {
        f"never measured {r}": ("score over that of pairs that interact", lambda v: v.mean(), "0") for r in REFERENCES
    }
    said["abstains"] = ("share of pairs of doses", lambda v: v.mean(), "0; 1 for sums")
    rows = []
    for (question, way), part in table.groupby(["question", "way"], sort=False):
        what, number, target = said[question]
        rows.append((question, what, way, number(part["value"]), len(part), target if way == "DrugJEPA" else ""))
    return pd.DataFrame(rows, columns=["question", "what", "way", "value", "n", "target"])


def main() -> None:
    """Run what was asked for."""
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--questions", nargs="+", choices=QUESTIONS, default=QUESTIONS)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument(
        "--residual", action="store_true", help="train the network too (minutes), not the anchor alone"
    )
    args = options.parse_args()
    start(args)
    run = {"ec50": ec50, "responders": responders, "resistance": resistance, "synergy": synergies, "null": null}
    parts = []
    for question in args.questions:
        parts += [run[question](seed, residual=args.residual) for seed in range(args.seeds)]
        print(summary(pd.concat(parts[-args.seeds :])).round(3).to_string(index=False), "\n", flush=True)
    save(pd.concat(parts), args.out, "drug_simulated.csv")


if __name__ == "__main__":
    main()
