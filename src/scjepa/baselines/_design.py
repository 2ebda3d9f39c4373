"""Actions as rows of numbers: multi-hot of perturbed genes, gene-and-kind block, dose, summed gene features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.data import ConditionTable


@dataclass(frozen=True)
class ActionDesign:
    """How the actions of a training table are written as numbers.

    Attributes
    ----------
    vocabulary
        Names of everything perturbed in training: the first block of columns.
    kinds
        ``(name, kind)`` pairs seen in training: the second block, empty when the table has no kinds.
    dose_unit
        ``log1p`` of the median training dose, or None when the table has no doses.
    """

    vocabulary: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...] = ()
    dose_unit: float | None = None

    @classmethod
    def of(cls, table: ConditionTable) -> ActionDesign:
        """Read the design off a training table."""
        kinds: set[tuple[str, str]] = set()
        if table.kind is not None:
            kinds = {(name, str(kind)) for a, kind in zip(table.actions, table.kind, strict=True) for name in a}
        unit = None
        if table.dose is not None:
            # a median dose of zero can't be a unit; doses are then used as log1p(dose)
            unit = float(np.log1p(np.nanmedian(np.asarray(table.dose, dtype=float)))) or 1.0
        return cls(table.vocabulary(), tuple(sorted(kinds)), unit)

    def rows(self, table: ConditionTable) -> FloatArray:
        """Return the ``(m, columns)`` design of a table; names outside the vocabulary are left out.

        Examples
        --------
        >>> import numpy as np
        >>> from scjepa.baselines._design import ActionDesign
        >>> from scjepa.data import ConditionTable
        >>> table = ConditionTable((("A",), ("A", "B")), np.array(["c", "c"]), np.zeros((2, 1)), dose=np.array([1, 3]))
        >>> ActionDesign.of(table).rows(table).round(2).tolist()
        [[0.63, 0.0], [1.26, 1.26]]
        """
        design = table.design(self.vocabulary)
        if self.kinds and table.kind is not None:
            column = {pair: j for j, pair in enumerate(self.kinds)}
            block = np.zeros((len(table), len(column)))
            for i, (action, kind) in enumerate(zip(table.actions, table.kind, strict=True)):
                for name in action:
                    if (name, str(kind)) in column:
                        block[i, column[name, str(kind)]] = 1.0
            design = np.hstack([design, block])
        if self.dose_unit is not None and table.dose is not None:
            if table.dose.ndim == 1:
                return np.asarray(design * (np.log1p(np.asarray(table.dose, dtype=float)) / self.dose_unit)[:, None])
            names = [*self.vocabulary, *(name for name, _ in self.kinds)]
            dose = table.dose_design(self.vocabulary)[:, [self.vocabulary.index(name) for name in names]]
            return np.asarray(design * (np.log1p(dose) / self.dose_unit))
        return design

    def known(self, table: ConditionTable) -> np.ndarray:
        """Return a boolean ``(m,)``: rows whose perturbed genes were all perturbed in training."""
        vocabulary = set(self.vocabulary)
        return np.array([vocabulary.issuperset(action) for action in table.actions], dtype=bool)


def summed_features(table: ConditionTable, names: Sequence[str], values: FloatArray) -> FloatArray:
    """Return ``(m, features)``: feature vectors of the perturbed genes, summed and scaled to length one.

    Genes without features add nothing; a row without any featured gene is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._design import summed_features
    >>> from scjepa.data import ConditionTable
    >>> table = ConditionTable((("A", "B"), ("C",)), np.array(["c", "c"]), np.zeros((2, 1)))
    >>> summed_features(table, ["A", "B"], np.array([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    asked = set(table.vocabulary())
    used = [j for j, name in enumerate(names) if name in asked]  # of an embedding of all genes, a few rows
    total = table.design([names[j] for j in used]) @ values[used]
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)


def check_features(features: pd.DataFrame) -> None:
    """Raise unless ``features`` is a table of finite numbers with one row a gene."""
    if not isinstance(features, pd.DataFrame):
        raise TypeError(f"features: expected a pandas DataFrame, gene x features; found {type(features).__name__}.")
    if not features.index.is_unique:
        twice = list(features.index[features.index.duplicated()].unique())
        raise ValueError(f"features: {len(twice)} genes have more than one row: {some(twice)}. Keep one row a gene.")
    bad = features.index[~np.isfinite(features.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)).all(1)]
    if len(bad):
        raise ValueError(
            f"features: {len(bad)} of {len(features)} genes have values that are missing or no finite numbers: "
            f"{some(list(bad))}. Drop or impute them."
        )
