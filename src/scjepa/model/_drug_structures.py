"""Structures of drugs as DrugJEPA holds them: SMILES and features by name, and what the anchor and the network read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_labels, some
from scjepa._types import FloatArray
from scjepa.pharma import DrugFeatures, descriptors, fingerprints, parse_smiles

logger = logging.getLogger(__name__)

WIDTH = 64
"""Dimensions that the network reads of a fingerprint: a fixed random projection, so that nothing is fitted to any drug."""
PRINTS, FEATURES, DESCRIPTORS = "structure", "features", "descriptors"


class Structures:
    """What is known of drugs besides their effects.

    Parameters
    ----------
    smiles
        Name -> SMILES; what can't be parsed is named and left out.
    features
        Drugs x features of the user's, or None.
    kind, radius, size, chirality
        Fingerprint, see :func:`scjepa.pharma.fingerprints`; occurrences are counted where they can be.
    descriptors
        Whether physico-chemical descriptors of the SMILES are read too (:func:`scjepa.pharma.descriptors`).

    Raises
    ------
    ValueError
        For features that are no finite numbers, drugs with two rows of them, an unknown fingerprint, and SMILES of which none
        can be read.

    Examples
    --------
    >>> from scjepa.model._drug_structures import Structures
    >>> known = Structures({"a": "CCO", "b": "CCN"})
    >>> sorted(known.tables()["structure"].index), known.of_network(["a", "c"]).shape
    (['a', 'b'], (2, 64))
    """

    def __init__(
        self,
        smiles: Mapping[str, str] | None = None,
        features: pd.DataFrame | None = None,
        kind: str = "morgan",
        *,
        radius: int = 2,
        size: int = 2048,
        chirality: bool = False,
        descriptors: bool = False,
    ) -> None:
        self.print_: dict[str, Any] = {"kind": kind, "radius": radius, "size": size, "chirality": chirality}
        self.print_["counts"] = kind != "maccs"  # its keys are yes or no
        DrugFeatures(**self.print_)  # a wrong kind or size is refused here
        self.descriptors = bool(descriptors)
        self.smiles: dict[str, str] = dict(parse_smiles(dict(smiles))) if smiles else {}
        self.features = None if features is None else features.set_axis(features.index.astype(str), axis=0)
        # numbers of the user's and descriptors have any unit: their scale is that of the first drugs, also for later ones
        self.scales: dict[str, DrugFeatures] = {}
        for name, table in self._numbers().items():
            self.scales[name] = DrugFeatures().fit(None, table)

    @property
    def kind(self) -> str:
        """Kind of fingerprint."""
        return str(self.print_["kind"])

    def _numbers(self) -> dict[str, pd.DataFrame]:
        """Return the features that have a scale, as they are."""
        out = {} if self.features is None else {FEATURES: self.features}
        if self.descriptors and self.smiles:
            out[DESCRIPTORS] = descriptors(self.smiles)
        return out

    def __bool__(self) -> bool:
        return bool(self.smiles) or self.features is not None

    def joined(self, smiles: Mapping[str, str]) -> Structures:
        """Return these with more structures; those that are known keep theirs."""
        new = self.of(smiles)
        new.smiles |= self.smiles
        new.features = self.features
        return new

    def of(self, smiles: Mapping[str, str]) -> Structures:
        """Return the structures of other drugs, described as these are."""
        new = Structures.from_state({**self.state(), "smiles": {}, "features": None})
        new.smiles = dict(parse_smiles(dict(smiles)))
        return new

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return what the anchor compares drugs by: fingerprints, the user's features and descriptors, each if there."""
        out = {}
        if self.smiles:
            out[PRINTS] = fingerprints(self.smiles, **self.print_)
        if self.features is not None:
            out[FEATURES] = self.features
        if self.descriptors and self.smiles:  # on their common scale, so that none drowns the others
            out[DESCRIPTORS] = self.scales[DESCRIPTORS].transform(None, descriptors(self.smiles))
        return out

    def of_network(self, drugs: Iterable[str]) -> FloatArray | None:
        """Return ``(drugs, d)`` what the network reads of drugs, zeros of those nothing is known of; None if of none."""
        drugs, parts = list(drugs), []
        for name, table in self.tables().items():
            if name == FEATURES:
                table = self.scales[name].transform(None, table)
            values = table.reindex(drugs).fillna(0.0).to_numpy(dtype=np.float64)
            if name == PRINTS:
                values = np.log1p(values)
                project = np.random.default_rng(0).normal(size=(values.shape[1], WIDTH))
                values = values @ project / np.sqrt(values.shape[1])
            parts.append(values)
        return np.concatenate(parts, axis=1).astype(np.float32) if parts else None

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "smiles": dict(self.smiles),
            "features": self.features,
            "print": dict(self.print_),
            "descriptors": self.descriptors,
            "scales": {name: scale.state() for name, scale in self.scales.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`; SMILES were parsed before."""
        new = cls()
        new.smiles, new.features = dict(state["smiles"]), state["features"]
        new.print_, new.descriptors = dict(state["print"]), bool(state["descriptors"])
        new.scales = {name: DrugFeatures.from_state(scale) for name, scale in state["scales"].items()}
        return new


def smiles_of(obs: pd.DataFrame, drug_key: str, smiles_key: str, control: str, separator: str) -> dict[str, str]:
    """Read the SMILES of each drug off ``obs``; combinations have none of their own.

    Raises
    ------
    ValueError
        When a drug has two.
    """
    columns = {"name": obs[drug_key].to_numpy(dtype=object), "smiles": obs[smiles_key].to_numpy(dtype=object)}
    pairs = pd.DataFrame(columns).dropna().astype(str).apply(lambda column: column.str.strip()).drop_duplicates()
    pairs = pairs[~pairs["name"].str.contains(separator, regex=False) & (pairs["name"] != control)]
    names = pairs["name"]
    twice = sorted(names[names.duplicated()].unique())
    if twice:
        raise ValueError(
            f"smiles_key={smiles_key!r}: {len(twice)} drugs have more than one SMILES: {some(twice)}. Give each one."
        )
    found = dict(zip(names, pairs["smiles"], strict=True))
    return {name: text for name, text in found.items() if text.strip() and text.lower() not in ("nan", "none", "-666")}


def check_named(features: pd.DataFrame, drugs: Iterable[str]) -> None:
    """Raise unless features are a table whose rows are named like drugs of the data; log how many drugs lack a row.

    Raises
    ------
    TypeError, ValueError
        For what is no DataFrame, and rows of which none is a drug of the data.
    """
    if not isinstance(features, pd.DataFrame):
        raise TypeError(f"drug_features is {type(features).__name__}: expected a DataFrame, drugs x features.")
    named, drugs = set(features.index.astype(str)), list(drugs)
    lacking = [drug for drug in drugs if drug not in named]
    if drugs and len(lacking) == len(drugs):
        raise ValueError(
            f"drug_features: no row is a drug of the data; rows are {some(list(map(str, features.index)))}, drugs {some(drugs)}."
            " Name the rows as in the column of drugs."
        )
    if lacking:
        logger.info("%d of %d drugs have no row in drug_features: %s.", len(lacking), len(drugs), some(lacking))


def check_patients(adata: AnnData, context_key: str, patient_key: str) -> None:
    """Raise unless each context belongs to one patient."""
    contexts = require_labels(adata.obs, context_key, "context_key")
    patients = require_labels(adata.obs, patient_key, "patient_key")
    per = patients.groupby(contexts.to_numpy()).nunique()
    if (per > 1).any():
        raise ValueError(
            f"patient_key={patient_key!r}: {int((per > 1).sum())} contexts have cells of several patients, for example "
            f"{per.idxmax()!r}. Make one column of both: adata.obs['context'] = adata.obs[{context_key!r}].astype(str) + "
            f"' ' + adata.obs[{patient_key!r}].astype(str), and pass it as context_key."
        )
