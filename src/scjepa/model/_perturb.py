"""PerturbJEPA: what a perturbation does to cells, from unpaired controls and perturbed cells."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField

from scjepa._checks import require_labels, require_numbers, require_positive_int
from scjepa._keys import Keys
from scjepa._labels import parse_labels
from scjepa._types import InputScale
from scjepa.baselines import BASELINES, Baseline, KernelEffect
from scjepa.data import (
    CellGroups,
    ConditionSampler,
    EmbeddingCache,
    ExpressionMatrix,
    SetBatches,
    Split,
    condition_means,
    fit_components,
    group_cells,
    split_cells,
)
from scjepa.data._splits import Holdout
from scjepa.model._base import JEPABase, check_cells
from scjepa.model._predict import PredictionMixin
from scjepa.module import JOINT, SETS, ActionSpec, JEPAModule
from scjepa.train import PlanConfig, Stage, epochs_for, merge_histories, run_stage, seeded

logger = logging.getLogger(__name__)

PREDICTOR_STEPS = 400
STEPS_PER_EPOCH = 20
PREDICTOR_PLAN = PlanConfig(lr=2e-3, weight_decay=0.05, betas=(0.9, 0.999), schedule="onecycle", gradient_clip=0.0)


class PerturbJEPA(PredictionMixin, JEPABase):
    """Action-conditioned world model of cells for genetic (or any labelled) perturbations.

    Stage 1 learns an embedding of cells (see :class:`ExpressionJEPA`). Stage 2 predicts, in frozen
    expression-faithful coordinates, how controls move under a perturbation: a closed-form anchor plus a network that
    is zero at initialization, trained so that the predicted *set* of cells matches the set of perturbed cells.
    Controls and perturbed cells are unpaired, so what is identified is the distribution of perturbed cells, not the
    fate of a single cell.

    Parameters
    ----------
    adata
        Set up with :meth:`setup_anndata`.
    gene_embeddings
        Perturbed gene x features (names as in the labels). With it, perturbations of genes never seen perturbed can
        be predicted.
    registry
        For loading without data; not for users.
    anchor
        ``"kernel"`` (the default, :class:`scjepa.baselines.KernelEffect`), the name of another baseline, a baseline
        object, or None for the network alone.
    residual
        Train the network on top of the anchor: True, False, or ``"auto"`` (True when conditions have at least 5
        cells in the median; sets of one profile have no distribution to match).
    n_latent, encoder, gene_sets, n_modules, n_hidden, n_layers, regularizer, regularizer_weight, mask_rate
        Of the encoder, as in :class:`ExpressionJEPA`.
    n_pcs
        Dimensions of the expression-faithful coordinates.
    predictor_input
        ``"z"`` (coordinates), ``"h"`` (JEPA embedding) or ``"both"``.
    set_loss
        ``"mmd"``, ``"energy"``, or ``"random_pair"`` (ablation: shrinks effects, collapses variance).
    target_encoder
        ``"shared"`` or ``"ema"``, for the encoder's training.
    n_ensemble
        Networks averaged.
    predictor_hidden, predictor_layers, mean_weight, noise
        Size of the network, weight of the mean term, noise on its input.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.simulate_perturbseq(seed=0)
    >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    >>> model = scjepa.PerturbJEPA(adata)
    >>> held_out = next(p for p in adata.obs["perturbation"].unique() if "+" in p)
    >>> model.train(max_epochs=1, holdout=[held_out], enable_progress_bar=False)
    >>> predicted = model.predict_perturbation(held_out)
    >>> predicted.obs["perturbation"].unique().tolist() == [held_out]
    True
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        gene_embeddings: pd.DataFrame | None = None,
        registry: dict | None = None,
        *,
        anchor: str | Baseline | None = "kernel",
        residual: bool | str = "auto",
        n_latent: int = 32,
        encoder: str = "mlp",
        gene_sets: Mapping[str, Sequence[str]] | None = None,
        n_modules: int = 32,
        n_hidden: int = 256,
        n_layers: int = 2,
        regularizer: str = "visreg",
        regularizer_weight: float | None = None,
        mask_rate: float = 0.15,
        n_pcs: int = 50,
        predictor_input: str = "z",
        set_loss: str = "mmd",
        target_encoder: str = "shared",
        n_ensemble: int = 2,
        predictor_hidden: int = 128,
        predictor_layers: int = 2,
        mean_weight: float = 0.2,
        noise: float = 0.3,
    ) -> None:
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        if predictor_input not in ("z", "h", "both"):
            raise ValueError(f"predictor_input={predictor_input!r}: expected 'z', 'h' or 'both'.")
        if not (isinstance(residual, bool) or residual == "auto"):
            raise ValueError(f"residual={residual!r}: expected True, False or 'auto'.")
        n_genes, n_cells = self.summary_stats["n_vars"], self.summary_stats["n_cells"]
        self._module_arguments = {
            "n_latent": min(require_positive_int(n_latent, "n_latent"), n_genes),
            "encoder": encoder,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "regularizer": regularizer,
            "regularizer_weight": regularizer_weight,
            "target_encoder": target_encoder,
            "mask_rate": mask_rate,
            "n_pcs": min(require_positive_int(n_pcs, "n_pcs"), n_genes, n_cells),
            "predictor_input": predictor_input,
            "set_loss": set_loss,
            "n_ensemble": require_positive_int(n_ensemble, "n_ensemble"),
            "predictor_hidden": predictor_hidden,
            "predictor_layers": predictor_layers,
            "mean_weight": mean_weight,
            "noise": noise,
            **self._encoder_arguments(gene_sets, min(n_modules, n_genes)),
        }
        self.actions_ = self._known_actions()
        self.joint_ = False
        self.dose_ref_ = 1.0
        self.anchor_: Baseline | None = None
        self.base_anchor_: Baseline | None = None
        self._new_anchor()  # a wrong anchor= is refused here, not after minutes of training
        self.module = self._build_module()
        self._model_summary_string = (
            f"PerturbJEPA: {n_genes} genes, {len(self.actions_)} perturbed genes, anchor "
            f"{getattr(anchor, 'name', anchor)}, {self._module_arguments['n_pcs']} coordinates, "
            f"{self._module_arguments['n_latent']} latent dimensions"
        )

    # ---------------------------------------------------------------- setup
    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str,
        control: str = "control",
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        context_key: str | None = None,
        dose_key: str | None = None,
        kind_key: str | None = None,
        separator: str = "+",
        input_scale: InputScale = "auto",
        target_sum: float = 1e4,
        **kwargs: Any,
    ) -> None:
        """Tell the model where to find what in ``adata``.

        Parameters
        ----------
        adata
            Cells (or one profile per condition) x genes; raw counts or log1p of library-normalized counts.
        perturbation_key
            Column of ``adata.obs``: control label, ``"A"``, ``"A+B"`` (any number of genes, any order) or
            ``"A+ctrl"``, which is read as ``"A"``.
        control
            Label of control cells.
        layer
            Layer with the matrix, by default ``adata.X``.
        batch_key
            Column with batches: controls are matched to perturbed cells by batch.
        context_key
            Column with contexts (cell type, cell line): every context with perturbed cells needs controls.
        dose_key
            Column with doses (numbers >= 0).
        kind_key
            Column with the kind of perturbation (knock-out, activation, ...).
        separator
            What joins the parts of a combination.
        input_scale
            ``"counts"``, ``"lognorm"``, or ``"auto"`` to find out; what was found is recorded.
        target_sum
            Library size that counts are scaled to before log1p.
        **kwargs
            Used by scvi-tools when it replays a setup.

        Raises
        ------
        KeyError, ValueError
            For absent columns, missing labels, an absent control, contexts without controls, wrong doses, and a
            matrix that is neither counts nor log-normalized.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(seed=0)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", "control", context_key="context")
        """
        input_scale = check_cells(adata, layer, input_scale)
        labels = require_labels(adata.obs, perturbation_key, "perturbation_key")
        columns = {"batch_key": batch_key, "context_key": context_key, "kind_key": kind_key}
        for argument, key in columns.items():
            if key is not None:
                require_labels(adata.obs, key, argument)
        if dose_key is not None:
            require_numbers(adata.obs, dose_key, "dose_key", minimum=0.0)
        if "source_registry" not in kwargs:  # query data may lack controls
            contexts = None if context_key is None else adata.obs[context_key].astype(str).to_numpy()
            groups = group_cells(labels.to_numpy(), control=control, separator=separator, contexts=contexts)
            if not len(groups):
                raise ValueError(f"perturbation_key={perturbation_key!r}: all cells are controls ({control!r}).")
        del columns, labels
        setup_method_args = cls._get_setup_method_args(
            **{k: v for k, v in locals().items() if k not in ("groups", "contexts", "argument", "key")}
        )
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoricalObsField(Keys.registry.perturbation, perturbation_key),
            CategoricalObsField(Keys.registry.context, context_key),
            CategoricalObsField(Keys.registry.kind, kind_key),
        ]
        if dose_key is not None:
            fields.append(NumericalObsField(Keys.registry.dose, dose_key))
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def _categories(self, name: str) -> list[str]:
        mapping = self.registry_["field_registries"][name]["state_registry"]["categorical_mapping"]
        return [str(c) for c in mapping]

    def _known_actions(self) -> tuple[str, ...]:
        """Names of everything perturbed in any label, sorted."""
        labels = self._categories(Keys.registry.perturbation)
        parsed = parse_labels(labels, self._setup["control"], self._setup["separator"])
        return tuple(sorted({name for action in parsed.values() for name in action}))

    def _kinds(self) -> list[str]:
        return self._categories(Keys.registry.kind) if self._setup["kind_key"] is not None else []

    def _build_module(self) -> JEPAModule:
        spec = ActionSpec(
            len(self.actions_), len(self._kinds()), self._setup["dose_key"] is not None, float(self.dose_ref_)
        )
        with seeded(0):
            return self._module_cls(
                self.summary_stats["n_vars"], actions=spec, joint=self.joint_, **self._module_arguments
            )

    def _new_anchor(self, **changes: Any) -> Baseline | None:
        """Return a fresh, unfitted anchor as ``anchor=`` asks for."""
        wanted = self.init_params_["non_kwargs"]["anchor"]
        features = self.init_params_["non_kwargs"]["gene_embeddings"]
        if wanted is None:
            return None
        if isinstance(wanted, Baseline):
            return type(wanted).from_state(wanted.state())
        if wanted in ("kernel", KernelEffect.name):
            return KernelEffect(features=features, **changes)
        if wanted not in BASELINES:
            raise ValueError(f"anchor={wanted!r}: expected 'kernel', None, a baseline, or one of {sorted(BASELINES)}.")
        return BASELINES[wanted]()

    # ---------------------------------------------------------------- training
    def _groups(self, adata: AnnData) -> CellGroups:
        """Group the cells of ``adata`` into conditions and controls, as the setup says."""
        s, obs = self._setup, adata.obs
        column = lambda key: None if s[key] is None else obs[s[key]].astype(str).to_numpy()  # noqa: E731
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
            Cells per step of stage 1 (and of joint training).
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
            Stop a stage when its validation loss stalls; acts only when there is a validation set.
        joint
            Train encoder and predictor together in the embedding instead (the classic formulation). The anchor is
            then not used.
        seed
            Same seed, same numbers on one machine.
        plan_kwargs
            Options of :class:`scjepa.train.PlanConfig` for both stages, or ``{"encoder": {...}, "predictor": {...}}``.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(seed=0)
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
        runner = {"accelerator": accelerator, "devices": devices, "early_stopping": early_stopping, **trainer_kwargs}
        histories = []
        with seeded(seed):
            if joint != self.joint_ or not self.is_trained_:
                self.joint_ = joint
                if self._setup["dose_key"] is not None:
                    self.dose_ref_ = float(np.median(known.dose[known.dose > 0])) if (known.dose > 0).any() else 1.0
                self.module = self._build_module()
                self._prepare_encoder(matrix, split.train, seed)
            self._fit_anchor(matrix, known, split.train, seed)
            if joint:
                histories.append(("joint", self._train_joint(
                    matrix, groups, split, max_epochs, batch_size, plans.get("encoder"), seed, runner)))  # fmt: skip
            else:
                histories.append(("encoder", self._train_encoder(
                    matrix, split, max_epochs=max_epochs, batch_size=batch_size, plan_kwargs=plans.get("encoder"),
                    seed=seed, **runner)))  # fmt: skip
                if self._wants_residual(known):
                    histories.append(("predictor", self._train_predictor(
                        matrix, groups, split, max_epochs, plans.get("predictor"), seed, runner)))  # fmt: skip
                    self.residual_ = True
                else:
                    self.residual_ = False
        self.history_ = merge_histories(histories)
        self.seed_ = seed
        self._remember(known)

    def _wants_residual(self, known: CellGroups) -> bool:
        wanted = self.init_params_["non_kwargs"]["residual"]
        if wanted == "auto":
            wanted = float(np.median([len(c) for c in known.cells])) >= 5
            if not wanted:
                logger.info("fewer than 5 cells per condition: the anchor predicts, no network is trained.")
        return bool(wanted)

    def _fit_anchor(self, matrix: ExpressionMatrix, known: CellGroups, train: np.ndarray, seed: int) -> None:
        """Fix the coordinates and fit the anchor in closed form, on training cells only."""
        axes = fit_components(matrix.values[train], self.module.space.loadings.shape[0], seed=seed)
        used = axes.std > 0
        scale = float(axes.std[used].mean()) if used.any() else 1.0
        self.module.space.set_axes(torch.from_numpy(axes.mean), torch.from_numpy(axes.loadings), scale)
        table = condition_means(matrix.values, known, tuple(self.var_names))
        self.anchor_ = self._new_anchor()
        self.base_anchor_ = self.anchor_
        if self.anchor_ is not None:
            self.anchor_.fit(table)
            if isinstance(self.anchor_, KernelEffect) and len(set(known.contexts)) > 1:
                # With a context kernel the training effects are fitted so closely that nothing is left to learn
                # from: the network corrects the anchor that does not look at contexts.
                self.base_anchor_ = self._new_anchor(context_kernel=False)
                self.base_anchor_.fit(table)
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
        self.usual_kind_: dict[tuple[str, ...], str] = {}
        if known.kind is not None:
            kinds = pd.DataFrame({"action": known.actions, "kind": known.kind, "n": self.trained_on_["n_cells"]})
            counts = kinds.groupby(["action", "kind"])["n"].sum().sort_values(kind="stable")
            self.usual_kind_ = {action: kind for action, kind in counts.index}
            self.usual_kind_[()] = str(kinds.groupby("kind")["n"].sum().idxmax())

    def _cache(self, matrix: ExpressionMatrix) -> EmbeddingCache:
        """Encode every cell once."""
        space = self.module.space
        loadings = space.loadings.cpu().numpy().T
        z = np.asarray(matrix.values @ loadings) - space.mean.cpu().numpy() @ loadings
        h = None
        if self._module_arguments["predictor_input"] != "z":
            h = np.empty((len(z), self.module.encoder.n_latent), np.float32)
            for start in range(0, len(z), 2048):
                x = torch.from_numpy(matrix.rows(slice(start, start + 2048), self.reference_unit_)).to(self.device)
                h[start : start + 2048] = self.module.embed(x).cpu().numpy()
        return EmbeddingCache((z / float(space.scale)).astype(np.float32), h)

    def _set_batches(
        self, cells: EmbeddingCache | ExpressionMatrix, groups: CellGroups, shift: np.ndarray | None, **options: Any
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
        steps = max(STEPS_PER_EPOCH, -(-len(known) // 4))
        project = lambda effects: effects @ self.module.space.loadings.cpu().numpy().T / float(self.module.space.scale)  # noqa: E731
        shift = valid_shift = None
        if self.base_anchor_ is not None:
            shift = project(np.nan_to_num(self.base_anchor_.fitted_effects()))
            if validation is not None:
                question = condition_means(matrix.values, validation, tuple(self.var_names))
                valid_shift = project(np.nan_to_num(self.base_anchor_.effects(question)))
        train = self._set_batches(cache, known, shift, steps=steps, seed=seed)
        valid = None
        if validation is not None:
            valid = self._set_batches(cache, validation, valid_shift, steps=10, seed=seed, fixed=True)
        config = PlanConfig.from_kwargs(PREDICTOR_PLAN, plan_kwargs)
        epochs = max_epochs or epochs_for(PREDICTOR_STEPS, steps)
        return run_stage(self, Stage("predictor", SETS, config, train, epochs, valid), split, **runner)

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
        )
        history = run_stage(self, stage, split, **runner)
        self._finish_encoder(matrix, split.train, None)
        self.residual_ = True
        return history
