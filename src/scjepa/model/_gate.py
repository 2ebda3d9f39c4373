"""How far the network is trusted: weighed on training conditions that it, and its anchor, were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect
from scjepa.baselines._base import table_state
from scjepa.baselines._noise import effect_noise
from scjepa.data import CellGroups, ConditionTable, EmbeddingCache, ExpressionMatrix
from scjepa.model._perturb_training import PREDICTOR_PLAN, STEPS_PER_EPOCH, PerturbTrainingMixin
from scjepa.module import SETS, JEPAModule
from scjepa.train import PlanConfig, epochs_for, seeded, train_side_by_side

logger = logging.getLogger(__name__)

GATE_STEPS = 200
"""Steps of each network that only judges: half of what the predictor gets, and one network in place of two."""
CONTEXT_FOLDS, CONDITION_FOLDS = 4, 2
SPREAD = 0.4
"""Standard deviation of a gate before anything is known of it; the mean is 0, the anchor alone."""
LEAST_GATE, MOST_GATE = 0.2, 0.7
"""Smaller gates are closed: what they buy is less than what is known of them. Larger ones are not believed: left-out
networks correct an anchor that lacks what was left out too, and so find more to do than the network in use will."""
LEAST_GAIN = 0.05
"""A network that takes less than so much off the anchor's squared error of left-out conditions is not asked."""
FEW = 5
"""With fewer left-out conditions the anchors' own left-out errors decide whether the network is asked in known contexts."""
SETS_PER_STEP = 4
"""Conditions per step, as in the training of the predictor."""
MAX_CONTROLS = 256
"""Controls whose mean shift stands for a condition."""
CLASSES = ("combination", "single", "context")


class Evidence(NamedTuple):
    """A left-out condition in coordinates: what the anchor misses, and what the network adds to it.

    ``noise`` is the expected squared length of the sampling noise in what is missing (0: unknown).
    """

    cls: str
    unit: str
    missing: FloatArray
    added: FloatArray
    noise: float = 0.0


class Fold(NamedTuple):
    """One way of leaving conditions out; effects in coordinates.

    Attributes
    ----------
    left
        ``(n,)`` mask of the training conditions left out.
    rows
        Which of those left out are compared.
    classes
        Class of question of each one left out.
    trained
        Names that remain.
    fitted
        In-sample predictions, of the remaining conditions, by the anchor that the network corrects.
    full, base, truth
        Effects of those left out: by the anchor, by the one that the network corrects, and measured.
    """

    left: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    trained: set[str]
    fitted: FloatArray
    full: FloatArray
    base: FloatArray
    truth: FloatArray


class Gate(NamedTuple):
    """How far the network is trusted, and what that bought on left-out conditions.

    Attributes
    ----------
    share
        Of the network's correction that counts, 0 to 1.
    gain
        Share of the anchor's squared error, sampling noise taken off, that this removed; NaN where nothing was left out.
    """

    share: float
    gain: float


