"""Dot plot of pathways: what predicted and what measured effects are enriched for, side by side."""

from __future__ import annotations

import logging
import os
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scjepa._checks import require_member, require_positive_int, some
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.pl._effect_tables import condition_names
from scjepa.pl._figure import INK, axes_for, color_bar, finish, grid, laid_out, legend, rows, tidy
from scjepa.pl._written import chosen, written

logger = logging.getLogger(__name__)

SIDES = ("pred", "real")
WRITTEN = {"pred": "predicted", "real": "measured"}
SCORES = {"ora": "over-representation\n(−log10 p)", "prerank": "normalized\nenrichment score"}
LIMITS = {"ora": 10.0, "prerank": 3.0}
"""Minus log10 of the FDR below which dots have one size: permutations can't tell smaller ones apart."""
AREA = 95.0
"""Points² of the largest dot."""
RATES = {0.3: "0.5", 1: "0.1", 2: "0.01", 3: "10$^{-3}$", 5: "10$^{-5}$", 10: "10$^{-10}$"}
"""FDRs that the legend shows, by minus log10."""


@docs
def pathways(
    terms: Any,
    *,
    enrichment: str | None = None,
    perturbations: str | Sequence[str] | None = None,
    n_terms: int = 15,
    n_conditions: int = 8,
    fdr: float = 0.05,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the leading pathways of predicted and of measured effects as dots, condition beside condition.

    Each condition has two columns, predicted and measured: the better the prediction, the more alike they are. The
    area of a dot is minus log10 of the FDR, its color the score; a ring marks pathways below ``fdr``.

    Parameters
    ----------
    terms
        AnnData that :func:`scjepa.tl.pathway_consistency` wrote to, or its table ``uns["jepa"]["pathway_terms"]``.
    enrichment
        ``"ora"`` or ``"prerank"``; by default the first in the table.
    perturbations
        Perturbations to draw; by default those with the strongest measured enrichment.
    n_terms
        Number of pathways: those that lead in any column, best rank first.
    n_conditions
        Number of conditions to draw when ``perturbations`` is not given.
    fdr
        False discovery rate below which a dot gets a ring.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If there is no such table, enrichment or perturbation, or it has no scores.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import pathways
    >>> rows = [("A", "all", "ora", side, "HALLMARK_HYPOXIA", 4.0, 0.001) for side in ("pred", "real")]
    >>> columns = ["perturbation", "context", "enrichment", "side", "term", "score", "fdr"]
    >>> ax = pathways(pd.DataFrame(rows, columns=columns))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['HYPOXIA']
    """
    columns = ["perturbation", "context", "side", "term", "score", "fdr"]
    table = written(terms, Keys.uns.pathway_terms, columns, "scjepa.tl.pathway_consistency", "terms")
    if "enrichment" not in table:
        raise ValueError(
            "terms lacks the column 'enrichment': expected a table written by scjepa.tl.pathway_consistency."
        )
    table = table[table["side"].isin(SIDES)].dropna(subset=["score", "fdr"])
    if not len(table):
        raise ValueError("terms has no scores to draw: no condition has differentially expressed genes.")
    available = list(dict.fromkeys(table["enrichment"]))
    enrichment = available[0] if enrichment is None else enrichment
    require_member(enrichment, available, "enrichment", where="the enrichment methods in terms")
    table = table[table["enrichment"] == enrichment]
    conditions = _conditions(table, perturbations, require_positive_int(n_conditions, "n_conditions"))
    keys = ["perturbation", "context"]
    pairs = [(*row, side) for row in conditions.itertuples(index=False) for side in SIDES]
    order = pd.MultiIndex.from_tuples(pairs)
    wide = lambda name: table.pivot(index="term", columns=[*keys, "side"], values=name).reindex(columns=order)
    score, rate = wide("score"), wide("fdr")
    leading = _leading(score, require_positive_int(n_terms, "n_terms"))
    value, size = score.loc[leading].to_numpy(dtype=float), rate.loc[leading].to_numpy(dtype=float)

    names = [_term_name(term) for term in leading]
    width = 2.1 + 0.062 * max(max(map(len, n.split("\n"))) for n in names) + 0.24 * len(pairs)
    lines = sum(0.13 * n.count("\n") for n in names)
    ax = axes_for(ax, (max(width, 4.4), 1.7 + lines + 0.23 * len(names)))
    x = np.arange(len(pairs)) + 0.45 * (np.arange(len(pairs)) // 2)  # a gap between conditions
    column, row = np.meshgrid(x, np.arange(len(names)))
    strength = np.clip(-np.log10(np.clip(size, 1e-300, 1.0)), 0.0, LIMITS.get(enrichment, 10.0))
    drawn = np.isfinite(value) & (strength > 0)
    signed = bool((value[drawn] < 0).any())
    limit = float(np.abs(value[drawn]).max(initial=0.0)) or 1.0
    most = float(strength[drawn].max(initial=0.0)) or 1.0
    sure = size[drawn] < fdr
    dots = ax.scatter(
        column[drawn],
        row[drawn],
        s=AREA * strength[drawn] / most,
        c=value[drawn],
        cmap="RdBu_r" if signed else "YlOrRd",
        vmin=-limit if signed else 0.0,
        vmax=limit,
        edgecolors=[INK if s else "#A0A0A0" for s in sure],
        linewidths=[1.0 if s else 0.3 for s in sure],
        zorder=3,
    )
    ax.set_xticks(x, [WRITTEN[side] for *_, side in pairs], rotation=90)
    rows(ax, names)
    ax.set_xlim(x[0] - 0.7, x[-1] + 0.7)
    for i in range(0, len(x), 2):  # the two columns of a condition belong together
        ax.axvspan(x[i] - 0.55, x[i + 1] + 0.55, color="#F3F3F3", lw=0, zorder=0)
    titles = condition_names(conditions)
    many = len(titles) > 1
    for i, title in enumerate(titles):
        ax.annotate(
            title,
            ((x[2 * i] + x[2 * i + 1]) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="left" if many and max(map(len, titles)) > 9 else "center",
            va="bottom",
            rotation=40 if many and max(map(len, titles)) > 9 else 0,
            rotation_mode="anchor",
            fontsize=8,
            color=INK,
        )
    tidy(ax)
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)
    grid(ax, "y", color="#E0E0E0", lw=0.5)
    _legends(ax, dots, enrichment, most, fdr)
    finish(ax, save)
    return ax


def _conditions(table: pd.DataFrame, perturbations: str | Sequence[str] | None, n: int) -> pd.DataFrame:
    """Return the conditions to draw, one row each."""
    keys = ["perturbation", "context"]
    found = table.drop_duplicates(keys)[keys]
    if perturbations is not None:
        asked = chosen(perturbations, found["perturbation"], "perturbations", "the perturbations in terms")
        place = {name: i for i, name in enumerate(asked)}
        return (
            found[found["perturbation"].isin(asked)]
            .sort_values("perturbation", key=lambda c: c.map(place), kind="stable")
            .reset_index(drop=True)
        )
    real = table[table["side"] == "real"]
    strength = real.assign(size=-np.log10(real["fdr"].clip(lower=1e-300))).groupby(keys)["size"].max()
    rank = pd.MultiIndex.from_frame(found).map(strength.to_dict()).to_numpy(dtype=float)
    order = np.argsort(-np.nan_to_num(rank), kind="stable")
    if len(found) > n:
        left = [" in ".join(map(str, found.iloc[i])) for i in order[n:]]
        logger.info("%d of %d conditions are not drawn: %s.", len(left), len(found), some(left))
    return found.iloc[np.sort(order[:n])].reset_index(drop=True)


def _leading(score: pd.DataFrame, n: int) -> list[str]:
    """Return the terms with the best rank in any column, then the largest mean score; the most positive first."""
    size = score.abs().fillna(0.0)
    rank = size.rank(ascending=False, method="min").where(size > 0).min(axis=1)
    order = pd.DataFrame({"rank": rank, "mean": -size.mean(axis=1)}).dropna().sort_values(["rank", "mean"]).index[:n]
    mean = score.loc[order].fillna(0.0).mean(axis=1)
    return list(mean.sort_values(ascending=False, kind="stable").index)


def _term_name(term: str) -> str:
    """Write a pathway without the name of its collection and its identifier, in at most two lines.

    Examples
    --------
    >>> from scjepa.pl._pathways import _term_name
    >>> _term_name("HALLMARK_IL6_JAK_STAT3_SIGNALING"), _term_name("GOBP:response to virus (GO:0009615)")
    ('IL6 JAK STAT3 SIGNALING', 'response to virus')
    """
    text = re.sub(r"\s*[(\[]?\b(GO:\d+|R-HSA-\d+|WP\d+)\b[)\]]?\s*", " ", str(term)).strip(" _|:") or str(term)
    text = re.sub(r"^(HALLMARK|GOBP|GOMF|GOCC|GO|KEGG|REACTOME|WP|BIOCARTA|PID)[_:]", "", text).replace("_", " ")
    lines = textwrap.wrap(text, 40)
    return "\n".join(lines[:2]) + (" …" if len(lines) > 2 else "")


def _legends(ax: Axes, dots: Any, enrichment: str, most: float, fdr: float) -> None:
    """Explain sizes and colors on the right of the axes."""
    marks = [m for m in RATES if m <= most + 1e-9][-3:] or [0.3]
    capped = most >= LIMITS.get(enrichment, 10.0)
    handles = [
        Line2D([], [], ls="", marker="o", ms=np.sqrt(AREA * m / most), mfc="#CCCCCC", mec="#A0A0A0", mew=0.3)
        for m in marks
    ]
    texts = [RATES[m] if m < most or not capped else f"≤ {RATES[m]}" for m in marks]
    handles.append(Line2D([], [], ls="", marker="o", ms=7, mfc="none", mec=INK, mew=1.0))
    sizes = legend(
        ax,
        handles,
        [*texts, f"below {fdr:g}"],
        title="FDR",
        fontsize=7.5,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        alignment="left",
        labelspacing=0.7,
        borderaxespad=0.2,
    )
    figure = laid_out(ax)
    inch = np.array(ax.get_window_extent().size) / figure.dpi
    below = (ax.get_window_extent().y1 - sizes.get_window_extent().y0) / figure.dpi
    height = max(min(1.2, inch[1] - below - 0.1), 0.5)
    place = ax.inset_axes(
        (1 + 0.12 / inch[0], (inch[1] - below - 0.1 - height) / inch[1], 0.1 / inch[0], height / inch[1])
    )
    color_bar(figure, dots, SCORES.get(enrichment, "score"), cax=place)
