"""The steps of a training on unpaired conditions: coordinates, anchors, encoder, network (or both at once), gate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from scjepa.baselines._base import table_from_state
from scjepa.data import (
    CellGroups,
    ConditionTable,
    ExpressionMatrix,
    aligned,
    condition_means,
    fit_components,
    largest_values,
)
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._gate import Gate, contexts_matter
from scjepa.model.conditions._growth import joined
from scjepa.model.conditions._intervals import Intervals
from scjepa.model.conditions._judging import Judging
from scjepa.model.conditions._known import Known
from scjepa.model.conditions._network import Coordinates, anchor_shifts, joint_stage, predictor_stage, split_groups
from scjepa.model.core import EncoderStage, TrainingRun
from scjepa.module import JOINT, SETS
from scjepa.train import seeded

logger = logging.getLogger(__name__)

LEAST_CELLS = 5
"""Cells per condition below which a set has no distribution to match."""


def check_request(model: Any, *, joint: bool, fine_tune: bool, embed: bool) -> None:
    """Raise when training is asked for what a pretrained encoder, a reference or the predictor does not allow."""
    if not embed and (joint or fine_tune):
        asked = "joint" if joint else "fine_tune"
        raise ValueError(f"embed=False leaves the encoder as it is, but {asked}=True trains it. Drop one of them.")
    reads = model.module.predictor_input
    if not embed and reads != "z" and not model._given_embedding:
        raise ValueError(
            f"embed=False leaves the embedding out, but predictor_input={reads!r} reads it. Make the model with "
            "predictor_input='z' (the default), or train with embed=True."
        )
    if fine_tune and model.pretrained_ is None:
        raise ValueError("fine_tune=True: there is no pretrained encoder. Make the model with from_pretrained.")
    if joint and model.pretrained_ is not None and not fine_tune:
        raise ValueError("joint=True trains the pretrained encoder on. Say so with fine_tune=True.")
    if model.reference_ is not None and joint != model.joint_:
        raise ValueError(f"the reference of these query data was trained with joint={model.joint_}: do the same.")


def check_own_encoder(model: Any) -> None:
    """Raise where the encoder is not to be trained by itself."""
    reads = model.module.predictor_input
    if model.joint_ or reads != "z":
        why = "joint=True" if model.joint_ else f"predictor_input={reads!r}"
        raise ValueError(
            f"predictions of this model read its embedding ({why}): train_embedding would change them. Train "
            "both on with train()."
        )
    if model.frozen_encoder_:
        raise ValueError(
            "the encoder of this model is the pretrained one (from_pretrained): it has an embedding already. "
            "train(fine_tune=True) trains it on."
        )
    if model.rows_ is not None and model._given_embedding:
        raise ValueError(
            "the encoder of these query data is the reference's and stays as it is: it has an embedding already. "
            "load_query_data(..., freeze=False) gives one that trains on."
        )


@dataclass(frozen=True)
class Steps:
    """One training of one model.

    Attributes
    ----------
    model
        A :class:`TrainedConditions`, whose parts are fitted.
    run
        The frame around its stages.
    matrix
        All cells.
    groups, known
        All conditions, and the training cells of those that train.
    max_epochs, seed
        As in ``train``.
    plans
        Stage -> options of :class:`scjepa.train.PlanConfig`.
    """

    model: Any
    run: TrainingRun
    matrix: ExpressionMatrix
    groups: CellGroups
    known: CellGroups
    max_epochs: int | None
    plans: dict[str, dict[str, Any]]
    seed: int

    def begin(self, joint: bool) -> None:
        """Make a fresh module, with gates that start at the typical dose and time, and find the depth of the cells."""
        model = self.model
        model.joint_ = joint
        if model.reference_ is None:
            model.dose_ref_, model.time_ref_ = typical(self.known.dose), typical(self.known.time)
        model.module = model._build_module()
        model._prepare_encoder(self.matrix, self.run.split.train)

    def fit_anchors(self) -> ConditionTable:
        """Fix the coordinates and fit the anchors in closed form, on training cells only; returns the training table."""
        model, values = self.model, self.matrix.values
        model.max_expression_ = None if model._signatures else largest_values(values, self.known)
        if model.reference_ is None:
            train = self.run.split.train
            axes = fit_components(values[train], model.module.space.loadings.shape[0], seed=self.seed)
            used = axes.std > 0
            scale = float(axes.std[used].mean()) if used.any() else 1.0
            model.module.space.set_axes(aligned(axes.mean), aligned(axes.loadings), scale)
            model.axes_std_ = axes.std
        else:
            held = model.reference_.get("max_expression")  # of one saved before it was recorded nothing is known
            if model.max_expression_ is not None:
                model.max_expression_ = None if held is None else np.maximum(model.max_expression_, held)
        table = condition_means(values, self.known, tuple(model.var_names))
        held = None if model.reference_ is None else model.reference_["table"]
        if held is not None:  # the reference's conditions stand behind these
            table = joined(table, table_from_state(held))
        # new ones: a training that fails gives the old ones back as they were
        model.anchors_ = Anchors(model.anchors_.wanted).fit(table, n_contexts=len(set(self.known.contexts)))
        model.intervals_ = Intervals(model.anchors_)
        return table

    def train_joint(self, stage: EncoderStage, batch_size: int) -> None:
        """Train encoder and predictor together in the embedding."""
        model, run = self.model, self.run
        known, validation = split_groups(self.groups, run.split)
        run.stage(
            joint_stage(
                self.matrix,
                known,
                validation,
                model._vocabulary,
                stage.monitor(run.split.train),
                unit=model.reference_unit_,
                batch_size=batch_size,
                max_epochs=self.max_epochs,
                plan_kwargs=self.plans.get("encoder"),
                seed=self.seed,
                rows=model._trainable(JOINT),
            )
        )
        model._finish_encoder(stage, run.split.train)
        model.residual_ = True

    def train_network(self, table: ConditionTable) -> None:
        """Train the network on cached embeddings, if it is wanted, and weigh it."""
        model, run = self.model, self.run
        model.residual_ = self._wants_network()
        if not model.residual_:
            run.nothing_trained()  # there may have been no stage at all
            return
        with seeded(self.seed):  # the same draws whether there was a stage 1 or not
            cache = Coordinates(model.module).cache(self.matrix, model.reference_unit_)
            known, validation = split_groups(self.groups, run.split)
            chosen = self._to_learn(known)
            if len(chosen):
                genes = model.var_names_
                shifts = anchor_shifts(model.module, model.anchors_, chosen, self.matrix, validation, genes)
                run.stage(
                    predictor_stage(
                        cache,
                        known.rows(chosen),
                        validation,
                        model._vocabulary,
                        shifts,
                        max_epochs=self.max_epochs,
                        plan_kwargs=self.plans.get("predictor"),
                        seed=self.seed,
                        rows=model._trainable(SETS),
                    )
                )
            else:
                logger.info("no new perturbation or kind to learn: the network stays as it is.")
                run.nothing_trained()
                run.note("predictor")
        if model.reference_ is not None:  # the reference's network is kept, and was judged on more
            model.gate_ = Gate(model.reference_["gates"])
        elif model._gate != "auto" or not model.anchors_:
            classes = getattr(model.anchors_.full, "picks_", ())
            model.gate_ = Gate.fixed(1.0 if model._gate == "auto" else float(model._gate), classes)
        else:
            module = model._build_module().to(model.device)
            module.space.load_state_dict(model.module.space.state_dict())
            module.predictors = module.predictors[:1]
            judging = Judging(module, model.anchors_, table, self.known, cache, model._vocabulary, self.seed)
            evidence = judging.evidence(self.max_epochs, self.plans.get("predictor"))
            own = {cls: contexts_matter(model.anchors_, cls) for cls in ("combination", "single")}
            model.gate_ = Gate.fit(evidence, own)

    def remember(self) -> None:
        """Record the training conditions: predictions carry them, so that evaluation knows what was seen."""
        model, known = self.model, Known.of(self.known, self.model._design.separator)
        held = model.reference_
        if held is not None:
            learned = {name for i in self._to_learn(self.known) for name in self.known.actions[i]}
            before = Known(held["trained_on"], held["trained_actions"], held["usual_kind"], known.separator)
            known = known.after(before, set(known.items) if model.rows_ is None else learned)
        model.known_ = known

    def _wants_network(self) -> bool:
        model = self.model
        if model.rows_ is not None and model.reference_ is not None:
            return model.reference_["residual"]
        if model._residual != "auto":
            return bool(model._residual)
        wanted = float(np.median([len(c) for c in self.known.cells])) >= LEAST_CELLS
        if not wanted:
            logger.info("fewer than %d cells per condition: the anchor predicts, no network is trained.", LEAST_CELLS)
        return wanted

    def _to_learn(self, known: CellGroups) -> np.ndarray:
        """Return the conditions that the network is trained on; of a frozen query model those with something new."""
        model = self.model
        if model.rows_ is None or model.reference_ is None:
            return np.arange(len(known))
        old = set(model.reference_["trained_actions"])
        kinds = set(model._vocabulary.kinds[: model.reference_["n_kinds"]])
        new = [not old.issuperset(action) for action in known.actions]
        if known.kind is not None:
            new = [n or str(k) not in kinds for n, k in zip(new, known.kind, strict=True)]
        return np.flatnonzero(np.array(new) & np.array([len(c) >= LEAST_CELLS for c in known.cells]))


def typical(values: np.ndarray | None) -> float:
    """Return the median of the positive values, 1 where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model.conditions._training import typical
    >>> typical(np.array([0.0, 2.0, 4.0])), typical(None)
    (3.0, 1.0)
    """
    positive = np.zeros(0) if values is None else values[values > 0]
    return float(np.median(positive)) if len(positive) else 1.0
