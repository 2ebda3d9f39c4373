"""What all models share: checks at the door, reading cells, the encoder stage, latents, readout and diagnostics."""

from __future__ import annotations

import copy
import json
import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from scjepa._checks import closest, require_positive_int, some
from scjepa._compat import layer_names, prepare_scvi
from scjepa._scale import check_scale
from scjepa._types import FloatArray
from scjepa.data import ExpressionMatrix, Split, ViewBatches, aligned, cell_positions, fit_components
from scjepa.metrics import lidar, rankme
from scjepa.model._export import registered_genes
from scjepa.model._plain import Packer
from scjepa.model._query import QueryMixin
from scjepa.model._reading import Door, gene_order
from scjepa.module import VIEWS, JEPAModule
from scjepa.nn import gene_set_modules, kmeans_modules
from scjepa.train import Checkpoints, CollapseMonitor, PlanConfig, Stage, digest, epochs_for, run_stage

prepare_scvi()
logger = logging.getLogger(__name__)

ENCODER_STEPS = 400
"""Steps of the encoder stage when ``max_epochs`` is not given."""
CHUNK = 8192
"""Rows that are read from AnnData at a time."""


class JEPABase(QueryMixin):
    """Shared by all model classes; see :class:`ExpressionJEPA` and :class:`PerturbJEPA`."""

    _module_cls = JEPAModule
    history_: dict[str, pd.DataFrame] | None
    embedded_: bool = True
    """Whether the encoder was trained; models saved before this could be left out were."""
    frozen_encoder_: bool = False
    reference_unit_: float = 1.0
    typical_total_: float = 1e4

    @abstractmethod
    def _build_module(self) -> JEPAModule:
        """Return a fresh module as the model's arguments ask for; the same at every call."""

    # ---------------------------------------------------------------- setup
    @property
    def _setup(self) -> dict[str, Any]:
        """Arguments that ``setup_anndata`` was called with."""
        return self.registry_["setup_args"]

    def __init__(self, adata: AnnData | None = None, registry: dict | None = None) -> None:
        super().__init__(adata, registry)
        # kept apart from the registry, which follows the AnnData that the model is loaded with
        self.var_names_: list[str] = [str(g) for g in registered_genes(self.registry_)]

    @property
    def var_names(self) -> np.ndarray:
        """Names of the genes the model was set up with, in its order."""
        return np.asarray(self.var_names_)

    def _require_trained(self, what: str) -> None:
        if not self.is_trained_:
            raise RuntimeError(f"{what} needs a trained model. Run model.train() first.")

    def _require_embedding(self, what: str) -> None:
        self._require_trained(what)
        if not self.embedded_:
            raise RuntimeError(
                f"{what} needs the embedding, which training left out (embed=False). Train it now with "
                "model.train_embedding(); predictions stay as they are."
            )

    @property
    def _given_embedding(self) -> bool:
        """Whether training starts from an embedding: that of a pretrained encoder or of a reference which has one."""
        return self.start_ is not None and (self.reference_ or {}).get("embedded", True)

    def _encoder_arguments(self, gene_sets: Mapping[str, Sequence[str]] | None, n_modules: int) -> dict[str, Any]:
        """Turn gene sets into encoder arguments; the names of the modules are kept for interpretation."""
        if gene_sets is None:
            self.module_names_ = [f"module {i}" for i in range(n_modules)]
            return {"n_modules": n_modules}
        names, membership = gene_set_modules(list(self.var_names), gene_sets)
        self.module_names_ = list(names)
        return {"n_modules": len(names), "gene_modules": torch.as_tensor(membership)}

    # ---------------------------------------------------------------- reading cells
    def _own_or_given(self, adata: AnnData | None) -> AnnData:
        if adata is None:
            if self.adata is None:
                raise ValueError("the model holds no AnnData (it was loaded without): pass adata=.")
            return self.adata
        if not isinstance(adata, AnnData):
            raise TypeError(f"adata: expected an AnnData, got {type(adata).__name__}.")
        if adata.isbacked:
            raise ValueError("adata is backed. Load it, or the part you need, with adata.to_memory().")
        return adata

    def _door(self, adata: AnnData) -> Door:
        """Check the matrix of any AnnData once, and find its scale and where the model's genes are."""
        layer = self._setup["layer"]
        if layer is not None and layer not in layer_names(adata):
            raise KeyError(
                f"layer={layer!r}, which the model was set up with, is not in adata.layers."
                f"{closest(layer, layer_names(adata))}"
            )
        x = adata.X if layer is None else adata.layers[layer]
        if sp.issparse(x) and x.format != "csr":
            x = x.tocsr()
        # own data are checked again too: they may have been normalized in place since
        return Door(x, check_scale(x), gene_order(adata, self.var_names))

    def _read(self, adata: AnnData, cells: np.ndarray | None = None, door: Door | None = None) -> ExpressionMatrix:
        """Read cells of any AnnData in the model's genes, normalized as in training."""
        x, scale, order = door or self._door(adata)
        if cells is not None:
            x = x[cells]
        if order is not None:
            x = x[:, order]
        target = self._setup["target_sum"] if self._setup["input_scale"] == "counts" else self.typical_total_
        return ExpressionMatrix(x, scale, target_sum=target)

    def _chunks(self, adata: AnnData, cells: np.ndarray) -> Iterator[tuple[np.ndarray, ExpressionMatrix]]:
        """Read cells piece by piece, so that the whole matrix never exists twice."""
        door = self._door(adata)
        for start in range(0, len(cells), CHUNK):
            part = cells[start : start + CHUNK]
            yield part, self._read(adata, part, door)

    def _batch_codes(self, adata: AnnData, cells: np.ndarray) -> np.ndarray | None:
        """Batch codes for a batch-aware encoder; None (mean batch) when ``adata`` has no such column."""
        key = self._setup.get("batch_key")
        if not self.module.encoder.n_batch or key is None or key not in adata.obs:
            return None
        known = list(self.registry_["field_registries"]["batch"]["state_registry"]["categorical_mapping"])
        labels = adata.obs[key].astype(str).to_numpy()[cells]
        codes = pd.Index([str(k) for k in known]).get_indexer(labels)
        if (codes < 0).any():
            new = sorted(set(labels[codes < 0]))
            raise ValueError(
                f"adata.obs[{key!r}] has {len(new)} batches that the model does not know: {some(new)}."
                f"{closest(new[0], known)} Drop the column to encode with the mean batch."
            )
        return codes

    # ---------------------------------------------------------------- encoder stage
    @contextmanager
    def _keeping_what_was_trained(self) -> Iterator[None]:
        """Give a trained model back as it was when another training fails or is interrupted."""
        before = None
        if self.is_trained_:
            before = {k: v for k, v in self.__dict__.items() if k != "module"}, copy.deepcopy(self.module)
        try:
            yield
        except BaseException:
            if before is not None:
                self.__dict__.update(before[0])
                self.module = before[1]
            raise

    def _goes_on(self, split: Split) -> bool:
        """Whether this training continues the last one: only on the same training cells, else something would leak."""
        same = self.is_trained_ and np.array_equal(np.asarray(self.train_indices), split.train)
        if self.is_trained_ and not same:
            logger.info("the training cells changed: the model is trained from the start.")
        return bool(same)

    def _prepare_encoder(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        """Find the depth of the training cells, or start from the weights of another model."""
        self.embedded_ = self._given_embedding
        if self.start_ is not None:
            self._restart(matrix, train)
            return
        self.reference_unit_ = matrix.reference_unit(train)
        totals = np.asarray(matrix.values[train].expm1().sum(1)).ravel()
        self.typical_total_ = float(np.median(totals))

    def _start_encoder(self, matrix: ExpressionMatrix, train: np.ndarray, seed: int) -> None:
        """Start the encoder as PCA of the training cells, and cut the genes into modules."""
        encoder = self.module.encoder
        cells = matrix.at_depth(self.reference_unit_, train)
        axes = fit_components(cells, encoder.n_latent, seed=seed)
        std = np.where(axes.std > 0, axes.std, 1.0)  # axes beyond the rank of the data are zero and stay zero
        encoder.initialize(axes.loadings, std, axes.mean)
        if self._init_modules():
            encoder.set_modules(kmeans_modules(axes.loadings * axes.std[:, None], encoder.n_modules, seed))
        self._center_batches(cells, train, np.arange(encoder.n_batch))
        with torch.no_grad():
            self.module.decoder.weight.copy_(aligned((axes.loadings * axes.std[:, None]).T))
            self.module.decoder.bias.zero_()
            if self.module.target_encoder is not None:
                self.module.target_encoder.module.load_state_dict(encoder.state_dict())

    def _center_batches(self, cells: sp.csr_matrix, train: np.ndarray, which: np.ndarray) -> None:
        """Start the offsets of some batches of a batch-aware encoder at their means, shrunken: small ones move less."""
        encoder = self.module.encoder
        codes = self._batch_codes(self.adata, train)
        for code in which:
            rows = np.flatnonzero(codes == code)
            if len(rows) and encoder.offset is not None:
                mean = np.asarray(cells[rows].mean(0)).ravel() - encoder.mean.cpu().numpy()
                shrunk = (mean * len(rows) / (len(rows) + 20)).astype(np.float32)
                encoder.offset.weight.data[code] = aligned(shrunk).to(self.device)

    def _restart(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        """Start from the weights of another model: a pretrained encoder, or the reference of query data."""
        self.module.load_state_dict(self.start_, strict=False)
        if self.module.target_encoder is not None and self.reference_ is None:
            self.module.target_encoder.module.load_state_dict(self.module.encoder.state_dict())
        new = (self.rows_ or {}).get("encoder.offset.weight")
        if new is not None:
            self._center_batches(matrix.at_depth(self.reference_unit_, train), train, np.flatnonzero(new.cpu().any(1)))

    def _trainable(self, objective: str) -> dict[str, torch.Tensor] | None:
        if objective == VIEWS and (self.frozen_encoder_ or not self._given_embedding):
            return {} if self.frozen_encoder_ else None  # nothing to forget: no one has trained it
        return super()._trainable(objective)

    def _checkpoints(
        self, folder: str | os.PathLike | None, goes_on: bool, split: Split, arguments: dict[str, Any], *data: Any
    ) -> tuple[Checkpoints | None, bool]:
        """Open the folder of a training; returns it, and whether the training goes on from this model's weights."""
        if folder is None:
            return None, goes_on
        packer = Packer(strict=False)
        parts = {name: getattr(self, name) for name in ("init_params_", "registry_", "start_", "rows_", "reference_")}
        setup = {k: v for k, v in parts.pop("registry_").items() if k in ("setup_args", "field_registries")}
        record = packer.pack({**parts, "setup": setup}, "")
        kept = Checkpoints(
            folder,
            {
                "model": digest(type(self).__name__, json.dumps(record), *packer.arrays.values()),
                "data": digest(*data),
                "split": digest(*split),
                "start": digest(*self.module.state_dict().values()) if goes_on else "fresh",
                "arguments": {k: repr(v) for k, v in arguments.items()},
            },
        )
        return kept, goes_on and not kept.fresh

    def _init_modules(self) -> bool:
        """Whether gene modules are to be found by k-means (no gene sets were given)."""
        return self.init_params_["non_kwargs"].get("gene_sets") is None

    def _monitor(self, matrix: ExpressionMatrix, train: np.ndarray, seed: int) -> CollapseMonitor:
        probe = np.sort(np.random.default_rng([seed, 3]).choice(train, min(256, len(train)), replace=False))
        codes = self._batch_codes(self.adata, probe)
        rows = aligned(matrix.rows(probe, self.reference_unit_))
        return CollapseMonitor(rows, None if codes is None else torch.from_numpy(codes))

    def _train_encoder(
        self,
        matrix: ExpressionMatrix,
        split: Split,
        *,
        max_epochs: int | None,
        batch_size: int,
        plan_kwargs: dict | None,
        seed: int,
        **runner: Any,
    ) -> dict[str, pd.DataFrame]:
        """Run stage 1 and fix what follows from it in closed form; returns the history."""
        codes = self._batch_codes(self.adata, np.arange(self.adata.n_obs))
        size = max(batch_size // 2, 2)  # two views of each cell make a batch
        views = partial(
            ViewBatches, matrix, batch_size=size, reference=self.reference_unit_, batch_codes=codes, seed=seed
        )
        train = views(split.train)
        validation = None
        if len(split.validation) >= 2:
            validation = views(split.validation, fixed=True)
        stage = Stage(
            "encoder",
            VIEWS,
            PlanConfig.from_kwargs(PlanConfig(), plan_kwargs),
            train,
            max_epochs or epochs_for(ENCODER_STEPS, len(train)),
            validation,
            [self._monitor(matrix, split.train, seed)],
            self._trainable(VIEWS),
        )
        history = run_stage(self, stage, split, **runner)
        self._finish_encoder(matrix, split.train, codes)
        return history

    @torch.no_grad()
    def _finish_encoder(self, matrix: ExpressionMatrix, train: np.ndarray, codes: np.ndarray | None) -> None:
        """Give the embedding exact training mean 0 and variance 1, and fit the readout, in two passes."""
        if self.rows_ is not None and self._given_embedding:  # of a frozen query model both are known
            return
        self.embedded_ = True
        encoder = self.module.encoder

        def blocks(normalize: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for start in range(0, len(train), 2048):
                cells = train[start : start + 2048]
                x = aligned(matrix.rows(cells))
                seen = x if self.reference_unit_ == 1.0 else torch.log1p(torch.expm1(x) / self.reference_unit_)
                batch = None if codes is None else torch.from_numpy(codes[cells]).to(self.device)
                yield encoder(seen.to(self.device), batch=batch, normalize=normalize), x

        if self.frozen_encoder_:  # the embedding is another model's: only the readout is this one's
            self.module.readout.fit(blocks(normalize=True))
            return
        n, total = 0, torch.zeros(encoder.n_latent, dtype=torch.float64, device=self.device)
        square = torch.zeros_like(total)
        for h, _ in blocks(normalize=False):
            n, total, square = n + len(h), total + h.double().sum(0), square + (h.double() ** 2).sum(0)
        mean = total / n
        encoder.set_statistics(mean.float(), (square / n - mean**2).clamp_min(1e-8).float())
        self.module.readout.fit(blocks(normalize=True))

    # ---------------------------------------------------------------- what users ask for
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        *,
        give_tokens: bool = False,
    ) -> FloatArray:
        """Return the JEPA embedding of cells.

        Perturbation labels are never read, so data with unknown labels or without labels works.

        Parameters
        ----------
        adata
            Cells with the model's genes, in any order; by default the AnnData of the model.
        indices
            Positions or boolean mask of the cells to embed.
        batch_size
            Cells per pass, by default 2,048; the result does not depend on it.
        give_tokens
            Return one vector per gene module instead (``encoder="modules"`` only).

        Returns
        -------
        ``(n, n_latent)`` float32 in ``obs`` order (or in the order of ``indices``); with ``give_tokens``
        ``(n, modules, d_token)``. Each dimension has mean 0 and variance 1 over the training cells.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> model = scjepa.ExpressionJEPA(adata, n_latent=8)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> adata.obsm["X_jepa"] = model.get_latent_representation()
        >>> adata.obsm["X_jepa"].shape == (adata.n_obs, 8)
        True
        """
        self._require_embedding("get_latent_representation")
        adata = self._own_or_given(adata)
        cells = cell_positions(adata, indices)
        size = require_positive_int(batch_size if batch_size is not None else 2048, "batch_size")
        if give_tokens and self.module.encoder.kind != "modules":
            raise ValueError("give_tokens=True needs encoder='modules'; this model has encoder='mlp'.")
        out = []
        codes = self._batch_codes(adata, cells)
        done = 0
        for part, matrix in self._chunks(adata, cells):
            for start in range(0, len(part), size):
                rows = np.arange(start, min(start + size, len(part)))
                x = aligned(matrix.rows(rows, self.reference_unit_)).to(self.device)
                batch = None if codes is None else torch.from_numpy(codes[done + rows]).to(self.device)
                out.append(self.module.embed(x, batch=batch, give_tokens=give_tokens).cpu().numpy())
            done += len(part)
        return np.concatenate(out).astype(np.float32, copy=False)

    def get_latent(self, *args: Any, **kwargs: Any) -> FloatArray:
        """Return the JEPA embedding: :meth:`get_latent_representation` under its short name."""
        return self.get_latent_representation(*args, **kwargs)

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
    ) -> pd.DataFrame | FloatArray:
        """Return expression read out of each cell's own embedding (ridge), on the log-normalized scale.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        gene_list
            Genes to return, by default all.
        return_numpy
            Return an array instead of a data frame.

        Returns
        -------
        Cells x genes, non-negative.
        """
        self._require_embedding("get_normalized_expression")
        adata = self._own_or_given(adata)
        cells = cell_positions(adata, indices)
        genes = self.var_names
        columns = np.arange(len(genes))
        if gene_list is not None:
            columns = pd.Index(genes).get_indexer(list(gene_list))
            if (columns < 0).any():
                missing = [g for g, c in zip(gene_list, columns, strict=True) if c < 0]
                raise ValueError(
                    f"gene_list: {len(missing)} genes are not among the model's: {some(missing)}."
                    f"{closest(missing[0], genes)}"
                )
        h = torch.from_numpy(self.get_latent_representation(adata, cells, batch_size)).to(self.device)
        readout = self.module.readout
        x = (h @ readout.weight[columns].T + readout.bias[columns]).clamp_min(0).cpu().numpy()
        return x if return_numpy else pd.DataFrame(x, index=adata.obs_names[cells], columns=genes[columns])

    def get_diagnostics(self) -> pd.DataFrame:
        """Return what tells a healthy embedding from a collapsed one.

        Returns
        -------
        One row a diagnostic: ``value``, ``expected`` (in words) and ``verdict`` (``"ok"`` or ``"check"``). RankMe is
        an alarm for collapse, not a score: it does not rank good encoders.
        """
        self._require_trained("get_diagnostics")
        rows = self._diagnostics(np.random.default_rng(0))
        table = pd.DataFrame(rows, columns=["diagnostic", "value", "expected", "verdict"])
        return table.set_index("diagnostic")

    def _diagnostics(self, rng: np.random.Generator) -> list[tuple[str, float, str, str]]:
        adata = self._own_or_given(None)
        cells = np.sort(rng.choice(adata.n_obs, min(2000, adata.n_obs), replace=False))
        matrix = self._read(adata, cells)
        h = self.get_latent_representation(adata, cells)
        truth = matrix.rows(slice(None))
        seen = self.get_normalized_expression(adata, cells, return_numpy=True)
        spread = ((truth - truth.mean(0)) ** 2).sum()
        r2 = float(1 - ((truth - seen) ** 2).sum() / max(spread, 1e-12))
        some_cells = np.arange(min(100, len(cells)))
        encoder, codes = self.module.encoder, self._batch_codes(adata, cells[some_cells])
        batch = None if codes is None else torch.from_numpy(codes).to(self.device)
        views = []
        with torch.inference_mode():
            for _ in range(4):
                for view in matrix.views(some_cells, rng, reference=self.reference_unit_):
                    views.append(encoder(aligned(view).to(self.device), batch=batch).cpu().numpy())
        d = h.shape[1]
        std, rank = float(h.std(0).mean()), rankme(h)
        between = lidar(np.concatenate(views), np.tile(some_cells, len(views)))
        return [
            ("mean std", std, "about 1; collapse below 0.1", "ok" if std > 0.1 else "check"),
            ("RankMe", rank, f"well above {0.25 * d:.0f} of {d}", "ok" if rank > 0.25 * d else "check"),
            ("LiDAR", between, f"well above 2 of {d} (cells against their views)", "ok" if between > 2 else "check"),
            ("probe R2", r2, "above 0: the embedding tells expression", "ok" if r2 > 0.02 else "check"),
        ]
