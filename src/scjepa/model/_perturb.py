"""PerturbJEPA: what a perturbation does to cells, from unpaired controls and perturbed cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data import AnnDataManager

from scjepa._docs import docs
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.baselines import Baseline
from scjepa.baselines._design import check_features
from scjepa.model.conditions import Asked, ConditionModel, Design, Words, check_setup, fields


@docs
class PerturbJEPA(ConditionModel):
    """Action-conditioned world model of cells for genetic (or any labelled) perturbations.

    Stage 1 learns an embedding of cells (see :class:`ExpressionJEPA`). Stage 2 predicts, in frozen
    expression-faithful coordinates, how controls move under a perturbation: a closed-form anchor plus a network that
    is zero at initialization, trained so that the predicted *set* of cells matches the set of perturbed cells.
    Controls and perturbed cells are unpaired, so what is identified is the distribution of perturbed cells, not the
    fate of a single cell.

    Parameters
    ----------
    %(model_adata)s
    gene_embeddings
        Gene x features (names as in the labels), for genes that were never perturbed in training. Without it the
        loadings of the measured genes are used; a gene with neither is refused.
    %(registry)s
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
    %(encoder_arguments)s
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

    _words = Words(
        label="perturbation_key",
        asked="perturbations",
        items="genes",
        item="gene",
        done="perturbed",
        features="no gene_embeddings, not a measured gene",
        mend="Pass gene_embeddings= (a DataFrame gene x features that covers it) to PerturbJEPA.",
    )

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
        if gene_embeddings is not None:
            check_features(gene_embeddings)
        self._gene_embeddings = gene_embeddings
        self._make(
            anchor=anchor,
            residual=residual,
            gate=gate,
            n_latent=n_latent,
            encoder=encoder,
            gene_sets=gene_sets,
            n_modules=n_modules,
            n_hidden=n_hidden,
            n_layers=n_layers,
            regularizer=regularizer,
            regularizer_weight=regularizer_weight,
            mask_rate=mask_rate,
            n_pcs=n_pcs,
            predictor_input=predictor_input,
            set_loss=set_loss,
            target_encoder=target_encoder,
            n_ensemble=n_ensemble,
            predictor_hidden=predictor_hidden,
            predictor_layers=predictor_layers,
            mean_weight=mean_weight,
            noise=noise,
            inverse_dynamics=inverse_dynamics,
        )

    # ---------------------------------------------------------------- setup
    @classmethod
    @docs
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
        %(setup_adata)s
            Rows may be profiles, one per condition.
        perturbation_key
            Column of ``adata.obs``: control label, ``"A"``, ``"A+B"`` (any number of genes, any order) or
            ``"A+ctrl"``, which is read as ``"A"``.
        control
            Label of control cells.
        %(setup_layer)s
        %(batch_key)s
            Controls are matched to perturbed cells by batch.
        context_key
            Column with contexts (cell type, cell line): every context with perturbed cells needs controls.
        dose_key
            Column with doses (numbers >= 0; for a combination text such as ``"1+0.5"`` gives each part its own, in the order
            of the label).
        kind_key
            Column with the kind of perturbation (knock-out, activation, ...).
        separator
            What joins the parts of a combination.
        %(input_scale)s
        %(target_sum)s
        %(setup_kwargs)s

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
        control, target_sum = str(control), check_target_sum(target_sum)
        setup = {"perturbation_key": perturbation_key, "control": control, "separator": separator,
                 "context_key": context_key, "dose_key": dose_key, "kind_key": kind_key, "batch_key": batch_key}  # fmt: skip
        design = Design.from_setup(setup, cls._words.label)
        input_scale = check_setup(
            adata, design, layer, input_scale, label=cls._words.label, query="source_registry" in kwargs
        )
        registered = {name: value for name, value in locals().items() if name not in ("setup", "design")}
        manager = AnnDataManager(
            fields=fields(design, layer), setup_method_args=cls._get_setup_method_args(**registered)
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def _item_features(self) -> pd.DataFrame:
        """Return ``gene_embeddings`` if given, else the loadings of the measured genes."""
        if self._gene_embeddings is not None:
            return self._gene_embeddings
        return pd.DataFrame(self.module.space.loadings.T.cpu().numpy() * self.axes_std_, index=self.var_names)

    def predict_perturbation(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        context: str | Sequence[str] | None = None,
        dose: Asked = None,
        kind: str | None = None,
        n_cells: int | None = None,
        include_control: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells under perturbations, starting from control cells.

        Parameters
        ----------
        perturbations
            ``"A"``, ``"A+B"`` (any number of genes, any order), or a list of such labels; seen or unseen.
        adata
            Where control cells come from, with the model's genes in any order and possibly a new context; by default
            the AnnData of the model. Without the perturbation column all its cells count as controls.
        indices
            Positions or boolean mask of the cells to use; those that are not controls are left out.
        context
            Contexts to predict in, by default all that have control cells.
        dose
            One dose or several (each perturbation at each), by default the median training dose; ``"1+0.5"`` or a mapping
            gives each part of a combination its own.
        kind
            Kind of perturbation, by default the most frequent one of that perturbation in training.
        n_cells
            Cells per perturbation and context; by default each control once.
        include_control
            Put the controls used in front, so that the result goes straight into cell-eval or pertpy.
        seed
            Of the draw of controls when ``n_cells`` is given.

        Returns
        -------
        Predicted cells. ``X``: float32, log-normalized, in the model's ``var_names``, between 0 and the largest value of
        the gene in training cells or in the controls that are moved; ``obs``: the perturbation, context, dose and kind
        columns, ``source`` (name of the control started from) and ``jepa_prediction`` (``"predicted"`` or
        ``"control"``); ``obsm["X_jepa"]``: embeddings of the predicted cells (not after ``train(embed=False)``);
        ``uns["jepa"]["prediction"]``: what it was made with, and (for models with an anchor) what it rests on:
        ``"conditions"``, a table of ``perturbation``, ``context`` (dose, kind), ``basis`` (the size of the effect was
        judged by ``"left out"`` conditions, by ``"sampling noise"`` alone, or by nothing: ``"none"``), ``support`` and
        ``abstain`` (see :meth:`predict_effect`); ``"reliability"`` of the training conditions (median, how many are
        ``near_zero``, of ``n``; see :meth:`get_reliability`), if cells tell; and ``"note"``. ``obs_names`` are unique.

        Warns
        -----
        UserWarning
            Once, with numbers: when effects could not be judged by leaving training conditions out, when the model
            abstains, when training contexts differ in a way that their controls do not explain. The same text is the
            ``"note"``.

        Raises
        ------
        ValueError
            For unknown genes without features, unknown contexts, a selection without controls, bad doses.

        Notes
        -----
        Controls and perturbed cells are unpaired: the predicted *set* is what was learned. That a predicted cell
        belongs to its source cell is an assumption of minimal displacement, not a measurement.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> seen = [p for p in adata.obs["perturbation"].unique() if p != "control"][:2]
        >>> model.predict_perturbation(seen, n_cells=5, context="state A").shape == (10, adata.n_vars)
        True
        """
        self._require_trained("predict_perturbation")
        return self._predict(
            perturbations,
            adata,
            indices=indices,
            context=context,
            dose=dose,
            kind=kind,
            n_cells=n_cells,
            include_control=include_control,
            seed=seed,
        )
