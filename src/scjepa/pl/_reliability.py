"""Is there anything to predict? Sizes of measured effects against their sampling noise, one dot per condition."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from scjepa._docs import docs
from scjepa.pl._effect_tables import PERTURBATION, check_columns, condition_names, keys_before
from scjepa.pl._figure import COLORS, describe, figure_of, finish, legend, line_of_slope, panels, rows, tidy
from scjepa.pl._names import name_dots

NEEDED = (PERTURBATION, "n_cells", "effect_size", "noise", "reliability")
WEAK, RELIABLE = 0.1, 0.5
"""Reliability from which an effect is more than noise, and from which it is larger than its noise."""
BANDS = (
    ("reliable", "0.5 and more", RELIABLE, COLORS[0]),
    ("weak", "0.1 to 0.5", WEAK, COLORS[4]),
    ("noise", "below 0.1", -np.inf, "#8A8A8A"),
)
"""Name, limits, lower limit and color, the highest first."""
LINES = {RELIABLE: "effect = noise"}
"""Limits whose line has a name in the legend."""
MOST_PANELS = 9
MOST_ROWS = 40
"""Conditions of a panel that can all have their names in a row."""
PALE = "#E4E4E4"
"""Bars of noise."""
EFFECT = "effect size (L2 over genes, noise taken off)"


@docs
def reliability(
    table: pd.DataFrame,
    *,
    n_labels: int = 10,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""Draw the size of each measured effect beside the sampling noise in it; the legend counts what is reliable.

    Up to 40 conditions have a row each, the most reliable at the top: a dot beyond the gray bar is an effect larger than its
    noise, of a reliability above one half. More conditions are drawn as effect against noise: on the dashed line both are
    equal, below the dotted one (reliability 0.1) there is next to nothing to predict, and farther left are conditions
    with more cells. Effects that are all noise lie at zero.

    Parameters
    ----------
    table
        What ``PerturbJEPA.get_reliability`` returned. Contexts (or doses, or kinds, if there is one context) get a
        panel each on the same axes, up to nine; more of them, or contexts of one condition each, share a panel.
    n_labels
        Number of dots to name in a panel, the largest effects first; names that find no room are left out. Rows always
        have names.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of reliability, or the noise is known of no condition.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import reliability
    >>> rows = [("A", 50, 3.0, 1.0, 0.9), ("B", 40, 0.0, 1.1, 0.0)]
    >>> columns = ["perturbation", "n_cells", "effect_size", "noise", "reliability"]
    >>> figure = reliability(pd.DataFrame(rows, columns=columns))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['reliable, 0.5 and more: 1 of 2', 'weak, 0.1 to 0.5: 0 of 2', 'noise, below 0.1: 1 of 2', 'length of the noise']
    """
    table, keys = _checked(table)
    cut, parts = _panels(table, keys)
    most = max(map(len, parts.values()))
    height = 1.8 + 0.19 * most if most <= MOST_ROWS else 4.1
    axes = panels(len(parts), ax, size=(4.3, height), columns=3)
    top = 1.08 * float(table[["effect_size", "noise"]].to_numpy().max()) or 1.0
    names = [condition_names(part[[k for k in keys if k != cut]]) for part in parts.values()]
    for panel, (title, part), labels in zip(axes, parts.items(), names, strict=True):
        if most <= MOST_ROWS:
            _rows(panel, part, labels, top)
        else:
            _dots(panel, part, table["noise"], top)
        describe(panel, title=title or "size and noise of measured effects")
        below = panel.transAxes + ScaledTranslation(0, -0.45, figure_of(panel).dpi_scale_trans)
        legend(
            panel,
            title="reliability",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=below,  # in inches: panels differ in height
            handletextpad=0.5,
        )
        tidy(panel)
    if most > MOST_ROWS:  # after all legends: they decide how large the panels are
        for panel, part, labels in zip(axes, parts.values(), names, strict=True):
            named = np.argsort(-part["effect_size"].to_numpy(), kind="stable")[: max(n_labels, 0)]
            x, y = part["noise"].to_numpy(), part["effect_size"].to_numpy()
            name_dots(panel, x, y, named, [labels[i] for i in named])
    return finish(axes[0], save)


def _checked(table: Any) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows whose noise is known, and the columns that tell conditions apart."""
    table = check_columns(table, NEEDED, "PerturbJEPA.get_reliability", "table")
    known = table[table[["effect_size", "noise", "reliability"]].notna().all(axis=1)]
    if not len(known):
        raise ValueError(
            f"the noise is known of none of the {len(table)} conditions in table: it takes single cells, or several "
            "profiles of a condition or of the controls."
        )
    return known.reset_index(drop=True), keys_before(table, "n_cells")


def _panels(table: pd.DataFrame, keys: list[str]) -> tuple[str, dict[str, pd.DataFrame]]:
    """Cut the table by the first column that is not the same throughout, where that leaves panels worth looking at."""
    table = table.sort_values("reliability", ascending=False, kind="stable")
    key = next((k for k in keys[1:] if table[k].nunique() > 1), "")
    if key and table[key].nunique() <= min(MOST_PANELS, len(table) // 2):
        return key, {str(value): part for value, part in table.groupby(key, sort=True, observed=True)}
    return "", {"": table}


def _bands(part: pd.DataFrame) -> list[tuple[np.ndarray, str, str]]:
    """Return for each band which rows are in it, its color, and how many there are in words."""
    share = part["reliability"].to_numpy(dtype=float)
    band = np.select([share >= least for *_, least, _ in BANDS], list(range(len(BANDS))))
    return [
        (band == i, color, f"{name}, {limits}: {int((band == i).sum())} of {len(part)}")
        for i, (name, limits, _, color) in enumerate(BANDS)
    ]


def _rows(ax: Axes, part: pd.DataFrame, names: list[str], top: float) -> None:
    """Draw a row per condition: a gray bar as long as the noise, a dot at the effect."""
    at = np.arange(len(part))
    ax.barh(at, part["noise"], height=0.7, color=PALE, lw=0, label="length of the noise", zorder=1)
    for mine, color, text in _bands(part):
        ax.scatter(part["effect_size"][mine], at[mine], s=24, color=color, lw=0, zorder=3, clip_on=False, label=text)
    rows(ax, names)
    ax.set_xlim(0, top)
    describe(ax, x=EFFECT)


def _dots(ax: Axes, part: pd.DataFrame, noise: pd.Series, top: float) -> None:
    """Draw effect against noise, with the lines where the reliability has the limits of the bands."""
    for i, (mine, color, text) in enumerate(_bands(part)):
        x, y = part["noise"][mine], part["effect_size"][mine]
        ax.scatter(x, y, s=16, color=color, lw=0, alpha=0.85, zorder=4 - i / 10, clip_on=False, label=text)
    for least, style in ((RELIABLE, "--"), (WEAK, ":")):
        line_of_slope(ax, float(np.sqrt(least / (1 - least))), ls=style, label=LINES.get(least))
    low, high = float(noise.min()), float(noise.max())
    margin = 0.06 * (high - low) or 0.1 * high or 1.0
    ax.set_xlim(low - margin, high + margin)
    ax.set_ylim(0, top)
    describe(ax, x="noise of sampling cells (L2 over genes)", y=EFFECT.replace(" (", "\n("))
