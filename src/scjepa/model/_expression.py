"""ExpressionJEPA: an embedding of cells from count-split, module-masked views."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField

from scjepa._checks import require_labels, require_positive_int, some
from scjepa._docs import docs
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.data import split_cells
from scjepa.data._splits import Holdout
from scjepa.model.core import JEPAModel, TrainingRun, check_cells, check_sizes, goes_on
from scjepa.model.core._pretrained import ENCODER
from scjepa.module import ExpressionSpace, JEPAModule, view_parts
from scjepa.train import seeded


@docs
class ExpressionJEPA(JEPAModel):
    """Joint-embedding predictive architecture for expression: embeddings that survive dropout.

    Two complementary views of a cell (its counts split binomially, a share of the gene modules hidden in each) must
    agree, each must predict the other's expression, and a sliced-Gaussian term forbids collapse. The encoder starts
    as whitened PCA. Perturbation labels, cell types and the like are never seen.

    Parameters
    ----------
    %(model_adata)s
    %(registry)s
    %(encoder_arguments)s
    %(batch_aware)s

    Notes
    -----
    Recipe and measurements: the user guide. Regularizers: SIGReg (LeJEPA, arXiv 2511.08544), VISReg
    (arXiv 2606.02572), VICReg (arXiv 2105.04906).

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
    >>> scjepa.ExpressionJEPA.setup_anndata(adata, batch_key="batch")
    >>> model = scjepa.ExpressionJEPA(adata, n_latent=10)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> adata.obsm["X_jepa"] = model.get_latent_representation()
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        n_latent: int = 32,
        encoder: str = "mlp",
        gene_sets: Mapping[str, Sequence[str]] | None = None,
        n_modules: int = 32,
        n_hidden: int = 256,
        n_layers: int = 2,
        regularizer: str = "visreg",
        regularizer_weight: float | None = None,
        mask_rate: float = 0.15,
        batch_aware: bool = False,
    ) -> None:
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        n_genes = self.summary_stats["n_vars"]
        self.module_arguments_ = {
            "n_latent": min(require_positive_int(n_latent, "n_latent"), n_genes),
            "encoder": encoder,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "regularizer": regularizer,
            "regularizer_weight": regularizer_weight,
            "mask_rate": mask_rate,
            "n_batch": self.summary_stats["n_batch"] if batch_aware else 0,
            "n_pcs": 1,
            **self._encoder_arguments(gene_sets, min(n_modules, n_genes)),
        }
        if batch_aware and self._setup["batch_key"] is None:
            raise ValueError("batch_aware=True needs a batch_key. Pass it to ExpressionJEPA.setup_anndata.")
        self.module = self._build_module()
        self._model_summary_string = (
            f"ExpressionJEPA: {n_genes} genes -> {self.module_arguments_['n_latent']} dimensions, "
            f"encoder {encoder}, regularizer {regularizer}"
        )

    def _build_module(self) -> JEPAModule:
        of = self.module_arguments_
        with seeded(0):
            encoder = self._new_encoder()
            views = view_parts(
                encoder, **{k: of[k] for k in ("regularizer", "regularizer_weight", "mask_rate") if k in of}
            )
            return JEPAModule(encoder, space=ExpressionSpace(encoder.n_genes, of["n_pcs"]), **views)

    @classmethod
    @docs
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        input_scale: InputScale = "auto",
        target_sum: float = 1e4,
        **kwargs: Any,
    ) -> None:
        """Tell the model where to find what in ``adata``.

        Parameters
        ----------
        %(setup_adata)s
        %(setup_layer)s
        %(batch_key)s
        %(input_scale)s
        %(target_sum)s
        %(setup_kwargs)s

        Raises
        ------
        KeyError, ValueError
            For an absent layer or column, missing labels, negative, NaN or infinite values, the wrong scale, cells
            without counts.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        """
        target_sum, input_scale = check_target_sum(target_sum), check_cells(adata, layer, input_scale)
        if batch_key is not None:
            require_labels(adata.obs, batch_key, "batch_key")
        setup_method_args = cls._get_setup_method_args(**locals())
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @docs
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
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the encoder.

        Parameters
        ----------
        %(max_epochs)s
        %(devices)s
        %(train_batch_size)s
        train_size, validation_size
            Shares of cells (of categories, with an obs column in ``split_by``). By default every cell that is not
            held out trains and nothing validates: the schedule is fixed.
        split_by
            ``"cell"`` or a column of ``adata.obs``.
        holdout
            Categories of that column; their cells are never touched, not even by PCA.
        %(early_stopping)s
        %(train_seed)s
        %(plan_kwargs)s
        %(checkpoint_dir)s
        %(trainer_kwargs)s

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> model = scjepa.ExpressionJEPA(adata)
        >>> model.train(max_epochs=1, split_by="context", holdout=["state B"], enable_progress_bar=False)
        >>> set(adata.obs["context"].iloc[model.test_indices])
        {'state B'}
        """
        adata = self._own_or_given(None)
        check_sizes(batch_size, max_epochs)
        split = split_cells(
            adata.obs,
            split_by=split_by,
            holdout=holdout,
            train_size=train_size,
            validation_size=validation_size,
            seed=seed,
        )
        if len(split.train) < 3:
            raise ValueError(f"{len(split.train)} training cells: at least 3 are needed.")
        matrix = self._read(adata)
        options = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plan_kwargs}
        run = TrainingRun(
            self,
            split,
            seed=seed,
            goes_on=goes_on(self, split),
            checkpoint_dir=checkpoint_dir,
            arguments=options,
            data=(matrix.values, self._reader.batch_codes(adata)),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        with run:
            if run.fresh:
                self.module = self._build_module()
                self._prepare_encoder(matrix, split.train)
            stage = self._encoder_stage(matrix, seed)
            if not self.embedded_:
                self._start_encoder(stage, split.train)
            self._train_encoder(run, stage, **options)


def pretrained(expression_jepa: ExpressionJEPA | str | os.PathLike, given: Mapping[str, Any]) -> ExpressionJEPA:
    """Return the trained model whose encoder another one is to take over.

    Parameters
    ----------
    expression_jepa
        The model, or the folder that it was saved or exported to.
    given
        Arguments for the other model; none may be the encoder's.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        For a model that is not trained, what is no :class:`ExpressionJEPA`, and arguments of the encoder.
    """
    source: Any = expression_jepa
    if isinstance(source, (str, os.PathLike)):
        source = ExpressionJEPA.load(str(source), False)
    if not isinstance(source, ExpressionJEPA):
        raise TypeError(
            f"expression_jepa: expected an ExpressionJEPA or its folder, got {type(expression_jepa).__name__}."
        )
    if not source.is_trained_:
        raise RuntimeError("from_pretrained needs a trained ExpressionJEPA. Run its train() first.")
    chosen = [name for name in ENCODER if name in given]
    if chosen:
        raise ValueError(f"{some(chosen)} can't be chosen: the encoder is the pretrained one. Leave out.")
    return source
