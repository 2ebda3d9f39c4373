"""Predicted effects with their intervals: a heat map of many conditions, a forest plot of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scjepa._checks import closest, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.pl._effect_tables import GENE, PERTURBATION, check_effects, condition_names, condition_rows, measured
from scjepa.pl._figure import COLORS, INK, finish, tidy

UNSURE = "#9A9A9A"
"""Color of intervals that include zero, and of what the model abstains from."""

PALE = 0.3
"""Opacity of what the model abstains from."""

CLIP = 0.97
"""Share of the drawn effects that the color scale tells apart."""

SURE = "interval excludes 0"


def effects(
    effects: pd.DataFrame,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 30,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw predicted effects as a heat map, conditions x genes, that shows how sure the model is of each.

    A dot says that the interval excludes zero. Rows that the model abstains from are pale, their names gray.

    Parameters
    ----------
    effects
        Table of ``PerturbJEPA.predict_effect``; rows of the figure are its perturbations, with the context, dose or
        kind where it has several.
    genes
        Genes to draw, in this order. By default those with the largest absolute effect in any condition that the model
        does not abstain from (in any at all if it abstains from all), from the most induced to the most repressed.
    n_genes
        Number of genes to draw when ``genes`` is not given.
    ax
        Axes to draw into; new ones by default.
    save
        File to write.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of effects, or has none of a gene that is asked for.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import effects
    >>> rows = [("A", "g1", 1.0, 0.5, 1.5), ("A", "g2", -0.2, -0.6, 0.2)]
    >>> ax = effects(pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"]))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['g1', 'g2']
    """
    table, keys = check_effects(effects)
    row, conditions = condition_rows(table, keys)
    found = pd.Index(table[GENE].astype(str).unique())
    column = found.get_indexer(table[GENE].astype(str))
    shape = (len(conditions), len(found))
    value, low, high = (_matrix(table[name], row, column, shape) for name in ("effect", "lower", "upper"))
    abstain = np.zeros(len(conditions), bool)
    if "abstain" in table:
        abstain[row[table["abstain"].to_numpy(dtype=bool)]] = True
    if genes is None:
        usable = value if abstain.all() else value[~abstain]
        size = np.nan_to_num(np.abs(usable)).max(0)
        chosen = np.argsort(-size, kind="stable")[: require_positive_int(n_genes, "n_genes")]
        mean = np.nan_to_num(usable[:, chosen]).mean(0)
        chosen = chosen[np.argsort(-mean, kind="stable")]
    else:
        chosen = _positions(genes, found)
    value, low, high = value[:, chosen], low[:, chosen], high[:, chosen]
    m, g = value.shape

    if ax is None:
        names_width = 0.075 * max(map(len, condition_names(conditions)))
        size_in = (1.6 + names_width + 0.19 * g, 1.35 + 0.22 * m)
        ax = plt.subplots(figsize=(max(size_in[0], 4.4), max(size_in[1], 2.0)), layout="constrained")[1]
    # a few genes with huge effects would leave all others white: beyond the limit colors stay the same
    size = np.abs(value[np.isfinite(value)])
    limit = float(np.quantile(size, CLIP, method="higher")) if len(size) else 0.0
    limit = limit or float(size.max(initial=0.0)) or 1.0
    opacity = np.where(abstain, PALE, 1.0)[:, None] * np.ones((1, g))
    image = ax.imshow(
        np.ma.masked_invalid(value),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        alpha=opacity,
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_xticks(np.arange(g + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(m + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=0.8)
    sure_row, sure_column = np.nonzero((low > 0) | (high < 0))
    strong = (np.abs(value) > 0.6 * limit) & ~abstain[:, None]
    colors = np.where(strong, "white", np.where(abstain[:, None], UNSURE, INK))[sure_row, sure_column]
    ax.scatter(sure_column, sure_row, s=7, c=colors, lw=0)
    ax.set_xticks(np.arange(g), found[chosen], rotation=90)
    ax.set_yticks(np.arange(m), condition_names(conditions))
    tidy(ax)
    ax.tick_params(which="both", length=0)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[:].set_visible(False)
    for label, silent in zip(ax.get_yticklabels(), abstain, strict=True):
        label.set_color(UNSURE if silent else INK)
    clipped = "both" if size.max(initial=0.0) > limit else "neither"
    bar = cast(Figure, ax.get_figure()).colorbar(image, ax=ax, pad=0.02, fraction=0.05, aspect=12, extend=clipped)
    bar.set_label("predicted effect\n(log-normalized)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    handles: list[Line2D | Patch] = []
    if len(sure_row):
        handles.append(Line2D([], [], ls="", marker="o", ms=3, color=INK, label=SURE))
    if abstain.any():
        handles.append(Patch(color="#B2182B", alpha=PALE, lw=0, label="pale: the model abstains"))
    if handles:
        ax.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            frameon=False,
            fontsize=8,
            borderpad=0.2,
            handletextpad=0.4,
        )
    finish(ax, save)
    return ax


def effect_intervals(
    effects: pd.DataFrame,
    perturbation: str | None = None,
    *,
    true: pd.Series | pd.DataFrame | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 20,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the predicted effects of one perturbation with their intervals, gene below gene.

    Intervals that include zero are gray. Measured effects, if given, are diamonds, and the legend counts how many of
    them lie inside their interval.

    Parameters
    ----------
    effects
        Table of ``PerturbJEPA.predict_effect``.
    perturbation
        Label as written in ``effects``; may be left out when there is one only.
    true
        Measured effects, optional: a Series by gene, or a DataFrame, conditions x genes, with the perturbation (and the
        context, if there are several) in the index, like :func:`scjepa.datasets.true_effects`.
    genes
        Genes to draw, in this order; by default those with the largest absolute predicted effect.
    n_genes
        Number of genes to draw when ``genes`` is not given.
    ax
        Axes to draw into; new ones by default.
    save
        File to write.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of effects, has no such perturbation or gene, or has the perturbation in several
        contexts or doses; if ``true`` has nothing of it.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import effect_intervals
    >>> rows = [("A", "g1", 1.0, 0.5, 1.5), ("A", "g2", -0.2, -0.6, 0.2)]
    >>> table = pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"])
    >>> ax = effect_intervals(table, "A", true=pd.Series({"g1": 1.2, "g2": 0.3}))
    >>> ax.get_legend().get_texts()[-1].get_text()
    'measured (1 of 2 inside)'
    """
    table, keys = check_effects(effects)
    known = table[PERTURBATION].astype(str)
    if perturbation is None:
        if known.nunique() > 1:
            raise ValueError(f"effects has {known.nunique()} perturbations: give one of {some(list(known.unique()))}.")
        perturbation = known.iloc[0]
    table = table[(known == perturbation).to_numpy()]
    if not len(table):
        raise ValueError(
            f"effects has no perturbation {perturbation!r}.{closest(perturbation, known.unique())} "
            f"Found: {some(list(known.unique()), 8)}."
        )
    several = [key for key in keys[1:] if table[key].nunique() > 1]
    if several:
        key = several[0]
        raise ValueError(
            f"effects has {perturbation!r} with {table[key].nunique()} values of {key!r} "
            f"({some(list(table[key].unique()))}): keep one, for example "
            f"effects[effects[{key!r}] == {table[key].iloc[0]!r}]."
        )
    measurement = None if true is None else measured(table, keys, true)
    found = pd.Index(table[GENE].astype(str))
    if genes is None:
        order = np.argsort(-np.abs(table["effect"].to_numpy(dtype=float)), kind="stable")
        chosen = order[: require_positive_int(n_genes, "n_genes")]
    else:
        chosen = _positions(genes, found)
    value, low, high = (table[name].to_numpy(dtype=float)[chosen] for name in ("effect", "lower", "upper"))
    place = np.arange(len(chosen))
    sure = (low > 0) | (high < 0)

    if ax is None:
        ax = plt.subplots(figsize=(4.6, max(1.3 + 0.2 * len(chosen), 2.2)), layout="constrained")[1]
    color = np.where(sure, COLORS[0], UNSURE)
    ax.axvline(0, color=INK, lw=0.8, zorder=1)
    ax.add_collection(
        LineCollection(
            [[(a, y), (b, y)] for a, b, y in zip(low, high, place, strict=True)], colors=color, lw=2, zorder=2
        )
    )
    ax.scatter(value, place, s=22, c=color, lw=0, zorder=3)
    handles = []
    if sure.any():
        handles.append(Line2D([], [], marker="o", ms=5, lw=2, color=COLORS[0], label=f"predicted, {SURE}"))
    if not sure.all():
        handles.append(Line2D([], [], marker="o", ms=5, lw=2, color=UNSURE, label="predicted, interval includes 0"))
    if measurement is not None:  # a little below, so that neither hides the other
        y = measurement[chosen]
        has = np.isfinite(y)
        inside = int(((low <= y) & (y <= high))[has].sum())
        ax.scatter(y, place + 0.28, s=15, marker="D", facecolor="white", edgecolor=COLORS[1], lw=1.2, zorder=4)
        text = f"measured ({inside} of {int(has.sum())} inside)"
        handles.append(
            Line2D([], [], ls="", marker="D", ms=4, mfc="white", mec=COLORS[1], mew=1.2, label=text),
        )
    ax.autoscale_view()
    ax.set_yticks(place, found[chosen])
    ax.set_ylim(len(place) - 0.4, -0.6)
    ax.grid(axis="y", color="#EEEEEE", lw=0.6)
    ax.set_axisbelow(True)
    title = ", ".join(
        [str(perturbation), *(f"{v:g}" if isinstance(v, float) else str(v) for v in table[keys[1:]].iloc[0])]
    )
    if "support" in table:
        title += f" (support: {table['support'].iloc[0]})"
    if "abstain" in table and bool(table["abstain"].iloc[0]):
        title += "\nthe model abstains"
    ax.set_title(title, fontsize=10, color=INK)
    ax.set_xlabel("effect (log-normalized)", fontsize=9)
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.55 / (0.2 * len(chosen) + 0.4)),
        frameon=False,
        fontsize=8,
    )
    finish(ax, save)
    return ax


def _matrix(values: pd.Series, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> FloatArray:
    """Spread the rows of a tidy table over conditions x genes; NaN where it has none."""
    out = np.full(shape, np.nan)
    out[row, column] = values.to_numpy(dtype=float)
    return out


def _positions(genes: Sequence[str], found: pd.Index) -> np.ndarray:
    asked = [genes] if isinstance(genes, str) else [str(g) for g in genes]
    at = found.get_indexer(pd.Index(asked))
    missing = [g for g, i in zip(asked, at, strict=True) if i < 0]
    if missing or not asked:
        raise ValueError(
            f"genes: {some(missing) or 'none'} asked for, not in effects."
            f"{closest(missing[0], found) if missing else ''} Genes found: {some(list(found))}."
        )
    return at
