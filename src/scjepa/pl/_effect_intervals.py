"""Predicted effects of one perturbation with their intervals, gene below gene, beside measured ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from scjepa._checks import closest, require_positive_int, some
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa.pl._effect_tables import GENE, PERTURBATION, SURE, check_effects, gene_positions, in_words, measured
from scjepa.pl._figure import COLORS, INK, UNSURE, axes_for, describe, finish, grid, legend, rows, tidy


@docs
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
    %(n_genes)s
    %(ax)s
    %(save)s

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
    known = as_text(table[PERTURBATION])
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
    found = pd.Index(as_text(table[GENE]))
    if genes is None:
        order = np.argsort(-np.abs(table["effect"].to_numpy(dtype=float)), kind="stable")
        chosen = order[: require_positive_int(n_genes, "n_genes")]
    else:
        chosen = gene_positions(genes, found)
    value, low, high = (table[name].to_numpy(dtype=float)[chosen] for name in ("effect", "lower", "upper"))
    place = np.arange(len(chosen))
    sure = (low > 0) | (high < 0)

    ax = axes_for(ax, (4.6, max(1.3 + 0.2 * len(chosen), 2.2)))
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
    rows(ax, list(found[chosen]))
    grid(ax, "y", color="#EEEEEE")
    title = in_words([perturbation, *table[keys[1:]].iloc[0]])
    if "support" in table:
        title += f" (support: {table['support'].iloc[0]})"
    if "abstain" in table and bool(table["abstain"].iloc[0]):
        title += "\nthe model abstains"
    describe(ax, title=title, x="effect (log-normalized)")
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    legend(ax, handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.55 / (0.2 * len(chosen) + 0.4)))
    finish(ax, save)
    return ax
