"""Scatter of predicted against true effects of one perturbation, gene by gene."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from scjepa._docs import docs
from scjepa.pl._figure import COLORS, MUTED, axes_for, describe, finish, line_of_slope, square, tidy
from scjepa.pl._mean_effects import mean_effects
from scjepa.pl._names import name_dots


@docs
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
    %(labels_of_pred)s
    %(measured_layer)s
    n_labels
        Number of genes to name; names that find no room beside their dot are left out.
    %(ax)s
    %(save)s

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
    predicted, true, context = mean_effects(
        pred, real, perturbation, context, perturbation_key, control, context_key, separator, layer
    )
    varied = min(true.std(), predicted.std()) > 0
    r = float(np.corrcoef(true, predicted)[0, 1]) if varied else float("nan")

    ax = axes_for(ax, (4.4, 4.2))
    top = np.argsort(-np.abs(true), kind="stable")[: max(n_labels, 0)]
    rest = np.setdiff1d(np.arange(len(true)), top)
    low = min(true.min(), predicted.min())
    high = max(true.max(), predicted.max())
    pad = 0.16 * (high - low or 1.0)  # room for names beside the outermost dots
    line_of_slope(ax)
    ax.axhline(0, color=MUTED, lw=0.6, zorder=0)
    ax.axvline(0, color=MUTED, lw=0.6, zorder=0)
    ax.scatter(true[rest], predicted[rest], s=9, color=MUTED, alpha=0.7, lw=0, zorder=2, rasterized=len(rest) > 5000)
    ax.scatter(true[top], predicted[top], s=18, color=COLORS[0], lw=0, zorder=3)
    square(ax, low - pad, high + pad)
    where = f" in {context}" if context else ""
    title = f"{perturbation}{where}: r = {r:.3f}"
    describe(ax, title=title, x="true effect (log-normalized)", y="predicted effect")
    tidy(ax)
    name_dots(ax, true, predicted, top, [str(g) for g in pred.var_names[top]])
    finish(ax, save)
    return ax
