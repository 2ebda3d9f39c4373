"""Few drugs in few contexts: how a drug's effect is carried over to another context when hardly anything can be left out."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._base import condition_keys
from scjepa.baselines._contexts import FEW_CONTEXTS
from scjepa.baselines._kernel_effect import KernelEffect
from scjepa.data import ConditionTable

LEAST_CONTEXTS, FEW_DRUGS = 3, 3
"""With fewer contexts nothing can be left out; with more drugs their left-out errors choose well by themselves."""
SHARED = 0.4
"""An effect of which at least so much reproduces in other contexts is carried over in full, less in proportion."""
WIN = 0.5
"""By how many standard errors over left-out contexts looking at control profiles must be better."""


MOST = 3.0
"""What looks at control profiles is not scaled up further than this."""


class FewContexts:
    r"""The effect of a drug in a context never treated, from a few in which it was given.

    Left-out errors of three to eight contexts ask for shrinkage that other contexts don't bear out: effects come out smaller
    than those which simple transfer shows, and no nearer. So the size of transfer is kept, and left-out contexts only decide
    on what they can tell:

    - *which genes:* the mean over contexts, each gene times :math:`\tau^2/(\tau^2 + v/k)`, signal over signal and spread
      between the k contexts (empirical Bayes; half gene by gene, half of all genes together);
    - *which contexts:* the same genes of :class:`scjepa.baselines.KernelEffect`, which looks at control profiles and at fold
      changes, where that is better by half a standard error over contexts left out;
    - *how large:* as the mean over contexts, or as what was measured if that is smaller; of what looks at control profiles the
      sizes that different contexts get differ, and are scaled up together, by those of contexts left out;
    - *whether at all:* the share :math:`m^2/(m^2 + v/k)` of the mean that reproduces, from the slope of effects left out on
      the mean of the others; below two fifths the effect is shrunken in proportion, so that a drug without an effect keeps none.

    Parameters
    ----------
    table
        Measured conditions.
    kernel
        Fitted to them.
    choice
        What was chosen: ``looks`` (at control profiles), ``factor`` of its size, and ``gate`` by drug; by default it is
        chosen here.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._few import FewContexts
    >>> from scjepa.data import ConditionTable
    >>> effect = np.linspace(-1, 1, 20) + 0.1 * np.random.default_rng(0).normal(size=(4, 20))
    >>> table = ConditionTable((("A",),) * 4, np.array([*"wxyz"]), np.zeros((4, 20)), effect)
    >>> asked = ConditionTable((("A",),), np.array(["new"]), np.zeros((1, 20)))
    >>> bool(np.allclose(FewContexts.of(table).effects(asked), effect.mean(0), atol=0.05))
    True
    """

    def __init__(self, table: ConditionTable, kernel: KernelEffect, choice: dict[str, Any] | None = None) -> None:
        self.table, self.kernel = table, kernel
        self._keys = condition_keys(table)
        self.choice = self._choose() if choice is None else choice

    @classmethod
    def of(cls, table: ConditionTable) -> Self | None:
        """Return it for a table of few drugs in few contexts, else None."""
        contexts, drugs = len(set(table.contexts.astype(str))), len(table.vocabulary())
        several_times = table.time is not None and len(np.unique(table.time)) > 1
        if not LEAST_CONTEXTS <= contexts <= FEW_CONTEXTS or drugs > FEW_DRUGS or several_times:
            return None
        if (table.order > 1).any() or not table.effects.any():
            return None
        return cls(table, KernelEffect().fit(table))

    def again(self, table: ConditionTable) -> Self:
        """Return it for another table, with the choices kept."""
        return type(self)(table, self.kernel.again(table), self.choice)

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return effects in contexts never treated, ``(m, genes)``; NaN where no other context shows that very condition."""
        every = np.ones(len(self.table), bool)
        mean, weight = self._carried(condition_keys(query), [every] * len(query))
        return self._sized(mean, weight, self.kernel.effects(query), [a[0] for a in query.actions])

    def left_out(self) -> FloatArray:
        """Return effects of the training rows, predicted while their contexts were left out; NaN as in :meth:`effects`."""
        mean, weight = self._others()
        return self._sized(mean, weight, self.kernel.left_out_effects("context"), [a[0] for a in self.table.actions])

    def state(self) -> dict[str, Any]:
        """Return choices as plain data; the table is kept by who holds this."""
        return {"choice": dict(self.choice), "kernel": {k: v for k, v in self.kernel.state().items() if k != "table"}}

    # ---------------------------------------------------------------- how it is done
    def _sized(self, mean: FloatArray, weight: FloatArray, looking: FloatArray, drugs: list[str]) -> FloatArray:
        """Return what was chosen of the mean and of the kernel's effects, at the size that was chosen."""
        size = np.array([self.choice["factor"] * self.choice["gate"].get(drug, 1.0) for drug in drugs])[:, None]
        if self.choice["looks"]:
            return np.asarray(size * weight * np.where(np.isnan(mean), np.nan, looking))
        return np.asarray(size * as_large(weight * mean, mean))

    def _others(self) -> tuple[FloatArray, FloatArray]:
        contexts = self.table.contexts.astype(str)
        return self._carried(self._keys, [contexts != c for c in contexts])

    def _carried(self, keys: list[tuple[Any, ...]], usable: list[np.ndarray]) -> tuple[FloatArray, FloatArray]:
        """Return means over contexts ``(m, genes)`` and weights of genes; NaN where a condition is in no usable row."""
        effects = self.table.effects
        mean, weight = np.full((len(keys), effects.shape[1]), np.nan), np.ones((len(keys), effects.shape[1]))
        for i, (key, able) in enumerate(zip(keys, usable, strict=True)):
            rows = [j for j, other in enumerate(self._keys) if other == key and able[j]]
            if rows:
                mean[i] = effects[rows].mean(0)
                weight[i] = gene_weights(effects[rows])
        return mean, weight

    def _choose(self) -> dict[str, Any]:
        effects = self.table.effects
        mean, weight = self._others()
        looking = self.kernel.left_out_effects("context")
        judged = np.isfinite(mean).all(1) & np.isfinite(looking).all(1)
        drugs = np.array([a[0] for a in self.table.actions], dtype=object)
        choice: dict[str, Any] = {"looks": False, "factor": 1.0, "gate": {}}
        if not judged.any():
            return choice
        contexts = self.table.contexts.astype(str)
        grown = 1.0
        for drug in dict.fromkeys(drugs[judged]):
            mine = judged & (drugs == drug)
            slope, share = reproduced(effects[mine], mean[mine], len(set(contexts[mine])))
            choice["gate"][str(drug)] = float(min(1.0, share / SHARED))
            grown = min(grown, slope / share) if share > 0 else grown
        truth, plain, rows = effects[judged], mean[judged], (weight * looking)[judged]
        length = lambda rows: np.linalg.norm(rows, axis=1)
        measured = np.maximum(length(truth), 1e-12)
        transferred, shown = (max(float((length(of) / measured).mean()), 1e-12) for of in (plain, rows))
        wanted = min(transferred, 1.0)
        # of all contexts the mean is smaller, and is shrunken less, than of all but one
        every = self._carried(self._keys, [np.ones(len(self.table), bool)] * len(self.table))[0][judged]
        grown *= float((length(every) / measured).mean()) / transferred
        factor = {False: wanted / transferred, True: float(np.clip(grown * wanted / shown, 1.0, MOST))}
        said = {False: as_large((weight * mean)[judged], plain), True: rows}
        alike = {False: 1.0, True: transferred / shown}  # judged at one size: the smaller one would win by being small
        error = {x: np.log(np.maximum(length(truth - alike[x] * said[x]), 1e-12)) for x in said}
        _, unit = np.unique(contexts[judged], return_inverse=True)
        gain = np.bincount(unit, error[False] - error[True]) / np.bincount(unit)
        spread = float(gain.std(ddof=1)) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        looks = bool(gain.mean() > max(WIN * spread, 1e-9))
        return {**choice, "looks": looks, "factor": factor[looks]}


