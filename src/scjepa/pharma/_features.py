"""Features of drugs for a model: fingerprints joined with the user's own, on one scale that is kept for later drugs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.pharma._molecules import Fingerprint, Smiles, fingerprint_rows, parse_smiles

logger = logging.getLogger(__name__)


class DrugFeatures:
    """Features of drugs: fingerprints, the user's own (targets, pathways, vectors of a language model), or both joined.

    Each block is scaled by the drugs it was fitted on, so that neither drowns the other: fingerprints by their root mean
    square norm, columns of the user to mean 0 and variance 1 and then by their number. What is not known of a drug is
    the mean of the block.

    Parameters
    ----------
    kind, radius, size, counts, chirality
        The fingerprint, as in :func:`fingerprints`.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pharma import DrugFeatures
    >>> targets = pd.DataFrame({"HDAC": [1.0, 0.0]}, index=["a", "b"])
    >>> made = DrugFeatures(size=64).fit({"a": "CCO", "b": "CCN"}, targets)
    >>> made.transform({"new": "CCCO"}).shape  # its targets are not known
    (1, 65)
    """

    def __init__(
        self,
        kind: str = "morgan",
        *,
        radius: int = 2,
        size: int = 2048,
        counts: bool = False,
        chirality: bool = False,
    ) -> None:
        self.fingerprint = Fingerprint(kind, radius, size, counts, chirality).checked()
        self.print_mean_: FloatArray | None = None
        self.print_norm_: float = 1.0
        self.columns_: list[str] | None = None
        self.column_mean_: FloatArray | None = None
        self.column_scale_: FloatArray | None = None

    def fit(self, smiles: Smiles | None = None, features: pd.DataFrame | None = None) -> DrugFeatures:
        """Learn the scale of each block.

        Parameters
        ----------
        smiles
            Structures by name; None for no fingerprints.
        features
            Drugs x features, numbers; None for none of the user's.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            If neither is given, a feature is missing or no number, a drug occurs twice, or as in :func:`parse_smiles`.
        """
        if smiles is None and features is None:
            raise ValueError("neither smiles nor features is given: give at least one of them.")
        self.print_mean_, self.print_norm_ = None, 1.0
        self.columns_ = self.column_mean_ = self.column_scale_ = None
        if smiles is not None:
            prints = fingerprint_rows(parse_smiles(smiles), self.fingerprint).astype(np.float64)
            self.print_mean_ = prints.mean(0)
            self.print_norm_ = float(np.sqrt((prints**2).sum(1).mean())) or 1.0
        if features is not None:
            values = _numbers(features)
            spread = values.std(0)
            varied = spread > 1e-9 * np.maximum(np.abs(values).max(0), 1e-300)
            self.columns_ = [str(c) for c in features.columns]
            self.column_mean_ = values.mean(0)
            self.column_scale_ = np.where(varied, spread, np.inf) * np.sqrt(max(int(varied.sum()), 1))
        return self

    def transform(self, smiles: Smiles | None = None, features: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return the features of drugs, those of training or others.

        Parameters
        ----------
        smiles, features
            As in :meth:`fit`. A drug may be in one of them only; columns are found by name.

        Returns
        -------
        DataFrame, drugs x features, float32: first the drugs of ``smiles`` that can be read, then the others.

        Raises
        ------
        ValueError
            If it was not fitted, a block is given that was not there then, or a column is missing.
        """
        if self.print_mean_ is None and self.columns_ is None:
            raise ValueError("these DrugFeatures were not fitted: call fit(smiles, features) first.")
        if smiles is None and features is None:
            raise ValueError("neither smiles nor features is given: give at least one of them.")
        for given, fitted, name in ((smiles, self.print_mean_, "smiles"), (features, self.columns_, "features")):
            if given is not None and fitted is None:
                raise ValueError(f"{name} is given, but these DrugFeatures were fitted without: fit them with {name}.")
        molecules = pd.Series(dtype=object) if smiles is None else parse_smiles(smiles)
        own = pd.DataFrame(index=pd.Index([], dtype=object)) if features is None else features
        names = pd.Index(list(dict.fromkeys([*map(str, molecules.index), *map(str, own.index)])), name="drug")
        blocks: list[pd.DataFrame] = []
        if self.print_mean_ is not None:
            rows = np.tile(self.print_mean_, (len(names), 1))
            if len(molecules):
                rows[names.get_indexer(molecules.index.map(str))] = fingerprint_rows(molecules, self.fingerprint)
            _tell(names.difference(molecules.index.map(str), sort=False), len(names), "structure")
            blocks.append(pd.DataFrame(rows / self.print_norm_, index=names, columns=self.fingerprint.columns()))
        if self.columns_ is not None and self.column_mean_ is not None and self.column_scale_ is not None:
            rows = np.zeros((len(names), len(self.columns_)))
            if features is not None:
                table = features.rename(columns=str)
                lost = [c for c in self.columns_ if c not in table]
                if lost:
                    raise ValueError(
                        f"features lacks {len(lost)} of the {len(self.columns_)} columns fitted on: {some(lost)}."
                    )
                values = _numbers(table[self.columns_])
                rows[names.get_indexer(own.index.map(str))] = (values - self.column_mean_) / self.column_scale_
            _tell(names.difference(own.index.map(str), sort=False), len(names), "features of yours")
            blocks.append(pd.DataFrame(rows, index=names, columns=self.columns_))
        return pd.concat(blocks, axis=1).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Return what was learned as plain data; :meth:`from_state` makes the same object of it."""
        return {
            "fingerprint": dict(self.fingerprint._asdict()),
            "print_mean": self.print_mean_,
            "print_norm": self.print_norm_,
            "columns": self.columns_,
            "column_mean": self.column_mean_,
            "column_scale": self.column_scale_,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DrugFeatures:
        """Make the object that :meth:`state` described."""
        made = cls(**state["fingerprint"])
        made.print_mean_, made.print_norm_ = state["print_mean"], state["print_norm"]
        made.columns_, made.column_mean_ = state["columns"], state["column_mean"]
        made.column_scale_ = state["column_scale"]
        return made


def _numbers(features: pd.DataFrame) -> FloatArray:
    """Return the values, one row per drug, or raise a :class:`ValueError`."""
    if not isinstance(features, pd.DataFrame) or not features.size:
        shape = getattr(features, "shape", type(features).__name__)
        raise ValueError(f"features is {shape}: expected a DataFrame, drugs x features, with at least one of each.")
    twice = features.index[features.index.duplicated()].unique()
    if len(twice):
        raise ValueError(f"features has {len(twice)} drugs more than once: {some(list(twice))}. Keep one row each.")
    try:
        values = features.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        wrong = [c for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
        raise ValueError(f"features has columns that are no numbers: {some(wrong)}. Encode them.") from error
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"features has {int(bad.sum())} missing or infinite values, in {int(bad.any(1).sum())} drugs "
            f"({some(list(features.index[bad.any(1)]))}). Fill them, for example by the column's mean, or drop these rows."
        )
    return values


def _tell(missing: pd.Index, n: int, what: str) -> None:
    if len(missing):
        logger.info("%d of %d drugs have no %s and get the mean: %s.", len(missing), n, what, some(list(missing)))