def weigh(evidence: list[Evidence]) -> Gate:
    r"""Return the share of the network's correction that serves left-out conditions best.

    Least squares of what the anchor misses on what the network adds. A condition weighs
    :math:`1/\sqrt{e_i + \bar e}`, with :math:`e_i` its squared error less the sampling noise in it and :math:`\bar e` their mean:
    neither the largest conditions nor those that are all noise decide alone. Rows of one unit (a combination in all its
    contexts, else a condition) are not independent, so the standard error is a jackknife over units. The estimate is
    shrunken toward 0, the anchor alone, by its precision; 0 also where nothing could be left out, where no error is left
    besides noise, and where the network takes less than 5 % off it.

    Parameters
    ----------
    evidence
        Left-out conditions of one class.

    Examples
    --------
    Two conditions of which the network adds exactly what is missing; then a third where it adds the opposite.

    >>> import numpy as np
    >>> from scjepa.model._gate import Evidence, weigh
    >>> good = [Evidence("context", unit, np.ones(2), np.ones(2)) for unit in "ab"]
    >>> weigh(good).share, round(weigh(good).gain, 2)
    (0.7, 0.91)
    >>> weigh([*good, Evidence("context", "c", np.ones(2), -np.ones(2))]).share, weigh([]).share
    (0.0, 0.0)
    """
    units = sorted({e.unit for e in evidence})
    if len(units) < 2:  # one unit has no spread: nothing says how far it can be trusted
        return Gate(0.0, float("nan"))
    length = np.array([e.missing @ e.missing for e in evidence])
    noise = np.array([e.noise for e in evidence])
    inner = np.array([e.missing @ e.added for e in evidence])
    square = np.array([e.added @ e.added for e in evidence])
    clear = np.maximum(length - noise, 0)
    if not (clear.mean() > 0 and square.sum() > 0):
        return Gate(0.0, 0.0)
    weight = 1 / np.sqrt(clear + clear.mean())
    of = np.array([units.index(e.unit) for e in evidence])
    sums = np.array([np.bincount(of, weight * part, len(units)) for part in (inner, square)])
    total = sums.sum(1, keepdims=True)
    estimate = float(total[0, 0] / total[1, 0])
    without = (total - sums)[0] / np.maximum((total - sums)[1], 1e-12)
    k = len(units)
    variance = float((k - 1) / k * ((without - without.mean()) ** 2).sum())
    share = min(max(estimate * SPREAD**2 / (SPREAD**2 + variance), 0.0), MOST_GATE)
    if share < LEAST_GATE:
        return Gate(0.0, 0.0)
    left = length - 2 * share * inner + share**2 * square
    gain = 1 - (weight * (left - noise)).sum() / max(float((weight * (length - noise)).sum()), 1e-12)
    return Gate(share, float(gain)) if gain >= LEAST_GAIN else Gate(0.0, 0.0)


def gate_folds(table: ConditionTable) -> list[tuple[str, np.ndarray]]:
    """Return what is left out, as pairs of ``"context"`` or ``"condition"`` and a boolean mask of rows.

    Contexts are left out in at most four folds. Conditions in two: combinations with all their rows, singles only
    where they were measured in another context too, since a gene seen nowhere else is another question.
    """
    contexts = table.contexts.astype(str)
    names = np.unique(contexts)
    rng = np.random.default_rng(0)
    folds = []
    if len(names) > 1:
        dealt = np.array_split(rng.permutation(names), min(CONTEXT_FOLDS, len(names)))
        folds += [("context", np.isin(contexts, part)) for part in dealt]
    units: dict[Any, list[int]] = {}
    for i, action in enumerate(table.actions):
        units.setdefault(action if len(action) > 1 else i, []).append(i)
    elsewhere: dict[Any, set[str]] = {}
    for action, context in zip(table.actions, contexts, strict=True):
        elsewhere.setdefault(action, set()).add(context)
    able = [rows for key, rows in units.items() if isinstance(key, tuple) or len(elsewhere[table.actions[rows[0]]]) > 1]
    order = rng.permutation(len(able))
    for start in range(min(CONDITION_FOLDS, len(able)) if len(able) > 1 else 0):
        mask = np.zeros(len(table), bool)
        mask[[i for u in order[start::CONDITION_FOLDS] for i in able[u]]] = True
        folds.append(("condition", mask))
    return [(way, mask) for way, mask in folds if 0 < mask.sum() < len(mask)]


