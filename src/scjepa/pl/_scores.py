"""Bars of scores: the model, the baselines and the replicate ceiling side by side, one panel per metric."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._score_rows import beyond_ceiling, shown_once
from scjepa.pl._figure import INK, MUTED, describe, finish, grid, model_colors, panels, tidy
from scjepa.pl._written import ALL_CONDITIONS, SCORES, chosen, comparable, written

TITLES = {
    "l2": "L2 ↓",
    "pearson_delta": "Pearson Δ ↑",
    "pearson_delta_systema": "Pearson Δ, training mean\nas reference ↑",
    "e_distance": "E-distance ↓",
    "discrimination_score_l1": "discrimination, L1 ↑",
    "variance_ratio": "variance ratio →1",
    "shift_ratio": "shift ratio →1",
    "mse": "MSE ↓",
    "mae": "MAE ↓",
    "mse_delta": "MSE of effects ↓",
    "mae_delta": "MAE of effects ↓",
    "weighted_mse": "weighted MSE ↓",
    "weighted_r2": "weighted R² ↑",
    "cosine_logfc": "cosine of log fold changes ↑",
    "discrimination_score_l2": "discrimination, L2 ↑",
    "discrimination_score_cosine": "discrimination, cosine ↑",
    "perturbench_rank": "PerturBench rank, RMSE ↓",
    "perturbench_rank_cosine": "PerturBench rank, cosine ↓",
    "centroid_accuracy": "centroid accuracy ↑",
    "normalized_inverse_rank": "normalized inverse rank ↑",
    "mmd": "MMD ↓",
    "sliced_wasserstein": "sliced Wasserstein ↓",
    "de_overlap_at_N": "DE overlap@N ↑",
    **{f"de_overlap_at_{k}": f"DE overlap@{k} ↑" for k in (50, 100, 200, 500)},
    "de_precision_at_N": "DE precision@N ↑",
    **{f"de_precision_at_{k}": f"DE precision@{k} ↑" for k in (50, 100, 200, 500)},
    "de_recall": "DE recall ↑",
    "de_direction_match": "DE direction match ↑",
    "de_spearman_lfc": "DE Spearman of log fold\nchanges ↑",
    "de_pr_auc": "DE PR AUC ↑",
    "de_roc_auc": "DE ROC AUC ↑",
    "de_count_ratio": "DE count ratio →1",
    "de_spearman_count": "Spearman of DE counts ↑",
    "centroid_ami": "centroid AMI ↑",
    "pearson_edistance": "Pearson of E-distances ↑",
    "w1": "Wasserstein-1 ↓",
    "w2": "Wasserstein-2 ↓",
    "rmse": "RMSE ↓",
    "rmse_feature": "RMSE, mean of features ↓",
    "pearson_feature": "Pearson of features ↑",
    "pearson_cell": "Pearson of cells ↑",
    "coverage": "coverage of intervals",
}
"""Panel titles, with the arrow of :func:`scjepa.tl.format_scores`."""

GOALS = {metric: title[-1] for metric, title in TITLES.items()}
"""The arrows alone; ratios, which should be 1, have none."""

MAX_PANELS = 9
"""With more metrics in a table those of the profile ``"minimal"`` are drawn."""

PALE = 0.45
"""Opacity of bars over fewer conditions than the others, which can't be compared with them."""


