"""Are predicted effects as large as measured ones? Length against length, one dot per condition."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.pl._effect_tables import check_effects, condition_names, condition_rows, measured, tidy_table
from scjepa.pl._figure import axes_for, describe, finish, legend, line_of_slope, model_colors, square, tidy
from scjepa.pl._names import name_dots
from scjepa.pl._written import SCORES, written

LOW, HIGH = 0.85, 1.15
"""The band in which an effect counts as predicted in its true size."""

NO_CHANGE = "no change"
"""Row of the baseline whose L2 is the length of the measured effect."""


@docs
def shift_magnitude(
    predicted: Any,
    true: pd.DataFrame | None = None,
    *,
    n_labels: int = 10,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    r"""Draw the length of each predicted effect against that of the measured one, :math:`\|\hat\delta\|` and :math:`\|\delta\|`.

    On the dashed line effects are as large as measured; dots below it are effects predicted too small, which is what
    training on random pairs of cells does. The band holds ratios from 0.85 to 1.15; conditions outside are named.

    Parameters
    ----------
    predicted
        Either what :func:`scjepa.tl.evaluate` returned (several tables may be joined with :func:`pandas.concat`) or the
        AnnData that it scored; or predicted effects, as a table of ``PerturbJEPA.predict_effect`` or conditions x genes.
        Scores hold the ratio of lengths; the measured length is the L2 of the baseline "no change".
    true
        With predicted effects: measured ones, conditions x genes with the perturbation (and the context, if there are
        several) in the index, like :func:`scjepa.datasets.true_effects`. Lengths are over the genes in both.
    n_labels
        Number of conditions to name, the worst ratios first; names that find no room are left out.
    %(ax)s
    %(save)s

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, ValueError
        If the scores lack what is needed, or tables of effects don't fit one another.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.pl import shift_magnitude
    >>> true = pd.DataFrame({"g1": [3.0, 1.0], "g2": [4.0, 0.0]}, index=["A", "B"])
    >>> ax = shift_magnitude(0.5 * true, true)
    >>> ax.collections[-1].get_offsets().tolist()
    [[5.0, 2.5], [1.0, 0.5]]
    """
    lengths = _of_scores(predicted) if true is None else _of_effects(predicted, true)
    ax = axes_for(ax, (4.4, 4.2))
    top = 1.12 * float(lengths[["true", "predicted"]].to_numpy().max()) or 1.0
    ax.fill_between([0, top], [0, LOW * top], [0, HIGH * top], color="#ECECEC", lw=0, zorder=0)
    line_of_slope(ax)
    ratio = (lengths["predicted"] / lengths["true"]).to_numpy()
    good = (ratio >= LOW) & (ratio <= HIGH)
    colors = model_colors(dict.fromkeys(lengths["method"]))
    for method, color in colors.items():
        mine = (lengths["method"] == method).to_numpy()
        text = f"{int(good[mine].sum())} of {int(mine.sum())} within {LOW}–{HIGH}, median {np.median(ratio[mine]):.2f}"
        ax.scatter(
            lengths["true"][mine],
            lengths["predicted"][mine],
            s=22,
            color=color,
            lw=0,
            alpha=0.85,
            zorder=3,
            label=f"{method}: {text}" if len(colors) > 1 else text,
        )
    square(ax, 0, top)
    true_length = "true effect length (L2 over genes, log-normalized)"
    describe(ax, title="size of effects", x=true_length, y="predicted effect length")
    legend(ax, loc="upper left", handletextpad=0.3)
    tidy(ax)
    with np.errstate(divide="ignore"):
        far = np.abs(np.log(ratio))
    named = [i for i in np.argsort(-far, kind="stable") if not good[i]][: max(n_labels, 0)]
    x, y = (lengths[name].to_numpy() for name in ("true", "predicted"))
    name_dots(ax, x, y, np.array(named, dtype=int), [str(lengths["condition"].iloc[i]) for i in named])
    finish(ax, save)
    return ax


def _of_effects(predicted: Any, true: pd.DataFrame) -> pd.DataFrame:
    """Return the lengths of two tables of effects over the genes that both have."""
    table = tidy_table(predicted, "predicted") if isinstance(predicted, pd.DataFrame) else predicted
    table, keys = check_effects(table, "predicted", interval=False)
    y = measured(table, keys, true)
    row, conditions = condition_rows(table, keys)
    known = np.isfinite(y)
    squares = pd.DataFrame({"true": y**2, "predicted": table["effect"].to_numpy(dtype=float) ** 2})[known]
    lengths = squares.groupby(row[known]).sum() ** 0.5
    lengths = lengths[lengths["true"] > 0]  # without a true effect there is no ratio
    if not len(lengths):
        raise ValueError("true has no effect that differs from zero: there is no size to compare with.")
    names = condition_names(conditions)
    return lengths.assign(method="model", condition=[names[i] for i in lengths.index]).reset_index(drop=True)


def _of_scores(scores: Any) -> pd.DataFrame:
    """Return lengths from a table of scores: the ratio times the L2 of "no change"."""
    hint = " If these are predicted effects, give the measured ones too: true=..."
    table = written(scores, Keys.uns.scores, SCORES, "scjepa.tl.evaluate", "predicted", hint)
    condition = ["perturbation", "context"]
    ratio = table[(table["metric"] == "shift_ratio") & (table["kind"] == "model")].dropna(subset="value")
    size = table[(table["metric"] == "l2") & (table["method"] == NO_CHANGE)].drop_duplicates(condition)
    if not len(ratio):
        raise ValueError("scores has no shift_ratio of a model: run scjepa.tl.evaluate with metrics that include it.")
    lengths = ratio.merge(size[[*condition, "value"]], on=condition, suffixes=("", "_true"))
    if not len(lengths):
        raise ValueError(
            f"scores has no l2 of the baseline {NO_CHANGE!r}, which is the length of the true effect: run "
            "scjepa.tl.evaluate with the metric 'l2' and baselines='auto'."
        )
    names = condition_names(lengths[condition])
    lengths = lengths.assign(condition=names, true=lengths["value_true"])
    return lengths.assign(predicted=lengths["value"] * lengths["true"])[["method", "condition", "true", "predicted"]]
