"""Bars of scores: the model, the baselines and the replicate ceiling side by side, one panel per metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scjepa._checks import require_member
from scjepa._keys import Keys
from scjepa.pl._figure import COLORS, INK, MUTED, finish, panels, tidy

TITLES = {
    "l2": "L2 ↓",
    "pearson_delta": "Pearson Δ ↑",
    "pearson_delta_systema": "Pearson Δ, training mean\nas reference ↑",
    "e_distance": "E-distance ↓",
    "variance_ratio": "variance ratio →1",
    "shift_ratio": "shift ratio →1",
}
"""Panel titles, with the arrow of :func:`scjepa.tl.format_scores`."""

COLUMNS = ("method", "kind", "perturbation", "context", "metric", "value")


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
    method that scores fewer conditions than the others says so beside its name.

    Parameters
    ----------
    scores
        Table of :func:`scjepa.tl.evaluate`, several joined with :func:`pandas.concat`, or the scored AnnData.
    metric
        Metric or metrics to draw; by default all with any value.
    ax
        Axes to draw into, one per panel; new ones by default.
    save
        File to write.

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
    if hasattr(scores, "uns"):
        found = scores.uns.get(Keys.uns.root, {})
        if Keys.uns.scores not in found:
            raise ValueError("the AnnData has no scores: run scjepa.tl.evaluate first.")
        scores = found[Keys.uns.scores]
    missing = [c for c in COLUMNS if c not in scores]
    if missing:
        raise ValueError(f"scores lacks the columns {missing}: expected the table returned by scjepa.tl.evaluate.")
    table = scores.astype(dict.fromkeys(COLUMNS[:-1], str))  # files give categories back
    filled = table.dropna(subset="value")
    if not len(filled):
        raise ValueError("scores has no values to draw.")
    available = list(dict.fromkeys(filled["metric"]))
    chosen = available if metric is None else ([metric] if isinstance(metric, str) else list(metric))
    for name in chosen:
        require_member(name, available, "metric", where="the metrics with values in scores")

    condition = ["perturbation", "context"]
    has = filled.drop_duplicates(["method", *condition]).pivot(index=condition, columns="method", values="kind").notna()
    kind = table.drop_duplicates("method").set_index("method")["kind"]
    contenders = has[[m for m in has.columns if kind[m] != "ceiling"]]
    broad = contenders.columns[contenders.mean() >= 0.5]
    common = has[broad].all(axis=1)
    keep = common.index[common] if common.any() else common.index
    shown = filled[pd.MultiIndex.from_frame(filled[condition]).isin(keep)]
    count = shown.drop_duplicates(["method", *condition])["method"].value_counts()
    rank = shown[shown["metric"] == ("l2" if "l2" in available else chosen[0])].groupby("method")["value"].mean()
    models = [m for m in kind.index if kind[m] == "model" and m in count]
    others = sorted((m for m in kind.index if kind[m] != "model" and m in count), key=lambda m: rank.get(m, np.inf))
    others.sort(key=lambda m: kind[m] == "ceiling")
    methods = models + others
    ceilings = [i for i, m in enumerate(methods) if kind[m] == "ceiling"]
    most = max((n for m, n in count.items() if kind[m] != "ceiling"), default=count.max())
    color = {m: COLORS[i % len(COLORS)] for i, m in enumerate(models)} | dict.fromkeys(others, MUTED)
    names = [m if count[m] == most else f"{m} ({count[m]} of {most})" for m in methods]

    axes = panels(len(chosen), ax, size=(3.1, 0.9 + 0.32 * len(methods)), columns=3)
    left = [spec is None or ax is not None or spec.is_first_col() for spec in (a.get_subplotspec() for a in axes)]
    for j, (name, axis) in enumerate(zip(chosen, axes, strict=True)):
        part = shown[shown["metric"] == name]
        mean = part.groupby("method")["value"].mean().reindex(methods)
        place = np.arange(len(methods))
        bars = axis.barh(place, mean.fillna(0), height=0.68, color=[color[m] for m in methods], zorder=2)
        for i in ceilings:
            bars[i].set(facecolor="white", edgecolor=MUTED, hatch="////")
            if not np.isnan(mean.iloc[i]) and "→1" not in TITLES.get(name, ""):
                axis.axvline(mean.iloc[i], color=INK, lw=0.8, ls=":", zorder=4)
        rng = np.random.default_rng(0)  # jitter only: the same picture every time
        at = part["method"].map({m: i for i, m in enumerate(methods)}).to_numpy()
        crowded = len(keep) > 25
        height = at + (rng.uniform(-0.2, 0.2, len(part)) if len(keep) > 2 else 0)
        axis.scatter(
            part["value"], height, s=7 if crowded else 12, color=INK, ec="white", lw=0.3, zorder=3, clip_on=False
        )
        for i, value in enumerate(mean):
            if np.isnan(value):
                axis.annotate(
                    "undefined", (0, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7, color=INK
                )
        if "→1" in TITLES.get(name, ""):
            axis.axvline(1, color=INK, lw=0.8, ls="--", zorder=4)
        if part["value"].min() < 0:
            axis.axvline(0, color=INK, lw=0.8, zorder=4)
        axis.set_yticks(place, names if left[j] else [])
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.set_title(TITLES.get(name, name), fontsize=10, color=INK)
        axis.grid(axis="x", color="#E5E5E5", lw=0.6, zorder=0)
        axis.set_axisbelow(True)
        tidy(axis)
    return finish(axes[0], save)
