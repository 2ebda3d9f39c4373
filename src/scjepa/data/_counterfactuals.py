"""Counterfactual predictions as AnnData: which control cells they start from, and what they say about themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, require_labels, require_member, some
from scjepa._keys import Keys
from scjepa._labels import Action, parse_label
from scjepa._types import FloatArray, IntArray
from scjepa.data._groups import SINGLE_CONTEXT

logger = logging.getLogger(__name__)


def check_keys(**keys: str | None) -> None:
    """Raise when two of the ``obs`` columns (argument=column) are the same, or predictions would overwrite one."""
    given: dict[str, str] = {}
    for argument, key in keys.items():
        if key is None:
            continue
        if key in (Keys.obs.source, Keys.obs.kind):
            raise ValueError(
                f"{argument}={key!r}: predictions write a column of this name. Rename yours: "
                f"adata.obs = adata.obs.rename(columns={{{key!r}: 'my_{key}'}})."
            )
        if key in given:
            raise ValueError(f"{argument}={key!r} is the same column as {given[key]}. Name two different columns.")
        given[key] = argument


class LabelKeys(NamedTuple):
    """Where perturbations and contexts stand in ``obs``, and how their labels read."""

    perturbation_key: str
    control: str = "control"
    context_key: str | None = None
    separator: str = "+"

    def parse(self, perturbations: str | Sequence[str], argument: str = "perturbations") -> dict[str, Action]:
        """Read what is to be predicted: every label with its action; raise for none, repeated ones or the control."""
        if perturbations is None:
            raise ValueError(f"{argument} is None. Name at least one, for example 'A' or 'A+B'.")
        labels = [str(p) for p in np.atleast_1d(np.asarray(perturbations, dtype=object))]
        if not labels:
            raise ValueError(f"{argument} is empty. Name at least one, for example 'A' or 'A+B'.")
        repeated = sorted({p for p in labels if labels.count(p) > 1})
        if repeated:
            raise ValueError(f"{argument} names {some(repeated)} more than once.")
        actions = {label: parse_label(label, self.control, self.separator) for label in labels}
        for label, action in actions.items():
            if not action:
                raise ValueError(
                    f"{label!r} is the control, not a perturbation. Use include_control=True to get controls."
                )
        return actions


def control_cells(
    adata: AnnData, keys: LabelKeys, *, indices: Any = None, context: str | Sequence[str] | None = None
) -> dict[str, IntArray]:
    """Find the control cells that predictions start from.

    Parameters
    ----------
    adata
        Cells; without the perturbation column all of them count as controls.
    keys
        Columns and labels.
    indices
        Positions or boolean mask of the cells to use; those that are not controls are left out.
    context
        Contexts to use, by default all that have control cells.

    Returns
    -------
    Positions in ``adata`` for every context (``"all"`` without ``context_key``).

    Raises
    ------
    ValueError
        If no control is selected, or a context has none.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.data._counterfactuals import LabelKeys, control_cells
    >>> obs = pd.DataFrame({"p": ["control", "A", "control"], "line": ["x", "x", "y"]}, index=list("abc"))
    >>> cells = anndata.AnnData(np.zeros((3, 1)), obs=obs)
    >>> {c: i.tolist() for c, i in control_cells(cells, LabelKeys("p", context_key="line")).items()}
    {'x': [0], 'y': [2]}
    """
    cells = cell_positions(adata, indices)
    if keys.perturbation_key in adata.obs:
        column = adata.obs[keys.perturbation_key].iloc[cells]
        missing = column.isna().to_numpy()
        if missing.any():
            logger.info("%d of the cells have no perturbation label and are not used.", int(missing.sum()))
        cells, labels = cells[~missing], column[~missing].astype(str).to_numpy()
        names = {n: parse_label(n, keys.control, keys.separator) == () for n in np.unique(labels)}
        control = np.array([names[n] for n in labels], dtype=bool)
        if not control.any():
            raise ValueError(
                f"none of the {len(cells)} selected cells is a control (label {keys.control!r} in "
                f"adata.obs[{keys.perturbation_key!r}]). Predictions start from controls: select them, or drop the "
                "column to start from all cells given."
            )
        if indices is not None and not control.all():
            logger.info("%d of the selected cells are not controls and are not used.", int((~control).sum()))
        cells = cells[control]
    wanted = None if context is None else [str(c) for c in np.atleast_1d(np.asarray(context, dtype=object))]
    if wanted == []:
        raise ValueError("context is empty. Name at least one, or leave it out for all.")
    if keys.context_key is None:
        if wanted is not None:
            raise ValueError(f"context={context!r} was given, but there is no context_key.")
        return {SINGLE_CONTEXT: cells}
    if keys.context_key not in adata.obs:
        if wanted is None or len(wanted) != 1:
            raise ValueError(
                f"adata.obs has no column {keys.context_key!r}.{closest(keys.context_key, adata.obs.columns)} "
                "Add it, or name the one context of all cells: context='...'."
            )
        return {wanted[0]: cells}
    place = require_labels(adata.obs.iloc[cells], keys.context_key, "context_key").to_numpy()
    found = {str(c): cells[place == c] for c in np.unique(place)}
    if wanted is None:
        return found
    for c in wanted:
        require_member(c, found, "context", where="the contexts with control cells")
    return {c: found[c] for c in wanted}


def cell_positions(adata: AnnData, indices: Any) -> IntArray:
    """Turn ``indices`` (integers, a boolean mask or None for all) into checked positions."""
    if indices is None:
        cells = np.arange(adata.n_obs)
    else:
        cells = np.atleast_1d(np.asarray(indices))
        if cells.dtype == bool:
            if len(cells) != adata.n_obs:
                raise ValueError(f"indices: the boolean mask has {len(cells)} entries for {adata.n_obs} cells.")
            cells = np.flatnonzero(cells)
        elif cells.size and not np.issubdtype(cells.dtype, np.integer):
            raise ValueError(
                f"indices: expected integers or a boolean mask, got {cells.dtype}. "
                "Turn names into positions with adata.obs_names.get_indexer(names)."
            )
        elif cells.size and (cells.min() < -adata.n_obs or cells.max() >= adata.n_obs):
            raise IndexError(f"indices run from {cells.min()} to {cells.max()}, but there are {adata.n_obs} cells.")
    if cells.size == 0:
        raise ValueError("no cells selected: adata or indices is empty.")
    return cells.astype(np.int64) % adata.n_obs


class PredictedSet(NamedTuple):
    """Cells predicted for one perturbation in one context; with the control label, the controls themselves."""

    label: str
    context: str
    cells: FloatArray
    """``(n, genes)`` log-normalised."""
    sources: pd.Index
    """Names of the control cells started from."""


def predictions_anndata(
    sets: Iterable[PredictedSet], genes: Sequence[str], keys: LabelKeys, *, method: str, train: pd.DataFrame
) -> AnnData:
    """Put predicted cells into an AnnData that evaluation can read without further arguments.

    Parameters
    ----------
    sets
        Predicted cells; sets whose label is the control are marked as controls.
    genes
        Names of the genes.
    keys
        Columns and labels.
    method
        What predicted them.
    train
        Training conditions, columns ``perturbation`` and ``context``.

    Returns
    -------
    ``X`` float32; ``obs``: perturbation, context, ``source`` (name of the control started from), ``jepa_prediction``
    (``"predicted"`` or ``"control"``); ``uns["jepa"]["prediction"]``: method, keys and training conditions.
    """
    parts = list(sets)
    obs = pd.DataFrame({keys.perturbation_key: np.repeat([s.label for s in parts], [len(s.cells) for s in parts])})
    if keys.context_key is not None:
        obs[keys.context_key] = np.repeat([s.context for s in parts], [len(s.cells) for s in parts])
    obs[Keys.obs.source] = np.concatenate([s.sources.astype(str).to_numpy() for s in parts])
    control = obs[keys.perturbation_key] == keys.control
    obs[Keys.obs.kind] = np.where(control, "control", "predicted")
    for key in (keys.perturbation_key, keys.context_key, Keys.obs.kind):
        if key is not None:
            obs[key] = obs[key].astype("category")
    obs.index = pd.Index([f"prediction-{i}" for i in range(len(obs))])
    x = np.concatenate([np.asarray(s.cells, dtype=np.float32) for s in parts])
    out = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index([str(g) for g in genes])))
    out.uns[Keys.uns.root] = {
        Keys.uns.prediction: {
            "model": method,
            "perturbation_key": keys.perturbation_key,
            "control": keys.control,
            "context_key": keys.context_key or "",
            "separator": keys.separator,
            "train": train[["perturbation", "context"]].reset_index(drop=True).rename(index=str),
        }
    }
    return out
