"""``verdict``: is a model better than the best baseline? One line for each claim."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd

from scjepa._docs import docs
from scjepa._score_rows import joint_name, same_predictions
from scjepa._types import FloatArray
from scjepa.metrics import dynamic_range_fraction
from scjepa.tl.evaluation._bootstrap import MeanBootstrap, holm
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, CEILING, CLAIMS, ERRORS, GOALS
from scjepa.tl.evaluation._scores import check_scores, distance_from_goal

COLUMNS = [
    "method", "metric", "value", "baseline", "baseline_value", "improvement", "lower", "upper", "n_conditions",
    "better", "dynamic_range", "verdict", "p_value", "p_adjusted",
]  # fmt: skip
SAME = 1e-3
"""Scores that differ by less than this share of them in every condition are those of one prediction, read out twice."""
FEW = 6
"""Fewer conditions than these make no interval that can be trusted: with five, one sign pattern in 16 is all alike."""


class _Comparison(NamedTuple):
    """A model beside the best baseline on one metric; ``gain`` holds one improvement per condition."""

    metric: str
    value: float
    baseline: str
    baseline_value: float
    gain: FloatArray
    n_conditions: int
    dynamic_range: float
    undefined: str
    """Baselines as good as the model that have no score on this metric, in words; empty if there are none."""


@docs
def verdict(
    scores: pd.DataFrame, *, metrics: list[str] | None = None, level: float = 0.95, n_boot: int = 5000, seed: int = 0
) -> pd.DataFrame:
    r"""Say for every model and metric whether it beats the best baseline, by a paired bootstrap over conditions.

    The best baseline is the one with the best mean score over the conditions that it and the model both have, of those
    that have at least half of them: chosen on the very scores that it is compared on, to the baseline's favour. The
    improvement is the mean over conditions of the difference of the two scores, turned so that above 0 the model is
    better (for ratios: nearer to 1); conditions are drawn again with replacement, both scores together. Ends of the
    percentile interval are moved apart as far as a t interval is wider than a normal one for so few conditions.

    The more metrics are judged, the likelier one of them looks better by luck. All metrics of one model (with at least
    6 conditions) are therefore one family: Holm's step-down keeps the probability of one or more wrong "yes" or "no"
    among them below ``1 - level``. Intervals are those of the step at which a claim is judged, so they exclude 0
    exactly where the claim holds; those of single metrics are narrower.

    No winner is named on a metric that a stronger baseline has no score for: *no change*, for example, has no
    correlation, and to correlate better than a weaker baseline is no merit where *no change* has the smaller errors. A
    baseline counts as stronger if it has a score for fewer than half of the conditions on the metric judged but is,
    over the conditions that it shares with the model, at least as good by L2 (without L2 in the table, by the first
    of MSE, MAE, MSE and MAE of effects that is there). "yes" is then "unclear", and the sentence names the baseline.
    "no" stays: the model is beaten by a baseline that has a score.

    Parameters
    ----------
    %(scores)s
    metrics
        Metrics to judge; by default those of the table among L2, absolute error, Wasserstein-1, both Pearson deltas, E-distance,
        discrimination and DE overlap, each of which is a claim of its own.
    level
        Of all intervals of a model together.
    n_boot
        Resamples.
    seed
        Of the resampling.

    Returns
    -------
    One row per model x metric: ``method``, ``metric``, ``value``, ``baseline`` (of several that are the same
    prediction the first in the table; the sentence names all), ``baseline_value``, ``improvement``, ``lower``,
    ``upper``, ``n_conditions``, ``better`` (``"yes"``, ``"no"`` (the interval lies above or below 0), ``"unclear"``),
    ``dynamic_range`` (:func:`scjepa.metrics.dynamic_range_fraction`: what share of the way from the mean baseline to a
    perfect score the replicate ceiling covers; near 0 the metric can't tell anything on these data), ``verdict``, a
    sentence, ``p_value`` (the smallest ``1 - level`` at which the metric alone would exclude 0, no less than
    ``1 / (n_boot + 1)``) and ``p_adjusted`` (the same after Holm). Fewer than 6 conditions are always ``"unclear"``,
    with the counts of wins, an interval of ``level`` and no p-values. So are scores that differ by less than 0.1 % in
    every condition: a model that is its anchor differs from it by rounding.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table, an argument is out of range, or ``n_boot`` is too small for the claims.

    References
    ----------
    Bootstrap: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13. Few conditions: Hesterberg,
    The American Statistician 2015, doi:10.1080/00031305.2015.1089789. Several claims: Holm, Scandinavian Journal of
    Statistics 1979, 6, 65-70.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import verdict
    >>> rows = [("m", "model", p, "all", "l2", 1.0 + i / 10) for i, p in enumerate("ABCDEFGH")]
    >>> rows += [("mean", "baseline", p, "all", "l2", 2.0 + i / 5) for i, p in enumerate("ABCDEFGH")]
    >>> table = pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"])
    >>> row = verdict(table).iloc[0]
    >>> row["better"], round(float(row["improvement"]), 2)
    ('yes', 1.35)
    """
    scores = check_scores(scores)
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.95.")
    if metrics is not None and (lost := sorted(set(metrics) - set(scores["metric"]))):
        raise ValueError(f"metrics {lost} are not in scores. Found: {sorted(set(scores['metric']))}.")
    each = scores[scores["perturbation"] != ALL_CONDITIONS]
    chosen = [m for m in CLAIMS if (each["metric"] == m).any()] if metrics is None else list(dict.fromkeys(metrics))
    needed = max(100, ceil(2 * len(chosen) / (1 - level)))
    if n_boot < needed:
        raise ValueError(
            f"n_boot={n_boot!r}: expected at least {needed} resamples to judge {len(chosen)} metrics at level {level:g}."
        )
    wide = {
        metric: part.pivot_table(index=["perturbation", "context"], columns="method", values="value", aggfunc="mean")
        for metric, part in each[each["metric"].isin([*chosen, *ERRORS])].groupby("metric", observed=True)
    }
    kind = scores.drop_duplicates("method").set_index("method")["kind"]
    groups = same_predictions(scores)
    rows = []
    for model in (m for m in kind.index if kind[m] not in ("baseline", "ceiling")):
        judged = [m for m in chosen if m in wide and model in wide[m]]
        rows += _judge(model, [_compare(m, model, wide, groups) for m in judged], groups, level, n_boot, seed)
    rows.sort(key=lambda row: chosen.index(row[1]))  # claim by claim, models in the order of the table
    return pd.DataFrame(rows, columns=COLUMNS)


def _compare(metric: str, model: str, wide: dict[str, pd.DataFrame], groups: dict[str, list[str]]) -> _Comparison:
    """Find the best baseline on a metric, and those as good as the model that have no score there."""
    nan = float("nan")
    table = wide[metric]
    mine = table[model].dropna()
    covers = lambda b, t: b in t and t[b].reindex(mine.index).notna().mean() >= 0.5
    enough = [b for b in groups if covers(b, table)] if len(mine) else []
    undefined = _undefined(model, mine.index, [b for b in groups if b not in enough], wide, groups)
    if not enough:
        value = float(mine.mean()) if len(mine) else nan
        return _Comparison(metric, value, "", nan, np.zeros(0), len(mine), nan, undefined)
    best = min(enough, key=lambda b: distance_from_goal(table.loc[mine.index, b].dropna(), metric).mean())
    both = table.loc[mine.index, [model, best]].dropna()
    gain = (distance_from_goal(both[best], metric) - distance_from_goal(both[model], metric)).to_numpy()
    return _Comparison(
        metric, float(both[model].mean()), best, float(both[best].mean()), gain, len(gain), _range(metric, table), undefined
    )  # fmt: skip


def _undefined(
    model: str, conditions: pd.Index, without: list[str], wide: dict[str, pd.DataFrame], groups: dict[str, list[str]]
) -> str:
    """Say which baselines ``without`` a score are at least as good as the model by its error on ``conditions``."""
    error = next((m for m in ERRORS if m in wide and model in wide[m]), None)
    if error is None or not len(conditions):
        return ""
    table = wide[error].reindex(conditions)
    stronger = []
    for b in (b for b in without if b in table and table[b].notna().mean() >= 0.5):
        mine, other = table[[model, b]].dropna().mean()
        if other <= mine:
            stronger.append(f"{joint_name(groups[b])} ({error} {_number(other)}, {model} {_number(mine)})")
    return " and ".join(stronger)


def _judge(
    model: str,
    claims: list[_Comparison],
    groups: dict[str, list[str]],
    level: float,
    n_boot: int,
    seed: int,
) -> list[tuple]:
    """Return the rows of one model: all its claims are corrected for each other."""
    resampled = {c.metric: MeanBootstrap(c.gain, n_boot, seed) for c in claims if len(c.gain) > 1}
    family = [c.metric for c in claims if len(c.gain) >= FEW]
    raw = [resampled[m].p_value() for m in family]
    adjusted, steps = holm(raw, 1 - level)
    p_values = dict(zip(family, zip(raw, adjusted, strict=True), strict=True))
    alphas = dict(zip(family, steps, strict=True))
    percent = f"{100 * level:.4g} % CI"
    of_which = f"{percent} (Holm, {len(family)} claims)" if len(family) > 1 else percent
    nan = float("nan")
    rows = []
    for c in claims:
        low, high = nan, nan
        if c.metric in resampled:
            low, high = resampled[c.metric].interval(float(alphas.get(c.metric, 1 - level)))
        better = "unclear"
        name, value = c.metric.replace("_", " "), f"{model} {_number(c.value)}"
        if not c.baseline:
            line = f"{name}: {value}; no baseline has a score to compare with"
        else:
            rival = f"{joint_name(groups[c.baseline])}) {_number(c.baseline_value)}"
            line = f"{name}: {value}, best baseline ({rival}: "
            if _same(c):
                line += f"the same prediction to {SAME:.1%} in each of {len(c.gain)} conditions"
            elif c.metric not in alphas:
                line += f"better in {int((c.gain > 0).sum())} of {len(c.gain)} conditions, too few to tell"
            else:
                better = "yes" if low > 0 else "no" if high < 0 else "unclear"
                words = {"yes": "better", "no": "WORSE", "unclear": "no clear difference"}[better]
                line += f"{words}, {of_which} of the improvement {_number(low)} to {_number(high)}, {len(c.gain)} conditions"
        if c.undefined and better != "no":
            line += (
                "; "
                + ("no winner is named: " if better == "yes" else "")
                + f"as good but undefined here: {c.undefined}"
            )
            better = "unclear"
        rows.append(
            (model, c.metric, c.value, c.baseline, c.baseline_value, float(c.gain.mean()) if len(c.gain) else nan, low,
             high, c.n_conditions, better, c.dynamic_range, f"{line}.", *p_values.get(c.metric, (nan, nan)))
        )  # fmt: skip
    return rows


def _same(c: _Comparison) -> bool:
    """Whether model and baseline are one prediction: a model that is its anchor differs from it by rounding."""
    return bool(len(c.gain)) and float(np.abs(c.gain).max()) < SAME * max(abs(c.value), abs(c.baseline_value))


def _range(metric: str, wide: pd.DataFrame) -> float:
    """Share of the way from an uninformative prediction to a perfect score that replicates cover."""
    goal = GOALS.get(metric, "↑")
    negative = next((b for b in ("mean", "no change") if b in wide and wide[b].notna().any()), None)
    if CEILING not in wide or negative is None or goal == "→1":
        return float("nan")
    both = wide[[CEILING, negative]].dropna()
    perfect = 0.0 if goal == "↓" else 1.0
    if not len(both):
        return float("nan")
    return float(dynamic_range_fraction(both[CEILING].mean(), both[negative].mean(), perfect))


def _number(x: float) -> str:
    return f"{x:.3f}" if abs(x) >= 0.1 or x == 0 else f"{x:.3g}"
