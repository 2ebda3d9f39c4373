"""Kernels among rows of drug x context x dose x time, each written down as a small dict of plain values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.drugs._rows import Rows, Scale
from scjepa.baselines.drugs._structure import Structure

SHARES = (0.4, 0.8)
"""How much of what a drug does is told by its structure."""
LOCAL = (0.0, 0.6, 1.5)
"""How much of that is the context's own."""
EC50, DOSE_WIDTHS = (None, 0.0, 1 / 6, 1 / 3, 2 / 3), (0.8, 1.2, 1.8)
"""Half-maximal dose of the common gate, as a place in the measured range (None: no gate), and length scale in decades."""
TIME_POWERS, TIME_WIDTHS = (0.0, 0.5), (0.3, 0.6, 1.2)
"""How effects grow with time, and length scale in decades."""
PAIRS = (0.0, 0.5, 2.0)
"""How much pairs of drugs do beyond the sum, relative to one drug."""
PSEUDO_DRUGS = 30
"""So many drugs seen everywhere would weigh as much as the prior that contexts are equally alike."""
Spec = dict[str, Any]
"""``contexts``, ``ec50``, ``dose width``, ``time power``, ``time width``, ``structure``, ``share``, ``local``, ``pairs``."""


@dataclass(frozen=True)
class Frame:
    """What kernels of one training set need beside the rows.

    Attributes
    ----------
    contexts
        Labels seen in training.
    alike
        ``(contexts + 1, contexts + 1)`` learned covariance between contexts; the last one stands for any other.
    structure
        Similarities of drugs, of which the squares are kernels.
    scale
        Of doses.
    common
        Whether the curve that drugs have in common is a part of the kernel; else contexts have a fixed effect each.
    """

    contexts: tuple[str, ...]
    alike: FloatArray
    structure: Structure
    scale: Scale
    common: bool
    cache: dict[Any, FloatArray] = field(default_factory=dict)

    def place(self, rows: Rows) -> np.ndarray:
        """Return the number of each row's context."""
        at = {name: i for i, name in enumerate(self.contexts)}
        return np.array([at.get(name, len(at)) for name in rows.contexts], dtype=int)

    def kernel(self, spec: Spec, a: Rows, b: Rows) -> FloatArray:
        r"""Return the kernel between two sets of rows.

        .. math:: \sum_{d, e} \bigl[(c + (1 - k)\, I) \circ T + k\, S \circ (T + \ell\, H)\bigr] \circ D \circ E
            + p \sum_{\text{pairs}} I_2 \circ T \circ D_2 \circ E

        with the first sum over the drugs of either row (a set kernel), :math:`I` one for the same drug, :math:`S` the
        structures, :math:`T` among contexts, :math:`H` one within a context, and gates of dose and time; the second over
        pairs of drugs given together, :math:`I_2` one for the same pair: what they do beyond the sum.
        """
        out = self._of_drugs(spec, a, b)
        weight = spec.get("pairs", 0.0)
        return out + weight * self._of_pairs(spec, a, b) if weight else out

    def _of_drugs(self, spec: Spec, a: Rows, b: Rows) -> FloatArray:
        if a.doses is not None or b.doses is not None:  # each drug of a row at its own dose
            (a_items, a_row), (b_items, b_row) = a.items(), b.items()
            each = self._of_drugs(spec, a_items, b_items)
            return summed(summed(each, a_row, len(a)).T, b_row, len(b)).T
        share = spec["share"]
        here = a.contexts[:, None] == b.contexts[None]
        between = self._between(spec["contexts"], a, b, here)
        out = (1 - share) * (a.design[:, : len(b.drugs)] @ b.design.T)
        if self.common:
            out = out + np.outer(a.order, b.order)
        out = out * between
        if share:
            alike = a.design @ self._squared(spec["structure"], a.drugs, b.drugs) @ b.design.T
            out = out + share * alike * (between + spec["local"] * here)
        return np.asarray(out * self._gate(spec, a, b))

    def _of_pairs(self, spec: Spec, a: Rows, b: Rows) -> FloatArray:
        (a_rows, a_drugs, a_dose), (b_rows, b_drugs, b_dose) = a.pairs(), b.pairs()
        same = (a_drugs[:, None] == b_drugs[None]).all(2)
        here = a_rows.contexts[:, None] == b_rows.contexts[None]
        out = same * self._between(spec["contexts"], a_rows, b_rows, here)
        if spec["dose width"] and a.dose is not None:
            for k in (0, 1):  # a gate of each drug's dose
                column = lambda rows, dose, drugs, k=k: replace(
                    rows, design=np.eye(len(rows.drugs))[drugs[:, k]], dose=dose[:, k], doses=None, time=None
                )
                out = out * self._gate(spec, column(a_rows, a_dose, a_drugs), column(b_rows, b_dose, b_drugs))
        if spec["time width"] and a.time is not None:
            bare = lambda rows: replace(rows, dose=None, doses=None)
            out = out * self._gate(spec, bare(a_rows), bare(b_rows))
        row = lambda rows: np.repeat(np.arange(len(rows)), (rows.order * (rows.order - 1) / 2).astype(int))
        return summed(summed(out, row(a), len(a)).T, row(b), len(b)).T

    def _squared(self, name: str, a: tuple[str, ...], b: tuple[str, ...]) -> FloatArray:
        if a is not b:
            return self.structure.between(name, a, b) ** 2
        if name not in self.cache:
            self.cache[name] = self.structure.between(name, a, b) ** 2
        return self.cache[name]

    def _between(self, name: str, a: Rows, b: Rows, here: np.ndarray) -> FloatArray:
        if name == "learned":
            return self.alike[np.ix_(self.place(a), self.place(b))]
        return 0.5 + 0.5 * here if name == "half" else np.ones(here.shape)

    def _gate(self, spec: Spec, a: Rows, b: Rows) -> FloatArray | float:
        out: FloatArray | float = 1.0
        if spec["dose width"] and a.dose is not None:
            x, y = self.scale(a), self.scale(b)
            assert x is not None and y is not None
            out = out * _gaussian(x, y, spec["dose width"])
            if spec["ec50"] is not None:
                hill = lambda v: 1 / (1 + 10 ** (spec["ec50"] - v))
                out = out * np.outer(hill(x), hill(y))
        if spec["time width"] and a.time is not None:
            assert b.time is not None
            out = out * _gaussian(a.time, b.time, spec["time width"])
            out = out * 10 ** (spec["time power"] * (a.time[:, None] + b.time))
        return out


