"""Query data: a trained model goes on with new cells, batches and perturbations, and keeps what it knows."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from anndata import AnnData

from scjepa.model._export import ExportMixin, remade
from scjepa.model._reading import gene_order
from scjepa.module import JEPAModule

logger = logging.getLogger(__name__)


class QueryMixin(ExportMixin):
    """Loading of query data, shared by all model classes.

    Attributes
    ----------
    reference_
        What a query model knows of its reference; None for other models.
    rows_
        Name of a parameter -> entries that train: the new ones of a frozen query model. None: everything trains.
    start_
        Weights that training starts from instead of PCA and random numbers, or None.
    """

    module: JEPAModule
    module_arguments_: dict[str, Any]
    embedded_: bool
    reference_: dict[str, Any] | None = None
    rows_: dict[str, torch.Tensor] | None = None
    start_: dict[str, torch.Tensor] | None = None

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
        if isinstance(reference_model, (str, os.PathLike)):
            reference = cls.load(str(reference_model), False, accelerator=accelerator, device=device)
        elif type(reference_model) is cls:
            reference = reference_model
        else:
            raise TypeError(
                f"reference_model: expected a {cls.__name__} or its folder, got {type(reference_model).__name__}."
            )
        if not reference.is_trained_:
            raise RuntimeError("load_query_data needs a trained reference model. Run reference_model.train() first.")
        if not isinstance(adata, AnnData):
            raise TypeError(f"adata: expected an AnnData, got {type(adata).__name__}.")
        order = gene_order(adata, np.asarray(reference.var_names_))
        adata = adata if order is None else adata[:, order].copy()
        attributes = {k: copy.deepcopy(v) for k, v in reference._get_user_attributes() if k.endswith("_")}
        model = remade(cls, attributes, adata, extend_categories=True, allow_missing_labels=True)
        model.train_indices_ = model.validation_indices_ = model.test_indices_ = model.history_ = None
        model._grow(reference)
        model.module = model._build_module()
        model.start_, rows = grown(model.module.state_dict(), reference.module.state_dict())
        model.rows_ = model._new_rows(rows, reference) if freeze else None
        model.module.load_state_dict(model.start_)
        model.to_device(reference.device)
        model.module.eval()
        return model

    var_names_: list[str]

    def _grow(self, reference: Self) -> None:
        """Make room for what is new in the query data; whatever is known keeps its place."""
        seen = reference.train_indices_
        self.reference_ = {
            "n_cells": None if seen is None else len(seen),
            "embedded": reference.embedded_,
        }
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


def grown(
    new: dict[str, torch.Tensor], old: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Put weights ``old`` into the leading block of ``new``, which may be larger; returns weights and added entries.

    Added batches start at the mean of the known ones, everything else where ``new`` has it.

    Examples
    --------
    >>> import torch
    >>> from scjepa.model._query import grown
    >>> weights, added = grown({"w": torch.zeros(1, 3)}, {"w": torch.ones(1, 2)})
    >>> weights["w"].tolist(), added["w"].tolist()
    ([[1.0, 1.0, 0.0]], [[False, False, True]])
    """
    out, added = {}, {}
    for name, tensor in new.items():
        held = old[name].detach().to(tensor.device)
        block = tuple(slice(n) for n in held.shape)
        out[name] = tensor.detach().clone()
        if name.endswith("offset.weight"):
            out[name][:] = held.mean(0)
        out[name][block] = held
        if held.shape != tensor.shape:
            added[name] = torch.ones(tensor.shape, dtype=torch.bool)
            added[name][block] = False
    return out, added


def names_in_order(known: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the known names in their order, and behind them the others, sorted."""
    known = tuple(known)
    return known + tuple(sorted(set(wanted) - set(known)))
