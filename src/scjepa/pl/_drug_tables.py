"""What DrugJEPA's figures share: its tables, the courses of a response over dose or time, panels of contexts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from scjepa._checks import closest, some
from scjepa._compat import as_text
from scjepa._types import FloatArray
from scjepa.pl._effect_tables import PERTURBATION, check_columns
from scjepa.pl._figure import COLORS, figure_of, legend, panels

RESPONSE = "response"
SHARED = 3
"""Contexts that can share a panel and still be told apart."""
SMALL = (3.2, 2.8)
"""Inches of a panel that one context has."""
LETTERS = 8
"""Of a title, in an inch."""
LONG = 28
"""Letters of a name that a figure has room for: names may be SMILES."""
ABSTAINS = "hollow: the model abstains"


class Courses(NamedTuple):
    """Predicted responses over dose or time, and what was read off them, context by context."""

    drug: str
    context: str
    """Name of the column of contexts."""
    axis: str
    """Name of the column of doses or times."""
    table: pd.DataFrame
    curve: pd.DataFrame

    def parts(self) -> Iterator[tuple[str, pd.Series, pd.DataFrame]]:
        """Yield each context, its row of the table and its predictions, by dose or time."""
        for i in range(len(self.table)):
            row = self.table.iloc[i]
            where = str(row[self.context])
            mine = self.curve[(as_text(self.curve[self.context]) == where).to_numpy()]
            yield where, row, mine.sort_values(self.axis, kind="stable")


def courses(table: Any, needed: Sequence[str], made_by: str, *, last: bool) -> Courses:
    """Read a table of ``DrugJEPA`` whose ``attrs["curve"]`` holds the predictions it was made of.

    The columns of the curve are the context, the dose and the time as the user's data call them, then ``response``; doses
    are the first after the context, times the ``last``.
    """
    table = check_columns(table, [PERTURBATION, *needed], made_by, "table")
    curve = table.attrs.get("curve")
    if not isinstance(curve, pd.DataFrame) or RESPONSE not in curve or list(curve.columns).index(RESPONSE) < 2:
        raise ValueError(
            f"table.attrs['curve'] is {_what(curve)}: expected the predictions that {made_by} puts there. Give the table as "
            "it was returned; writing it to a file, joining or sorting may lose attrs, and "
            "table.attrs['curve'] = ... puts them back."
        )
    before = list(curve.columns[: list(curve.columns).index(RESPONSE)])
    context, axis = before[0], before[-1 if last else 1]
    drugs = list(as_text(table[PERTURBATION]).unique())
    if len(drugs) > 1:
        raise ValueError(f"table is of {len(drugs)} drugs ({some(drugs)}): draw them one by one, each in an axes.")
    if context not in table:
        raise ValueError(
            f"table has no column {context!r}, which tells contexts apart in table.attrs['curve']. "
            f"Columns found: {some(list(table.columns), 10)}."
        )
    numbers(curve, [axis, RESPONSE], "table.attrs['curve']")
    lost = sorted(set(as_text(table[context])) - set(as_text(curve[context])))
    if lost:
        raise ValueError(f"table.attrs['curve'] has no predictions of {some(lost)}: give the table of one call.")
    return Courses(drugs[0], context, axis, table.reset_index(drop=True), curve)


def _what(thing: object) -> str:
    if isinstance(thing, pd.DataFrame):
        return f"a DataFrame with the columns {some(list(thing.columns), 6) or 'none'}"
    return "missing" if thing is None else f"a {type(thing).__name__}"


def numbers(table: pd.DataFrame, columns: Sequence[str], name: str, *, missing: bool = False) -> None:
    """Raise unless columns hold finite numbers; some of them may be ``missing``."""
    for column in columns:
        values = pd.to_numeric(table[column].astype(object), errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(values)
        if missing:
            wrong &= table[column].notna().to_numpy()
        if wrong.any():
            raise ValueError(
                f"{name}: {int(wrong.sum())} of {len(values)} values of {column!r} are missing or no finite numbers. "
                "Drop these rows."
            )


def flags(table: pd.DataFrame, column: str = "abstain") -> np.ndarray:
    """Return a column of yes and no, all no where a table has none."""
    return table[column].to_numpy(dtype=bool) if column in table else np.zeros(len(table), dtype=bool)


def course_panels(n: int, ax: Axes | Sequence[Axes] | None, title: object, size: tuple[float, float]) -> list[Axes]:
    """Return an axes per context, the same one where few share it; new figures of several panels get a title."""
    if n <= SHARED:
        return panels(1, ax, size=size, columns=1) * n
    axes = panels(n, ax, size=SMALL, columns=4)
    if ax is None:
        figure = figure_of(axes[0])
        figure.suptitle(wrapped(title, int(LETTERS * figure.get_figwidth())), fontsize=11)
    return axes


def is_left(panel: Axes, given: object) -> bool:
    """Return whether a panel is to name its vertical axis: the first of a row, or any of axes that were given."""
    place = panel.get_subplotspec()
    return given is not None or place is None or place.is_first_col()


def course_legend(ax: Axes, handles: Sequence[Any], *, beside: bool, inside: bool) -> None:
    """Name what is there beside a single panel; below several, or inside the first one where others own the figure."""
    if not handles:
        return
    if beside:
        legend(ax, handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6)
    elif inside:
        legend(ax, handles=handles, loc="best", fontsize=7, handlelength=1.4)
    else:
        figure_of(ax).legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8, handlelength=1.6
        )


def legend_below(ax: Axes, **options: Any) -> None:
    """Name what is there below the name of the horizontal axis, by inches: axes differ in height."""
    below = ax.transAxes + ScaledTranslation(0, -0.45, figure_of(ax).dpi_scale_trans)
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=2, **options)


def colors_of(n: int) -> list[str]:
    """Return a color per context: one for all of them where each has a panel."""
    return [COLORS[i] for i in range(n)] if n <= SHARED else [COLORS[0]] * n


def draw_course(ax: Axes, x: FloatArray, y: FloatArray, sure: np.ndarray, color: str) -> None:
    """Draw predictions as dots, hollow where the model abstains."""
    for mine, face, layer in ((sure, color, 4.0), (~sure, "white", 4.5)):
        if mine.any():
            ax.scatter(x[mine], y[mine], s=24, facecolor=face, edgecolor=color, lw=1.1, zorder=layer, clip_on=False)


def shortened(name: object, most: int = LONG) -> str:
    """Cut a long name."""
    text = str(name)
    return text if len(text) <= most else text[: most - 1] + "…"


def wrapped(name: object, width: int = 50) -> str:
    """Break a long name into at most two lines."""
    return textwrap.fill(str(name), width, max_lines=2, placeholder="…", break_on_hyphens=False)


def check_names(names: Sequence[str] | str, found: Sequence[str], argument: str) -> list[str]:
    """Return names asked for; raise unless all are among those found."""
    asked = [names] if isinstance(names, str) else [str(n) for n in names]
    lost = [n for n in asked if n not in set(found)]
    if lost:
        raise ValueError(
            f"{argument}: {some(lost)} not in table.{closest(lost[0], found)} Found: {some(list(found), 6)}."
        )
    return asked
