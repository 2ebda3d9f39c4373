"""The network that corrects the anchor: what it is told of conditions, and the stages that train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scjepa._labels import Action
from scjepa._types import FloatArray
from scjepa.data import (
    CellGroups,
    ConditionSampler,
    EmbeddingCache,
    ExpressionMatrix,
    SetBatches,
    Split,
    as_matrix,
    condition_means,
    dose_matrix,
)
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._design import Question
from scjepa.model.core import BLOCK, encode
from scjepa.module import JOINT, SETS, JEPAModule
from scjepa.train import CollapseMonitor, PlanConfig, Stage, epochs_for

PREDICTOR_STEPS = 400
"""Steps of the predictor stage when ``max_epochs`` is not given."""
STEPS_PER_EPOCH = 20
SETS_PER_STEP, SET_SIZE = 4, 32
PREDICTOR_PLAN = PlanConfig(lr=2e-3, weight_decay=0.05, betas=(0.9, 0.999), schedule="onecycle", gradient_clip=0.0)


@dataclass(frozen=True)
class Vocabulary:
    """What the network can be told: items and kinds, in the order of their columns and codes."""

    items: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    def rows(self, actions: Sequence[Action], known: frozenset[str] | None = None) -> FloatArray:
        """Return multi-hot actions ``(m, items)``, of items in ``known`` only, if that is given."""
        column = {name: j for j, name in enumerate(self.items) if known is None or name in known}
        out = np.zeros((len(actions), len(self.items)), np.float32)
        for i, action in enumerate(actions):
            out[i, [column[name] for name in action if name in column]] = 1.0
        return out

    def doses(self, dose: FloatArray, actions: Sequence[Action]) -> FloatArray:
        """Return doses as the network is told: one a row ``(m,)``, or one for each item ``(m, items)``."""
        return dose if dose.ndim == 1 else dose_matrix(dose, actions, self.items)

    def codes(self, kinds: np.ndarray | None) -> np.ndarray | None:
        """Return the codes ``(m,)`` of kinds."""
        return None if kinds is None else np.array([self.kinds.index(str(k)) for k in kinds], dtype=int)

    def tell(self, question: Question, known: frozenset[str], device: torch.device) -> dict[str, torch.Tensor]:
        """Return what the predictor is told of one question, as tensors of one row."""
        told = {"actions": torch.from_numpy(self.rows([question.action], known))}
        if question.dose is not None:
            told["dose"] = torch.from_numpy(self.doses(as_matrix([question.dose]), [question.action])).float()
        if question.time is not None:
            told["time"] = torch.tensor([question.time]).float()
        if question.kind is not None:
            told["kind"] = torch.tensor([self.kinds.index(question.kind)])
        return {name: tensor.to(device) for name, tensor in told.items()}


@dataclass(frozen=True)
class Coordinates:
    """The predictor's coordinates of a module, for arrays: effects in, effects out."""

    module: JEPAModule

    @property
    def loadings(self) -> FloatArray:
        """``(d, genes)``."""
        return self.module.space.loadings.cpu().numpy()

    @property
    def scale(self) -> float:
        """Common scale."""
        return float(self.module.space.scale)

    def effects(self, effects: FloatArray) -> FloatArray:
        """Return effects ``(m, genes)`` in coordinates, ``(m, d)``, in double precision."""
        return effects @ self.loadings.T.astype(np.float64) / self.scale

    def variance(self, variance: FloatArray | None) -> FloatArray | None:
        """Return the variance ``(d,)`` of coordinates, given that of genes; None if unknown.

        Correlations of genes within conditions are left out, which lengths are not sensitive to.
        """
        return None if variance is None else self.loadings.astype(np.float64) ** 2 @ variance / self.scale**2

    def cache(self, matrix: ExpressionMatrix, unit: float) -> EmbeddingCache:
        """Encode every cell once."""
        loadings = self.loadings.T
        z = np.asarray(matrix.values @ loadings) - self.module.space.mean.cpu().numpy() @ loadings
        h = None
        if self.module.predictor_input != "z":
            h = np.empty((len(z), self.module.encoder.n_latent), np.float32)
            for start, block in enumerate(encode(self.module, matrix, unit)):
                h[start * BLOCK : (start + 1) * BLOCK] = block
        return EmbeddingCache((z / self.scale).astype(np.float32), h)


