"""The conditions that a split divides: perturbation x context x dose, numbered in one order, and their table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from scjepa._checks import require_labels, require_member, require_numbers
from scjepa._labels import Action, parse_labels
from scjepa.data._groups import SINGLE_CONTEXT
from scjepa.tl.splitting._schemes import TRAIN, group_name


class Conditions(NamedTuple):
    """One entry per condition (perturbation x context x dose); ``of`` is the condition of each cell, -1 for controls."""

    actions: list[Action]
    labels: list[str]
    contexts: np.ndarray
    doses: np.ndarray | None
    of: np.ndarray


def number_conditions(
    obs: pd.DataFrame,
    kind: str,
    perturbation_key: str,
    control: str,
    separator: str,
    context_key: str | None,
    dose_key: str | None,
) -> Conditions:
    """Number the conditions, sorted by action, context and dose."""
    if kind in ("unseen_context", "drug_in_context", "perturbench_transfer") and context_key is None:
        raise ValueError(f"kind={kind!r} needs context_key: the obs column of contexts, for example cell types.")
    if kind.endswith("_dose") and dose_key is None:
        raise ValueError(f"kind={kind!r} needs dose_key: the obs column of doses.")
    column = require_labels(obs, perturbation_key, "perturbation_key")
    parsed = parse_labels(sorted(set(column)), control, separator)
    require_member(control, [label.strip() for label in parsed], "control", where="the perturbation labels")
    labels: dict[Action, str] = {}
    for label, action in parsed.items():
        labels.setdefault(action, label)
    known = sorted(labels)
    number = {action: i for i, action in enumerate(known)}
    perturbed = column.map({label: bool(action) for label, action in parsed.items()}).to_numpy(dtype=bool)
    if not perturbed.any():
        raise ValueError(f"adata has no perturbed cells: every label in obs[{perturbation_key!r}] is a control.")
    obs, column = obs[perturbed], column[perturbed]  # controls need no dose
    frame = pd.DataFrame({"action": column.map({label: number[action] for label, action in parsed.items()}).to_numpy()})
    frame["context"] = SINGLE_CONTEXT
    if context_key is not None:
        frame["context"] = require_labels(obs, context_key, "context_key").to_numpy()
    frame["dose"] = 0.0 if dose_key is None else require_numbers(obs, dose_key, "dose_key", minimum=0)
    of = np.full(len(perturbed), -1)
    of[perturbed] = frame.groupby(["action", "context", "dose"], sort=True).ngroup().to_numpy()
    distinct = frame.drop_duplicates().sort_values(["action", "context", "dose"])
    actions = [known[i] for i in distinct["action"]]
    return Conditions(
        actions,
        [labels[action] for action in actions],
        distinct["context"].to_numpy(dtype=object),
        None if dose_key is None else distinct["dose"].to_numpy(dtype=float),
        of,
    )


def parts_table(conditions: Conditions, parts: np.ndarray) -> pd.DataFrame:
    """One row per condition and part."""
    perturbed = conditions.of >= 0
    counts = pd.DataFrame({"condition": conditions.of[perturbed], "split": parts[perturbed]})
    counts = counts.groupby(["condition", "split"], sort=True).size().rename("n_cells").reset_index()
    row = counts["condition"].to_numpy()
    seen = {g for i in row[counts["split"] == TRAIN] for g in conditions.actions[i]}
    columns = {
        "perturbation": [conditions.labels[i] for i in row],
        "context": conditions.contexts[row],
        **({} if conditions.doses is None else {"dose": conditions.doses[row]}),
        "split": counts["split"].astype(str).to_numpy(),
        "n_cells": counts["n_cells"].to_numpy(),
        "group": [group_name(conditions.actions[i], seen) for i in row],
    }
    return pd.DataFrame(columns)
