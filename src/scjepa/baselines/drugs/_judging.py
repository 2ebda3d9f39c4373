"""Judging: what competing predictions say of rows left out as questions of a class are asked, and who is believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._noise import Fold, effect_noise, misfit
from scjepa.baselines.drugs._experts import ELABORATE, PROCESS, Experts
from scjepa.baselines.drugs._guard import weigh, weigh_cautiously
from scjepa.baselines.drugs._kernels import Spec, described
from scjepa.baselines.drugs._questions import folds, units
from scjepa.baselines.drugs._rows import Rows
from scjepa.baselines.drugs._structure import Structure
from scjepa.data import ConditionTable

LEAST_ROWS, LEAST_UNITS = 3, 2
"""Fewer left-out rows, or things they belong to, judge nothing."""
UNJUDGED = {
    "unseen": {"mean per context": 1.0},
    "unseen context": {"mean": 1.0},
    "dose": {PROCESS: 0.5, "linear": 0.5},
    "time": {PROCESS: 0.5, "linear": 0.5},
    "dose above": {PROCESS: 0.5, "nearest": 0.5},
    "dose below": {PROCESS: 0.5, "nearest": 0.5},
    "time beyond": {PROCESS: 0.5, "nearest": 0.5},
}
"""Weights where nothing can be left out: half the process and half the rule that fits; elsewhere that is the nearest dose
and time of each drug, or its mean."""
ENDS = ("dose above", "dose below", "time beyond")
"""Here the process alone predicts if nothing can be left out (one drug, say) and cells tell how noisy rows are: it knows that,
and a copy of the nearest row has all of the row's noise."""
NEAREST_OF_KIN = {
    "together": ("combination", "single"),
    "unseen context": ("unseen",),
    "dose": ("dose above", "dose below", "single"),
    "dose above": ("dose below", "dose", "single"),
    "dose below": ("dose above", "dose", "single"),
    "time": ("time beyond", "single"),
    "time beyond": ("time", "single"),
}
"""Whose weights a class takes when it can't be judged itself."""


NULL = {"unseen": ("mean per context", "mean"), "unseen context": ("mean",)}
"""What is predicted of molecules never given unless something is surely better: the first of these that there is."""
LOOSE = ("structure ridge",)
"""No candidates then: the process reads structures too, and shrinks them harder. With the ridge, which 15 drugs can make look
good, single folds of small sets exceed the mean's error by .3 % where they exceed it by .2 % without."""
FROM_ONE_PROFILE = {"no change": 0.3, "mean": 0.4}
"""Beside three tenths of each drug's effect, for new contexts after training in one by profiles: drugs can't be told from the
context's chance, and effects in full are a quarter worse than the mean on OP3 (benchmarks/README.md)."""


OTHERS = 0.05
"""What a drug left out in another context counts beside one left out in the context of the question. How many drugs were given
there says how far to follow drugs with like responses: with a fifth of them known their share is a fourth less on OP3."""


