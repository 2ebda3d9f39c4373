"""The pharmacology of the simulated drug screen: what drugs act on, how strongly, when, together, and in whom."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from scjepa._types import FloatArray, IntArray
from scjepa.datasets._molecules import FAMILIES, SUBSTITUENTS, draw_molecules, feature_table
from scjepa.pharma import hill

INTERACTIONS = {"synergistic": 1, "antagonistic": -1, "independent": 0}
"""Kinds of combinations and the sign of what departs from independence."""

INTERACTION = 0.6
"""Share by which a combination's effect grows (synergy) or shrinks (antagonism) when both drugs are saturated."""

FADED = 0.25
"""Share of a response that is left from its fading time on."""

DRUGS_PER_FAMILY = 4


def draw_drugs(
    n_drugs: int,
    targets: list[str],
    doses: FloatArray,
    *,
    null_fraction: float,
    cliffs: float,
    off_target: float,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Draw drugs whose structure tells their targets and, in part, their potency.

    A family acts on one target, but for the share ``cliffs`` of activity cliffs, which act on another one. The second
    substituent decides on a weaker second target, if any; family and first substituent make most of the potency.

    Returns
    -------
    Table of the drugs, their weights on targets, and their binary features.
    """
    n_null = round(null_fraction * n_drugs)
    n_active = n_drugs - n_null
    n_families = int(np.clip(n_active // DRUGS_PER_FAMILY, min(len(targets), len(FAMILIES) - 1), len(FAMILIES) - 1))
    table = draw_molecules(n_active, n_null, n_families, rng)
    table = table.iloc[rng.permutation(n_drugs)].reset_index(drop=True)  # a name tells nothing of the family
    family, a, b = (table[c].to_numpy() for c in ("family", "substituent_a", "substituent_b"))
    null = family == len(FAMILIES) - 1

    target = family % len(targets)
    active = np.flatnonzero(~null)
    cliff = np.zeros(n_drugs, dtype=bool)
    if len(targets) > 1:
        cliff[rng.permutation(active)[: round(cliffs * len(active))]] = True
    target = np.where(cliff, (target + rng.integers(1, max(len(targets), 2), n_drugs)) % len(targets), target)
    n_parts = len(SUBSTITUENTS)
    second_of = np.where(rng.random(n_parts) < 0.5, rng.integers(0, len(targets), n_parts), -1)
    second = np.where(null | (second_of[b] == target) | (off_target == 0), -1, second_of[b])
    weights = np.zeros((n_drugs, len(targets)))
    weights[active, target[active]] = 1.0
    weights[second >= 0, second[second >= 0]] = off_target

    of_family, of_part = rng.normal(size=len(FAMILIES))[family], rng.normal(size=n_parts)[a]
    z = 0.5 * of_family + 0.7 * of_part + 0.5 * rng.normal(size=n_drugs)
    low, high = np.log10(doses.min()), np.log10(doses.max())
    half = max((high - low) / 2 - 0.5, 0.25)  # half effects lie within what is measured
    ec50 = 10 ** ((low + high) / 2 + half * np.tanh(0.8 * z))
    slope, emax = rng.uniform(0.8, 2.0, n_drugs), rng.uniform(0.6, 1.0, n_drugs)
    names = [f"D{i + 1:0{max(2, len(str(n_drugs)))}d}" for i in range(n_drugs)]
    label = np.array([*targets, ""], dtype=object)
    drugs = pd.DataFrame(
        {
            "smiles": table["smiles"].to_numpy(dtype=object),
            "family": np.array(list(FAMILIES), dtype=object)[family],
            "target": label[np.where(null, -1, target)],
            "second_target": label[second],
            "null": null,
            "cliff": cliff,
            "ec50": np.where(null, np.nan, ec50),
            "slope": np.where(null, np.nan, slope),
            "emax": np.where(null, 0.0, emax),
            "onset": np.where(null, np.nan, rng.uniform(1.0, 6.0, n_drugs)),
        },
        index=names,
    )
    features = feature_table(family, a, b, rng).set_axis(names)
    return drugs, pd.DataFrame(weights, index=names, columns=targets), features


def draw_fading(
    drugs: pd.DataFrame, contexts: list[str], times: FloatArray, share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Choose which drugs lose their effect, from which measured time on (never the first), and in which contexts."""
    active = np.flatnonzero(~drugs["null"].to_numpy())
    n_fading = round(share * len(active)) if len(times) > 1 else 0
    rows = []
    for i in np.sort(rng.permutation(active)[:n_fading]):
        since = float(rng.choice(times[1:]))
        where = rng.permutation(len(contexts))[: int(rng.integers(1, len(contexts) + 1))]
        rows += [(drugs.index[i], contexts[j], since) for j in np.sort(where)]
    return pd.DataFrame(rows, columns=["drug", "context", "time"]).astype({"time": float})


def draw_combinations(drugs: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose pairs of active drugs, those that share a target first, and how they interact.

    On one target the occupancies of independent drugs combine as ``1 - (1 - a)(1 - b)``, so that any score of the
    effect along the target's programme shows Bliss independence exactly.
    """
    active = drugs.index[~drugs["null"]]
    pairs = list(combinations(active, 2))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    target = drugs["target"]
    pairs.sort(key=lambda pair: target[pair[0]] != target[pair[1]])
    kinds = list(INTERACTIONS)
    rows = [("+".join(p), *p, kinds[i % 3], INTERACTIONS[kinds[i % 3]]) for i, p in enumerate(pairs[:n])]
    return pd.DataFrame(rows, columns=["combination", "drug_a", "drug_b", "interaction", "sign"]).astype({"sign": int})


def occupancy(
    drugs: pd.DataFrame,
    weights: pd.DataFrame,
    fading: pd.DataFrame,
    drug: IntArray,
    dose: FloatArray,
    time: FloatArray | None,
    context: np.ndarray,
) -> FloatArray:
    """Return ``(conditions, targets)``: how much of each target's programme a drug alone drives in a condition.

    The weight on the target x Emax x Hill curve of the dose x (with times) onset ``1 - exp(-t / tau)``, of which
    :data:`FADED` is left where and since the response fades. ``drug`` are rows of ``drugs``; -1 stands for no drug.
    """
    here = drugs.iloc[np.maximum(drug, 0)]
    level = hill(dose, ec50=here["ec50"].fillna(1.0).to_numpy(), slope=here["slope"].fillna(1.0).to_numpy())
    level = np.where(drug < 0, 0.0, level * here["emax"].to_numpy())
    if time is not None:
        level = level * -np.expm1(-time / here["onset"].fillna(1.0).to_numpy())
        since = {(d, c): t for d, c, t in fading.itertuples(index=False)}
        start = np.array([since.get(key, np.inf) for key in zip(here.index, context, strict=True)])
        level = np.where(time >= start, FADED * level, level)
    return level[:, None] * weights.to_numpy()[np.maximum(drug, 0)]


def draw_patients(
    n_patients: int, contexts: list[str], targets: list[str], share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Deal patients to contexts and choose who expresses which target: this share of them for each target."""
    names = [f"P{i + 1:0{max(2, len(str(n_patients)))}d}" for i in range(n_patients)]
    table = pd.DataFrame({"context": [contexts[i % len(contexts)] for i in range(n_patients)]}, index=names)
    for target in targets:
        expressed = np.zeros(n_patients, dtype=bool)
        expressed[rng.permutation(n_patients)[: round(share * n_patients)]] = True
        table[target] = expressed
    return table


def responder_table(patients: pd.DataFrame, drugs: pd.DataFrame) -> pd.DataFrame:
    """One row per patient and active drug: does the patient express the drug's target?"""
    active = drugs[~drugs["null"]]
    rows = [
        (patient, patients.at[patient, "context"], drug, target, bool(patients.at[patient, target]))
        for drug, target in active["target"].items()
        for patient in patients.index
    ]
    return pd.DataFrame(rows, columns=["patient", "context", "drug", "target", "responder"])
