"""Query data: a trained model goes on with new cells, batches and perturbations, and keeps what it knows."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from typing import Any

import torch
from anndata import AnnData

from scjepa.model.core._data import check_data, in_order
from scjepa.model.core._export import remade

logger = logging.getLogger(__name__)


def go_on(
    cls: Any,
    adata: AnnData,
    reference_model: Any,
    *,
    freeze: bool,
    accelerator: str,
    device: int | str,
) -> Any:
    """Go on from a trained model with new data; see :meth:`JEPAModel.load_query_data`."""
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
    check_data(adata, reference.registry_)
    adata = in_order(adata, reference.registry_)
    attributes = {k: copy.deepcopy(v) for k, v in reference._get_user_attributes() if k.endswith("_")}
    model = remade(cls, attributes, adata, extend_categories=True, allow_missing_labels=True)
    model._rebuild_parts()
    model.train_indices_ = model.validation_indices_ = model.test_indices_ = model.history_ = None
    model._grow(reference)
    model.module = model._build_module()
    model.start_, rows = grown(model.module.state_dict(), reference.module.state_dict())
    model.rows_ = model._new_rows(rows, reference) if freeze else None
    model.module.load_state_dict(model.start_)
    model.to_device(reference.device)
    model.module.eval()
    return model


def grown(
    new: dict[str, torch.Tensor], old: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Put weights ``old`` into the leading block of ``new``, which may be larger; returns weights and added entries.

    Added batches start at the mean of the known ones, everything else where ``new`` has it.

    Examples
    --------
    >>> import torch
    >>> from scjepa.model.core._query import grown
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