def set_batches(
    cells: EmbeddingCache | ExpressionMatrix,
    groups: CellGroups,
    vocabulary: Vocabulary,
    shift: FloatArray | None,
    *,
    n_sets: int = SETS_PER_STEP,
    **options: Any,
) -> SetBatches:
    """Return sets of the conditions in ``groups`` with everything the predictor is told of them."""
    return SetBatches(
        ConditionSampler(groups, n_sets=n_sets, set_size=SET_SIZE),
        cells,
        vocabulary.rows(groups.actions),
        shift=shift,
        dose=None if groups.dose is None else vocabulary.doses(groups.dose, groups.actions),
        kind=vocabulary.codes(groups.kind),
        time=groups.time,
        **options,
    )


def split_groups(groups: CellGroups, split: Split) -> tuple[CellGroups, CellGroups | None]:
    """Return training and validation conditions; validation sets borrow training controls where they have none."""
    n = sum(map(len, split))
    train, valid = np.zeros((2, n), bool)
    train[split.train], valid[split.validation] = True, True
    borrowed = valid.copy()
    for control in groups.controls.values():
        if not valid[control].any():
            borrowed[control] = train[control]
    validation = groups.within(valid, borrowed) if len(split.validation) else None
    return groups.within(train), validation if validation is not None and len(validation) else None


def predictor_stage(
    cache: EmbeddingCache,
    known: CellGroups,
    validation: CellGroups | None,
    vocabulary: Vocabulary,
    shifts: tuple[FloatArray | None, FloatArray | None],
    *,
    max_epochs: int | None,
    plan_kwargs: dict | None,
    seed: int,
    rows: dict[str, torch.Tensor] | None,
) -> Stage:
    """Return stage 2: sets of cached cells under actions.

    Parameters
    ----------
    cache
        All cells.
    known, validation
        Conditions that train and validate.
    vocabulary
        What the network can be told.
    shifts
        The anchor's shifts of both, in coordinates; None without an anchor.
    max_epochs, plan_kwargs, seed
        As in ``train``.
    rows
        See :class:`scjepa.train.Stage`.
    """
    steps = max(STEPS_PER_EPOCH, -(-len(known) // SETS_PER_STEP))
    valid = None
    if validation is not None:
        valid = set_batches(cache, validation, vocabulary, shifts[1], steps=10, seed=seed, fixed=True)
    return Stage(
        "predictor",
        SETS,
        PlanConfig.from_kwargs(PREDICTOR_PLAN, plan_kwargs),
        set_batches(cache, known, vocabulary, shifts[0], steps=steps, seed=seed),
        max_epochs or epochs_for(PREDICTOR_STEPS, steps),
        valid,
        rows=rows,
    )


def joint_stage(
    matrix: ExpressionMatrix,
    known: CellGroups,
    validation: CellGroups | None,
    vocabulary: Vocabulary,
    monitor: CollapseMonitor,
    *,
    unit: float,
    batch_size: int,
    max_epochs: int | None,
    plan_kwargs: dict | None,
    seed: int,
    rows: dict[str, torch.Tensor] | None,
) -> Stage:
    """Return the stage in which encoder and predictor train together, on sets of raw cells at depth ``unit``."""
    n_sets = max(batch_size // (2 * SET_SIZE), 1)
    options: dict[str, Any] = {"n_sets": n_sets, "reference": unit, "seed": seed}
    steps = max(STEPS_PER_EPOCH, -(-len(known) // n_sets))
    valid = None
    if validation is not None:
        valid = set_batches(matrix, validation, vocabulary, None, steps=4, fixed=True, **options)
    return Stage(
        "joint",
        JOINT,
        PlanConfig.from_kwargs(PlanConfig(), plan_kwargs),
        set_batches(matrix, known, vocabulary, None, steps=steps, **options),
        max_epochs or epochs_for(PREDICTOR_STEPS, steps),
        valid,
        [monitor],
        rows,
    )


def anchor_shifts(
    module: JEPAModule,
    anchors: Anchors,
    chosen: np.ndarray,
    matrix: ExpressionMatrix,
    validation: CellGroups | None,
    genes: Sequence[str],
) -> tuple[FloatArray | None, FloatArray | None]:
    """Return what the anchor says of the training conditions ``chosen`` and of those that validate, in coordinates."""
    if anchors.base is None:
        return None, None
    space = Coordinates(module)
    project = lambda effects: np.nan_to_num(effects) @ space.loadings.T / space.scale
    valid = None
    if validation is not None:
        valid = project(anchors.base.effects(condition_means(matrix.values, validation, tuple(genes))))
    return project(anchors.base.fitted_effects()[chosen]), valid
