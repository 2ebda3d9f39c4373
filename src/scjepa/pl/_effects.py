"""Heat map of predicted effects, conditions x genes, that shows how sure the model is of each."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scjepa._checks import require_positive_int
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa._types import FloatArray
from scjepa.pl._effect_tables import GENE, SURE, check_effects, condition_names, condition_rows, gene_positions
from scjepa.pl._figure import INK, UNSURE, axes_for, color_bar, figure_of, finish, legend, tidy

PALE = 0.3
"""Opacity of what the model abstains from."""

CLIP = 0.97
"""Share of the drawn effects that the color scale tells apart."""


@docs
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
    %(n_genes)s
    %(ax)s
    %(save)s

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
    found = pd.Index(as_text(table[GENE]).unique())
    column = found.get_indexer(as_text(table[GENE]))
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
        chosen = gene_positions(genes, found)
    value, low, high = value[:, chosen], low[:, chosen], high[:, chosen]
    m, g = value.shape

    names = condition_names(conditions)
    ax = axes_for(ax, (max(1.6 + 0.075 * max(map(len, names)) + 0.19 * g, 4.4), max(1.35 + 0.22 * m, 2.0)))
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
    ax.set_yticks(np.arange(m), names)
    tidy(ax)
    ax.tick_params(which="both", length=0)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[:].set_visible(False)
    for label, silent in zip(ax.get_yticklabels(), abstain, strict=True):
        label.set_color(UNSURE if silent else INK)
    clipped = "both" if size.max(initial=0.0) > limit else "neither"
    text = "predicted effect\n(log-normalized)"
    color_bar(figure_of(ax), image, text, ax=ax, pad=0.02, fraction=0.05, aspect=12, extend=clipped)
    handles: list[Line2D | Patch] = []
    if len(sure_row):
        handles.append(Line2D([], [], ls="", marker="o", ms=3, color=INK, label=SURE))
    if abstain.any():
        handles.append(Patch(color="#B2182B", alpha=PALE, lw=0, label="pale: the model abstains"))
    if handles:
        legend(
            ax,
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            borderpad=0.2,
            handletextpad=0.4,
        )
    finish(ax, save)
    return ax


def _matrix(values: pd.Series, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> FloatArray:
    """Spread the rows of a tidy table over conditions x genes; NaN where it has none."""
    out = np.full(shape, np.nan)
    out[row, column] = values.to_numpy(dtype=float)
    return out
