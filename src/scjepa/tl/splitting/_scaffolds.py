"""Which drugs share a Bemis-Murcko scaffold: from a column of SMILES, one structure a drug."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from scjepa._checks import require_column, some
from scjepa.tl.splitting._conditions import Conditions

logger = logging.getLogger(__name__)


def scaffold_of(smiles: str) -> str | None:
    """Return the rings of a molecule and what links them, the molecule itself if it has no rings, None if unreadable.

    Examples
    --------
    >>> from scjepa.tl.splitting._scaffolds import scaffold_of
    >>> scaffold_of("Cc1ccccc1"), scaffold_of("CC(=O)Oc1ccccc1C(=O)O"), scaffold_of("CCO"), scaffold_of("C1CC")
    ('c1ccccc1', 'c1ccccc1', 'CCO', None)
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
    except ImportError as error:
        raise ImportError(
            "kind='unseen_scaffold' reads molecules with RDKit, which is not installed. "
            "Run: pip install 'scjepa[drugs]'"
        ) from error
    with rdBase.BlockLogs():  # what can't be read is named in one line
        molecule = Chem.MolFromSmiles(smiles.strip())
    if molecule is None or not molecule.GetNumAtoms():
        return None
    return MurckoScaffoldSmiles(mol=molecule) or Chem.MolToSmiles(molecule, isomericSmiles=False)


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
    found = {drug: scaffold_of(smiles) for drug, smiles in zip(pairs["drug"], pairs["smiles"], strict=True)}
    scaffolds = {drug: scaffold for drug, scaffold in found.items() if scaffold is not None}
    if not scaffolds:
        raise ValueError(f"smiles_key={smiles_key!r}: no drug measured alone has a SMILES that RDKit can read.")
    unread = sorted({drug for action in conditions.actions for drug in action} - set(scaffolds))
    if unread:
        logger.info("%d drugs without a readable structure are 'unused': %s.", len(unread), some(unread))
    return scaffolds
