"""Mean effects of one perturbation, read from predicted and from measured cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from scjepa._checks import closest, require_labels, require_member, some
from scjepa._keys import Keys
from scjepa._labels import parse_label
from scjepa._scale import check_scale, lognormalise
from scjepa._types import FloatArray


def mean_effects(
    pred: Any,
    real: Any,
    perturbation: str,
    context: str | None,
    perturbation_key: str | None,
    control: str | None,
    context_key: str | None,
    separator: str | None,
    layer: str | None,
) -> tuple[FloatArray, FloatArray, str]:
    """Return the predicted and the true effect of each gene of ``pred``, and the context (empty where there is one only).

    Arguments are those of :func:`scjepa.pl.predicted_vs_true`.
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
    return predicted, true, str(context) if context and context_key else ""


def _mean(x: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(x[np.flatnonzero(rows)].mean(0), dtype=np.float64).ravel()


def _rows(adata: Any, name: str, key: str, wanted: str, control: str, separator: str, place: np.ndarray) -> np.ndarray:
    """Return the mask of cells of one perturbation (any spelling of it) within ``place``."""
    labels = require_labels(adata.obs, key, f"{name}: perturbation_key").to_numpy()
    action = parse_label(wanted, control, separator)
    same = [label for label in np.unique(labels) if parse_label(label, control, separator) == action]
    return np.isin(labels, same) & place