def as_large(rows: FloatArray, others: FloatArray) -> FloatArray:
    """Return rows as long as others; rows of zeros stay."""
    length, wanted = (np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, others))
    return np.asarray(rows * np.divide(wanted, length, out=np.ones_like(length), where=length > 0))


def gene_weights(effects: FloatArray) -> FloatArray:
    r"""Return how much of the mean of each gene over k contexts is believed, ``(genes,)``: :math:`\tau^2/(\tau^2 + v/k)`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._few import gene_weights
    >>> gene_weights(np.array([[2.0, 1.0, 0.0], [2.0, -1.0, 0.0], [2.0, 0.0, 0.0]])).round(2).tolist()
    [0.98, 0.73, 0.92]
    """
    k = len(effects)
    if k < 2:
        return np.ones(effects.shape[1])
    mean, spread = effects.mean(0), effects.var(0, ddof=1)
    spread = 0.5 * (spread + spread.mean()) / k
    signal = mean**2 - effects.var(0, ddof=1) / k
    tau = 0.5 * np.maximum(signal, 0) + 0.5 * max(float(signal.mean()), 0.0)
    return np.asarray(np.divide(tau, tau + spread, out=np.ones_like(tau), where=tau + spread > 0))


def reproduced(effects: FloatArray, others: FloatArray, k: int) -> tuple[float, float]:
    r"""Return the slope of effects on the mean of the k - 1 other contexts, and the share of the mean of all k that it means.

    With a common part :math:`m` and spread :math:`v` between contexts the slope is :math:`b = m^2/(m^2 + v/(k - 1))`, and the
    share :math:`m^2/(m^2 + v/k) = b/(b + (1 - b)(k - 1)/k)`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._few import reproduced
    >>> reproduced(np.ones((3, 4)), np.ones((3, 4)), 3), reproduced(np.ones((3, 4)), -np.ones((3, 4)), 3)
    ((1.0, 1.0), (0.0, 0.0))
    """
    size = float((others**2).sum())
    slope = float(np.clip((effects * others).sum() / size, 0, 1)) if size > 0 else 0.0
    return slope, slope / (slope + (1 - slope) * (k - 1) / k) if slope > 0 else 0.0
