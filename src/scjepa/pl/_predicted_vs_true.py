"""Scatter of predicted against true effects of one perturbation, gene by gene."""

from __future__ import annotations

import os
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from matplotlib.axes import Axes

from scjepa._checks import closest, require_labels, require_member, some
from scjepa._keys import Keys
from scjepa._labels import parse_label
from scjepa._scale import check_scale, lognormalise
from scjepa.pl._figure import COLORS, INK, MUTED, finish, tidy
from scjepa.pl._names import name_dots


def _mean(x: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(x[np.flatnonzero(rows)].mean(0), dtype=np.float64).ravel()


def _rows(adata: Any, name: str, key: str, wanted: str, control: str, separator: str, place: np.ndarray) -> np.ndarray:
    """Return the mask of cells of one perturbation (any spelling of it) within ``place``."""
    labels = require_labels(adata.obs, key, f"{name}: perturbation_key").to_numpy()
    action = parse_label(wanted, control, separator)
    same = [label for label in np.unique(labels) if parse_label(label, control, separator) == action]
    return np.isin(labels, same) & place


def predicted_vs_true(
    pred: Any,
    real: Any,
    perturbation: str,
    *,
    context: str | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    n_labels: int = 10,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the predicted against the true mean effect of one perturbation, one dot per gene.

    Effects are perturbed minus control means on the log-normalised scale; the predictor's own controls are used where
    ``pred`` has them. The genes with the largest true effects are named. On the dashed line predicted equals true;
    a cloud flatter than it is an effect predicted too small.

    Parameters
    ----------
    pred, real
        Predicted (log-normalised) and measured cells, as for :func:`scjepa.tl.evaluate`.
    perturbation
        Label of the perturbation; ``"B+A"`` finds ``"A+B"``.
    context
        Context to draw; may be left out when ``pred`` has the perturbation in one context only.
    perturbation_key, control, context_key, separator, layer
        As for :func:`scjepa.tl.evaluate`; by default what ``pred.uns`` says.
    n_labels
        Number of genes to name; names that find no room beside their dot are left out.
    ax
        Axes to draw into; new ones by default.
    save
        File to write.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the perturbation or context has no cells in ``pred`` or ``real``, or genes are missing.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.pl import predicted_vs_true
    >>> x = np.array([[1.0, 2.5, 0.0], [3.0, 2.0, 0.5]])
    >>> real = anndata.AnnData(x, obs=pd.DataFrame({"p": ["control", "A"]}, index=["c", "a"]))
    >>> ax = predicted_vs_true(real[["a"]].copy(), real, "A", perturbation_key="p")
    >>> ax.get_title()
    'A: r = 1.000'
    """
    root = pred.uns.get(Keys.uns.root, {})
    record = root.get(Keys.uns.prediction, {}) if hasattr(root, "get") else {}
    key = perturbation_key or record.get("perturbation_key")
    if not key:
        raise ValueError(
            "perturbation_key is missing, and pred.uns has no record of it. Give the obs column of labels."
        )
    control = str(control if control is not None else record.get("control", "control"))
    separator = str(separator if separator is not None else record.get("separator", "+"))
    context_key = record.get("context_key") if context_key is None else context_key

    if context is not None and not context_key:
        raise ValueError(f"context={context!r} needs context_key, the obs column of contexts; pred.uns names none.")
    inside = {"pred": np.ones(pred.n_obs, bool), "real": np.ones(real.n_obs, bool)}
    if context_key:
        places = {
            n: require_labels(a.obs, context_key, f"{n}: context_key") for n, a in (("pred", pred), ("real", real))
        }
        if context is None:
            found = sorted(
                set(places["pred"][_rows(pred, "pred", key, perturbation, control, separator, inside["pred"])])
            )
            if len(found) > 1:
                raise ValueError(
                    f"pred has {perturbation!r} in {len(found)} contexts: give context, one of {some(found)}."
                )
            context = found[0] if found else None
        if context is not None:
            for name, column in places.items():
                require_member(context, column.unique(), "context", where=f"the contexts of {name}")
                inside[name] = (column == context).to_numpy()

    rows, control_rows = {}, {}
    for name, adata in (("pred", pred), ("real", real)):
        rows[name] = _rows(adata, name, key, perturbation, control, separator, inside[name])
        control_rows[name] = _rows(adata, name, key, control, control, separator, inside[name])
        if not rows[name].any():
            hint = closest(perturbation, adata.obs[key].astype(str).unique())
            raise ValueError(
                f"{name} has no cells of perturbation {perturbation!r}{f' in {context}' if context else ''}.{hint}"
            )
    if not control_rows["real"].any():
        raise ValueError(f"real has no control cells (label {control!r}){f' in {context}' if context else ''}.")

    order = real.var_names.get_indexer(pred.var_names)
    if (order < 0).any():
        missing = list(pred.var_names[order < 0])
        raise ValueError(f"{len(missing)} genes of pred are not in real.var_names: {some(missing)}.")
    x = real.X if layer is None else real.layers[layer]
    x = x.tocsr() if sp.issparse(x) else np.asarray(x)
    if check_scale(x, name="real") == "counts":
        x = lognormalise(x, 1e4)
    y = pred.X.tocsr() if sp.issparse(pred.X) else np.asarray(pred.X)
    base = _mean(x, control_rows["real"])[order]
    own = _mean(y, control_rows["pred"]) if control_rows["pred"].any() else base
    true, predicted = _mean(x, rows["real"])[order] - base, _mean(y, rows["pred"]) - own
    varied = min(true.std(), predicted.std()) > 0
    r = float(np.corrcoef(true, predicted)[0, 1]) if varied else float("nan")

    if ax is None:
        ax = plt.subplots(figsize=(4.4, 4.2), layout="constrained")[1]
    top = np.argsort(-np.abs(true), kind="stable")[: max(n_labels, 0)]
    rest = np.setdiff1d(np.arange(len(true)), top)
    low = min(true.min(), predicted.min())
    high = max(true.max(), predicted.max())
    pad = 0.16 * (high - low or 1.0)  # room for names beside the outermost dots
    ax.axline((0, 0), slope=1, color=INK, lw=0.8, ls="--", zorder=1)
    ax.axhline(0, color=MUTED, lw=0.6, zorder=0)
    ax.axvline(0, color=MUTED, lw=0.6, zorder=0)
    ax.scatter(true[rest], predicted[rest], s=9, color=MUTED, alpha=0.7, lw=0, zorder=2, rasterized=len(rest) > 5000)
    ax.scatter(true[top], predicted[top], s=18, color=COLORS[0], lw=0, zorder=3)
    ax.set_xlim(low - pad, high + pad)
    ax.set_ylim(low - pad, high + pad)
    ax.set_aspect("equal")
    where = f" in {context}" if context and context_key else ""
    ax.set_title(f"{perturbation}{where}: r = {r:.3f}", fontsize=10, color=INK)
    ax.set_xlabel("true effect (log-normalized)", fontsize=9)
    ax.set_ylabel("predicted effect", fontsize=9)
    tidy(ax)
    name_dots(ax, true, predicted, top, [str(g) for g in pred.var_names[top]])
    finish(ax, save)
    return ax
