"""Synergy of two drugs over the grid of their doses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from scjepa._checks import some
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa._types import FloatArray
from scjepa.pl._drug_tables import flags, is_left, numbers, shortened
from scjepa.pl._effect_tables import check_columns
from scjepa.pl._figure import INK, color_bar, describe, figure_of, finish, legend, panels, tidy

DOSES = ("dose_a", "dose_b")
SYNERGY = "synergy"
NAMES = ("perturbation", "drug_a", "drug_b", "reference")
"""Columns before the doses that do not tell surfaces apart."""
MADE_BY = "DrugJEPA.synergy"
WRITTEN = 8
"""Doses of a drug up to which cells hold their number."""


class Surface(NamedTuple):
    """The grid of one context; NaN where there is no value."""

    a: FloatArray
    b: FloatArray
    synergy: FloatArray
    abstain: np.ndarray

    def mean(self) -> float:
        """Return the mean over doses at which both drugs are there."""
        both = self.synergy[np.ix_(self.a > 0, self.b > 0)]
        return float(np.nanmean(both)) if np.isfinite(both).any() else float("nan")


@docs
def synergy_surface(
    table: pd.DataFrame,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""Draw how far a combination exceeds what its drugs would do without interaction, dose by dose.

    Red is synergy, blue antagonism, on the same scale in all contexts, which have a panel each. Hatched cells are those that
    the model abstains from, gray ones have no value. The title holds the mean over doses at which both drugs are there.

    Parameters
    ----------
    table
        What ``DrugJEPA.synergy`` returned: ``dose_a``, ``dose_b`` and ``synergy`` (above 0 is synergy), perhaps ``abstain``, a
        row per pair of doses; the column before the doses is the context. ``attrs["drugs"]`` and
        ``attrs["reference"]`` name what is drawn.
    %(panel_axes)s
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of synergy, repeats a pair of doses, or has no value.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import synergy_surface
    >>> rows = [("K562", 0.0, 0.0, 0.0), ("K562", 0.0, 1.0, 0.0), ("K562", 1.0, 0.0, 0.0), ("K562", 1.0, 1.0, 0.2)]
    >>> table = pd.DataFrame(rows, columns=["line", "dose_a", "dose_b", "synergy"])
    >>> table.attrs.update(drugs=("A", "B"), reference="bliss")
    >>> synergy_surface(table).axes[0].get_title()
    'K562\nmean synergy +0.2 (bliss)'
    """
    table = check_columns(table, [*DOSES, SYNERGY], MADE_BY, "table")
    numbers(table, DOSES, "table")
    if (table[list(DOSES)] < 0).any(axis=None):
        raise ValueError("table has doses below 0: expected doses, not logs.")
    surfaces = _surfaces(table)
    size = np.concatenate([np.abs(s.synergy[np.isfinite(s.synergy)]) for s in surfaces.values()])
    if not len(size):
        raise ValueError("table has no value of 'synergy' to draw: all are missing.")
    limit = float(size.max()) or 1.0
    rows_, columns_ = (max(len(s[i]) for s in surfaces.values()) for i in (0, 1))
    panel_size = (max(1.5 + 0.5 * min(columns_, 12), 3.0), max(1.2 + 0.38 * min(rows_, 12), 2.6))
    axes = panels(len(surfaces), ax, size=panel_size, columns=3)
    drugs = table.attrs.get("drugs") or ("drug a", "drug b")
    reference = table.attrs.get("reference")
    for panel, (where, surface) in zip(axes, surfaces.items(), strict=True):
        image = _draw(panel, surface, limit)
        mean = f"mean synergy {surface.mean():+.2g}" + (f" ({reference})" if reference else "")
        left = is_left(panel, ax)
        describe(panel, title=f"{shortened(where)}\n{mean}" if where else mean, x=f"{shortened(drugs[1])} (dose)")
        describe(panel, y=f"{shortened(drugs[0])} (dose)" if left else None)
    tall = -(-len(axes) // 3)  # a bar as long as a panel, however many rows of panels there are
    place: Any = {"ax": axes, "shrink": 1 / tall, "fraction": 0.05} if ax is None else {"ax": axes[-1]}
    color_bar(figure_of(axes[0]), image, "synergy: response beyond\nthe expected one", **place, pad=0.02, aspect=20)
    if any(s.abstain.any() for s in surfaces.values()):
        handle = Patch(facecolor="white", edgecolor=INK, hatch="////", lw=0.5, label="hatched: the model abstains")
        if ax is None:
            figure_of(axes[0]).legend(handles=[handle], loc="outside lower center", frameon=False, fontsize=8)
        else:
            legend(axes[0], handles=[handle], loc="lower left", bbox_to_anchor=(0, 1.16), borderpad=0)
    return finish(axes[0], save)


def _surfaces(table: pd.DataFrame) -> dict[str, Surface]:
    """Return the grid of each context; without a column of contexts there is one, without a name."""
    before = [c for c in table.columns[: list(table.columns).index(DOSES[0])] if c not in NAMES]
    where = as_text(table[before[-1]]) if before else pd.Series("", index=table.index)
    out = {}
    for name in dict.fromkeys(where):
        part = table[(where == name).to_numpy()]
        twice = int(part.duplicated(list(DOSES)).sum())
        if twice:
            raise ValueError(
                f"table has {twice} rows that repeat a pair of doses{f' of {name!r}' if name else ''}: give the table of one "
                f"call, for one pair of drugs and one time ({some(list(table.columns), 8)})."
            )
        a, b = (np.unique(part[d].to_numpy(dtype=float)) for d in DOSES)
        at = tuple(np.searchsorted(levels, part[d]) for levels, d in zip((a, b), DOSES, strict=True))
        value, abstain = np.full((len(a), len(b)), np.nan), np.zeros((len(a), len(b)), dtype=bool)
        value[at], abstain[at] = part[SYNERGY].to_numpy(dtype=float), flags(part)
        value[~np.isfinite(value)] = np.nan
        out[str(name)] = Surface(a, b, value, abstain)
    return out


def _draw(ax: Axes, surface: Surface, limit: float) -> Any:
    """Draw one surface, the lowest doses in the lower left corner."""
    rows, columns = surface.synergy.shape
    ax.set_facecolor("#DDDDDD")
    image = ax.imshow(
        np.ma.masked_invalid(surface.synergy),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_xticks(np.arange(columns), [f"{d:.3g}" for d in surface.b])
    ax.set_yticks(np.arange(rows), [f"{d:.3g}" for d in surface.a])
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1)
    tidy(ax)
    ax.tick_params(which="both", length=0)
    if columns > WRITTEN:
        ax.tick_params(axis="x", rotation=90)
    ax.spines[:].set_visible(False)
    for i, j in zip(*np.nonzero(surface.abstain), strict=True):
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#777777", lw=0))
    if max(rows, columns) <= WRITTEN:
        digits = max(0, 1 - int(np.floor(np.log10(limit))))  # two of the largest number
        both = np.outer(surface.a > 0, surface.b > 0) & np.isfinite(surface.synergy)
        for i, j in zip(*np.nonzero(both), strict=True):
            value = surface.synergy[i, j]
            strong = abs(value) > 0.6 * limit
            text = f"{value:.{digits}f}"
            box = {"facecolor": image.to_rgba(value), "lw": 0, "pad": 1} if surface.abstain[i, j] else None
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if strong else INK, bbox=box)
    return image
