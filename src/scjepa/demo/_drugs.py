"""Screens of drugs in the demo: conditions with doses, what is held out of them, and what chemists ask of a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

from scjepa import pl
from scjepa._checks import require_numbers
from scjepa._keys import Keys
from scjepa._labels import parse_label
from scjepa._scale import lognormalise
from scjepa.datasets import simulate_drug_screen
from scjepa.demo._messages import UserError, say
from scjepa.demo._results import Results
from scjepa.demo._screen import AT, TARGET_SUM, Condition, Drugs, Screen, read_screen
from scjepa.model import DrugJEPA
from scjepa.pharma import signature_score

CONDITION = "condition"
"""Column of labels with doses: scores and baselines know a perturbation and a context, no dose."""
LIBRARY = 200
"""Largest number of drugs that are screened."""


class Arguments(NamedTuple):
    """Columns of a file."""

    drug: str
    control: str
    smiles: str | None = None
    dose: str | None = None
    time: str | None = None
    context: str | None = None
    batch: str | None = None
    layer: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Arguments:
        """Read them off the command line."""
        return cls(args.drug_key, args.control, args.smiles_key, args.dose_key, args.time_key, args.context_key,
                   args.batch_key, args.layer)  # fmt: skip


def simulated_drugs(seed: int) -> Screen:
    """Simulate the screen of the demo without ``--data``."""
    adata = simulate_drug_screen(
        120, 10, 4, doses=(0.01, 0.1, 1.0, 10.0), n_combinations=2, n_cells=15, n_control=80, seed=seed
    )
    adata.X = lognormalise(adata.X, TARGET_SUM)
    return _labelled(adata, Drugs("drug", "smiles", "dose", None), "DMSO", "context", None)


def read_drugs(path: object, keys: Arguments) -> Screen:
    """Read a screen of drugs from a file; cells of one drug, dose and time are one condition."""
    more = {"--smiles-key": keys.smiles, "--dose-key": keys.dose, "--time-key": keys.time}
    screen = read_screen(
        str(path), keys.drug, keys.control, keys.context, keys.batch, keys.layer, label="--drug-key", more=more
    )
    obs = screen.adata.obs
    for argument, key in (("--dose-key", keys.dose), ("--time-key", keys.time)):
        if key is not None:
            obs[key] = require_numbers(obs, key, argument, minimum=0)
    return _labelled(
        screen.adata, Drugs(keys.drug, keys.smiles, keys.dose, keys.time), keys.control, keys.context, keys.batch
    )


def _labelled(adata: anndata.AnnData, drugs: Drugs, control: str, context: str | None, batch: str | None) -> Screen:
    """Write the column of conditions."""
    obs = adata.obs
    if drugs.dose_key is None and drugs.time_key is None:
        return Screen(adata, drugs.drug_key, control, context, batch, drugs)
    name = CONDITION
    while name in obs:
        name += "_"
    columns = [obs[k] for k in (drugs.dose_key, drugs.time_key) if k is not None]
    obs[name] = labels(obs[drugs.drug_key].astype(str), columns, control)
    return Screen(adata, name, control, context, batch, drugs)


def labels(names: Iterable[str], numbers: Iterable[Iterable[float]], control: str) -> list[str]:
    """Write drugs with their dose (and time): ``"A at 0.1"``, ``"A at 0.1+B at 0.1"``; controls stay as they are.

    Examples
    --------
    >>> from scjepa.demo._drugs import labels
    >>> labels(["DMSO", "B+A"], [[0.0, 0.5], [6.0, 24.0]], "DMSO")
    ['DMSO', 'A at 0.5 24+B at 0.5 24']
    """
    out = []
    for name, *values in zip(names, *numbers, strict=True):
        what = " ".join(f"{v:g}".replace("+", "") for v in values)  # "+" joins drugs
        out.append("+".join(f"{drug}{AT}{what}" for drug in parse_label(name, control)) or control)
    return out


# ---------------------------------------------------------------- what is held out


def default_drug_holdout(screen: Screen, seed: int) -> tuple[list[Condition], str]:
    """Choose what to hold out: a drug in a context (other contexts have it), and an inner dose of another drug.

    Without several contexts the dose alone, without doses a tenth of the drugs that have a structure.
    """
    known, rng, drugs = list(screen.conditions().index), np.random.default_rng(seed), screen.drugs
    assert drugs is not None
    table = pd.DataFrame({"condition": known, "context": [c for _, c in known]})
    table["drug"] = [screen.drug_of(label) for label, _ in known]
    table = table[~table["drug"].str.contains("+", regex=False)]
    held: list[Condition] = []
    said = []
    spread = table.groupby("drug")["context"].nunique()
    several = sorted(spread.index[spread > 1])
    if several and len(spread) > 1:
        drug = str(rng.choice(several))
        context = str(rng.choice(sorted(table.loc[table["drug"] == drug, "context"].unique())))
        held += table.loc[(table["drug"] == drug) & (table["context"] == context), "condition"].tolist()
        said.append(
            f"{drug} in {context}, which {spread[drug] - 1} other context{'s' * int(spread[drug] > 2)} measured"
        )
        table = table[table["drug"] != drug]
    if drugs.dose_key is not None and len(table):
        dose = screen.dose_of()
        table["dose"] = [dose[label] for label, _ in table["condition"]]
        inner = {d: sorted(set(part["dose"]))[1:-1] for d, part in table.groupby("drug") if part["dose"].nunique() > 2}
        if inner:
            drug = str(rng.choice(sorted(inner)))
            at = float(inner[drug][len(inner[drug]) // 2])
            held += table.loc[(table["drug"] == drug) & (table["dose"] == at), "condition"].tolist()
            said.append(f"{drug} at {at:g}, a dose between others")
    if not held:
        # the same drugs in every condition: those whose structure says something
        named = sorted(set(table["drug"]) & screen.with_structure())
        if len(named) < 2:
            raise UserError(
                "nothing can be held out by default: no drug in a second context, no dose between others, and no structures. "
                "Give --context-key, --dose-key, --smiles-key or --holdout."
            )
        chosen = sorted(rng.choice(named, max(1, round(0.1 * len(named))), replace=False).tolist())
        return table.loc[table["drug"].isin(chosen), "condition"].tolist(), f"{len(chosen)} of {len(named)} drugs"
    return held, "; ".join(said)


# ---------------------------------------------------------------- the model


def new_model(screen: Screen) -> DrugJEPA:
    """Set the model up and make it."""
    drugs = screen.drugs
    assert drugs is not None
    DrugJEPA.setup_anndata(
        screen.adata,
        drugs.drug_key,
        control=screen.control,
        smiles_key=drugs.smiles_key,
        dose_key=drugs.dose_key,
        time_key=drugs.time_key,
        context_key=screen.context_key,
        batch_key=screen.batch_key,
    )
    return DrugJEPA(screen.adata)


def predict_cells(model: DrugJEPA, screen: Screen, held: list[Condition], seed: int) -> list[anndata.AnnData]:
    """Predict each held-out condition from the controls of its context, labelled as the screen labels it."""
    drugs = screen.drugs
    assert drugs is not None
    known = screen.adata.obs.drop_duplicates(screen.perturbation_key).set_index(screen.perturbation_key)
    train = sorted(set(screen.conditions().index) - set(held))
    parts = []
    for label, context in held:
        asked: dict[str, Any] = {
            k: float(known.at[label, key]) for k, key in (("dose", drugs.dose_key), ("time", drugs.time_key)) if key
        }
        drug = str(known.at[label, drugs.drug_key])
        smiles = None
        if drugs.smiles_key is not None and "+" not in drug and drug not in model.known_.named:
            smiles = {drug: str(known.at[label, drugs.smiles_key])}
        part = model.predict_drug_response(drug, context=context or None, smiles=smiles, seed=seed, **asked)
        part.obs[screen.perturbation_key] = label
        record = part.uns[Keys.uns.root][Keys.uns.prediction]
        if "conditions" in record:
            record["conditions"] = record["conditions"].assign(perturbation=label)
        record["train"] = pd.DataFrame(train, columns=["perturbation", "context"]).rename(index=str)
        if not screen.context_key:
            record["train"]["context"] = "all"
        parts.append(part)
    return parts


# ---------------------------------------------------------------- what is asked next


def ask(model: DrugJEPA, screen: Screen, held: list[Condition], results: Results) -> None:
    """Write a dose curve and a screen for the first drug that was held out."""
    label, context = next(((p, c) for p, c in held if "+" not in p), held[0])
    drug, drugs = screen.drug_of(label), screen.drugs
    assert drugs is not None
    effects = _measured(screen, drug, context)
    doses = sorted({d for d in screen.dose_of().values() if d > 0}) if drugs.dose_key else []
    if drug not in model.known_.named and "+" not in drug:
        say(f"      {drug} is in no training cell: no dose curve, no screen")
        return
    where: dict[str, Any] = {"context": context} if context else {}
    if len(doses) >= 4 and drugs.time_key is None:
        signature = effects.loc[effects.index.max()]
        table = model.dose_response(drug, doses, signature=signature, **where)
        measured = pd.DataFrame(
            {"dose": effects.index, "response": signature_score(effects.to_numpy(), signature.to_numpy())}
        )
        if context:
            measured[str(screen.context_key)] = context
        with results.write("dose_response.csv") as path:
            table.to_csv(path, index=False)
        with results.write("dose_curve.csv") as path:
            table.attrs["curve"].to_csv(path, index=False)
        with results.write("dose_response.png") as path:
            pl.dose_response(table, measured=measured, save=path)
    library = sorted(n for n in model.known_.named if "+" not in n)[:LIBRARY]
    # what reverses the reverse of a drug's measured effect should be that drug, and those like it
    top = effects.loc[effects.index.max()]
    dose: dict[str, Any] = {"dose": float(effects.index.max())} if drugs.dose_key else {}
    ranked = model.screen_drugs(library, signature=-top, **where, **dose)
    with results.write("screen.csv") as path:
        ranked.to_csv(path, index=False)
    with results.write("screen.png") as path:
        pl.screen_ranking(ranked, highlight=[drug] if drug in set(ranked["name"]) else (), save=path)


def _measured(screen: Screen, drug: str, context: str) -> pd.DataFrame:
    """Return measured mean effects of a drug in a context: doses (0 where the screen has none) x genes."""
    obs, drugs = screen.adata.obs, screen.drugs
    assert drugs is not None
    here = np.ones(len(obs), dtype=bool) if not context else (obs[screen.context_key].astype(str) == context).to_numpy()
    name = obs[drugs.drug_key].astype(str).to_numpy()
    mean = lambda cells: np.asarray(screen.adata.X[cells].mean(0), dtype=np.float64).ravel()
    control = mean(here & (name == screen.control))
    dose = obs[drugs.dose_key].to_numpy(dtype=float) if drugs.dose_key else np.zeros(len(obs))
    treated = here & (name == drug)
    rows = {d: mean(treated & (dose == d)) - control for d in np.unique(dose[treated])}
    return pd.DataFrame.from_dict(rows, orient="index", columns=screen.adata.var_names)
