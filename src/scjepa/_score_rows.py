"""What a reader of score tables must be told: baselines that are the same prediction, rows beyond the ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

COARSE = ("discrimination_", "perturbench_rank", "centroid_", "normalized_inverse_rank", "de_")
"""How names of ranks and of tests of genes begin: they take few values, so different predictions often tie."""

EQUAL = 1e-9
"""Relative difference below which two scores are the same: far above rounding, far below what is printed."""


def same_predictions(scores: pd.DataFrame) -> dict[str, list[str]]:
    """Find baselines whose scores are the same in every metric and condition, undefined ones included.

    They answer the question with the same numbers: with one stimulus, for example, the mean effect is also that of the
    nearest neighbours. Ranks and tests of genes alone are no evidence, since different predictions tie in them.

    Parameters
    ----------
    scores
        Table with the columns ``method``, ``kind``, ``perturbation``, ``context``, ``metric``, ``value``.

    Returns
    -------
    Every baseline that is shown -> names of the baselines that it stands for, itself first. It is the first in the
    table, where :func:`scjepa.tl.evaluate` writes the simplest first.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa._score_rows import same_predictions
    >>> rows = [(m, "baseline", "A", "all", "l2", v) for m, v in [("mean", 2.0), ("kNN", 2.0), ("ridge", 1.0)]]
    >>> same_predictions(pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"]))
    {'mean': ['mean', 'kNN'], 'ridge': ['ridge']}
    """
    baselines = scores[scores["kind"] == "baseline"]
    place = ["perturbation", "context", "metric"]
    wide = baselines.groupby([*place, "method"], observed=True)["value"].mean().unstack("method")
    fine = ~wide.index.get_level_values("metric").astype(str).str.startswith(COARSE)
    groups: dict[str, list[str]] = {}
    for method in dict.fromkeys(baselines["method"]):
        values = wide[method].to_numpy(dtype=np.float64)
        evidence = bool(np.isfinite(values[fine]).any())
        for first in groups if evidence else ():
            if np.allclose(values, wide[first], rtol=EQUAL, atol=1e-12, equal_nan=True):
                groups[first].append(str(method))
                break
        else:
            groups[str(method)] = [str(method)]
    return groups


def joint_name(names: Iterable[str]) -> str:
    """Write the names of baselines that are the same prediction: ``"mean = kNN"``."""
    return " = ".join(names)


def shown_once(scores: pd.DataFrame) -> pd.DataFrame:
    """Return ``scores`` with the rows of each prediction once, under the names of all baselines that make it.

    Parameters
    ----------
    scores
        As for :func:`same_predictions`, labels as plain strings.
    """
    groups = same_predictions(scores)
    again = {name for names in groups.values() for name in names[1:]}
    kept = scores[~(scores["method"].isin(again) & (scores["kind"] == "baseline"))]
    return kept.assign(method=kept["method"].replace({first: joint_name(names) for first, names in groups.items()}))


def beyond_ceiling(means: pd.DataFrame, ceilings: Iterable[str], goals: Mapping[str, str]) -> list[str]:
    """Return the metrics in which some row is better than the replicate ceiling.

    Parameters
    ----------
    means
        Methods x metrics, all over the same conditions.
    ceilings
        Rows that are ceilings.
    goals
        ``"↑"`` or ``"↓"`` by metric; others, such as ratios that should be 1, have no ceiling to go beyond.
    """
    is_ceiling = means.index.isin(list(ceilings))
    found = []
    for metric in means.columns:
        sign = {"↑": 1, "↓": -1}.get(goals.get(metric, ""))
        if sign is None:
            continue
        values = sign * means[metric]
        top, best = values[is_ceiling].max(), values[~is_ceiling].max()
        if best - top > EQUAL * abs(top):  # False where one of them is undefined
            found.append(str(metric))
    return found
