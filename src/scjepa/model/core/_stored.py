"""Models as things that are kept: parts, saving and loading, export without pickle, and going on with new data."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from anndata import AnnData
from scvi.model.base import BaseModelClass

from scjepa._compat import text_as_objects
from scjepa.model.core import _export, _query
from scjepa.model.core._parts import Part, rebuild, written
from scjepa.module import JEPAModule


class StoredModel(BaseModelClass):
    """A model that holds parts and can be written, read and grown; see :class:`JEPAModel`.

    Attributes
    ----------
    module_arguments_
        What the module is built from.
    reference_
        What a query model knows of its reference; None for other models.
    rows_
        Name of a parameter -> entries that train: the new ones of a frozen query model. None: everything trains.
    start_
        Weights that training starts from instead of PCA and random numbers, or None.
    """

    _parts: ClassVar[Mapping[str, type[Part]]] = {}
    """Attributes that are parts (objects with ``state`` and ``from_state``), and their classes."""
    module: JEPAModule
    embedded_: bool
    history_: dict[str, pd.DataFrame] | None
    module_arguments_: dict[str, Any]
    reference_: dict[str, Any] | None = None
    rows_: dict[str, torch.Tensor] | None = None
    start_: dict[str, torch.Tensor] | None = None

    @abstractmethod
    def _build_module(self) -> JEPAModule:
        """Return a fresh module as the model's arguments ask for; the same at every call."""

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        """Return what ``save`` writes, which is to load with any pandas: attributes of this model, parts as plain data."""
        return [(name, text_as_objects(value)) for name, value in written(vars(self), self._parts).items()]

    def _loaded(self) -> None:
        """Turn what was read from a folder into parts, and make the module that training made, before its weights come."""
        self._rebuild_parts()
        self.module = self._build_module()

    def _rebuild_parts(self) -> None:
        rebuild(self, self._parts)

    def export(self, dir_path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the trained model as safetensors and JSON: all that is needed to embed and predict, and no cells.

        Nothing in the folder can run code when it is loaded, and other programs can read it. ``load`` of the same
        class recognizes it. Needs ``pip install 'scjepa[export]'``.

        Parameters
        ----------
        dir_path
            Folder to write to: ``scjepa.json`` (setup, arguments, genes, training conditions, history) and
            ``scjepa.safetensors`` (weights and other arrays).
        overwrite
            Write into a folder that is not empty.

        Raises
        ------
        FileExistsError
            When the folder is not empty.
        ImportError
            When safetensors is not installed.
        RuntimeError
            When the model is not trained.
        TypeError
            When an anchor is not one of :data:`scjepa.baselines.BASELINES`.

        Examples
        --------
        >>> import tempfile, scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> model = scjepa.ExpressionJEPA(adata, n_latent=8)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.export(folder)
        ...     again = scjepa.ExpressionJEPA.load(folder)
        >>> again.adata is None, again.get_latent(adata).shape == (adata.n_obs, 8)
        (True, True)
        """
        if not self.is_trained_:
            raise RuntimeError("export needs a trained model. Run model.train() first.")
        _export.write(self, dir_path, overwrite=overwrite)

    @classmethod
    def load(cls, dir_path: str, adata: AnnData | bool | None = None, *args: Any, **kwargs: Any) -> Self:
        """Load a saved or an exported model.

        Parameters
        ----------
        dir_path
            Folder written by ``save`` or by :meth:`export`.
        adata
            Data to attach, with the model's genes in any order (further genes are left out of a copy); None takes the
            AnnData saved with the model, if there is one (never in an exported folder); False attaches none: pass data
            to the methods instead.
        *args, **kwargs
            As in :meth:`scvi.model.base.BaseModelClass.load`.

        Raises
        ------
        KeyError, ValueError
            When ``adata`` lacks genes or columns, or has labels that the model does not know; when an exported model
            is of another class or of a newer format.
        """
        return _export.read(cls, super().load, dir_path, adata, *args, **kwargs)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Self | str | os.PathLike,
        *,
        freeze: bool = True,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Go on from a trained model with new data: new cells, batches, contexts, perturbations, kinds.

        The new model holds ``adata`` and knows everything that the reference knows; it can embed and predict at once.
        ``train()`` then teaches it what is new, and with ``freeze=True`` nothing else: encoder, coordinates and all
        old weights stay as they are, to the last bit.

        Parameters
        ----------
        adata
            New data with the columns that the reference was set up with and its genes, in any order (further genes are
            left out of a copy, which the model then holds). Perturbed cells need controls of their context.
        reference_model
            A trained model of this class, or the folder that it was saved or exported to.
        freeze
            Train only what is new: the rows of new batches in a batch-aware encoder, of new perturbed genes and kinds
            in the predictor. False trains all of encoder and predictor on, from the reference's weights and on the new
            cells only; what was known may then be forgotten.
        accelerator, device
            As in ``load``, for a reference in a folder.

        Returns
        -------
        A model of the same class.

        Raises
        ------
        KeyError, ValueError
            When genes or columns are missing, or the matrix is on another scale than the reference's.
        RuntimeError
            When the reference is not trained.
        TypeError
            When the reference is a model of another class.

        Notes
        -----
        Nothing is forgotten because nothing that is known is trained: gradients outside the new rows are zeroed, and
        weights are put back after every step. The anchor of :class:`PerturbJEPA` is fitted anew on the reference's
        conditions and the new ones together, in closed form, so predictions of known conditions change a little.
        ``holdout`` and splits apply to the new cells; what the reference saw stays seen. A reference without an embedding
        (``train(embed=False)``) has none to give: ``train()`` then trains one, on the new cells only.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> new = adata.obs["batch"] == adata.obs["batch"].iloc[0]
        >>> old_cells, new_cells = adata[~new].copy(), adata[new].copy()
        >>> scjepa.ExpressionJEPA.setup_anndata(old_cells, batch_key="batch")
        >>> reference = scjepa.ExpressionJEPA(old_cells, n_latent=8, batch_aware=True)
        >>> reference.train(max_epochs=1, enable_progress_bar=False)
        >>> query = scjepa.ExpressionJEPA.load_query_data(new_cells, reference)
        >>> query.train(max_epochs=1, enable_progress_bar=False)
        >>> query.get_latent().shape == (new_cells.n_obs, 8)
        True
        """
        return _query.go_on(cls, adata, reference_model, freeze=freeze, accelerator=accelerator, device=device)

    def _grow(self, reference: Self) -> None:
        """Make room for what is new in the query data; whatever is known keeps its place."""
        seen = reference.train_indices_
        self.reference_ = {"n_cells": None if seen is None else len(seen), "embedded": reference.embedded_}
        if self.module_arguments_.get("n_batch"):
            self.module_arguments_["n_batch"] = self.summary_stats["n_batch"]

    def _new_rows(self, rows: dict[str, torch.Tensor], reference: Self) -> dict[str, torch.Tensor]:
        """Return the entries that train, given those that were added."""
        return rows

    def _trainable(self, objective: str) -> dict[str, torch.Tensor] | None:
        """Return what ``objective`` trains of its parameters; None: all of them."""
        if self.rows_ is None:
            return None
        return {name: self.rows_[name] for name, _ in self.module.trained_by(objective) if name in self.rows_}