def summed(values: FloatArray, row: np.ndarray, n: int) -> FloatArray:
    """Return ``(n, ...)`` sums of the rows of ``values`` that belong together.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._kernels import summed
    >>> summed(np.array([[1.0], [2.0], [3.0]]), np.array([0, 0, 2]), 3).ravel().tolist()
    [3.0, 0.0, 3.0]
    """
    out = np.zeros((n, *values.shape[1:]))
    np.add.at(out, row, values)
    return out


def _gaussian(x: FloatArray, y: FloatArray, width: float) -> FloatArray:
    return np.asarray(np.exp(-((x[:, None] - y) ** 2) / (2 * width**2)))


def gates(rows: Rows, scale: Scale) -> tuple[list[Spec], list[Spec]]:
    """Return candidates for the gate of dose and for that of time; one that does nothing where there is nothing to gate."""
    of_dose, of_time = [{"ec50": None, "dose width": 0.0}], [{"time power": 0.0, "time width": 0.0}]
    x = scale(rows)
    if x is not None and np.ptp(x) > 0:
        at = [None if f is None else float(x.min() + f * np.ptp(x)) for f in EC50]
        of_dose = [{"ec50": e, "dose width": w} for e, w in itertools.product(at, DOSE_WIDTHS)]
    if rows.time is not None and np.ptp(rows.time) > 0:
        of_time = [{"time power": p, "time width": w} for p, w in itertools.product(TIME_POWERS, TIME_WIDTHS)]
    return of_dose, of_time


