"""Dose curves: predicted responses, the Hill curve through them, its EC50, and what was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from scipy.special import expit

from scjepa._checks import some
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa._types import FloatArray
from scjepa.pl._drug_tables import (
    ABSTAINS,
    RESPONSE,
    SHARED,
    Courses,
    colors_of,
    course_legend,
    course_panels,
    courses,
    draw_course,
    flags,
    is_left,
    numbers,
    shortened,
    wrapped,
)
from scjepa.pl._effect_tables import check_columns
from scjepa.pl._figure import INK, describe, finish, grid, tidy

NEEDED = ("ec50", "slope", "top")
MADE_BY = "DrugJEPA.dose_response"
GAP = 0.12
"""Room left of the lowest dose for dose 0, as a share of the decades between the doses; at least half a decade."""
MOST_TICKS = 7
EDGE = 1.5
"""By which factor the axis is longer than the doses at either end."""


@docs
def dose_response(
    table: pd.DataFrame,
    *,
    measured: pd.DataFrame | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw predicted responses over the log of the dose, the Hill curve through them and its EC50 with the interval.

    Predictions are dots, hollow where the model abstains; a band is their interval where the table has one. The bar with a
    cap is the EC50 at half of the largest response, as long as the interval of the fit. Dose 0 has a place left of
    the others. Up to three contexts share a panel, more have one each, on the same axes.

    Parameters
    ----------
    table
        What ``DrugJEPA.dose_response`` returned. Columns ``lower`` and ``upper`` in ``attrs["curve"]`` are intervals.
    measured
        Measured responses, one row each: the dose (under the name in ``attrs["curve"]``, or ``dose``), ``response`` on
        the scale of the predictions, perhaps ``lower`` and ``upper``, and the context if there are several.
    %(panel_axes)s
        Up to three contexts take one.
    %(save)s

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError, ValueError
        If the table is not one of dose curves or has lost its predictions, or what was measured doesn't fit to it.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import dose_response
    >>> table = pd.DataFrame({"perturbation": ["A"], "line": ["K562"], "ec50": [1.0], "slope": [1.0], "top": [2.0]})
    >>> curve = {"line": "K562", "dose": [0.1, 1.0, 10.0], "response": [0.2, 1.0, 1.8], "abstain": False}
    >>> table.attrs["curve"] = pd.DataFrame(curve)
    >>> figure = dose_response(table)
    >>> figure.axes[0].get_legend().get_texts()[0].get_text()
    'K562: EC50 1'
    """
    found = courses(table, NEEDED, MADE_BY, last=False)
    doses = found.curve[found.axis]
    if (doses < 0).any() or not (doses > 0).any():
        raise ValueError(
            f"table.attrs['curve']: {found.axis!r} has doses below 0, or none above: expected doses, not logs."
        )
    parts = list(found.parts())
    real = _measured(measured, found, [where for where, *_ in parts])
    every = np.unique(np.concatenate([doses, *(r[found.axis] for r in real.values())]).astype(float))
    zero = _place_of_zero(every)
    axes = course_panels(len(parts), ax, found.drug, (7.4, 3.6))
    marks: set[str] = set()
    for panel, color, (where, row, curve) in zip(axes, colors_of(len(parts)), parts, strict=True):
        x, y = (curve[name].to_numpy(dtype=float) for name in (found.axis, RESPONSE))
        x = np.where(x > 0, x, zero)
        if {"lower", "upper"} <= set(curve):
            panel.fill_between(x, *curve[["lower", "upper"]].to_numpy(dtype=float).T, color=color, alpha=0.15, lw=0)
            marks.add("band")
        sure = ~flags(curve)
        marks |= {"abstains"} if not sure.all() else set()
        dense = np.geomspace(every[every > 0][0], every[-1], 200)
        panel.plot(dense, _hill(dense, row), color=color, lw=1.6, zorder=3)
        draw_course(panel, x, y, sure, color)
        if _mark(panel, row, color, every):
            marks.add("ec50")
        if where in real:
            _points(panel, real[where], found.axis, zero, color)
            marks.add("measured")
        text = f"{where}: {_in_words(row, every)}"
        if len(parts) <= SHARED:
            panel.plot([], [], color=color, lw=1.6, marker="o", ms=4.5, label=text)
        else:
            describe(panel, title=f"{shortened(where)}\n{_in_words(row, every)}")
    shared = list(dict.fromkeys(axes))
    low, high = _limits(found, real)
    for panel in shared:
        _dose_axis(panel, every, zero)
        panel.set_ylim(low, high)
        describe(panel, x=found.axis, y="response along the effect" if is_left(panel, ax) else None)
        grid(panel)
        tidy(panel)
    if len(parts) <= SHARED:
        describe(shared[0], title=wrapped(found.drug))
    _legend(shared[0], marks, beside=len(parts) <= SHARED, inside=ax is not None)
    return finish(axes[0], save)