class GateMixin(PerturbTrainingMixin):
    """Weighs the network of :class:`PerturbJEPA` against its anchor, per class of question."""

    def _weigh_network(
        self, matrix: ExpressionMatrix, known: CellGroups, max_epochs: int | None, plan_kwargs: dict | None, seed: int
    ) -> None:
        """Set ``gates_`` from networks trained without some of the training conditions."""
        wanted = self.init_params_["non_kwargs"]["gate"]
        self.gate_gains_ = {}
        if self.reference_ is not None:  # the reference's network is kept, and was judged on more
            self.gates_ = dict(self.reference_["gates"])
            return
        if wanted != "auto" or self.anchor_ is None:
            self.gates_ = dict.fromkeys(CLASSES, 1.0 if wanted == "auto" else float(wanted))
            return
        evidence = self._left_out_evidence(self._cache(matrix), known, max_epochs, plan_kwargs, seed)
        judged = {cls: sum(e.cls == cls for e in evidence) for cls in CLASSES}
        found = {cls: weigh([e for e in evidence if e.cls == cls]) for cls in CLASSES}
        self.gates_ = {cls: gate.share for cls, gate in found.items()}
        for cls in ("combination", "single"):
            own = self._contexts_matter(cls)
            if own and judged[cls] < FEW:
                self.gates_[cls] = 0.0
            self.gates_[f"trained {cls}"] = float(not own)
        self.gate_gains_ = {cls: gate.gain for cls, gate in found.items() if self.gates_[cls] > 0}
        bought = lambda cls: f", {self.gate_gains_[cls]:.0%} off its error" if cls in self.gate_gains_ else ""
        logger.info(
            "share of the network's correction that counts, and what it takes off the anchor's squared error of left-out "
            "conditions (noise taken off): %s.",
            "; ".join(f"{cls} {self.gates_[cls]:.2f} ({judged[cls]} left out{bought(cls)})" for cls in CLASSES),
        )

    def _contexts_matter(self, cls: str) -> bool:
        """Whether effects are a context's own, so that in known contexts the anchor which the network corrects is worse.

        The network corrects the anchor that does not look at contexts. Its left-out error is compared with that of the
        one that does; where no left-out combination can tell, singles do.
        """
        full, base = self.anchor_, self.base_anchor_
        if full is base or not (isinstance(full, KernelEffect) and isinstance(base, KernelEffect)):
            return False
        own, shared = (anchor.picks_[cls]["error"] for anchor in (full, base))
        if not np.isfinite([own, shared]).all():
            own, shared = (anchor.picks_["single"]["error"] for anchor in (full, base))
        return bool(own < 0.95 * shared)

    def _left_out_evidence(
        self, cache: EmbeddingCache, known: CellGroups, max_epochs: int | None, plan_kwargs: dict | None, seed: int
    ) -> list[Evidence]:
        """Leave conditions out, train networks on the others, and compare them with the anchor on those left out."""
        folds = [f for f in (self._fold(left) for _, left in gate_folds(self._table)) if len(f.rows)]
        module = self._build_module().to(self.device)
        module.space.load_state_dict(self.module.space.state_dict())
        module.predictors = module.predictors[:1]
        config = PlanConfig.from_kwargs(PREDICTOR_PLAN, plan_kwargs)
        alike: dict[int, list[int]] = {}  # networks are trained together when their batches have the same shape
        for number, fold in enumerate(folds):
            alike.setdefault(min(int((~fold.left).sum()), SETS_PER_STEP), []).append(number)
        evidence: list[tuple[int, list[Evidence]]] = []
        for numbers in alike.values():
            most = max(int((~folds[n].left).sum()) for n in numbers)
            steps = max(STEPS_PER_EPOCH, -(-most // SETS_PER_STEP))
            epochs = epochs_for(GATE_STEPS, steps)
            batches = [
                self._set_batches(cache, known.rows(~folds[n].left), folds[n].fitted, steps=steps, seed=seed + 1 + n)
                for n in numbers
            ]
            with seeded(seed + 1 + numbers[0]):
                trained = train_side_by_side(module, SETS, config, batches, min(max_epochs or epochs, epochs))
            for n, weights in zip(numbers, trained, strict=True):
                module.load_state_dict(weights, strict=False)
                evidence.append((n, self._compare(module, cache, known, folds[n], seed + 1 + n)))
        return [row for _, rows in sorted(evidence, key=lambda pair: pair[0]) for row in rows]

    def _fold(self, left: np.ndarray) -> Fold:
        """Fit the anchors to the conditions that are not ``left`` out, and ask them for those that are."""
        keep, question = self._table.rows(~left), self._table.rows(left)
        full, base = (self._refitted(anchor, keep) for anchor in (self.anchor_, self.base_anchor_))
        trained = {name for action in keep.actions for name in action}
        classes = classes_of(question, keep.contexts.astype(str), trained)
        effects = [self._in_coordinates(e) for e in (full.effects(question), base.effects(question), question.effects)]
        answered = np.isfinite(effects[0]).all(1) & np.isfinite(effects[1]).all(1)
        fitted = self._in_coordinates(np.nan_to_num(base.fitted_effects()))
        return Fold(left, np.flatnonzero(answered & (classes != "")), classes, trained, fitted, *effects)

    def _compare(
        self, module: JEPAModule, cache: EmbeddingCache, known: CellGroups, fold: Fold, seed: int
    ) -> list[Evidence]:
        """Return what the anchor misses of the conditions left out, and what the network adds to it."""
        asked, rng = known.rows(fold.left), np.random.default_rng(seed)
        told_of = self._set_batches(cache, asked, None, steps=1).per_condition
        left = self._table.rows(fold.left)
        noise = effect_noise(self._variance_of_coordinates(), left.n_cells, left.n_controls)
        seen = torch.tensor([[float(name in fold.trained) for name in self.actions_]], device=self.device)
        out = []
        for i in fold.rows:
            cells = asked.controls[str(asked.contexts[i])]
            cells = np.sort(rng.choice(cells, min(MAX_CONTROLS, len(cells)), replace=False))
            told = {k: v[[i]].to(self.device) for k, v in told_of.items() if v is not None}
            told["actions"] = told["actions"] * seen
            state = {k: v[None].to(self.device) for k, v in cache.gather(cells).items()}
            with torch.inference_mode():
                move = module.shift(module.state(state["z"], state.get("h")), **told)[0].mean(0).cpu().numpy()
            unit = "+".join(asked.actions[i])
            if fold.classes[i] != "combination":  # a combination is left out in all contexts at once
                unit = f"{unit} in {asked.contexts[i]}"
            added = fold.base[i] + move - fold.full[i]
            unsure = 0.0 if noise is None else float(noise[i])
            out.append(Evidence(str(fold.classes[i]), unit, fold.truth[i] - fold.full[i], added, unsure))
        return out

    def _variance_of_coordinates(self) -> FloatArray | None:
        """Return the variance within conditions in the predictor's coordinates, ``(d,)``; None if unknown.

        That of genes is pooled; their correlations within conditions are left out, which lengths are not sensitive to.
        """
        if self._table.variance is None:
            return None
        space = self.module.space
        return space.loadings.cpu().numpy().astype(np.float64) ** 2 @ self._table.variance / float(space.scale) ** 2

    def _in_coordinates(self, effects: FloatArray) -> FloatArray:
        """Return effects ``(m, genes)`` in the predictor's coordinates, ``(m, d)``."""
        space = self.module.space
        return effects @ space.loadings.cpu().numpy().T.astype(np.float64) / float(space.scale)

    def _refitted(self, anchor: Baseline | None, table: ConditionTable) -> Baseline:
        """Fit an anchor to fewer conditions; the kernel anchor keeps its choice of candidates."""
        assert anchor is not None
        if isinstance(anchor, KernelEffect):
            return KernelEffect.from_state({**anchor.state(), "table": table_state(table)})
        fresh = self._new_anchor()
        assert fresh is not None
        return fresh.fit(table)

    def _gates(self, question: ConditionTable) -> FloatArray:
        """Return the share ``(m,)`` of the network's correction for each question.

        Conditions that the network was trained on get all of it, unless effects are a context's own: then the anchor
        that looks at contexts knows them better.
        """
        separator = self._setup["separator"]
        labels, contexts = self.trained_on_["perturbation"], self.trained_on_["context"].astype(str)
        classes = classes_of(question, contexts, {name for label in labels for name in label.split(separator)})
        seen = set(zip(labels, contexts, strict=True))
        asked = zip((separator.join(a) for a in question.actions), question.contexts.astype(str), strict=True)
        return np.array([
            self.gates_.get(f"trained {cls}", 1.0) if pair in seen else self.gates_.get(cls, 0.0)
            for pair, cls in zip(asked, classes, strict=True)
        ])  # fmt: skip


def classes_of(question: ConditionTable, contexts: Iterable[str], names: Iterable[str]) -> np.ndarray:
    """Return the class of each question ``(m,)``, given the contexts and the names that were trained on.

    ``""`` stands where a gene was never perturbed: the network is not asked then.
    """
    out = np.where(question.order >= 2, "combination", "single").astype(object)
    out[~np.isin(question.contexts.astype(str), list(map(str, contexts)))] = "context"
    known = set(names)
    out[[not known.issuperset(action) for action in question.actions]] = ""
    return out


def check_gate(gate: float | str) -> None:
    """Raise a :class:`ValueError` unless ``gate`` is ``"auto"`` or a number from 0 to 1."""
    number = isinstance(gate, (int, float)) and not isinstance(gate, bool) and 0 <= gate <= 1
    if not (number or gate == "auto"):
        raise ValueError(f"gate={gate!r}: expected 'auto' or a number from 0 (anchor alone) to 1 (network in full).")
