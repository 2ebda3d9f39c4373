"""Reading cells: is the matrix usable, on which scale, where are the model's genes in it, which batches are these?"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import closest, some
from scjepa._compat import layer_names
from scjepa._scale import check_scale, stored_values
from scjepa._types import FloatArray, InputScale, Matrix
from scjepa.data import ExpressionMatrix

CHUNK = 8192
"""Rows that are read from AnnData at a time."""

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
    if scale == "signature":  # untreated profiles are zero, and so are genes that no drug changes
        if not stored_values(x).any():
            raise ValueError("input_scale='signature', but all profiles are zero: there is nothing to learn from.")
        return scale
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


def registered_genes(registry: dict[str, Any]) -> np.ndarray:
    """Return the genes that a model was set up with."""
    return np.asarray(registry["field_registries"]["X"]["state_registry"]["column_names"]).astype(str)


@dataclass(frozen=True)
class Reader:
    """Reads cells of any AnnData as a model was set up to: its genes, its layer, its scale, its batches.

    Attributes
    ----------
    genes
        ``(genes,)`` names, in the model's order.
    layer
        Layer with the matrix; None for ``X``.
    target_sum
        Library size that counts are scaled to.
    batch_key
        Column with batches, or None.
    batches
        Batches that the encoder knows, in the order of their codes; empty for an encoder that looks at none.
    signature
        Whether values are differences of any sign; else the scale of a matrix is found.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.model.core._reading import Reader
    >>> cells = anndata.AnnData(np.array([[0.5, 1.5, 2.5]]), var=pd.DataFrame(index=["a", "b", "c"]))
    >>> Reader(np.array(["c", "a"])).read(cells).rows(slice(None)).tolist()
    [[2.5, 0.5]]
    """

    genes: np.ndarray
    layer: str | None = None
    target_sum: float = 1e4
    batch_key: str | None = None
    batches: tuple[str, ...] = ()
    signature: bool = False

    def door(self, adata: AnnData) -> Door:
        """Check the matrix of any AnnData once, and find its scale and where the model's genes are."""
        if self.layer is not None and self.layer not in layer_names(adata):
            raise KeyError(
                f"layer={self.layer!r}, which the model was set up with, is not in adata.layers."
                f"{closest(self.layer, layer_names(adata))}"
            )
        x = adata.X if self.layer is None else adata.layers[self.layer]
        if x is None:
            raise ValueError("adata.X is None, but the model was set up to read it. Put the matrix there.")
        if sp.issparse(x) and x.format != "csr":
            x = x.tocsr()
        # own data are checked again too: they may have been normalized in place since
        scale = check_scale(x, "signature" if self.signature else "auto")
        return Door(x, scale, gene_order(adata, self.genes))

    def read(self, adata: AnnData, cells: np.ndarray | None = None, door: Door | None = None) -> ExpressionMatrix:
        """Read cells (by default all) of any AnnData in the model's genes, normalized as in training."""
        x, scale, order = door or self.door(adata)
        if cells is not None:
            x = x[cells]
        if order is not None:
            x = x[:, order]
        return ExpressionMatrix(x, scale, target_sum=self.target_sum)

    def chunks(self, adata: AnnData, cells: np.ndarray) -> Iterator[tuple[np.ndarray, ExpressionMatrix]]:
        """Read cells piece by piece, so that the whole matrix never exists twice."""
        door = self.door(adata)
        for start in range(0, len(cells), CHUNK):
            part = cells[start : start + CHUNK]
            yield part, self.read(adata, part, door)

    def batch_codes(self, adata: AnnData, cells: np.ndarray | None = None) -> np.ndarray | None:
        """Return the codes of the batches of cells (by default all); None (mean batch) where there are none to tell."""
        if not self.batches or self.batch_key is None or self.batch_key not in adata.obs:
            return None
        column = adata.obs[self.batch_key]
        column = column if cells is None else column.iloc[cells]
        if column.isna().any():
            raise ValueError(
                f"adata.obs[{self.batch_key!r}] is missing for {int(column.isna().sum())} of {len(column)} cells. Label "
                "these cells, or drop the column to encode with the mean batch."
            )
        labels = column.astype(str).to_numpy()
        codes = pd.Index(list(self.batches)).get_indexer(labels)
        if (codes < 0).any():
            new = sorted(set(labels[codes < 0]))
            raise ValueError(
                f"adata.obs[{self.batch_key!r}] has {len(new)} batches that the model does not know: {some(new)}."
                f"{closest(new[0], self.batches)} Drop the column to encode with the mean batch."
            )
        return codes
