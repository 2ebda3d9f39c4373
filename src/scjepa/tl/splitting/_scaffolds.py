"""Which drugs share a Bemis-Murcko scaffold: from a column of SMILES, one structure a drug."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from scjepa._checks import require_column, some
from scjepa.pharma import scaffolds
from scjepa.tl.splitting._conditions import Conditions

logger = logging.getLogger(__name__)


def drug_scaffolds(obs: pd.DataFrame, smiles_key: str, conditions: Conditions) -> dict[str, str]:
    """Return the scaffold of every drug whose structure is known and can be read; the others are named in the log.

    Structures are taken from cells that got one drug alone: how combinations write two of them is nobody's standard.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a drug has two structures, or none can be read.
    """
    column = require_column(obs, smiles_key, "smiles_key")
    alone = {i: action[0] for i, action in enumerate(conditions.actions) if len(action) == 1}
    single = np.isin(conditions.of, list(alone))
    pairs = pd.DataFrame({"drug": [alone[i] for i in conditions.of[single]], "smiles": column.to_numpy()[single]})
    pairs = pairs.dropna().astype(str).drop_duplicates()
    twice = pairs.loc[pairs["drug"].duplicated(), "drug"].unique()
    if len(twice):
        found = pairs.loc[pairs["drug"] == twice[0], "smiles"].tolist()
        raise ValueError(
            f"smiles_key={smiles_key!r}: {some(twice)} with more than one structure, for example {some(found, 2)}. Give "
            "each drug one SMILES."
        )
    known = dict(zip(pairs["drug"], pairs["smiles"], strict=True))
    found = {str(drug): str(scaffold) for drug, scaffold in scaffolds(known).items()} if known else {}
    if not found:
        raise ValueError(f"smiles_key={smiles_key!r}: no drug measured alone has a SMILES that RDKit can read.")
    unread = sorted({drug for action in conditions.actions for drug in action} - set(found))
    if unread:
        logger.info("%d drugs without a readable structure are 'unused': %s.", len(unread), some(unread))
    return found
