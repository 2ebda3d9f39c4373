"""DrugJEPA: what drugs do to cells, by structure, dose, time and context, from unpaired vehicle and treated cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data import AnnDataManager

from scjepa._checks import require_column
from scjepa._docs import docs
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.baselines import Baseline
from scjepa.model._drug_doses import DrugDoses
from scjepa.model._drug_structures import Structures, check_named, check_patients, smiles_of
from scjepa.model.conditions import Asked, Design, check_setup, fields


@docs
class DrugJEPA(DrugDoses):
    """Action-conditioned world model of cells for drugs: molecules, doses, exposure times, contexts.

    As :class:`PerturbJEPA`, with another anchor (:class:`scjepa.baselines.DrugEffect`: what drugs alike, other contexts,
    doses and times say, weighed against simple predictions by the left-out error of the class of question) and an
    encoder of actions that reads structures beside learned vectors. The strong case is a drug seen elsewhere, in a context
    where some others were measured; unseen molecules gain little for anybody, and predictions say so.

    Parameters
    ----------
    %(model_adata)s
    drug_features
        Drug x features (targets, pathways, language-model vectors), beside or in place of structures: each is a way to
        compare drugs, and so is the mean of both.
    %(registry)s
    fingerprint
        Kind of fingerprint of the SMILES, see :func:`scjepa.pharma.fingerprints`; environments are counted.
    fingerprint_radius, fingerprint_size, chirality
        Bonds that an environment reaches, length of the fingerprint, whether stereo-isomers are told apart.
    descriptors
        Read physico-chemical descriptors of the SMILES too (:func:`scjepa.pharma.descriptors`).
    anchor
        ``"drug"`` (the default), the name of a baseline, a baseline, or None for the network alone.
    residual, gate, n_pcs, predictor_input, set_loss, n_ensemble, predictor_hidden, predictor_layers, mean_weight, noise
        As in :class:`PerturbJEPA`.
    %(encoder_arguments)s

    Notes
    -----
    Without ``smiles_key`` and ``drug_features`` drugs are learned vectors, and molecules never measured are refused.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
    >>> adata.obs["dose"] = (adata.obs["perturbation"] != "control") * 1.0
    >>> scjepa.DrugJEPA.setup_anndata(adata, "perturbation", "control", dose_key="dose", context_key="context")
    >>> model = scjepa.DrugJEPA(adata, n_latent=8)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> drug = model.trained_on_["perturbation"].iloc[0]
    >>> model.predict_drug_response(drug, dose=0.5, n_cells=5, context="state A").shape
    (5, 60)
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        drug_features: pd.DataFrame | None = None,
        registry: dict | None = None,
        *,
        fingerprint: str = "morgan",
        fingerprint_radius: int = 2,
        fingerprint_size: int = 2048,
        chirality: bool = False,
        descriptors: bool = False,
        anchor: str | Baseline | None = "drug",
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
        n_ensemble: int = 2,
        predictor_hidden: int = 128,
        predictor_layers: int = 2,
        mean_weight: float = 0.2,
        noise: float = 0.3,
    ) -> None:
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        smiles, key = {}, self._setup["smiles_key"]
        if adata is not None and key is not None:
            design = self._design
            smiles = smiles_of(adata.obs, design.label_key, key, design.control, design.separator)
        if drug_features is not None:
            check_named(drug_features, self._items())
        self.structures_ = Structures(
            smiles,
            drug_features,
            fingerprint,
            radius=fingerprint_radius,
            size=fingerprint_size,
            chirality=chirality,
            descriptors=descriptors,
        )
        self._make(
            anchor=self._drug_anchor() if anchor == "drug" else anchor,
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
            n_ensemble=n_ensemble,
            predictor_hidden=predictor_hidden,
            predictor_layers=predictor_layers,
            mean_weight=mean_weight,
            noise=noise,
        )

    # ---------------------------------------------------------------- setup
    @classmethod
    @docs
    def setup_anndata(
        cls,
        adata: AnnData,
        drug_key: str,
        control: str = "DMSO",
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        smiles_key: str | None = None,
        dose_key: str | None = None,
        time_key: str | None = None,
        context_key: str | None = None,
        patient_key: str | None = None,
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
        drug_key
            Column of ``adata.obs``: control label, ``"A"``, or ``"A+B"`` (any number of drugs, any order).
        control
            Label of vehicle cells.
        %(setup_layer)s
        %(batch_key)s
            Vehicle cells are matched to treated cells by batch.
        smiles_key
            Column with the SMILES of the drug; empty for controls and combinations.
        dose_key
            Column with doses (numbers >= 0, one unit for all). In combinations a number holds for all drugs; text such as
            ``"1+0.5"`` gives each its own, in the order of the label.
        time_key
            Column with exposure times (numbers >= 0, one unit for all).
        context_key
            Column with contexts (cell type, cell line): every context with treated cells needs vehicle cells.
        patient_key
            Column with patients. They are the contexts if no ``context_key`` is given; else each context belongs to one.
        separator
            What joins the parts of a combination.
        %(input_scale)s
        %(target_sum)s
        %(setup_kwargs)s

        Raises
        ------
        KeyError, ValueError
            For absent columns, missing labels, an absent control, contexts without vehicle cells or with several patients,
            wrong doses or times, and a matrix that is neither counts nor log-normalized.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.DrugJEPA.setup_anndata(adata, "perturbation", "control", context_key="context")
        """
        control, target_sum = str(control), check_target_sum(target_sum)
        if patient_key is not None and context_key is not None:
            check_patients(adata, context_key, patient_key)
        context_key = patient_key if context_key is None else context_key
        setup = {"drug_key": drug_key, "control": control, "separator": separator, "context_key": context_key,
                 "dose_key": dose_key, "time_key": time_key, "batch_key": batch_key}  # fmt: skip
        design, label = Design.from_setup(setup, cls._words.label), cls._words.label
        query = "source_registry" in kwargs
        input_scale = check_setup(adata, design, layer, input_scale, label=label, query=query)
        if smiles_key is not None:
            require_column(adata.obs, smiles_key, "smiles_key")
            smiles_of(adata.obs, drug_key, smiles_key, control, separator)
        registered = {k: v for k, v in locals().items() if k not in ("setup", "design", "label", "query")}
        manager = AnnDataManager(
            fields=fields(design, layer), setup_method_args=cls._get_setup_method_args(**registered)
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    # ---------------------------------------------------------------- prediction
    def predict_effect(  # type: ignore[override]
        self,
        drugs: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        smiles: Mapping[str, str] | None = None,
        context: str | Sequence[str] | None = None,
        dose: Asked = None,
        time: float | Sequence[float] | None = None,
        level: float = 0.9,
        genes: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Predict mean effects with intervals, how far each question is from training, and whether to trust it.

        Parameters
        ----------
        drugs, adata, smiles, context, dose, time
            As in :meth:`predict_drug_response`; all controls of ``adata`` are used.
        level, genes
            As in :meth:`PerturbJEPA.predict_effect`.

        Returns
        -------
        A row a drug, dose, time, context and gene, as of :meth:`PerturbJEPA.predict_effect`; ``support`` has further words:
        ``"dose beyond"``, ``"time beyond"`` and ``"structure uninformative"``.
        """
        self._require_trained("predict_effect")
        with self._knowing(smiles):
            return self._effects(
                drugs, adata, context=context, dose=dose, kind=None, time=time, level=level, genes=genes
            )

    def predict_drug_response(
        self,
        drugs: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        smiles: Mapping[str, str] | None = None,
        dose: Asked = None,
        time: float | Sequence[float] | None = None,
        context: str | Sequence[str] | None = None,
        n_cells: int | None = None,
        include_control: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells under drugs, starting from vehicle cells.

        Parameters
        ----------
        drugs
            ``"A"``, ``"A+B"``, or a list of such labels; seen or unseen.
        adata, indices, context, n_cells, include_control, seed
            As in :meth:`PerturbJEPA.predict_perturbation`.
        smiles
            Name -> SMILES of drugs never measured.
        dose
            One or several (each drug at each), by default the median of training. For a combination a number holds for all
            its drugs; ``"1+0.5"`` (in the order of the label) or ``{"A": 1, "B": 0.5}`` gives each its own, and a drug at 0
            is not given.
        time
            One or several, by default the median of training.

        Returns
        -------
        Predicted cells, as :meth:`PerturbJEPA.predict_perturbation` returns them, with the columns of this model.
        """
        self._require_trained("predict_drug_response")
        with self._knowing(smiles):
            return self._predict(
                drugs,
                adata,
                indices=indices,
                context=context,
                dose=dose,
                time=time,
                n_cells=n_cells,
                include_control=include_control,
                seed=seed,
            )
