"""ExpressionJEPA: an embedding of cells from count-split, module-masked views."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField

from scjepa._checks import require_labels, require_positive_int
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.data import split_cells
from scjepa.data._splits import Holdout
from scjepa.model._base import JEPABase
from scjepa.model._reading import check_cells
from scjepa.module import JEPAModule
from scjepa.train import describe, extend_history, merge_histories, seeded


class ExpressionJEPA(JEPABase):
    """Joint-embedding predictive architecture for expression: embeddings that survive dropout.

    Two complementary views of a cell (its counts split binomially, a share of the gene modules hidden in each) must
    agree, each must predict the other's expression, and a sliced-Gaussian term forbids collapse. The encoder starts
    as whitened PCA. Perturbation labels, cell types and the like are never seen.

    Parameters
    ----------
    adata
        Set up with :meth:`setup_anndata`.
    registry
        For loading without data; not for users.
    n_latent
        Dimension of the embedding.
    encoder
        ``"mlp"``, or ``"modules"``: one token per gene module, for interpretation and for ``give_tokens``.
    gene_sets
        Name -> genes; used as gene modules (plus one module with all other genes) instead of k-means modules.
    n_modules
        Number of k-means modules, cut from the PCA loadings of the training cells.
    n_hidden, n_layers
        Width and depth of the encoder.
    regularizer
        ``"visreg"``, ``"sigreg"``, ``"vicreg"``, or ``"ema"`` (slow target encoder instead of a term).
    regularizer_weight
        Its weight; None takes the measured default.
    mask_rate
        Share of modules hidden in each view.
    batch_aware
        Subtract a learned offset per batch (of ``batch_key``) before encoding. Batch effects are *not* removed
        otherwise.

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
        with seeded(0):
            return self._module_cls(self.summary_stats["n_vars"], **self.module_arguments_)

    @classmethod
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
        adata
            Cells x genes; raw counts or log1p of library-normalized counts, dense or sparse.
        layer
            Layer with the matrix, by default ``adata.X``.
        batch_key
            Column of ``adata.obs`` with batches.
        input_scale
            ``"counts"``, ``"lognorm"``, or ``"auto"`` to find out; what was found is recorded.
        target_sum
            Library size that counts are scaled to before log1p, below 3.27e6.
        **kwargs
            Used by scvi-tools when it replays a setup.

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
        max_epochs
            Passes over the training cells; by default as many as make 400 steps.
        accelerator, devices
            As in Lightning.
        batch_size
            Embeddings per step and process: two views of each of ``batch_size // 2`` cells.
        train_size, validation_size
            Shares of cells (of categories, with an obs column in ``split_by``). By default every cell that is not
            held out trains and nothing validates: the schedule is fixed.
        split_by
            ``"cell"`` or a column of ``adata.obs``.
        holdout
            Categories of that column; their cells are never touched, not even by PCA.
        early_stopping
            Stop when the validation loss stalls, and keep the weights of the best epoch; acts only when there are
            validation cells.
        seed
            Same seed, same numbers on one machine.
        plan_kwargs
            Options of :class:`scjepa.train.PlanConfig` (``lr``, ``weight_decay``, ...).
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
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> model = scjepa.ExpressionJEPA(adata)
        >>> model.train(max_epochs=1, split_by="context", holdout=["state B"], enable_progress_bar=False)
        >>> set(adata.obs["context"].iloc[model.test_indices])
        {'state B'}
        """
        adata = self._own_or_given(None)
        require_positive_int(batch_size, "batch_size", minimum=2)
        if max_epochs is not None:
            require_positive_int(max_epochs, "max_epochs")
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
        given = {"max_epochs": max_epochs, "batch_size": batch_size, "early_stopping": early_stopping, "seed": seed,
                 "plan_kwargs": plan_kwargs, **describe(trainer_kwargs)}  # fmt: skip
        codes = self._batch_codes(adata, np.arange(adata.n_obs))
        checkpoints, goes_on = self._checkpoints(
            checkpoint_dir, self._goes_on(split), split, given, matrix.values, codes
        )
        earlier = self.history_
        with self._keeping_what_was_trained(), seeded(seed):
            if not goes_on:
                self.module = self._build_module()
                self._prepare_encoder(matrix, split.train)
            if not self.embedded_:
                self._start_encoder(matrix, split.train, seed)
            history = self._train_encoder(
                matrix,
                split,
                max_epochs=max_epochs,
                batch_size=batch_size,
                plan_kwargs=plan_kwargs,
                seed=seed,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                checkpoints=checkpoints,
                **trainer_kwargs,
            )
        self.history_ = extend_history(earlier if goes_on else None, merge_histories([("encoder", history)]))
        self.seed_ = seed
        if checkpoints is not None:
            checkpoints.finish()
