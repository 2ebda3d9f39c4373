"""Training history: losses per stage and collapse diagnostics."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scjepa._docs import docs
from scjepa.pl._figure import COLORS, describe, finish, legend, panels, tidy

_LOSS = re.compile(r"^(?:(?P<stage>.+?)[/_.])?(?P<part>train|validation|val)_loss$")

_PART = re.compile(r"(^|[/_.])(train|validation|val)([/_.]|$)")
"""Parts of the loss, as in ``"invariance_train"``."""


def _curve(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and values of one entry of a history: a one-column DataFrame, a Series or a list."""
    y = np.asarray(values, dtype=float).ravel()
    epoch = np.asarray(getattr(values, "index", np.arange(len(y))))
    epoch = epoch.astype(float) if epoch.dtype.kind in "iuf" else np.arange(len(y), dtype=float)
    known = np.isfinite(y)
    return epoch[known], y[known]


def _flatten(history: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``{"encoder": {"train_loss": ...}}`` as ``{"encoder_train_loss": ...}``."""
    flat: dict[str, Any] = {}
    for key, value in history.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}_{inner}": curve for inner, curve in _flatten(value).items()})
        else:
            flat[str(key)] = value
    return flat


@docs
def history(
    source: Any, *, ax: Axes | Sequence[Axes] | None = None, save: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw training and validation losses, one panel per stage, and collapse diagnostics in a panel of their own.

    Diagnostics live on different scales, so each is drawn as a share of its largest value; the last value itself is
    in the legend. A diagnostic that falls toward 0 is an embedding that collapses.

    Parameters
    ----------
    source
        A trained model (anything with a ``history``) or a history: name -> one value per epoch, as a one-column
        DataFrame, a Series or a list. Names are read as ``"[stage_]train_loss"`` and ``"[stage_]validation_loss"``;
        curves of single parts of the loss (``"..._train"``, ``"..._validation"``) are left out, the rest are
        diagnostics.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If there is no history.

    Examples
    --------
    >>> from scjepa.pl import history
    >>> figure = history({"train_loss": [3.0, 2.0], "validation_loss": [3.1, 2.5], "rankme": [20.0, 25.0]})
    >>> [ax.get_title() for ax in figure.axes]
    ['loss', 'collapse diagnostics']
    """
    record = source if isinstance(source, Mapping) else getattr(source, "history", None)
    if not record:
        raise ValueError("there is no training history to draw: train the model first, or give its history dictionary.")
    curves = {re.sub(r"_epoch$", "", k): _curve(v) for k, v in _flatten(record).items() if not k.endswith("_step")}
    curves = {k: c for k, c in curves.items() if len(c[1])}
    stages: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for key, match in [(k, _LOSS.match(k)) for k in curves]:
        if match is None:
            continue
        part = "training" if match["part"] == "train" else "validation"
        stages.setdefault(match["stage"] or "", {})[part] = curves.pop(key)
    if set(stages) - {""}:  # with several stages, the losses without a prefix repeat those of the last one
        stages.pop("", None)
    curves = {k: c for k, c in curves.items() if not _PART.search(k)}
    if not stages and not curves:
        raise ValueError(f"no losses or diagnostics found in the history. Names found: {', '.join(map(str, record))}.")
    axes = panels(len(stages) + bool(curves), ax, size=(4.2, 3.2), columns=3)
    for stage, axis in zip(stages, axes, strict=False):
        for color, part in zip(COLORS, ("training", "validation"), strict=False):
            if part in stages[stage]:
                epoch, y = stages[stage][part]
                axis.plot(epoch, y, color=color, lw=1.6, marker="o" if len(y) < 3 else None, ms=4, label=part)
        describe(axis, title=f"{stage} loss".strip(), y="loss")
        legend(axis)
    if curves:
        axis = axes[len(stages)]
        styles = [(c, s) for s in ("-", "--", ":") for c in COLORS]
        for (name, (epoch, y)), (color, style) in zip(curves.items(), styles, strict=False):
            top = np.abs(y).max() or 1.0
            label = f"{name.replace('_', ' ')}: {y[-1]:.3g}"
            axis.plot(epoch, y / top, style, color=color, lw=1.4, marker="o" if len(y) < 3 else None, ms=4, label=label)
        low = min(float((y / (np.abs(y).max() or 1.0)).min()) for _, y in curves.values())
        axis.set_ylim(min(0.0, low) - 0.05, 1.08)
        describe(axis, title="collapse diagnostics", y="share of largest value")
        # inside, where the curves leave most room; a veil for where they leave none
        legend(axis, frameon=True, title="last value", alignment="left", framealpha=0.8, edgecolor="none")
    for axis in axes:
        tidy(axis)
        describe(axis, x="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return finish(axes[0], save)
