"""Calibration of intervals: how many measured effects they cover, against how many they promise to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scjepa._checks import require_levels, require_positive_int
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.pl._effect_tables import check_effects, condition_rows, measured
from scjepa.pl._figure import COLORS, axes_for, counted, describe, finish, grid, legend, line_of_slope, square, tidy
from scjepa.pl._written import written


@docs
def calibration(
    effects: Any,
    true: pd.DataFrame | pd.Series | None = None,
    *,
    n_top: int = 20,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the share of measured effects inside their intervals against the level of the intervals.

    One line pools all expressed genes, the other the genes that respond: in each condition those with the largest
    measured effects, where wrong intervals hurt and which pooling hides. On the diagonal intervals keep their promise;
    below it they are too narrow. Bars are standard errors over conditions, since the genes of one condition err
    together. Genes that are not expressed are covered for nothing and left out.

    Parameters
    ----------
    effects
        AnnData of measured cells that :func:`scjepa.tl.evaluate_intervals` wrote to, or its table (give it several
        levels). Or, where measured effects are at hand, level -> table of ``PerturbJEPA.predict_effect`` at that level;
        conditions that the model abstains from count like all others: leave them out if they should not.
    true
        With a dictionary: measured effects, conditions x genes with the perturbation (and the context, if there are
        several) in the index, like :func:`scjepa.datasets.true_effects`; a gene whose effect is exactly 0 counts as not
        expressed.
    n_top
        With a dictionary: genes per condition that count as responding.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If ``effects`` is neither a table of coverage nor a mapping of levels between 0 and 1 to tables of effects, or
        ``true`` has none of their conditions or genes.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import calibration
    >>> columns = ["perturbation", "gene", "effect", "lower", "upper"]
    >>> narrow = pd.DataFrame([("A", "g1", 1.0, 0.9, 1.1), ("A", "g2", 0.0, -0.1, 0.1)], columns=columns)
    >>> wide = narrow.assign(lower=-2.0, upper=2.0)
    >>> ax = calibration({0.5: narrow, 0.9: wide}, pd.DataFrame({"g1": [1.5], "g2": [0.05]}, index=["A"]), n_top=1)
    >>> [list(map(float, line.get_ydata())) for line in ax.lines[1:]]
    [[0.5, 1.0], [0.0, 1.0]]
    """
    if true is None and not isinstance(effects, Mapping):
        drawn = _of_coverage(effects)
    else:
        drawn = _of_effects(effects, true, n_top)

    ax = axes_for(ax, (4.2, 4.2))
    line_of_slope(ax)
    labels = {
        "all": f"expressed genes (n = {drawn.n_pairs:,})",
        "top": f"{drawn.n_top} largest measured effects\nof each condition",
    }
    levels = np.array(drawn.levels)
    nudge = 0.003 if len(levels) > 1 else 0.001
    for (name, points), color, marker, side in zip(drawn.shares.items(), COLORS, "os", (-1, 1), strict=False):
        share, error = np.array(points).T
        ax.plot(levels, share, color=color, marker=marker, ms=5, lw=1.6, label=labels[name], zorder=3)
        shifted = levels + nudge * side  # bars of the two lines side by side
        ax.vlines(shifted, share - error, share + error, color=color, lw=1.2, alpha=0.6, zorder=2)
    low = min([levels[0], *(s for points in drawn.shares.values() for s, _ in points)])
    square(ax, max(low - 0.06, -0.02), 1.02)
    grid(ax)
    title = f"calibration of intervals, {counted(drawn.n_conditions)}"
    describe(ax, title=title, x="level of the interval", y="share of measured effects inside")
    legend(ax, loc="upper left")
    tidy(ax)
    finish(ax, save)
    return ax


class _Drawn(NamedTuple):
    """Shares inside and their standard errors at each level, of all and of the responding genes."""

    levels: list[float]
    shares: dict[str, list[tuple[float, float]]]
    n_conditions: int
    n_pairs: int
    n_top: int


def _of_coverage(given: Any) -> _Drawn:
    """Read the table of :func:`scjepa.tl.evaluate_intervals`."""
    columns = ["level", "kind", "perturbation", "context", "genes", "metric", "value"]
    table = written(given, Keys.uns.intervals, columns, "scjepa.tl.evaluate_intervals", "effects")
    tops = sorted(name for name in table["genes"].unique() if name.startswith("top_"))
    if not len(table[table["metric"] == "coverage"].dropna(subset="value")) or not tops:
        raise ValueError("effects has no coverage to draw: run scjepa.tl.evaluate_intervals on expressed genes.")
    levels = sorted(map(float, table["level"].unique()))
    shares: dict[str, list[tuple[float, float]]] = {"all": [], "top": []}
    for line, genes in (("all", "expressed"), ("top", tops[0])):
        for level in levels:
            part = table[(table["genes"] == genes) & (table["level"] == level) & (table["metric"] == "coverage")]
            each = part.loc[part["kind"] == "condition", "value"].dropna().to_numpy(dtype=float)
            shares[line].append((float(part.loc[part["kind"] == "pooled", "value"].iloc[0]), _error(each)))
    last = table[(table["level"] == levels[-1]) & (table["genes"] == "expressed") & (table["metric"] == "n_genes")]
    count = last.loc[last["kind"] == "condition", "value"]
    return _Drawn(levels, shares, len(count), int(count.sum()), int(tops[0].removeprefix("top_")))


def _of_effects(effects: Any, true: object, n_top: int) -> _Drawn:
    """Compare intervals at several levels with measured effects."""
    if not isinstance(effects, Mapping) or not effects:
        raise TypeError(
            "effects: expected a dictionary level -> table, for example "
            "{level: model.predict_effect(perturbations, level=level) for level in (0.5, 0.8, 0.9, 0.95)}; "
            f"found {'an empty one' if isinstance(effects, Mapping) else 'a ' + type(effects).__name__}."
        )
    require_levels(effects, "effects")
    if true is None:
        raise ValueError(
            "true is missing: give the measured effects, conditions x genes, or compare with cells by "
            "scjepa.tl.evaluate_intervals and draw what it returns."
        )
    require_positive_int(n_top, "n_top")
    levels = sorted(effects)
    shares: dict[str, list[tuple[float, float]]] = {"all": [], "top": []}
    counts = (0, 0)
    for level in levels:
        table, keys = check_effects(effects[level], f"effects[{level}]")
        y = measured(table, keys, true)
        known = np.isfinite(y) & (y != 0)
        if not known.any():
            raise ValueError("true has no effect that differs from zero: there is nothing to cover.")
        row = condition_rows(table, keys)[0][known]
        y, table = y[known], table[known]
        inside = (table["lower"].to_numpy(dtype=float) <= y) & (y <= table["upper"].to_numpy(dtype=float))
        frame = pd.DataFrame({"condition": row, "inside": inside, "size": np.abs(y)})
        frame = frame.sort_values(["condition", "size"], ascending=[True, False], kind="stable")
        shares["all"].append(_share(frame))
        shares["top"].append(_share(frame[frame.groupby("condition").cumcount() < n_top]))
        counts = (int(frame["condition"].nunique()), len(frame))
    return _Drawn([float(level) for level in levels], shares, *counts, n_top)


def _share(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the share inside, pooled, and its standard error over conditions."""
    return float(frame["inside"].mean()), _error(frame.groupby("condition")["inside"].mean().to_numpy(dtype=float))


def _error(each: FloatArray) -> float:
    """Return the standard error of a mean, 0 of one value."""
    return float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
