"""TrajectoryJEPA: where cells go as time passes, from snapshots of different cells."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField

from scjepa._checks import check_gate, require_column, require_labels, require_numbers, require_positive_int
from scjepa._docs import docs
from scjepa._scale import check_target_sum
from scjepa._types import InputScale
from scjepa.data import ExpressionMatrix, Split, aligned, fit_components
from scjepa.dynamics import Times, read_times
from scjepa.model._trajectory_events import TrajectoryEvents
from scjepa.model._trajectory_fates import FATE_PCS, TrajectoryFates
from scjepa.model._trajectory_predictions import TrajectoryPredictions
from scjepa.model.core import TrainingRun, check_cells, check_sizes, goes_on, last_split
from scjepa.model.trajectories import (
    Courses,
    Residual,
    Snapshots,
    note_confounding,
    split_course,
)
from scjepa.module import ExpressionSpace, JEPAModule, view_parts
from scjepa.train import digest, seeded

logger = logging.getLogger(__name__)

AXES = 5
"""Coordinates whose mean spread is the unit of the others."""


@docs
class TrajectoryJEPA(TrajectoryPredictions, TrajectoryFates, TrajectoryEvents):
    """Cells at times that were not measured, from unpaired snapshots at other times.

    Between snapshots cells are predicted in closed form (:class:`scjepa.baselines.times.Interpolant`): optimal transport whose
    displacements are averaged over neighbours, pooling where snapshots overlap, and the path of the means, weighed by leaving
    measured times out. A network that is told the time that passes corrects it, as far as training times left out bear it out (on
    real courses hardly ever; ``residual_.shares`` says how far). Beyond the last time the prediction is a copy of it, and says so.
    The embedding is that of :class:`ExpressionJEPA`.

    Parameters
    ----------
    %(model_adata)s
    %(registry)s
    n_pcs
        Principal components in which cells move; each keeps what it has outside of them.
    trend
        Whether predictions beyond the last time may move along the trend of the means, as far as every later training time,
        left out, bears it out. By default they are copies.
    residual
        Whether a network may correct the courses.
    gate
        Share of its correction that counts: ``"auto"`` (found from training snapshots left out, of which there must be three; mostly
        it is none) or a number from 0 to 1.
    %(encoder_arguments)s

    Notes
    -----
    Snapshots of different cells identify how the population changes, not which cell became which: paths of single cells are
    likely ones, nothing more. Courses of a model of query data (:meth:`load_query_data`) stay the reference's.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
    >>> adata.obs["day"] = ["day 0" if p == "control" else "day 2" for p in adata.obs["perturbation"]]
    >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "day")
    >>> model = scjepa.TrajectoryJEPA(adata, n_latent=8)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> cells = model.predict_trajectory(["24 h"], n_cells=50)
    >>> cells.shape, cells.obs["day"].unique().tolist()
    ((50, 60), ['1 days'])
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        n_pcs: int = 10,
        trend: bool = False,
        residual: bool = True,
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
            "n_pcs": min(require_positive_int(n_pcs, "n_pcs"), n_genes),
            **self._encoder_arguments(gene_sets, min(n_modules, n_genes)),
        }
        self.trend_ = bool(trend)
        check_gate(gate)
        self._residual, self._gate = bool(residual), gate
        self.anchor_, self.residual_ = Courses(trend=self.trend_), Residual()
        self.module = self._build_module()
        self._model_summary_string = f"TrajectoryJEPA: {n_genes} genes, {self.module_arguments_['n_pcs']} coordinates"

    def _build_module(self) -> JEPAModule:
        of = self.module_arguments_
        with seeded(0):
            encoder = self._new_encoder()
            views = view_parts(encoder, **{k: of[k] for k in ("regularizer", "regularizer_weight", "mask_rate")})
            return JEPAModule(encoder, space=ExpressionSpace(encoder.n_genes, of["n_pcs"]), **views)

    # ---------------------------------------------------------------- setup
    @classmethod
    @docs
    def setup_anndata(
        cls,
        adata: AnnData,
        time_key: str,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        condition_key: str | None = None,
        sample_key: str | None = None,
        lineage_key: str | None = None,
        growth_key: str | None = None,
        input_scale: InputScale = "auto",
        target_sum: float = 1e4,
        **kwargs: Any,
    ) -> None:
        """Tell the model where to find what in ``adata``.

        Parameters
        ----------
        %(setup_adata)s
        time_key
            Column of times: numbers, text (``"6h"``, ``"day 4"``, ``"E8.5"``, ``"100-130"``) or ordered categories; two
            different ones at least.
        %(setup_layer)s
        %(batch_key)s
        condition_key
            Column of conditions (treatment, genotype): each has a course of its own.
        sample_key
            Column of samples (donors, animals).
        lineage_key
            Column of clones; not used in training.
        growth_key
            Column with the number of descendants of each cell after one unit of time (at least 0; 1 is neither growth nor
            death).
        %(input_scale)s
        %(target_sum)s
        %(setup_kwargs)s

        Raises
        ------
        KeyError, ValueError
            For absent columns, missing or unreadable times, a single time, wrong growth rates, and a matrix that is neither
            counts nor log-normalized.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> adata.obs["hours"] = [0 if p == "control" else 6 for p in adata.obs["perturbation"]]
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "hours")
        """
        target_sum, input_scale = check_target_sum(target_sum), check_cells(adata, layer, input_scale)
        require_column(adata.obs, time_key, "time_key")
        times = read_times(adata.obs[time_key], f"time_key={time_key!r}")
        if len(times.levels) < 2 and "source_registry" not in kwargs:
            raise ValueError(
                f"time_key={time_key!r}: all cells are of one time ({times.labels[0]}). A course needs at least two."
            )
        for argument, key in (("batch_key", batch_key), ("condition_key", condition_key), ("sample_key", sample_key)):
            if key is not None:
                require_labels(adata.obs, key, argument)
        if lineage_key is not None:
            require_column(adata.obs, lineage_key, "lineage_key")
        if growth_key is not None:
            require_numbers(adata.obs, growth_key, "growth_key", minimum=0.0)
        if batch_key is not None:
            note_confounding(adata.obs[batch_key].astype(str).to_numpy(), times, batch_key)
        setup_method_args = cls._get_setup_method_args(
            **{name: value for name, value in locals().items() if name != "times" and name not in ("argument", "key")}
        )
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    # ---------------------------------------------------------------- training
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
        holdout: Sequence[Any] | None = None,
        early_stopping: bool = True,
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        embed: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the encoder, and match the snapshots.

        Parameters
        ----------
        %(max_epochs)s
        %(devices)s
        %(train_batch_size)s
        train_size, validation_size
            Shares of cells (of categories, with an obs column in ``split_by``); by default every cell trains.
        split_by
            ``"cell"``, ``"time"`` or a column of ``adata.obs``.
        holdout
            Times (as in the column, or numbers in its unit), or categories of the column ``split_by``: their cells are never
            touched, not even by PCA.
        %(early_stopping)s
        %(train_seed)s
        %(plan_kwargs)s
        embed
            Train the embedding; predictions are the same without.
        %(checkpoint_dir)s
        %(trainer_kwargs)s

        Raises
        ------
        ValueError
            For held-out times that do not occur, and when fewer than two times are left.
        """
        adata = self._own_or_given(None)
        check_sizes(batch_size, max_epochs)
        times = self._times(adata)
        shares: dict[str, Any] = {"train_size": train_size, "validation_size": validation_size, "seed": seed}
        split = split_course(adata.obs, times, self._setup["time_key"], split_by=split_by, holdout=holdout, **shares)
        matrix = self._read(adata)
        options = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plan_kwargs}
        run = TrainingRun(
            self,
            split,
            seed=seed,
            goes_on=goes_on(self, split),
            checkpoint_dir=checkpoint_dir,
            arguments={**options, **({} if embed else {"embed": False})},
            data=(matrix.values, times.values, self._reader.batch_codes(adata)),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        with run:
            if run.fresh:
                self.module = self._build_module()
                self._prepare_encoder(matrix, split.train)
            if self.reference_ is None:
                self.times_ = {"unit": times.unit, "labels": list(times.labels), "levels": times.levels}
                self._fit_courses(adata, matrix, times, split, seed)
                self.cell_names_ = digest(adata.obs_names.to_numpy())
            stage = self._encoder_stage(matrix, seed)
            if embed:
                if not self.embedded_:
                    self._start_encoder(stage, split.train)
                self._train_encoder(run, stage, **options)
            else:
                run.note("encoder")
                run.nothing_trained()

    @docs
    def train_embedding(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 512,
        early_stopping: bool = True,
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the embedding of a model that was trained without it; predictions stay as they are.

        Parameters
        ----------
        max_epochs, accelerator, devices, batch_size, early_stopping, seed, checkpoint_dir
            As in :meth:`train`.
        %(plan_kwargs)s
        %(trainer_kwargs)s

        Raises
        ------
        RuntimeError, ValueError
            Before training, and when the model holds other cells than those it was trained on.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1], n_cells=30)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata, n_latent=8)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> model.train_embedding(max_epochs=1, enable_progress_bar=False)
        >>> model.get_latent().shape
        (60, 8)
        """
        self._require_trained("train_embedding")
        check_sizes(batch_size, max_epochs)
        split = last_split(self)
        matrix = self._read(self._own_or_given(None))
        options = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plan_kwargs}
        run = TrainingRun(
            self,
            split,
            seed=seed,
            goes_on=self.embedded_,
            checkpoint_dir=checkpoint_dir,
            arguments=options,
            data=(matrix.values,),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        with run:
            stage = self._encoder_stage(matrix, seed)
            if run.fresh:
                self._start_encoder(stage, split.train)
            self._train_encoder(run, stage, **options)
            run.extends = True

    def _fit_courses(self, adata: AnnData, matrix: ExpressionMatrix, times: Times, split: Split, seed: int) -> None:
        """Fix the coordinates, match the snapshots, and judge and train the network, on training cells only."""
        rows = matrix.values[train := split.train]
        n_pcs, n_genes = self.module.space.loadings.shape
        axes = fit_components(rows, min(max(n_pcs, FATE_PCS), n_genes), seed=seed)
        self.fate_axes_ = {"mean": axes.mean, "loadings": axes.loadings[:FATE_PCS]}
        spread = axes.std[: min(AXES, len(axes.std))]
        scale = float(spread[spread > 0].mean()) if (spread > 0).any() else 1.0
        self.module.space.set_axes(aligned(axes.mean), aligned(axes.loadings[:n_pcs]), scale)
        self.max_expression_ = np.asarray(rows.max(0).todense()).ravel().astype(np.float32)
        key = self._setup["growth_key"]
        growth = None if key is None else adata.obs[key].to_numpy(dtype=float)[train]
        cells = Snapshots(
            self._coordinates(rows), times.values[train], self._conditions(adata)[train].astype(str), growth
        )
        self.anchor_ = Courses(trend=self.trend_, seed=seed).fit(*cells[:3], train, growth)
        self.residual_ = Residual(seed=seed)
        if self._residual and (self._gate != "auto" or self.residual_.judges(self.anchor_)):
            self.residual_.fit(cells, self.anchor_, self._gate)
