"""The encoder of another model, perhaps of more cells and more genes, in place of one's own."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from scjepa._checks import some
from scjepa.data import ExpressionMatrix, Split, aligned
from scjepa.model.core._model import JEPAModel

logger = logging.getLogger(__name__)

MIN_OVERLAP = 0.5
"""Share of the smaller of two gene sets that must be in the other one as well."""
ENCODER = ("n_latent", "encoder", "gene_sets", "n_modules", "n_hidden", "n_layers")
"""Arguments that the pretrained encoder decides."""
TRAINING = ("regularizer", "regularizer_weight", "mask_rate")
"""Arguments that are taken over unless they are given."""
LAST = ("mean", "membership", "skip.weight", "body.0.weight")
"""Tensors of the encoder whose last dimension is genes."""


def take_encoder(model: Any, source: JEPAModel, chosen: set[str]) -> None:
    """Give ``model`` the encoder of ``source``, cut to its genes by name.

    Parameters
    ----------
    model
        A model that is not trained.
    source
        A trained model.
    chosen
        Names of the arguments that the user gave.

    Raises
    ------
    ValueError
        When too few genes are in common.
    """
    place = pd.Index(source.var_names).get_indexer(model.var_names)
    common, smaller = int((place >= 0).sum()), min(len(place), len(source.var_names))
    n_latent = source.module.encoder.n_latent
    if common < MIN_OVERLAP * smaller or common < n_latent:
        raise ValueError(
            f"{common} of adata's {len(place)} genes are among the {len(source.var_names)} that the pretrained "
            f"encoder knows: expected at least {max(int(np.ceil(MIN_OVERLAP * smaller)), n_latent)}. Genes of "
            f"adata: {some(list(model.var_names), 3)}; of the encoder: {some(list(source.var_names), 3)}. Use the "
            "same kind of names (symbols or Ensembl ids), or pretrain on these genes."
        )
    state = {k: v.detach().cpu().clone() for k, v in source.module.state_dict().items()}
    kept = {k: v for k, v in source.module_arguments_.items() if k in (*ENCODER, *TRAINING) and k not in chosen}
    model.start_ = cut(state, source.module.encoder.membership.detach().cpu(), place)
    model.module_arguments_ |= {**kept, "gene_modules": model.start_["encoder.membership"]}
    model.module_names_ = list(source.module_names_)
    model.module = model._build_module()
    model.module.load_state_dict(model.start_, strict=False)
    seen, own = source.train_indices_, source.adata
    among = None
    if own is not None and seen is not None:
        among = np.flatnonzero(model._own_or_given(None).obs_names.isin(own.obs_names[np.asarray(seen)]))
    share = torch.expm1(source.module.encoder.mean.detach().cpu().double())
    where = torch.from_numpy(place[place >= 0])
    model.pretrained_ = {
        "n_cells": None if seen is None else len(seen),
        "n_genes": len(source.var_names),
        "n_common": common,
        "cells_seen": among,
        "reference_unit": source.reference_unit_,
        "target_sum": source._setup["target_sum"] if source._setup["input_scale"] == "counts" else None,
        "typical_total": source.typical_total_,
        "share": float(share[where].sum() / share.sum().clamp_min(1e-12)),
        "known": place >= 0,
    }
    absent, unread = len(source.var_names) - common, len(place) - common
    if absent or unread:
        logger.info(
            "%d genes in common; %d of the encoder are absent from adata, %d of adata are not read by the encoder.",
            *(common, absent, unread),
        )


def cut(state: dict[str, torch.Tensor], before: torch.Tensor, place: np.ndarray) -> dict[str, torch.Tensor]:
    """Cut the weights of an encoder, and of what is trained with it, to other genes.

    Parameters
    ----------
    state
        Weights of a module; batch offsets are averaged into the mean.
    before
        ``(modules, genes)`` its gene modules.
    place
        ``(genes of the new model,)`` where they are among those of the encoder; -1: nowhere.
    """
    known, where = torch.from_numpy(place >= 0), torch.from_numpy(place[place >= 0])
    state = dict(state)

    def chosen(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        shape = list(tensor.shape)
        shape[dim] = len(place)
        out = tensor.new_zeros(shape)
        out.movedim(dim, 0)[known] = tensor.movedim(dim, 0)[where]
        return out

    if "encoder.offset.weight" in state:
        state["encoder.mean"] = state["encoder.mean"] + state.pop("encoder.offset.weight").mean(0)
    for name in LAST:
        if f"encoder.{name}" in state:
            state[f"encoder.{name}"] = chosen(state[f"encoder.{name}"], -1)
    for name in ("encoder.body.gene", "decoder.weight", "decoder.bias"):
        if name in state:
            state[name] = chosen(state[name], 0)
    if "encoder.body.gene" in state:
        # a token is divided by the root of its module's size: keep the pretrained size
        membership = state["encoder.membership"].float()
        ratio = (membership.sum(1) / before.float().sum(1).clamp_min(1)).sqrt()
        each = (membership.T @ ratio) / membership.sum(0).clamp_min(1)
        state["encoder.body.gene"] = state["encoder.body.gene"] * each[:, None]
    return {k: v for k, v in state.items() if k.startswith(("encoder.", "decoder.", "view_predictor."))}


def fit_depth(model: Any, matrix: ExpressionMatrix, train: np.ndarray) -> None:
    """Bring a model's cells to the depth that its pretrained encoder was trained at, over the genes in common."""
    given = model.pretrained_
    known = given["known"]
    raw = matrix.values[train].expm1()
    model.typical_total_ = float(np.median(np.asarray(raw.sum(1)).ravel()))
    unit = given["reference_unit"]
    if known.all() and given["n_genes"] == len(known):  # the same genes: the pretrained embedding itself
        if given["target_sum"] is not None and model._setup["input_scale"] == "counts":
            unit *= model._setup["target_sum"] / given["target_sum"]
    else:
        # the encoder expects its own typical total over the genes in common: bring that of these cells there
        total = float(np.median(np.asarray(raw[:, known].sum(1)).ravel()))
        unit *= total / max(given["typical_total"] * given["share"], 1e-12)
    model.reference_unit_ = unit
    if not known.all():
        mean = np.asarray(matrix.at_depth(unit, train).mean(0)).ravel().astype(np.float32)
        model.module.encoder.mean[torch.from_numpy(~known)] = aligned(mean[~known]).to(model.device)


def note_leaks(pretrained: dict[str, Any] | None, split: Split) -> None:
    """Say that the pretrained encoder saw cells which are held out."""
    among = None if pretrained is None else pretrained["cells_seen"]
    if among is None:
        return
    for name, cells in (("held-out", split.test), ("validation", split.validation)):
        n = int(np.isin(cells, among).sum())
        if n:
            logger.warning(
                "the pretrained encoder saw %d of the %d %s cells (without labels). For an honest test pretrain "
                "without them.",
                *(n, len(cells), name),
            )