def _place_of_zero(doses: FloatArray) -> float:
    """Return where dose 0 stands on the log axis."""
    positive = doses[doses > 0]
    return float(positive[0] / 10 ** max(0.5, GAP * np.log10(positive[-1] / positive[0])))


def _hill(dose: FloatArray, row: pd.Series) -> FloatArray:
    """Return the fitted curve, a level line where there is no EC50."""
    if not np.isfinite(row["ec50"]):
        return np.full(len(dose), float(row["top"]))
    bottom = float(row.get("bottom", 0.0))
    return bottom + (row["top"] - bottom) * expit(row["slope"] * (np.log(dose) - np.log(row["ec50"])))


def _mark(ax: Axes, row: pd.Series, color: str, doses: FloatArray) -> bool:
    """Draw the EC50 at half of the largest response, with its interval as far as it is on the axis; False if none is there."""
    positive = doses[doses > 0]
    if not positive[0] <= row["ec50"] <= positive[-1]:
        return False
    half = float(row.get("bottom", 0.0) + row["top"]) / 2
    low, high = _interval(row)
    if np.isfinite(low) and np.isfinite(high):
        ends = np.clip([low, high], positive[0] / EDGE, positive[-1] * EDGE)
        ax.plot(ends, [half, half], color=color, lw=1.4, zorder=5, solid_capstyle="butt")
    ax.plot([row["ec50"]], [half], marker="|", ms=13, mew=2, color=color, zorder=5)
    return True


def _interval(row: pd.Series) -> tuple[float, float]:
    return float(row.get("ec50_lower", np.nan)), float(row.get("ec50_upper", np.nan))


def _in_words(row: pd.Series, doses: FloatArray) -> str:
    """Write the EC50 with its interval, or that there is none."""
    if not np.isfinite(row["ec50"]):
        return "no EC50"
    text = f"EC50 {row['ec50']:.2g}"
    low, high = _interval(row)
    if np.isfinite(low) and np.isfinite(high):
        text += f" ({low:.2g} to {high:.2g})"
    positive = doses[doses > 0]
    return text if positive[0] <= row["ec50"] <= positive[-1] else f"{text}, outside the doses"


def _measured(measured: object, found: Courses, known: list[str]) -> dict[str, pd.DataFrame]:
    """Return the measured rows of each context, with the names of columns that predictions have."""
    if measured is None:
        return {}
    if not isinstance(measured, pd.DataFrame):
        raise TypeError(
            f"measured is a {type(measured).__name__}: expected a DataFrame with a row per measured response."
        )
    rows = measured.rename(columns={} if found.axis in measured else {"dose": found.axis})
    rows = rows.rename(columns={} if found.context in rows else {"context": found.context})
    rows = check_columns(rows, [found.axis, RESPONSE], "measured responses", "measured")
    numbers(rows, [found.axis, RESPONSE, *(c for c in ("lower", "upper") if c in rows)], "measured")
    if (rows[found.axis] < 0).any():
        raise ValueError(f"measured: {found.axis!r} has doses below 0: expected doses, not logs.")
    if found.context not in rows:
        if len(known) > 1:
            raise ValueError(
                f"table has {len(known)} contexts, and measured does not say of which its rows are: add a column "
                f"{found.context!r} with {some(known)}."
            )
        return {known[0]: rows}
    where = as_text(rows[found.context])
    real = {c: rows[(where == c).to_numpy()] for c in known if (where == c).any()}
    if not real:
        raise ValueError(
            f"measured has none of the contexts of table ({some(known)}). Found: {some(list(where.unique()))}."
        )
    return real


