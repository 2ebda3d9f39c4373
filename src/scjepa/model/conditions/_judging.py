"""Left-out networks: trained without some of the training conditions, and asked for these, to weigh them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.baselines._noise import effect_noise
from scjepa.data import CellGroups, ConditionTable, EmbeddingCache
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._gate import Evidence, classes_of
from scjepa.model.conditions._network import (
    PREDICTOR_PLAN,
    SETS_PER_STEP,
    STEPS_PER_EPOCH,
    Coordinates,
    Vocabulary,
    set_batches,
)
from scjepa.module import SETS, JEPAModule
from scjepa.train import PlanConfig, epochs_for, seeded, train_side_by_side

GATE_STEPS = 200
"""Steps of each network that only judges: half of what the predictor gets, and one network in place of two."""
CONTEXT_FOLDS, CONDITION_FOLDS = 4, 2
MAX_CONTROLS = 256
"""Controls whose mean shift stands for a condition."""


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


@dataclass(frozen=True)
class Judging:
    """Everything that left-out networks need, and how they are trained and compared.

    Attributes
    ----------
    module
        A fresh module with the coordinates in place; its first predictor is trained, and then another's weights.
    anchors
        Fitted to ``table``.
    table
        Training conditions, first those of ``known``.
    known
        Their cells.
    cache
        All cells, embedded.
    vocabulary
        What the network can be told.
    seed
        Of everything drawn.
    """

    module: JEPAModule
    anchors: Anchors
    table: ConditionTable
    known: CellGroups
    cache: EmbeddingCache
    vocabulary: Vocabulary
    seed: int

    def evidence(self, max_epochs: int | None, plan_kwargs: dict | None) -> list[Evidence]:
        """Leave conditions out, train networks on the others, and compare them with the anchor on those left out."""
        folds = [f for f in (self.fold(left) for _, left in gate_folds(self.table)) if len(f.rows)]
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
                set_batches(
                    self.cache,
                    self.known.rows(~folds[n].left),
                    self.vocabulary,
                    folds[n].fitted,
                    steps=steps,
                    seed=self.seed + 1 + n,
                )
                for n in numbers
            ]
            with seeded(self.seed + 1 + numbers[0]):
                trained = train_side_by_side(self.module, SETS, config, batches, min(max_epochs or epochs, epochs))
            for n, weights in zip(numbers, trained, strict=True):
                self.module.load_state_dict(weights, strict=False)
                evidence.append((n, self.compare(folds[n], self.seed + 1 + n)))
        return [row for _, rows in sorted(evidence, key=lambda pair: pair[0]) for row in rows]

    def fold(self, left: np.ndarray) -> Fold:
        """Fit the anchors to the conditions that are not ``left`` out, and ask them for those that are."""
        keep, question = self.table.rows(~left), self.table.rows(left)
        anchors, space = self.anchors.without(keep), Coordinates(self.module)
        assert anchors.full is not None and anchors.base is not None
        trained = {name for action in keep.actions for name in action}
        classes = classes_of(question, keep.contexts.astype(str), trained, anchors.full)
        answers = (anchors.full.effects(question), anchors.base.effects(question), question.effects)
        effects = [space.effects(answer) for answer in answers]
        answered = np.isfinite(effects[0]).all(1) & np.isfinite(effects[1]).all(1)
        fitted = space.effects(np.nan_to_num(anchors.base.fitted_effects()))
        return Fold(left, np.flatnonzero(answered & (classes != "")), classes, trained, fitted, *effects)

    def compare(self, fold: Fold, seed: int) -> list[Evidence]:
        """Return what the anchor misses of the conditions left out, and what the network adds to it."""
        asked, rng, device = self.known.rows(fold.left), np.random.default_rng(seed), self.module.device
        told_of = set_batches(self.cache, asked, self.vocabulary, None, steps=1).per_condition
        left = self.table.rows(fold.left)
        variance = Coordinates(self.module).variance(self.table.variance)
        noise = effect_noise(variance, left.n_cells, left.n_controls)
        seen = torch.tensor([[float(name in fold.trained) for name in self.vocabulary.items]], device=device)
        out = []
        for i in fold.rows:
            cells = asked.controls[str(asked.contexts[i])]
            cells = np.sort(rng.choice(cells, min(MAX_CONTROLS, len(cells)), replace=False))
            told: dict[str, Any] = {k: v[[i]].to(device) for k, v in told_of.items() if v is not None}
            told["actions"] = told["actions"] * seen
            state = {k: v[None].to(device) for k, v in self.cache.gather(cells).items()}
            with torch.inference_mode():
                state_of = self.module.state(state["z"], state.get("h"))
                move = self.module.shift(state_of, **told)[0].mean(0).cpu().numpy()
            unit = "+".join(asked.actions[i])
            if fold.classes[i] != "combination":  # a combination is left out in all contexts at once
                unit = f"{unit} in {asked.contexts[i]}"
            added = fold.base[i] + move - fold.full[i]
            unsure = 0.0 if noise is None else float(noise[i])
            out.append(Evidence(str(fold.classes[i]), unit, fold.truth[i] - fold.full[i], added, unsure))
        return out


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
