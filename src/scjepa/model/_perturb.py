"""PerturbJEPA: what a perturbation does to cells, from unpaired controls and perturbed cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField

from scjepa._checks import require_labels, require_numbers, require_positive_int
from scjepa._keys import Keys
from scjepa._labels import parse_labels
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.baselines import BASELINES, Baseline, KernelEffect
from scjepa.baselines._design import check_features
from scjepa.data import check_keys, group_cells
from scjepa.model._effects import EffectsMixin
from scjepa.model._embedding import EmbeddingMixin
from scjepa.model._gate import GateMixin, check_gate
from scjepa.model._reading import check_cells
from scjepa.model._reliability import ReliabilityMixin
from scjepa.model._transfer import TransferMixin
from scjepa.module import ActionSpec, JEPAModule
from scjepa.train import seeded


class PerturbJEPA(ReliabilityMixin, GateMixin, TransferMixin, EmbeddingMixin, EffectsMixin):
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
        Gene x features (names as in the labels), for genes that were never perturbed in training. Without it the
        loadings of the measured genes are used; a gene with neither is refused.
    registry
        For loading without data; not for users.
    anchor
        ``"kernel"`` (the default, :class:`scjepa.baselines.KernelEffect`), the name of another baseline, a baseline
        object, or None for the network alone.
    residual
        Train the network on top of the anchor: True, False, or ``"auto"`` (True when conditions have at least 5
        cells in the median; sets of one profile have no distribution to match).
    gate
        Share of the network's correction that counts in conditions it was not trained on. ``"auto"`` (the default) finds
        it per class of question (combinations, singles, unseen contexts) from training conditions left out; 0 is
        the anchor alone, 1 the network in full.
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
    inverse_dynamics
        In joint training: weight of the head that must read the action off the shift of the embedding.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
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
        gate: float | str = "auto",
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
        inverse_dynamics: float = 1.0,
    ) -> None:
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        if predictor_input not in ("z", "h", "both"):
            raise ValueError(f"predictor_input={predictor_input!r}: expected 'z', 'h' or 'both'.")
        if not (isinstance(residual, bool) or residual == "auto"):
            raise ValueError(f"residual={residual!r}: expected True, False or 'auto'.")
        check_gate(gate)
        if gene_embeddings is not None:
            check_features(gene_embeddings)
        n_genes, n_cells = self.summary_stats["n_vars"], self.summary_stats["n_cells"]
        self.module_arguments_ = {
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
            "inverse_dynamics": inverse_dynamics,
            **self._encoder_arguments(gene_sets, min(n_modules, n_genes)),
        }
        self.actions_ = self._known_actions()
        self.joint_ = False
        self.embedded_ = True
        self.dose_ref_ = 1.0
        self.anchor_ = None
        self.base_anchor_ = None
        self._new_anchor()  # a wrong anchor= is refused here, not after minutes of training
        self.module = self._build_module()
        self._model_summary_string = (
            f"PerturbJEPA: {n_genes} genes, {len(self.actions_)} perturbed genes, anchor "
            f"{getattr(anchor, 'name', anchor)}, {self.module_arguments_['n_pcs']} coordinates, "
            f"{self.module_arguments_['n_latent']} latent dimensions"
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
            Library size that counts are scaled to before log1p, below 3.27e6.
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
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", "control", context_key="context")
        """
        control = str(control)
        check_keys(perturbation_key=perturbation_key, context_key=context_key, dose_key=dose_key, kind_key=kind_key)
        target_sum, input_scale = check_target_sum(target_sum), check_cells(adata, layer, input_scale)
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
                self.summary_stats["n_vars"], actions=spec, joint=self.joint_, **self.module_arguments_
            )

    def _new_anchor(self, **changes: Any) -> Baseline | None:
        """Return a fresh, unfitted anchor as ``anchor=`` asks for."""
        wanted = self.init_params_["non_kwargs"]["anchor"]
        if wanted is None:
            return None
        if isinstance(wanted, Baseline):
            return type(wanted).from_state({**wanted.state(), **changes})
        if wanted in ("kernel", KernelEffect.name):
            return KernelEffect(**changes)
        if wanted not in BASELINES:
            raise ValueError(f"anchor={wanted!r}: expected 'kernel', None, a baseline, or one of {sorted(BASELINES)}.")
        return BASELINES[wanted]()

    def _diagnostics(self, rng: np.random.Generator) -> list[tuple[str, float, str, str]]:
        """Add what earlier cell JEPAs failed: are predicted sets as wide, and predicted effects as large, as true ones?"""
        rows = super()._diagnostics(rng) if self.embedded_ else []
        adata, groups = self._own_or_given(None), self._groups(self._own_or_given(None))
        pairs = set(zip(self.trained_on_["perturbation"], self.trained_on_["context"], strict=True))
        separator, single = self._setup["separator"], self._setup["context_key"] is None
        known = [
            i
            for i in range(len(groups))
            if (separator.join(groups.actions[i]), str(groups.contexts[i])) in pairs and len(groups.cells[i]) > 1
        ]
        spread, size = [], []
        for i in rng.choice(known, min(10, len(known)), replace=False) if known else []:
            predicted = self.predict_perturbation(
                separator.join(groups.actions[i]),
                context=None if single else str(groups.contexts[i]),
                dose=None if groups.dose is None else float(groups.dose[i]),
                kind=None if groups.kind is None else str(groups.kind[i]),
                include_control=True,
            )
            control = (predicted.obs[Keys.obs.kind] == "control").to_numpy()
            cells = np.sort(rng.choice(groups.cells[i], min(len(groups.cells[i]), 500), replace=False))
            real = self._read(adata, cells).rows(slice(None))
            start = predicted.X[control].mean(0)
            axes = self.module.space.loadings.T.cpu().numpy()
            width = float((real @ axes).var(0).sum())
            spread.append(float((predicted.X[~control] @ axes).var(0).sum()) / max(width, 1e-12))
            length = float(np.linalg.norm(real.mean(0) - start))
            size.append(float(np.linalg.norm(predicted.X[~control].mean(0) - start)) / max(length, 1e-12))
        for name, values in (("variance ratio", spread), ("shift ratio", size)):
            value = float(np.mean(values)) if values else float("nan")
            verdict = "ok" if 0.7 < value < 1.3 else "check"
            rows.append((name, value, "0.7 to 1.3 on training conditions, predicted over true", verdict))
        return rows + self._context_diagnostics()

    def _context_diagnostics(self) -> list[tuple[str, float, str, str]]:
        """Add what the network won on left-out conditions, and whether control profiles tell how contexts differ."""
        rows = [
            (
                f"network gain, {cls}",
                gain,
                "above 0: share of the anchor's left-out error that the network takes off",
                "ok",
            )
            for cls, gain in self.gate_gains_.items()
        ]
        report = self.anchor_.context_report() if isinstance(self.anchor_, KernelEffect) else None
        if report is not None:
            expected = f"1: control profiles tell how contexts differ; 0: they don't (+- {report.error:.2f})"
            rows.append(("context slope", report.slope, expected, "check" if report.note else "ok"))
        return rows
