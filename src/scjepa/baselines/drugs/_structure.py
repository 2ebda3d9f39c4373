"""What structures say of drugs: kernels among them from similarities or features that are handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray

ALL = "mean of all"
"""Name of the mean of several similarities."""
SLACK = 1e-6
"""Similarities may miss symmetry, zero and one by so much."""


def tanimoto(a: FloatArray, b: FloatArray) -> FloatArray:
    r"""Return the Tanimoto similarity of count vectors (MinMax kernel), :math:`\sum \min(a, b) / \sum \max(a, b)`.

    Positive definite (Ralaivola et al. 2005, *Neural Networks* 18); of bits it is the share of common ones. Vectors without
    any count are like nothing.

    Parameters
    ----------
    a, b
        ``(m, features)`` and ``(n, features)``, not negative.

    Returns
    -------
    ``(m, n)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._structure import tanimoto
    >>> tanimoto(np.array([[2.0, 1.0], [0.0, 0.0]]), np.array([[2.0, 1.0], [1.0, 0.0]])).round(2).tolist()
    [[1.0, 0.33], [0.0, 0.0]]
    """
    used = b.any(0)
    size, other = a.sum(1), b.sum(1)
    b = b[:, used]
    least = np.array([np.minimum(row, b).sum(1) for row in a[:, used]]).reshape(len(a), len(b))
    most = size[:, None] + other - least
    return np.asarray(np.divide(least, most, out=np.zeros_like(least), where=most > 0))


def nearness(a: FloatArray, b: FloatArray, unit: float) -> FloatArray:
    """Return a similarity of real-valued features ``(m, n)``: a Gaussian of the distance, whose square has a unit.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._structure import nearness
    >>> nearness(np.array([[0.0]]), np.array([[0.0], [2.0]]), 4.0).round(2).tolist()
    [[1.0, 0.37]]
    """
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(square, 0) / unit))


@dataclass(frozen=True)
class Description:
    """One description of drugs, from which their similarity follows.

    Attributes
    ----------
    names
        Drugs.
    values
        ``(drugs, drugs)`` similarities, or ``(drugs, features)``.
    kind
        ``"similarity"``, ``"counts"`` (:func:`tanimoto`) or ``"real"`` (:func:`nearness`).
    center, spread, unit
        How real features are scaled.
    """

    names: tuple[str, ...]
    values: FloatArray
    kind: str
    center: FloatArray | None = None
    spread: FloatArray | None = None
    unit: float = 1.0

    @classmethod
    def of(cls, table: pd.DataFrame, name: str) -> Description:
        """Read features."""
        table = check_features(table, name)
        names, values = tuple(table.index), table.to_numpy(dtype=float)
        if (values >= 0).all():
            return cls(names, values, "counts")
        center, spread = values.mean(0), values.std(0)
        spread = np.where(spread > 0, spread, np.inf)
        x = (values - center) / spread
        square = ((x[:, None] - x[None]) ** 2).sum(2)
        apart = square[square > 0]
        return cls(names, values, "real", center, spread, float(np.median(apart)) if len(apart) else 1.0)

    def joined(self, more: Description) -> Description:
        """Return the description with more drugs; those that it has keep what it says of them."""
        if self.kind != more.kind and "similarity" in (self.kind, more.kind):
            raise ValueError("similarities and features don't mix under one name.")
        new = [i for i, name in enumerate(more.names) if name not in set(self.names)]
        if self.kind == "similarity":
            missing = sorted(set(self.names) - set(more.names))
            if missing:
                raise ValueError(
                    f"more similarities must be to all drugs that are known already; {some(missing)} are missing."
                )
            return more
        if self.values.shape[1] != more.values.shape[1]:
            raise ValueError(f"{more.values.shape[1]} features, but {self.values.shape[1]} are known of other drugs.")
        names = self.names + tuple(more.names[i] for i in new)
        values = np.vstack([self.values, more.values[new]])
        if self.kind == "counts" and (values < 0).any():
            raise ValueError("features: negative values, but those of other drugs are counts.")
        return replace(self, names=names, values=values)

    def between(self, a: Sequence[str], b: Sequence[str]) -> FloatArray:
        """Return the similarity of drugs ``(a, b)``; one that is not described is like itself only."""
        out = (np.array(a, dtype=object)[:, None] == np.array(b, dtype=object)[None]).astype(float)
        at = {name: i for i, name in enumerate(self.names)}
        here, there = ([(i, at[drug]) for i, drug in enumerate(drugs) if drug in at] for drugs in (a, b))
        if here and there:
            (i, p), (j, q) = (tuple(np.array(part) for part in zip(*pairs, strict=True)) for pairs in (here, there))
            same = out[np.ix_(i, j)]
            out[np.ix_(i, j)] = np.where(same > 0, 1.0, self._values(p, q))
        return out

    def _values(self, p: np.ndarray, q: np.ndarray) -> FloatArray:
        if self.kind == "similarity":
            return self.values[np.ix_(p, q)]
        a, b = self.values[p], self.values[q]
        if self.kind == "counts":
            return tanimoto(a, b)
        return nearness((a - self.center) / self.spread, (b - self.center) / self.spread, self.unit)


@dataclass(frozen=True)
class Structure:
    """What is known of the structures of drugs: one description or several, each under its name.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.baselines.drugs._structure import Structure
    >>> known = Structure.of(None, pd.DataFrame([[1, 1, 0], [1, 0, 0]], index=["b", "a"]))
    >>> known.between("features", ["a", "c"], ["a", "b", "c"]).tolist()
    [[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """

    parts: dict[str, Description]

    @classmethod
    def of(
        cls,
        similarity: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
        features: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
    ) -> Structure:
        """Read structures as they are handed in; see :class:`scjepa.baselines.DrugEffect`."""
        parts: dict[str, Description] = {}
        for name, table in _by_name(similarity, "similarity").items():
            table = check_similarity(table, name)
            parts[name] = Description(tuple(table.index), table.to_numpy(dtype=float), "similarity")
        for name, table in _by_name(features, "features").items():
            if name in parts:
                raise ValueError(f"both a similarity and features are called {name!r}. Give them different names.")
            parts[name] = Description.of(table, name)
        return cls(parts)

    def joined(self, more: Structure) -> Structure:
        """Return the structures with those of more drugs, described in the same ways or some of them."""
        if not more.parts or not set(more.parts) <= set(self.parts):
            raise ValueError(
                f"structures are described by {some(sorted(self.parts)) or 'nothing'}, those of more drugs by "
                f"{some(sorted(more.parts)) or 'nothing'}. Describe both in the same ways."
            )
        joined = lambda name, part: part.joined(more.parts[name]) if name in more.parts else part
        return Structure({name: joined(name, part) for name, part in self.parts.items()})

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def names(self) -> frozenset[str]:
        """Drugs with any description."""
        return frozenset(name for part in self.parts.values() for name in part.names)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the similarities: one a description, and the mean of all where there are several."""
        return (*self.parts, *[ALL] * (len(self.parts) > 1))

    def between(self, name: str, a: Sequence[str], b: Sequence[str]) -> FloatArray:
        """Return a similarity of drugs ``(a, b)``."""
        if name == ALL:  # what agrees in several descriptions is more surely alike
            return np.asarray(np.mean([part.between(a, b) for part in self.parts.values()], axis=0))
        return self.parts[name].between(a, b)

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            name: {k: list(v) if k == "names" else v for k, v in vars(part).items() if v is not None}
            for name, part in self.parts.items()
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Structure:
        """Rebuild from :meth:`state`."""
        return cls({name: Description(**{**part, "names": tuple(part["names"])}) for name, part in state.items()})


def _by_name(given: Any, name: str) -> dict[str, Any]:
    """Return tables by their names; one alone has the name of the argument."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return {name: given}
    if not given or ALL in given:
        raise ValueError(f"{name}={sorted(given)}: expected one table or more by name, none of them {ALL!r}.")
    return {str(key): table for key, table in given.items()}


def check_similarity(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a similarity as numbers; raise unless it is drug x drug, symmetric, within 0 and 1, with ones on its diagonal."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name}: expected a pandas DataFrame, drug x drug; found {type(table).__name__}.")
    table = _named(table, name)
    columns = [str(c) for c in table.columns]
    if set(columns) != set(table.index) or len(columns) != len(table):
        odd = sorted(set(columns) ^ set(table.index))
        raise ValueError(f"{name}: rows and columns must name the same drugs; only on one side: {some(odd)}.")
    table = table.set_axis(columns, axis=1)[list(table.index)]
    values = table.to_numpy(dtype=float)
    if (values < -SLACK).any() or (values > 1 + SLACK).any():
        raise ValueError(f"{name}: values from {values.min():.3g} to {values.max():.3g}; similarities lie in 0..1.")
    if np.abs(values - values.T).max(initial=0.0) > SLACK:
        raise ValueError(f"{name}: not symmetric. Give the similarity of every pair once, in both places.")
    if np.abs(values.diagonal() - 1).max(initial=0.0) > SLACK:
        bad = table.index[np.abs(values.diagonal() - 1) > SLACK]
        raise ValueError(f"{name}: {len(bad)} drugs are not like themselves (diagonal is not 1): {some(list(bad))}.")
    return pd.DataFrame(np.clip((values + values.T) / 2, 0.0, 1.0), index=table.index, columns=table.index)


def check_features(features: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return features as numbers; raise unless it is a table of finite ones with one row a drug."""
    if not isinstance(features, pd.DataFrame):
        raise TypeError(f"{name}: expected a pandas DataFrame, drug x features; found {type(features).__name__}.")
    if not features.shape[1]:
        raise ValueError(f"{name}: no columns. Give at least one feature, or None.")
    return _named(features, name)


def _named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table with drugs as strings and finite numbers, or raise."""
    index = [str(drug) for drug in table.index]
    twice = sorted({drug for drug in index if index.count(drug) > 1}) if len(set(index)) < len(index) else []
    if twice:
        raise ValueError(f"{name}: {len(twice)} drugs have more than one row: {some(twice)}. Keep one row a drug.")
    values = table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    bad = [index[i] for i in np.flatnonzero(~np.isfinite(values).all(1))]
    if bad:
        raise ValueError(
            f"{name}: {len(bad)} of {len(table)} drugs have values that are missing or no finite numbers: {some(bad)}. "
            "Leave them out: a drug without a structure is like itself only."
        )
    return pd.DataFrame(values, index=index, columns=table.columns)
