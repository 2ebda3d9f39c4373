"""``verdict``: is a model better than the best baseline? One line for each claim."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._types import FloatArray
from scjepa.metrics import dynamic_range_fraction
from scjepa.tl._profiles import ALL_CONDITIONS, CEILING, CLAIMS, GOALS
from scjepa.tl._summary import check_scores, distance_from_goal

COLUMNS = [
    "method", "metric", "value", "baseline", "baseline_value", "improvement", "lower", "upper", "n_conditions",
    "better", "dynamic_range", "verdict",
]  # fmt: skip
FEW = 6
"""Fewer conditions than these make no interval that can be trusted: with five, one sign pattern in 16 is all alike."""


def verdict(
    scores: pd.DataFrame, *, metrics: list[str] | None = None, level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    r"""Say for every model and metric whether it beats the best baseline, by a paired bootstrap over conditions.

    The best baseline is the one with the best mean score over the conditions that it and the model both have, of those
    that have at least half of them: chosen on the very scores that it is compared on, to the baseline's favour. The
    improvement is the mean over conditions of the difference of the two scores, turned so that above 0 the model is
    better (for ratios: nearer to 1); conditions are drawn again with replacement, both scores together.

    Parameters
    ----------
    scores
        Table of :func:`scjepa.tl.evaluate`, or several joined with :func:`pandas.concat`.
    metrics
        Metrics to judge; by default those of the table among L2, absolute error, both Pearson deltas, E-distance,
        discrimination and DE overlap, each of which is a claim of its own.
    level
        Of the percentile interval.
    n_boot
        Resamples.
    seed
        Of the resampling.

    Returns
    -------
    One row per model x metric: ``method``, ``metric``, ``value``, ``baseline``, ``baseline_value``, ``improvement``,
    ``lower``, ``upper``, ``n_conditions``, ``better`` (``"yes"``, ``"no"`` (the interval lies above or below 0),
    ``"unclear"``), ``dynamic_range`` (:func:`scjepa.metrics.dynamic_range_fraction`: what share of the way from the
    mean baseline to a perfect score the replicate ceiling covers; near 0 the metric can't tell anything on these data)
    and ``verdict``, a sentence. Fewer than 6 conditions are always ``"unclear"``, with the counts of wins.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table, or an argument is out of range.

    References
    ----------
    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.

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
    if n_boot < 100:
        raise ValueError(f"n_boot={n_boot!r}: expected at least 100 resamples.")
    if metrics is not None and (lost := sorted(set(metrics) - set(scores["metric"]))):
        raise ValueError(f"metrics {lost} are not in scores. Found: {sorted(set(scores['metric']))}.")
    each = scores[scores["perturbation"] != ALL_CONDITIONS]
    chosen = [m for m in CLAIMS if (each["metric"] == m).any()] if metrics is None else list(metrics)
    kind = scores.drop_duplicates("method").set_index("method")["kind"]
    baselines = [m for m in kind.index if kind[m] == "baseline"]
    rows = []
    for metric in chosen:
        wide = each[each["metric"] == metric].pivot_table(
            index=["perturbation", "context"], columns="method", values="value", aggfunc="mean"
        )
        for model in (m for m in kind.index if kind[m] not in ("baseline", "ceiling") and m in wide):
            rows.append(_judge(metric, model, wide, [b for b in baselines if b in wide], level, n_boot, seed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _judge(
    metric: str, model: str, wide: pd.DataFrame, baselines: list[str], level: float, n_boot: int, seed: int
) -> tuple:
    """Return one row of the verdict."""
    nan = float("nan")
    mine = wide[model].dropna()
    enough = [b for b in baselines if wide.loc[mine.index, b].notna().mean() >= 0.5] if len(mine) else []
    mean = lambda b: distance_from_goal(wide.loc[mine.index, b].dropna(), metric).mean()
    label = metric.replace("_", " ")
    if not enough:
        value = float(mine.mean()) if len(mine) else nan
        line = f"{label}: {model} {_number(value)}; no baseline has a score to compare with."
        return model, metric, value, "", nan, nan, nan, nan, len(mine), "unclear", nan, line
    best = min(enough, key=mean)
    both = wide.loc[mine.index, [model, best]].dropna()
    value, other = (float(both[name].mean()) for name in (model, best))
    gain = (distance_from_goal(both[best], metric) - distance_from_goal(both[model], metric)).to_numpy()
    n, improvement = len(gain), float(gain.mean())
    low, high = _interval(gain, level, n_boot, seed)
    start = f"{label}: {model} {_number(value)}, best baseline ({best}) {_number(other)}"
    if n < FEW:
        better = "unclear"
        end = f"better in {int((gain > 0).sum())} of {n} conditions, too few to tell"
    else:
        better = "yes" if low > 0 else "no" if high < 0 else "unclear"
        words = {"yes": "better", "no": "WORSE", "unclear": "no clear difference"}[better]
        end = f"{words}, {100 * level:.0f} % CI of the improvement {_number(low)} to {_number(high)}, {n} conditions"
    return (
        model, metric, value, best, other, improvement, low, high, n, better, _range(metric, wide), f"{start}: {end}."
    )  # fmt: skip


def _interval(gain: FloatArray, level: float, n_boot: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean; NaN for a single condition."""
    if len(gain) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(gain), size=(n_boot, len(gain)))
    low, high = np.quantile(gain[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
