"""What evaluation reads from AnnData: label columns, conditions, genes in one order, values on one scale."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, ImplicitModificationWarning

from scjepa._checks import closest, require_labels, require_member, some
from scjepa._compat import as_text
from scjepa._keys import Keys
from scjepa._labels import Action, parse_label
from scjepa._scale import MAX_LOGNORM, check_scale, lognormalise, stored_values
from scjepa._types import IntArray, Matrix
from scjepa.data import CellGroups, group_cells
from scjepa.data._groups import SINGLE_CONTEXT

logger = logging.getLogger(__name__)

TARGET_SUM = 1e4
"""Library size that counts are scaled to, as everywhere in the package."""

Condition = tuple[Action, str]
"""A parsed perturbation in a context."""


class Labels(NamedTuple):
    """Where labels are and how they read."""

    perturbation_key: str
    control: str
    context_key: str | None
    separator: str

    def arguments(self) -> dict[str, str]:
        """Return them as arguments of the functions of :mod:`scjepa.tl`."""
        return {**self._asdict(), "context_key": self.context_key or ""}


@dataclass(frozen=True)
class Cells:
    """Log-normalised cells x genes and their conditions; ``names`` are the labels as written, per action."""

    x: Matrix
    groups: CellGroups
    names: dict[Action, str]

    @property
    def conditions(self) -> list[Condition]:
        """One entry per condition, in the order of ``groups``."""
        return list(zip(self.groups.actions, map(str, self.groups.contexts), strict=True))


class Sides(NamedTuple):
    """Predicted and measured cells of the same conditions; ``rows[i]`` is condition ``i`` of ``pred`` in ``real``."""

    pred: Cells
    real: Cells
    rows: IntArray


def prediction_record(pred: AnnData) -> dict[str, Any]:
    """Return what the predictor wrote to ``pred.uns`` about keys and training conditions, or an empty dict."""
    root = pred.uns.get(Keys.uns.root, {})
    return dict(root.get(Keys.uns.prediction, {})) if hasattr(root, "get") else {}


def resolve_labels(
    pred: AnnData, perturbation_key: str | None, control: str | None, context_key: str | None, separator: str | None
) -> Labels:
    """Fill arguments left at None from the record of ``pred``; an empty ``context_key`` means no context."""
    record = prediction_record(pred)
    key = perturbation_key or record.get("perturbation_key")
    if not key:
        raise ValueError(
            "perturbation_key is missing, and pred.uns has no record of it (it is not a prediction of scjepa). "
            f"Give the obs column of perturbation labels. Columns found: {some(list(pred.obs.columns), 10) or 'none'}."
        )
    context = record.get("context_key") if context_key is None else context_key
    return Labels(
        perturbation_key=str(key),
        control=str(control if control is not None else record.get("control", "control")),
        context_key=str(context) if context else None,
        separator=str(separator if separator is not None else record.get("separator", "+")),
    )


def check_anndata(adata: object, name: str) -> AnnData:
    """Return ``adata``; raise when it is no AnnData, empty, backed or has repeated gene names."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"{name} is a {type(adata).__name__}: expected an AnnData, cells x genes.")
    if not adata.n_obs or not adata.n_vars:
        raise ValueError(f"{name} is empty ({adata.n_obs} cells x {adata.n_vars} genes).")
    if adata.isbacked:
        raise ValueError(f"{name} is backed by a file: load the cells first with {name} = {name}.to_memory().")
    if not adata.var_names.is_unique:
        twice = list(adata.var_names[adata.var_names.duplicated()].unique())
        raise ValueError(
            f"{name}.var_names has {len(twice)} repeated names: {some(twice)}. Run {name}.var_names_make_unique(), "
            "in the same order of genes as for the other AnnData."
        )
    return adata


def _gene_order(adata: AnnData, genes: pd.Index, name: str) -> np.ndarray | slice:
    """Return columns of ``adata`` in the order of ``genes``, which must all be there."""
    if len(genes) == adata.n_vars and (genes == adata.var_names).all():
        return slice(None)
    order = adata.var_names.get_indexer(genes)
    if (order < 0).any():
        missing = list(genes[order < 0])
        raise ValueError(
            f"{len(missing)} of the {len(genes)} genes of pred are not in {name}.var_names: {some(missing)}."
            f"{closest(missing[0], adata.var_names)} Use the same gene names (symbols or Ensembl ids) in both, or "
            f"score the shared genes: pred = pred[:, pred.var_names.isin({name}.var_names)].copy()."
        )
    return order


def of_signatures(pred: AnnData) -> bool:
    """Return whether a prediction is of differences of any sign instead of expression, as its record says."""
    return prediction_record(pred).get("scale") == "signature"


def reference_matrix(
    adata: AnnData, genes: pd.Index, layer: str | None, name: str, *, signatures: bool = False
) -> Matrix:
    """Return log-normalised values of ``adata`` for ``genes``; counts are normalised before genes are dropped."""
    if layer is not None:
        require_member(layer, adata.layers, "layer", where=f"{name}.layers")
    where = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
    x = adata.X if layer is None else adata.layers[layer]
    x = x.tocsr() if sp.issparse(x) else np.asarray(x)
    order = _gene_order(adata, genes, name)
    if check_scale(x, "signature" if signatures else "auto", name=where) == "counts":
        logger.info("%s holds counts: normalized to %g per cell and log1p'd for scoring.", where, TARGET_SUM)
        x = lognormalise(x, TARGET_SUM)
    return x if isinstance(order, slice) else x[:, order]