def _points(ax: Axes, rows: pd.DataFrame, axis: str, zero: float, color: str) -> None:
    """Draw measured responses as diamonds, with their intervals."""
    x, y = (rows[name].to_numpy(dtype=float) for name in (axis, RESPONSE))
    x = np.where(x > 0, x, zero)
    if {"lower", "upper"} <= set(rows):
        ax.vlines(x, *rows[["lower", "upper"]].to_numpy(dtype=float).T, color=color, lw=1, alpha=0.8, zorder=2)
    ax.scatter(x, y, s=26, marker="D", facecolor="white", edgecolor=color, lw=1.2, zorder=5, clip_on=False)


def _limits(found: Courses, real: dict[str, pd.DataFrame]) -> tuple[float, float]:
    """Return limits of the responses: all predictions, levels and measurements, and 0, with a margin."""
    tables = [found.curve, *real.values()]
    values = [t[c].to_numpy(dtype=float) for t in tables for c in (RESPONSE, "lower", "upper") if c in t]
    every = np.concatenate([*values, [0.0]])
    every = every[np.isfinite(every)]
    margin = 0.07 * float(np.ptp(every)) or 1.0
    return float(every.min()) - margin, float(every.max()) + margin


def _dose_axis(ax: Axes, doses: FloatArray, zero: float) -> None:
    """Make a log axis that names doses, and dose 0 at its own place behind a break."""
    positive = doses[doses > 0]
    ax.set_xscale("log")
    decades: FloatArray = positive
    if np.log10(positive[-1] / positive[0]) >= 2:  # else too few decades to name: the doses themselves
        decades = 10.0 ** np.arange(np.ceil(np.log10(positive[0]) - 1e-9), np.floor(np.log10(positive[-1]) + 1e-9) + 1)
    named = decades[:: max(1, -(-len(decades) // MOST_TICKS))]
    with_zero = bool((doses == 0).any())
    ticks = np.concatenate([[zero], named]) if with_zero else named
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, ["0" if with_zero and i == 0 else f"{t:g}" for i, t in enumerate(ticks)])
    ax.set_xlim((zero if with_zero else positive[0]) / EDGE, positive[-1] * EDGE)
    if with_zero:
        at = np.sqrt(zero * positive[0])
        # two strokes through the axis: from here on it is not to scale
        ax.plot(
            [at], [0], marker=r"$/\!/$", ms=8, color=INK, transform=ax.get_xaxis_transform(), clip_on=False, zorder=6
        )


def _legend(ax: Axes, marks: set[str], *, beside: bool, inside: bool) -> None:
    """Name what is there."""
    handles = list(ax.get_legend_handles_labels()[0])
    gray: dict[str, Any] = {"color": "#777777"}
    if "ec50" in marks:
        handles.append(Line2D([], [], marker="|", ms=10, mew=2, lw=1.4, label="EC50, interval of the fit", **gray))
    if "band" in marks:
        handles.append(Line2D([], [], lw=7, alpha=0.3, label="interval of the prediction", **gray))
    if "abstains" in marks:
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mfc="white", label=ABSTAINS, **gray))
    if "measured" in marks:
        handles.append(Line2D([], [], ls="", marker="D", ms=4.5, mfc="white", label="measured", **gray))
    course_legend(ax, handles, beside=beside, inside=inside)
