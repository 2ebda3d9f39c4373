"""Reading AnnData at the door: is the matrix usable, on which scale, and where are the model's genes in it?"""

from __future__ import annotations

import logging
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, some
from scjepa._compat import layer_names
from scjepa._scale import check_scale
from scjepa._types import FloatArray, InputScale, Matrix

logger = logging.getLogger(__name__)


def check_cells(
    adata: AnnData, layer: str | None, input_scale: InputScale, library: FloatArray | None = None
) -> InputScale:
    """Check an AnnData's matrix at setup and return its scale."""
    if not isinstance(adata, AnnData):
        raise TypeError(
            f"expected an AnnData, got {type(adata).__name__}. For MuData choose one modality: mdata['rna']."
        )
    if adata.isbacked:
        raise ValueError("backed AnnData can't be trained on. Load it with adata = adata.to_memory().")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    layers = layer_names(adata)
    if layer is not None and layer not in layers:
        raise KeyError(
            f"layer={layer!r} is not in adata.layers.{closest(layer, layers)} Found: {some(layers) or 'none'}."
        )
    if not adata.var_names.is_unique:
        raise ValueError("adata.var_names are not unique. Run adata.var_names_make_unique().")
    if adata.is_view:  # scvi-tools registers no views; assigning obs makes anndata turn the view into data of its own
        logger.info("adata is a view: it is copied in place.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.obs = adata.obs.copy()
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise ValueError("adata.X is None. Name the layer to use: layer='counts'.")
    scale = check_scale(x, input_scale, name="adata.X" if layer is None else f"adata.layers[{layer!r}]")
    empty_cells = int((np.asarray(x.sum(1)).ravel() == 0).sum())  # values are known to be non-negative here
    empty_genes = int((np.asarray(x.sum(0)).ravel() == 0).sum())
    if empty_cells and scale == "counts" and library is None:
        raise ValueError(
            f"{empty_cells} cells have no counts at all and can't be normalized. "
            "Remove them: scanpy.pp.filter_cells(adata, min_counts=1)."
        )
    if empty_cells:
        logger.warning("%d cells are zero in all %d genes; they are kept.", empty_cells, adata.n_vars)
    if empty_genes:
        logger.warning("%d of %d genes are zero in all cells; they are kept.", empty_genes, adata.n_vars)
    return scale


class Door(NamedTuple):
    """A checked matrix, its scale, and the positions of the model's genes in it (None: all, in order)."""

    x: Matrix
    scale: InputScale
    order: np.ndarray | None


def gene_order(adata: AnnData, genes: np.ndarray) -> np.ndarray | None:
    """Return the positions of ``genes`` in ``adata``, or None when they are the same in the same order."""
    names = adata.var_names.astype(str)
    if adata.n_vars == len(genes) and np.array_equal(names, genes):
        return None
    if not names.is_unique:
        raise ValueError("adata.var_names are not unique. Run adata.var_names_make_unique().")
    position = pd.Index(names).get_indexer(genes)
    missing = genes[position < 0]
    if len(missing):
        raise ValueError(
            f"{len(missing)} of the model's {len(genes)} genes are missing from adata.var_names: {some(missing)}."
            f"{closest(missing[0], names)} Give the same gene names, or add the missing genes as zeros "
            "if they were measured and not found."
        )
    logger.info("genes of adata were matched by name; %d further genes are not used.", adata.n_vars - len(genes))
    return position