class Judge:
    """Training rows, and all predictions of them while some are left out.

    Parameters
    ----------
    rows
        Conditions.
    values
        ``(n, columns)`` coordinates of their effects, see :func:`coordinates`.
    noise
        ``(n,)`` relative noise variance, see :func:`row_noise`.
    structure
        What is known of drugs.
    width
        Number of genes.
    cells
        Whether cells tell how noisy rows are.
    """

    def __init__(
        self, rows: Rows, values: FloatArray, noise: FloatArray, structure: Structure, *, width: int, cells: bool
    ) -> None:
        self.rows, self.values, self.noise, self.structure = rows, values, noise, structure
        self.width, self.cells = width, cells
        self.mixture: list[tuple[Spec, float]] | None = None
        self._common = any(np.ptp(getattr(rows, axis)) > 0 for axis in rows.axes)
        self._cache: dict[Any, FloatArray] = {}
        self._all: Experts | None = None
        self._left: dict[str, tuple[np.ndarray, dict[str, FloatArray]]] = {}

    def choose(self) -> list[tuple[Spec, float]]:
        """Weigh kernels of the process by their evidence, and keep the choice."""
        self.mixture = self.experts().process.mixture
        return self.mixture

    def experts(self, train: np.ndarray | None = None) -> Experts:
        """Return all predictions fitted to some rows; to all rows once."""
        if train is None and self._all is not None:
            return self._all
        index = np.arange(len(self.rows)) if train is None else train
        found = Experts.fit(
            self.rows.take(index),
            self.values[index],
            self.noise[index],
            self.structure,
            common=self._common,
            mixture=self.mixture,
            cache=self._cache,
        )
        if train is None:
            self._all = found
        return found

    def folds(self, cls: str) -> list[Fold]:
        """Return what is left out for a class, see :func:`scjepa.baselines.drugs._questions.folds`."""
        return folds(self.rows, cls, self.structure.names)

    def left_out(self, cls: str) -> tuple[np.ndarray, dict[str, FloatArray]]:
        """Return the rows that can be left out as questions of a class, and what all predictions say of them."""
        if cls not in self._left:
            index: list[np.ndarray] = []
            said: dict[str, list[FloatArray]] = {}
            parts = self.folds(cls)
            same = next((c for c in self._left if alike(parts, self.folds(c))), None)
            if same is not None:  # without doses a drug elsewhere is a row left out
                self._left[cls] = self._left[same]
                return self._left[cls]
            for train, test in parts:
                index.append(test)
                for name, values in self.experts(train).predict(self.rows.take(test)).items():
                    said.setdefault(name, []).append(values)
            rows = np.concatenate(index) if index else np.zeros(0, int)
            self._left[cls] = rows, {name: np.vstack(parts) for name, parts in said.items()}
        return self._left[cls]

    def picks(self, classes: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return who is believed in each class; a class that can't be judged takes the weights of its kin."""
        out = {cls: self._pick(cls) for cls in classes}
        for cls, pick in out.items():
            if pick["basis"] == "none":
                kin = (out[c] for c in NEAREST_OF_KIN.get(cls, ()) if c in out)
                near = next((other for other in kin if other["basis"] == "left out"), None)
                if near is not None:
                    pick |= {"weights": dict(near["weights"]), "plain": near["plain"]}
        return out

    def _pick(self, cls: str) -> dict[str, Any]:
        index, predicted = self.left_out(cls)
        kernels = [[described(spec), weight] for spec, weight in self.mixture or ()]
        unit = units(self.rows, cls, index)
        if len(index) < LEAST_ROWS or len(np.unique(unit)) < LEAST_UNITS:
            rule = "nearest" if self.rows.axes else "mean per drug"
            fixed = dict(UNJUDGED.get(cls, {PROCESS: 0.5, rule: 0.5}))
            if cls == "context" and not self.cells and len(np.unique(self.rows.contexts)) < 2:
                fixed = {**FROM_ONE_PROFILE, rule: 0.3}
            elif cls in ENDS and self.cells:
                fixed = {PROCESS: 1.0}
            return {
                "weights": fixed,
                "error": float("nan"),
                "plain": next((name for name in reversed(fixed) if name != PROCESS), rule),
                "errors": {},
                "follow": 0.0,
                "kernels": kernels,
                "basis": "none",
                "n": 0,
            }
        names: list[str] = []
        for name in predicted:  # what is known of a drug never given is its mean, by several rules
            if not any(np.array_equal(predicted[name], predicted[other]) for other in names):
                names.append(name)
        wrong = np.stack([predicted[name] - self.values[index] for name in names], 1)
        plain = [name for name in names if name not in ELABORATE]
        products = wrong @ wrong.transpose(0, 2, 1)
        if cls in NULL:
            found = weigh_cautiously(products, names, plain, unit, self.width, NULL[cls], LOOSE)
        else:
            found = weigh(products, names, plain, unit, self.width)
        out = {**found._asdict(), "kernels": kernels, "basis": "left out", "n": len(index)}
        where = self.rows.contexts[index]
        if cls != "elsewhere" or len(np.unique(where)) < 2:
            return out
        out["contexts"], size = {}, np.zeros(len(index))
        for context in np.unique(where):
            mine = where == context
            count = np.where(mine, 1.0, OTHERS)
            weights = weigh(products * count[:, None, None] ** 2, names, plain, unit, self.width).weights
            out["contexts"][str(context)] = weights
            w = np.array([weights.get(name, 0.0) for name in names])
            size[mine] = np.sqrt(np.maximum(np.einsum("k,nkl,l->n", w, products[mine], w), 0))
        return out | {"error": float(size.mean()) / float(np.sqrt(max(self.width, 1)))}


def alike(one: list[Fold], other: list[Fold]) -> bool:
    """Return whether two classes leave the same rows out."""
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(np.array_equal(a, b) for p, q in pairs for a, b in zip(p, q, strict=True))


def row_noise(table: ConditionTable, rows: Rows, values: FloatArray) -> FloatArray:
    """Return the relative noise variance of rows, mean one: sampling noise and what plain sums miss; ones without cells."""
    noise = effect_noise(table.variance, table.n_cells, table.n_controls)
    if noise is None:
        return np.ones(len(table))
    parts = folds(rows, "single")
    judged = np.zeros(len(table), bool)
    for _, test in parts:
        judged[test] = True
    rest = misfit(rows.design, values @ values.T, noise, parts, judged)
    out = noise + (noise.mean() if rest is None else rest)
    return np.asarray(out / out.mean())


def coordinates(effects: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return rows in orthonormal axes of their own span, ``(n, r)``, and the axes ``(genes, r)``; exact but for rounding."""
    n, genes = effects.shape
    if genes <= n:
        return effects, np.eye(genes)
    value, vector = np.linalg.eigh(effects @ effects.T)
    keep = value > 1e-10 * max(float(value[-1]), 1e-300)
    if not keep.any():
        keep[-1] = True
    axes = (effects.T @ vector[:, keep]) / np.sqrt(np.maximum(value[keep], 1e-300))
    return effects @ axes, axes
