"""Training of PerturbJEPA: split, coordinates, anchor, encoder stage, predictor stage (or both at once)."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_positive_int
from scjepa.baselines import KernelEffect
from scjepa.data import (
    CellGroups,
    ConditionSampler,
    EmbeddingCache,
    ExpressionMatrix,
    SetBatches,
    Split,
    aligned,
    condition_means,
    fit_components,
    group_cells,
    split_cells,
)
from scjepa.data._splits import Holdout
from scjepa.model._perturb_state import PerturbState
from scjepa.module import JOINT, SETS
from scjepa.train import (
    PlanConfig,
    Stage,
    describe,
    digest,
    epochs_for,
    extend_history,
    merge_histories,
    record_split,
    run_stage,
    seeded,
)

logger = logging.getLogger(__name__)

PREDICTOR_STEPS = 400
STEPS_PER_EPOCH = 20
PREDICTOR_PLAN = PlanConfig(lr=2e-3, weight_decay=0.05, betas=(0.9, 0.999), schedule="onecycle", gradient_clip=0.0)


class PerturbTrainingMixin(PerturbState):
    """Training methods of :class:`PerturbJEPA`."""

    def _groups(self, adata: AnnData) -> CellGroups:
        """Group the cells of ``adata`` into conditions and controls, as the setup says."""
        s, obs = self._setup, adata.obs
        column = lambda key: None if s[key] is None else obs[s[key]].astype(str).to_numpy()
        batches = column("batch_key")
        return group_cells(
            obs[s["perturbation_key"]].astype(str).to_numpy(),
            control=s["control"],
            separator=s["separator"],
            contexts=column("context_key"),
            dose=None if s["dose_key"] is None else obs[s["dose_key"]].to_numpy(dtype=np.float64),
            kind=column("kind_key"),
            batches=None if batches is None else np.unique(batches, return_inverse=True)[1],
        )

    def train(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 512,
        train_size: float | None = None,
        validation_size: float | None = None,
        split_by: str = "cell",
        holdout: Holdout | None = None,
        early_stopping: bool = True,
        joint: bool = False,
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        fine_tune: bool = False,
        embed: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train both stages: the encoder on cells, then the predictor on sets of embedded cells.

        Parameters
        ----------
        max_epochs
            Epochs of each stage; by default as many as make 400 steps.
        accelerator, devices
            As in Lightning.
        batch_size
            Embeddings per step and process: two views of each of ``batch_size // 2`` cells in stage 1, sets of
            controls and perturbed cells in joint training.
        train_size, validation_size
            Shares of cells, conditions or categories. By default every cell that is not held out trains and nothing
            validates (``split_by="condition"`` or a column: a fifth validates).
        split_by
            ``"cell"``, ``"condition"`` (validation perturbations are not seen by anything but early stopping) or a
            column of ``adata.obs``.
        holdout
            Conditions that nothing touches, neither PCA nor anchor nor early stopping: perturbation labels, contexts
            (their perturbed cells), or tuples ``(perturbation, context)``.
        early_stopping
            Stop a stage when its validation loss stalls, and keep the weights of its best epoch; acts only when there
            is a validation set.
        joint
            Train encoder and predictor together in the embedding instead (the classic formulation). The anchor is
            then not used.
        seed
            Same seed, same numbers on one machine.
        plan_kwargs
            Options of :class:`scjepa.train.PlanConfig` for both stages, or ``{"encoder": {...}, "predictor": {...}}``.
        fine_tune
            Train a pretrained encoder (see :meth:`from_pretrained`) on; by default it stays as it is.
        embed
            Train the embedding (stage 1). False leaves it out, for those who only predict: predictions are the same to the
            last bit, but come without ``obsm["X_jepa"]``, and there are no latents until :meth:`train_embedding`. Not
            possible where predictions read the embedding (``joint=True``, ``predictor_input`` other than ``"z"``); an
            embedding that is there already, such as a pretrained one, stays.
        checkpoint_dir
            Folder to which every finished epoch is written. The same call after an interruption, even a kill, goes on
            after the last of them, and ends with the same numbers as without. Of a finished training the result is
            taken and nothing is trained anew; a folder of other data or arguments is refused.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> model.train(max_epochs=1, holdout=["state B"], enable_progress_bar=False)
        >>> sorted(model.history)[:2]
        ['encoder_agreement_train', 'encoder_embedding_std']
        """
        adata = self._own_or_given(None)
        require_positive_int(batch_size, "batch_size", minimum=2)
        if max_epochs is not None:
            require_positive_int(max_epochs, "max_epochs")
        plans = dict(plan_kwargs or {})
        if not set(plans) <= {"encoder", "predictor"}:
            plans = {"encoder": plans, "predictor": plans}
        groups = self._groups(adata)
        split = split_cells(
            adata.obs,
            groups,
            split_by=split_by,
            holdout=holdout,
            train_size=train_size,
            validation_size=validation_size,
            control=self._setup["control"],
            separator=self._setup["separator"],
            context_key=self._setup["context_key"],
            seed=seed,
        )
        member = np.zeros((2, adata.n_obs), bool)
        member[0, split.train], member[1, split.validation] = True, True
        known = groups.within(member[0])
        if not len(known):
            raise ValueError("the split leaves no perturbed training cells. Hold out less or raise train_size.")
        matrix = self._read(adata)
        self._check_transfer(joint, fine_tune, embed)
        self._note_leaks(split)
        given = {"max_epochs": max_epochs, "batch_size": batch_size, "early_stopping": early_stopping, "seed": seed,
                 "plan_kwargs": plan_kwargs, "joint": joint, "fine_tune": fine_tune,
                 **({} if embed else {"embed": False}), **describe(trainer_kwargs)}  # fmt: skip
        goes_on, earlier = self._goes_on(split) and joint == self.joint_, self.history_
        checkpoints, goes_on = self._checkpoints(
            checkpoint_dir, goes_on, split, given, matrix.values, adata.obs[[k for k in self._columns if k]]
        )
        runner = {"accelerator": accelerator, "devices": devices, "early_stopping": early_stopping, **trainer_kwargs}
        runner["checkpoints"] = checkpoints
        histories = []
        with self._keeping_what_was_trained(), seeded(seed):
            self.frozen_encoder_ = self.pretrained_ is not None and not fine_tune
            if not goes_on:
                self.joint_ = joint
                positive = np.zeros(0) if known.dose is None else known.dose[known.dose > 0]
                if self.reference_ is None:
                    self.dose_ref_ = float(np.median(positive)) if len(positive) else 1.0
                self.module = self._build_module()
                self._prepare_encoder(matrix, split.train)
            if embed and not self.embedded_:
                self._start_encoder(matrix, split.train, seed)
            self._note_range(matrix.values, known)
            self._fit_anchor(matrix, known, split.train, seed)
            if joint:
                histories.append(("joint", self._train_joint(
                    matrix, groups, split, max_epochs, batch_size, plans.get("encoder"), seed, runner)))  # fmt: skip
            else:
                encoded = {} if not (embed or self.frozen_encoder_) else self._train_encoder(
                    matrix, split, max_epochs=max_epochs, batch_size=batch_size, plan_kwargs=plans.get("encoder"),
                    seed=seed, **runner)  # fmt: skip
                histories.append(("encoder", encoded))
                if self._wants_residual(known):
                    with seeded(seed):  # the same draws whether there was a stage 1 or not
                        histories.append(("predictor", self._train_predictor(
                            matrix, groups, split, max_epochs, plans.get("predictor"), seed, runner)))  # fmt: skip
                    self.residual_ = True
                    self._weigh_network(matrix, known, max_epochs, plans.get("predictor"), seed)
                else:
                    self.residual_ = False
                    record_split(self, split)  # there may have been no stage at all
        self.history_ = extend_history(earlier if goes_on else None, merge_histories(histories))
        self.seed_, self.cell_names_ = seed, digest(adata.obs_names.to_numpy())
        self._remember(known)
        if checkpoints is not None:
            checkpoints.finish()

    def _wants_residual(self, known: CellGroups) -> bool:
        wanted = self.init_params_["non_kwargs"]["residual"]
        if wanted == "auto":
            wanted = float(np.median([len(c) for c in known.cells])) >= 5
            if not wanted:
                logger.info("fewer than 5 cells per condition: the anchor predicts, no network is trained.")
        return bool(wanted)

    def _fit_anchor(self, matrix: ExpressionMatrix, known: CellGroups, train: np.ndarray, seed: int) -> None:
        """Fix the coordinates and fit the anchor in closed form, on training cells only."""
        if self.reference_ is None:
            axes = fit_components(matrix.values[train], self.module.space.loadings.shape[0], seed=seed)
            used = axes.std > 0
            scale = float(axes.std[used].mean()) if used.any() else 1.0
            self.module.space.set_axes(aligned(axes.mean), aligned(axes.loadings), scale)
            self.axes_std_ = axes.std
        self._unseen_anchor = None
        table = self._with_reference(condition_means(matrix.values, known, tuple(self.var_names)))
        self.anchor_ = self._new_anchor()
        self.base_anchor_ = self.anchor_
        if table.variance is None:
            logger.info(
                "too few cells per condition to know the sampling noise: %s.",
                "in new contexts the spread between contexts stands for it, elsewhere conditions are believed alike"
                if len(set(table.contexts)) > 1
                else "all conditions are believed alike",
            )
        if self.anchor_ is not None:
            self.anchor_.fit(table)
            if isinstance(self.anchor_, KernelEffect) and len(set(known.contexts)) > 1:
                # With a context kernel the training effects are fitted so closely that nothing is left to learn
                # from: the network corrects the anchor that does not look at contexts.
                blind = self._new_anchor(context_kernel=False)
                self.base_anchor_ = self.anchor_ if blind is None else blind.fit(table)
        self._table = table

    def _remember(self, known: CellGroups) -> None:
        """Record the training conditions: predictions carry them, so that evaluation knows what was seen."""
        separator = self._setup["separator"]
        self.trained_on_ = pd.DataFrame(
            {
                "perturbation": [separator.join(a) for a in known.actions],
                "context": known.contexts.astype(str),
                "n_cells": [len(c) for c in known.cells],
            }
        )
        self.trained_actions_ = tuple(sorted({name for action in known.actions for name in action}))
        self.usual_kind_ = {}
        if known.kind is not None:
            kinds = pd.DataFrame({"action": known.actions, "kind": known.kind, "n": self.trained_on_["n_cells"]})
            counts = kinds.groupby(["action", "kind"])["n"].sum().sort_values(kind="stable")
            self.usual_kind_ = dict(counts.index.tolist())
            self.usual_kind_[()] = str(kinds.groupby("kind")["n"].sum().idxmax())

    def _cache(self, matrix: ExpressionMatrix) -> EmbeddingCache:
        """Encode every cell once."""
        space = self.module.space
        loadings = space.loadings.cpu().numpy().T
        z = np.asarray(matrix.values @ loadings) - space.mean.cpu().numpy() @ loadings
        h = None
        if self.module_arguments_["predictor_input"] != "z":
            h = np.empty((len(z), self.module.encoder.n_latent), np.float32)
            for start in range(0, len(z), 2048):
                x = aligned(matrix.rows(slice(start, start + 2048), self.reference_unit_)).to(self.device)
                h[start : start + 2048] = self.module.embed(x).cpu().numpy()
        return EmbeddingCache((z / float(space.scale)).astype(np.float32), h)

    def _set_batches(
        self,
        cells: EmbeddingCache | ExpressionMatrix,
        groups: CellGroups,
        shift: np.ndarray | None,
        **options: Any,
    ) -> SetBatches:
        """Sets of the conditions in ``groups`` with everything the predictor is told of them."""
        kinds = self._kinds()
        actions = np.array([[name in action for name in self.actions_] for action in groups.actions], dtype=np.float32)
        n_sets = options.pop("n_sets", 4)
        return SetBatches(
            ConditionSampler(groups, n_sets=n_sets, set_size=32),
            cells,
            actions,
            shift=shift,
            dose=groups.dose,
            kind=None if groups.kind is None else np.array([kinds.index(k) for k in groups.kind]),
            **options,
        )

    def _split_groups(self, groups: CellGroups, split: Split) -> tuple[CellGroups, CellGroups | None]:
        """Training and validation conditions; validation sets borrow training controls where they have none."""
        train, valid = np.zeros((2, self.adata.n_obs), bool)
        train[split.train], valid[split.validation] = True, True
        borrowed = valid.copy()
        for control in groups.controls.values():
            if not valid[control].any():
                borrowed[control] = train[control]
        validation = groups.within(valid, borrowed) if len(split.validation) else None
        return groups.within(train), validation if validation is not None and len(validation) else None

    def _train_predictor(
        self,
        matrix: ExpressionMatrix,
        groups: CellGroups,
        split: Split,
        max_epochs: int | None,
        plan_kwargs: dict | None,
        seed: int,
        runner: dict[str, Any],
    ) -> dict[str, pd.DataFrame]:
        """Run stage 2 on cached embeddings; returns the history."""
        cache = self._cache(matrix)
        known, validation = self._split_groups(groups, split)
        chosen = self._to_learn(known)
        known = known.rows(chosen)
        steps = max(STEPS_PER_EPOCH, -(-len(known) // 4))
        project = lambda effects: effects @ self.module.space.loadings.cpu().numpy().T / float(self.module.space.scale)
        shift = valid_shift = None
        if self.base_anchor_ is not None:
            shift = project(np.nan_to_num(self.base_anchor_.fitted_effects()[chosen]))
            if validation is not None:
                question = condition_means(matrix.values, validation, tuple(self.var_names))
                valid_shift = project(np.nan_to_num(self.base_anchor_.effects(question)))
        train = self._set_batches(cache, known, shift, steps=steps, seed=seed)
        valid = None
        if validation is not None:
            valid = self._set_batches(cache, validation, valid_shift, steps=10, seed=seed, fixed=True)
        config = PlanConfig.from_kwargs(PREDICTOR_PLAN, plan_kwargs)
        epochs = max_epochs or epochs_for(PREDICTOR_STEPS, steps)
        stage = Stage("predictor", SETS, config, train, epochs, valid, rows=self._trainable(SETS))
        return run_stage(self, stage, split, **runner)

    def _train_joint(
        self,
        matrix: ExpressionMatrix,
        groups: CellGroups,
        split: Split,
        max_epochs: int | None,
        batch_size: int,
        plan_kwargs: dict | None,
        seed: int,
        runner: dict[str, Any],
    ) -> dict[str, pd.DataFrame]:
        """Train encoder and predictor together in the embedding; returns the history."""
        known, validation = self._split_groups(groups, split)
        n_sets = max(batch_size // 64, 1)
        options = {"n_sets": n_sets, "reference": self.reference_unit_, "seed": seed}
        steps = max(STEPS_PER_EPOCH, -(-len(known) // n_sets))
        train = self._set_batches(matrix, known, None, steps=steps, **options)
        valid = None
        if validation is not None:
            valid = self._set_batches(matrix, validation, None, steps=4, fixed=True, **options)
        stage = Stage(
            "joint",
            JOINT,
            PlanConfig.from_kwargs(PlanConfig(), plan_kwargs),
            train,
            max_epochs or epochs_for(PREDICTOR_STEPS, steps),
            valid,
            [self._monitor(matrix, split.train, seed)],
            self._trainable(JOINT),
        )
        history = run_stage(self, stage, split, **runner)
        self._finish_encoder(matrix, split.train, None)
        self.residual_ = True
        return history