@docs
def scores(
    scores: Any,
    metric: str | Sequence[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw scores as horizontal bars, the model (in color) above the baselines (gray), one panel per metric.

    The replicate ceiling, if it is in the table, comes last as a hatched bar, with a dotted line through the panel.
    Bars are means over conditions, chosen as in :func:`scjepa.tl.summarize_scores`; each dot is one condition. A
    method that scores fewer conditions than the others says so, beside its name or in the panel, and its bars are pale:
    they can't be compared with the others. Baselines with the same scores throughout are the same prediction and share
    a bar ("mean = kNN"). Where a bar goes beyond the replicate ceiling, the ceiling's says that it is no limit.

    Parameters
    ----------
    scores
        Table of :func:`scjepa.tl.evaluate`, several joined with :func:`pandas.concat`, or the scored AnnData.
    metric
        Metric or metrics to draw; by default all with any value, of more than nine those of the profile "minimal".
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If the metric is not in the table or the table has no values.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import scores
    >>> rows = [("model", "model", "A", "all", "l2", 1.0), ("mean", "baseline", "A", "all", "l2", 3.0)]
    >>> table = pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"])
    >>> figure = scores(table)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['model', 'mean']
    """
    table = shown_once(written(scores, Keys.uns.scores, SCORES, "scjepa.tl.evaluate", "scores"))
    filled = table.dropna(subset="value")
    if not len(filled):
        raise ValueError("scores has no values to draw.")
    available = list(dict.fromkeys(filled["metric"]))
    metrics = chosen(metric, available, "metric", "the metrics with values in scores")
    if metric is None and len(available) > MAX_PANELS:
        minimal = list(TITLES)[: list(TITLES).index("mse")]
        metrics = [m for m in available if m in minimal] or available[:MAX_PANELS]

    kind = table.drop_duplicates("method").set_index("method")["kind"]
    overall = filled["perturbation"] == ALL_CONDITIONS  # one score of all conditions at once
    single = filled[~overall] if not overall.all() else filled
    shown = comparable(single, kind)
    rows, count, most = shown.rows, shown.count, shown.most
    rank = rows[rows["metric"] == ("l2" if "l2" in available else metrics[0])].groupby("method")["value"].mean()
    models = [m for m in kind.index if kind[m] == "model" and m in count]
    others = sorted((m for m in kind.index if kind[m] != "model" and m in count), key=lambda m: rank.get(m, np.inf))
    others.sort(key=lambda m: kind[m] == "ceiling")
    methods = models + others
    color = model_colors(models) | dict.fromkeys(others, MUTED)
    # joint names would squeeze the panels
    names = [shown.label(m, textwrap.fill(m, 24) if " = " in m else m) for m in methods]

    axes = panels(len(metrics), ax, size=(3.1, 0.9 + 0.32 * len(methods)), columns=4 if len(metrics) > 6 else 3)
    left = [spec is None or ax is not None or spec.is_first_col() for spec in (a.get_subplotspec() for a in axes)]
    for j, (name, axis) in enumerate(zip(metrics, axes, strict=True)):
        once = filled[overall & filled["method"].isin(methods) & (filled["metric"] == name)]
        each = rows[rows["metric"] == name]
        _panel(axis, name, each if once.empty else once, kind[methods], color, crowd=shown.n if once.empty else 1)
        here = each["method"].value_counts()
        for bar, (i, m) in zip(axis.patches, enumerate(methods), strict=True):
            if kind[m] == "ceiling" or not once.empty or here.get(m, 0) in (0, most):
                continue
            bar.set_alpha(PALE)
            if here[m] < count[m]:  # undefined in some conditions, in this metric only
                _write(axis, i, f"{here[m]} of {most}")
        drawn = (each if once.empty else once).groupby("method")["value"].mean().reindex(methods).to_frame(name)
        for i, m in enumerate(methods):
            beside = [o for o in methods if o == m or (kind[o] != "ceiling" and count[o] == count[m])]
            if kind[m] == "ceiling" and beyond_ceiling(drawn.loc[beside], [m], GOALS):
                _write(axis, i, "not a limit")
        axis.set_yticks(np.arange(len(methods)), names if left[j] else [])
    return finish(axes[0], save)


def _panel(ax: Axes, name: str, part: pd.DataFrame, kind: pd.Series, color: dict[str, str], *, crowd: int) -> None:
    """Draw one metric: a bar per method of ``kind``, a dot per value."""
    mean = part.groupby("method")["value"].mean().reindex(kind.index)
    one_is_best = "→1" in TITLES.get(name, "")
    bars = ax.barh(np.arange(len(kind)), mean.fillna(0), height=0.68, color=[color[m] for m in kind.index], zorder=2)
    for i, (bar, value) in enumerate(zip(bars, mean, strict=True)):
        if kind.iloc[i] == "ceiling":
            bar.set(facecolor="white", edgecolor=MUTED, hatch="////")
            if not np.isnan(value) and not one_is_best:
                ax.axvline(value, color=INK, lw=0.8, ls=":", zorder=4)
        if np.isnan(value):
            _write(ax, i, "undefined")
    rng = np.random.default_rng(0)  # jitter only: the same picture every time
    at = part["method"].map({m: i for i, m in enumerate(kind.index)}).to_numpy()
    height = at + (rng.uniform(-0.2, 0.2, len(part)) if crowd > 2 else 0)
    size = 7 if crowd > 25 else 12
    ax.scatter(part["value"], height, s=size, color=INK, ec="white", lw=0.3, zorder=3, clip_on=False)
    if one_is_best:
        ax.axvline(1, color=INK, lw=0.8, ls="--", zorder=4)
    if part["value"].min() < 0:
        ax.axvline(0, color=INK, lw=0.8, zorder=4)
    ax.set_ylim(len(kind) - 0.4, -0.6)
    describe(ax, title=TITLES.get(name, name))
    grid(ax, "x")
    tidy(ax)


def _write(ax: Axes, place: int, text: str) -> None:
    """Write at the foot of a bar."""
    box = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.8}
    ax.annotate(
        text,
        (0, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=INK,
        bbox=box,
        zorder=5,
    )