def predicted_matrix(pred: AnnData) -> Matrix:
    """Return ``pred.X``; raise unless its values can be log-normalised expression.

    Other tools' linear readouts dip below zero; such values are scored as they are and counted in one log line.
    """
    x = pred.X.tocsr() if sp.issparse(pred.X) else np.asarray(pred.X)
    values = stored_values(x)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"pred.X has {bad} NaN or infinite values. Drop these cells or repair the prediction.")
    if of_signatures(pred):
        return x
    below = int((values < 0).sum())
    if below:
        logger.warning(
            "pred.X has %d negative values (smallest %.3g); log-normalized expression has none. Scored as they are.",
            below,
            values.min(),
        )
    if values.size and bool((values == np.rint(values)).all()) and values.max() > 1:
        raise ValueError(
            f"pred.X holds whole numbers only (largest {values.max():g}): these look like counts. Scores need "
            "log-normalized predictions: run scanpy.pp.normalize_total(pred, target_sum=1e4) and scanpy.pp.log1p(pred)."
        )
    if values.size and values.max() >= MAX_LOGNORM:
        raise ValueError(
            f"pred.X has values up to {values.max():.4g}: it looks normalized but not logged. Run scanpy.pp.log1p(pred)."
        )
    return x


def group(adata: AnnData, labels: Labels, name: str, *, need_controls: bool) -> tuple[CellGroups, dict[Action, str]]:
    """Group the cells of ``adata`` into conditions, and map every action to its label as written.

    Predictions may come without control cells (``need_controls=False``): their contexts then have no controls.
    """
    column = require_labels(adata.obs, labels.perturbation_key, f"{name}: perturbation_key").to_numpy()
    contexts = np.full(adata.n_obs, SINGLE_CONTEXT, dtype=object)
    if labels.context_key is not None:
        contexts = require_labels(adata.obs, labels.context_key, f"{name}: context_key").to_numpy()
    places = [] if need_controls else sorted(set(contexts))  # one stand-in control per context, taken out below
    try:
        groups = group_cells(
            np.concatenate([column, np.full(len(places), labels.control, dtype=object)]),
            control=labels.control,
            separator=labels.separator,
            contexts=np.concatenate([contexts, np.array(places, dtype=object)]),
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    controls = {c: cells[cells < adata.n_obs] for c, cells in groups.controls.items()}
    groups = CellGroups(
        actions=groups.actions,
        contexts=groups.contexts,
        cells=groups.cells,
        controls={c: cells for c, cells in controls.items() if len(cells)},
    )
    names: dict[Action, str] = {}
    for label in sorted(set(column)):
        names.setdefault(parse_label(label, labels.control, labels.separator), label)
    return groups, names


def recorded_conditions(record: Any, labels: Labels, contexts: Iterable[str]) -> set[Condition]:
    """Read training conditions as scjepa writes them: labels (valid in all ``contexts``) or a table with contexts."""
    if isinstance(record, pd.DataFrame):
        names = as_text(record["perturbation"])
        places = as_text(record["context"]) if labels.context_key is not None else [SINGLE_CONTEXT] * len(record)
        pairs = list(zip(names, places, strict=True))
    else:
        pairs = [(str(name), c) for name in np.atleast_1d(np.asarray(record, dtype=object)) for c in contexts]
    parsed = {(parse_label(name, labels.control, labels.separator), place) for name, place in pairs}
    return {(action, place) for action, place in parsed if action}


def find_conditions(predicted: Cells, measured: Cells, labels: Labels) -> np.ndarray:
    """Return the row of every predicted condition among the measured ones; raise when one has no real cells."""
    row = {condition: i for i, condition in enumerate(measured.conditions)}
    lost = [c for c in predicted.conditions if c not in row]
    if lost:
        written = lambda c, cells: cells.names[c[0]] + (f" in {c[1]}" if labels.context_key else "")
        names = [written(c, predicted) for c in lost]
        options = [written(c, measured) for c in measured.conditions]
        hints = "".join(dict.fromkeys(closest(name, options) for name in names[:3]))
        raise ValueError(
            f"{len(lost)} of {len(predicted.conditions)} predicted conditions have no cells in real, so they can't be "
            f"scored: {some(names)}.{hints} Drop them from pred or check perturbation_key, context_key and separator."
        )
    return np.array([row[c] for c in predicted.conditions])


def read_sides(pred: AnnData, real: AnnData, labels: Labels, layer: str | None) -> Sides:
    """Check both AnnData and match their conditions."""
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    predicted = Cells(predicted_matrix(pred), *group(pred, labels, "pred", need_controls=False))
    if not predicted.conditions:
        raise ValueError(f"pred has no predicted cells: every label in obs[{labels.perturbation_key!r}] is a control.")
    measured = Cells(
        reference_matrix(real, pred.var_names, layer, "real", signatures=of_signatures(pred)),
        *group(real, labels, "real", need_controls=True),
    )
    return Sides(predicted, measured, find_conditions(predicted, measured, labels))


def store_table(pred: AnnData, key: str, scores: pd.DataFrame) -> None:
    """Write ``scores`` to ``pred``; the AnnData that a view looks at stays as it is."""
    if pred.is_view:
        logger.info("pred is a view: it is copied in place, so that scores can be written to it.")
    with warnings.catch_warnings():  # anndata copies views that are written to, and warns: here it is meant
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        pred.uns[Keys.uns.root] = {**pred.uns.get(Keys.uns.root, {}), key: scores}
