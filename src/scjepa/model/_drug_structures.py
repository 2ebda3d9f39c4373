"""Structures of drugs as DrugJEPA holds them: SMILES and features by name, and what the anchor and the network read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.pharma import fingerprints, parse_smiles

logger = logging.getLogger(__name__)

WIDTH = 64
"""Dimensions that the network reads of a fingerprint: a fixed random projection, so that nothing is fitted to any drug."""
PRINTS, FEATURES = "structure", "features"


class Structures:
    """What is known of drugs besides their effects.

    Parameters
    ----------
    smiles
        Name -> SMILES; what can't be parsed is named and left out.
    features
        Drugs x features of the user's, or None.
    kind
        Fingerprint, see :func:`scjepa.pharma.fingerprints`.

    Examples
    --------
    >>> from scjepa.model._drug_structures import Structures
    >>> known = Structures({"a": "CCO", "b": "CCN"})
    >>> sorted(known.tables()["structure"].index), known.of_network(["a", "c"]).shape
    (['a', 'b'], (2, 64))
    """

    def __init__(
        self, smiles: Mapping[str, str] | None = None, features: pd.DataFrame | None = None, kind: str = "morgan"
    ) -> None:
        self.kind, self.features = kind, features
        self.smiles: dict[str, str] = dict(parse_smiles(dict(smiles))) if smiles else {}

    def __bool__(self) -> bool:
        return bool(self.smiles) or self.features is not None

    def joined(self, smiles: Mapping[str, str]) -> Structures:
        """Return these with more structures; those that are known keep theirs."""
        return Structures({**dict(smiles), **self.smiles}, self.features, self.kind)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return what the anchor compares drugs by: fingerprint counts and the user's features, each if there."""
        out = {}
        if self.smiles:
            out[PRINTS] = fingerprints(self.smiles, cast(Any, self.kind), counts=True)
        if self.features is not None:
            out[FEATURES] = self.features
        return out

    def of_network(self, drugs: Iterable[str]) -> FloatArray | None:
        """Return ``(drugs, d)`` what the network reads of drugs, zeros of those nothing is known of; None if of none."""
        drugs, parts = list(drugs), []
        for name, table in self.tables().items():
            values = table.reindex(drugs).fillna(0.0).to_numpy(dtype=np.float64)
            if name == PRINTS:
                values = np.log1p(values)
                project = np.random.default_rng(0).normal(size=(values.shape[1], WIDTH))
                values = values @ project / np.sqrt(values.shape[1])
            parts.append(values)
        return np.concatenate(parts, axis=1).astype(np.float32) if parts else None

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"smiles": dict(self.smiles), "features": self.features, "kind": self.kind}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`; SMILES were parsed before."""
        new = cls(None, state["features"], state["kind"])
        new.smiles = dict(state["smiles"])
        return new


def smiles_of(obs: pd.DataFrame, drug_key: str, smiles_key: str, control: str, separator: str) -> dict[str, str]:
    """Read the SMILES of each drug off ``obs``; combinations have none of their own.

    Raises
    ------
    ValueError
        When a drug has two.
    """
    pairs = obs[[drug_key, smiles_key]].astype(object).dropna().drop_duplicates()
    pairs = pairs[~pairs[drug_key].astype(str).str.contains(separator, regex=False)]
    pairs = pairs[pairs[drug_key].astype(str) != control]
    names = pairs[drug_key].astype(str)
    twice = sorted(names[names.duplicated()].unique())
    if twice:
        raise ValueError(
            f"smiles_key={smiles_key!r}: {len(twice)} drugs have more than one SMILES: {some(twice)}. Give each one."
        )
    found = dict(zip(names, pairs[smiles_key].astype(str), strict=True))
    return {name: text for name, text in found.items() if text.strip() and text.lower() not in ("nan", "none", "-666")}