def described(spec: Spec) -> str:
    """Return a kernel in words.

    Examples
    --------
    >>> from scjepa.baselines.drugs._kernels import described
    >>> described(
    ...     {
    ...         "contexts": "learned",
    ...         "ec50": None,
    ...         "dose width": 0.0,
    ...         "time width": 0.0,
    ...         "share": 0.4,
    ...         "structure": "morgan",
    ...         "local": 0.6,
    ...     }
    ... )
    'contexts learned; structure morgan .4 + .6 local'
    """
    number = lambda v: f"{v:.2g}".replace("0.", ".", 1) if abs(v) < 1 else f"{v:.2g}"
    said = [f"contexts {spec['contexts']}"]
    if spec["dose width"]:
        gate = "" if spec["ec50"] is None else f"EC50 {number(10 ** spec['ec50'])}, "
        said.append(f"dose {gate}{number(spec['dose width'])} decades")
    if spec["time width"]:
        grows = f"power {number(spec['time power'])}, " if spec["time power"] else ""
        said.append(f"time {grows}{number(spec['time width'])} decades")
    if spec["share"]:
        own = f" + {number(spec['local'])} local" if spec["local"] else ""
        said.append(f"structure {spec['structure']} {number(spec['share'])}{own}")
    else:
        said.append("no structure")
    if spec.get("pairs"):
        said.append(f"pairs {number(spec['pairs'])}")
    return "; ".join(said)


def context_covariance(scores: FloatArray, drug: np.ndarray, context: np.ndarray, n_contexts: int) -> FloatArray:
    """Return how alike contexts are, ``(contexts, contexts)`` of mean one on the diagonal, from drugs measured in both.

    The mean over components (each scaled) of the products of one drug's scores in two contexts, shrunk to one common value
    by ``PSEUDO_DRUGS`` drugs; the diagonal is what two factors have in common with the others, so that what does not
    reproduce is left to the noise.

    Parameters
    ----------
    scores
        ``(n, components)`` of rows with one drug.
    drug, context
        ``(n,)`` numbers.
    n_contexts
        How many contexts there are.
    """
    out = np.ones((n_contexts, n_contexts))
    keys, row = np.unique(drug * n_contexts + context, return_inverse=True)
    count = np.bincount(row, minlength=len(keys)).astype(float)
    scale = np.sqrt((scores**2).mean(0)) if len(scores) else np.ones(scores.shape[1])
    if not len(keys) or not (scale > 0).any():
        return out
    mean = np.zeros((len(keys), int((scale > 0).sum())))
    np.add.at(mean, row, scores[:, scale > 0] / scale[scale > 0])
    n_drugs = int(drug.max()) + 1
    score, there = np.zeros((n_drugs, n_contexts, mean.shape[1])), np.zeros((n_drugs, n_contexts))
    score[keys // n_contexts, keys % n_contexts] = mean / count[:, None]
    there[keys // n_contexts, keys % n_contexts] = 1
    pairs = there.T @ there
    other = ~np.eye(n_contexts, dtype=bool) & (pairs > 0)
    if not other.any():
        return out
    flat = score.transpose(1, 0, 2).reshape(n_contexts, -1)
    product = flat @ flat.T / mean.shape[1] / np.maximum(pairs, 1)
    common = max(float((product * pairs)[other].sum() / pairs[other].sum()), 1e-3)
    out = np.where(other, (pairs * product + PSEUDO_DRUGS * common) / (pairs + PSEUDO_DRUGS), common)
    for _ in range(10):
        value, vector = np.linalg.eigh(out)
        value[:-2] = 0
        low_rank = (vector * np.maximum(value, 0)) @ vector.T
        np.fill_diagonal(out, np.clip(low_rank.diagonal(), 0.3 * common, 5 * common))
    value, vector = np.linalg.eigh(out)
    out = (vector * np.maximum(value, 0)) @ vector.T
    return np.asarray(out / out.diagonal().mean())


def with_any_other(alike: FloatArray) -> FloatArray:
    """Append a context that was never seen: as like each other one as these are on average."""
    n = len(alike)
    out = np.empty((n + 1, n + 1))
    out[:n, :n] = alike
    out[n, :n] = out[:n, n] = alike.mean(0)
    out[n, n] = alike.mean()
    return out


def structure_specs(first: Spec, structures: Sequence[str], local: bool) -> list[Spec]:
    """Return a kernel without structure and those with it, for one choice of contexts and gates."""
    without = {**first, "structure": "", "share": 0.0, "local": 0.0}
    more = itertools.product(SHARES, structures, LOCAL if local else LOCAL[:1])
    return [without, *({**first, "share": k, "structure": s, "local": own} for k, s, own in more)]
