"""What all models share: reading cells, the encoder stage, latents, readout and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import closest, require_positive_int, some
from scjepa._compat import prepare_scvi
from scjepa._types import FloatArray
from scjepa.data import ExpressionMatrix, cell_positions
from scjepa.model.core._data import check_data, is_backed, modalities
from scjepa.model.core._diagnostics import Diagnostic, embedding_diagnostics
from scjepa.model.core._encoder import BLOCK, EncoderStage, encode
from scjepa.model.core._reading import Reader, registered_genes
from scjepa.model.core._run import TrainingRun
from scjepa.model.core._stored import StoredModel
from scjepa.module import VIEWS
from scjepa.nn import GeneExpressionEncoder, gene_set_modules

prepare_scvi()


class JEPAModel(StoredModel):
    """Shared by all model classes; see :class:`ExpressionJEPA` and :class:`PerturbJEPA`.

    A model class writes ``setup_anndata``, ``__init__``, ``train`` and ``_build_module``. What else it holds are parts, see
    :class:`StoredModel`.

    Attributes
    ----------
    embedded_
        Whether the encoder was trained; models saved before it could be left out were.
    frozen_encoder_
        Whether the encoder is another model's and stays as it is.
    pretrained_
        What the pretrained encoder is and saw, or None.
    reference_unit_
        Depth that cells are brought to before they are encoded.
    typical_total_
        Median library size of the training cells.
    var_names_
        The model's genes.
    """

    embedded_: bool = True
    frozen_encoder_: bool = False
    pretrained_: dict[str, Any] | None = None
    reference_unit_: float = 1.0
    typical_total_: float = 1e4
    var_names_: list[str]

    # ---------------------------------------------------------------- setup
    def __init__(self, adata: AnnData | None = None, registry: dict | None = None) -> None:
        super().__init__(adata, registry)
        # kept apart from the registry, which follows the AnnData that the model is loaded with
        self.var_names_ = [str(g) for g in registered_genes(self.registry_)]

    @property
    def _setup(self) -> dict[str, Any]:
        """Arguments that ``setup_anndata`` was called with."""
        return self.registry_["setup_args"]

    def _categories(self, name: str) -> list[str]:
        """Return the labels of a categorical column that the model was set up with."""
        return [str(c) for c in self.registry_["field_registries"][name]["state_registry"]["categorical_mapping"]]

    @property
    def var_names(self) -> np.ndarray:
        """Names of the genes the model was set up with, in its order."""
        return np.asarray(self.var_names_)

    def _encoder_arguments(self, gene_sets: Mapping[str, Sequence[str]] | None, n_modules: int) -> dict[str, Any]:
        """Turn gene sets into encoder arguments; the names of the modules are kept for interpretation."""
        if gene_sets is None:
            self.module_names_ = [f"module {i}" for i in range(n_modules)]
            return {"n_modules": n_modules}
        names, membership = gene_set_modules(list(self.var_names), gene_sets)
        self.module_names_ = list(names)
        return {"n_modules": len(names), "gene_modules": torch.as_tensor(membership)}

    def _new_encoder(self) -> GeneExpressionEncoder:
        """Return a fresh encoder as the model's arguments ask for."""
        of = self.module_arguments_
        sizes = ("gene_modules", "n_modules", "n_hidden", "n_layers", "d_token", "n_batch")
        return GeneExpressionEncoder(
            self.summary_stats["n_vars"],
            of["n_latent"],
            kind=of["encoder"],
            **{name: of[name] for name in sizes if name in of},
        )

    # ---------------------------------------------------------------- at the door
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

    def _own_or_given(self, adata: Any) -> AnnData:
        """Return the cells to work on: an AnnData, or the modality of a MuData that the encoder reads."""
        if adata is None:
            if self.adata is None:
                raise ValueError("the model holds no AnnData (it was loaded without): pass adata=.")
            return modalities(self.adata)[self._modality]
        check_data(adata, self.registry_)
        if is_backed(adata):
            raise ValueError("adata is backed. Load it, or the part you need, with adata.to_memory().")
        held = modalities(adata)
        if self._modality not in held:
            raise KeyError(f"the model was set up with modality {self._modality!r}; found: {sorted(map(str, held))}.")
        return held[self._modality]

    @property
    def _modality(self) -> str | None:
        """Modality of a MuData that the encoder reads; None for models of AnnData."""
        return self.registry_["field_registries"]["X"]["data_registry"].get("mod_key")

    @property
    def _reader(self) -> Reader:
        """How cells are read."""
        setup, key = self._setup, self._setup.get("batch_key")
        aware = key is not None and self.module.encoder.n_batch
        return Reader(
            self.var_names,
            setup["layer"],
            setup["target_sum"] if setup["input_scale"] == "counts" else self.typical_total_,
            key,
            tuple(self._categories("batch")) if aware else (),
            self._signatures,
        )

    @property
    def _signatures(self) -> bool:
        """Whether cells are differences of any sign, on which nothing is bounded and nothing has a depth."""
        return self._setup["input_scale"] == "signature"

    def _read(self, adata: AnnData, cells: np.ndarray | None = None) -> ExpressionMatrix:
        return self._reader.read(adata, cells)

    # ---------------------------------------------------------------- encoder stage
    @property
    def _given_embedding(self) -> bool:
        """Whether training starts from an embedding: that of a pretrained encoder or of a reference which has one."""
        return self.start_ is not None and (self.reference_ or {}).get("embedded", True)

    @property
    def _keeps_encoder(self) -> bool:
        """Whether the encoder is a reference's and stays as it is, statistics and readout included."""
        return self.rows_ is not None and self._given_embedding

    def _encoder_stage(self, matrix: ExpressionMatrix, seed: int) -> EncoderStage:
        """Return what trains the encoder on the model's cells."""
        return EncoderStage(matrix, self.reference_unit_, self._reader.batch_codes(self._own_or_given(None)), seed)

    def _prepare_encoder(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        """Find the depth of the training cells, or start from the weights of another model."""
        self.embedded_ = self._given_embedding
        if self.start_ is not None:
            self._restart(matrix, train)
            return
        self.reference_unit_ = matrix.reference_unit(train)
        if self._signatures:
            return
        totals = np.asarray(matrix.values[train].expm1().sum(1)).ravel()
        self.typical_total_ = float(np.median(totals))

    def _restart(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        """Start from the weights of another model: a pretrained encoder, or the reference of query data."""
        self.module.load_state_dict(self.start_, strict=False)
        if self.module.target_encoder is not None and self.reference_ is None:
            self.module.target_encoder.module.load_state_dict(self.module.encoder.state_dict())
        new = (self.rows_ or {}).get("encoder.offset.weight")
        if new is not None:
            stage, which = self._encoder_stage(matrix, 0), np.flatnonzero(new.cpu().any(1))
            stage.center_batches(self.module, matrix.at_depth(self.reference_unit_, train), train, which)

    def _start_encoder(self, stage: EncoderStage, train: np.ndarray) -> None:
        stage.start(self.module, train, find_modules=self.init_params_["non_kwargs"].get("gene_sets") is None)

    def _train_encoder(self, run: TrainingRun, stage: EncoderStage, **options: Any) -> None:
        """Run stage 1 and fix what follows from it in closed form."""
        if self.frozen_encoder_:
            rows: dict[str, torch.Tensor] | None = {}
        else:  # an encoder that no one has trained has nothing to forget
            rows = self._trainable(VIEWS) if self._given_embedding else None
        run.stage(stage.stage(run.split, rows=rows, **options))
        self._finish_encoder(stage, run.split.train)

    def _finish_encoder(self, stage: EncoderStage, train: np.ndarray) -> None:
        if not self._keeps_encoder:  # of a frozen query model statistics and readout are known
            self.embedded_ = True
            stage.finish(self.module, train, keep_statistics=self.frozen_encoder_)

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
        size = require_positive_int(batch_size if batch_size is not None else BLOCK, "batch_size")
        if give_tokens and self.module.encoder.kind != "modules":
            raise ValueError("give_tokens=True needs encoder='modules'; this model has encoder='mlp'.")
        reader, done = self._reader, 0
        out: list[np.ndarray] = []
        codes = reader.batch_codes(adata, cells)
        for part, matrix in reader.chunks(adata, cells):
            own = None if codes is None else codes[done : done + len(part)]
            out += encode(self.module, matrix, self.reference_unit_, own, size=size, give_tokens=give_tokens)
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
        Cells x genes, non-negative (but for signatures).
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
        read = h @ readout.weight[columns].T + readout.bias[columns]
        x = (read if self._signatures else read.clamp_min(0)).cpu().numpy()
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
        return pd.DataFrame(rows, columns=list(Diagnostic._fields)).set_index("diagnostic")

    def _diagnostics(self, rng: np.random.Generator) -> list[Diagnostic]:
        adata, reader = self._own_or_given(None), self._reader
        cells = np.sort(rng.choice(adata.n_obs, min(2000, adata.n_obs), replace=False))
        return embedding_diagnostics(
            self.module,
            reader.read(adata, cells),
            reader.batch_codes(adata, cells),
            self.reference_unit_,
            latents=self.get_latent_representation(adata, cells),
            readout=self.get_normalized_expression(adata, cells, return_numpy=True),
            rng=rng,
        )
