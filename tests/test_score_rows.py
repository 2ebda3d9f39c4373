"""Rows of score tables: which baselines are the same prediction, and which metrics go beyond the ceiling."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._score_rows import COARSE, beyond_ceiling, same_predictions, shown_once
from scjepa.tl.evaluation._profiles import REGISTRY

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value"]


def table(values: dict[str, dict[tuple[str, str], float]], model: str = "model") -> pd.DataFrame:
    """{method: {(perturbation, metric): value}}"""
    rows = [
        (method, "model" if method == model else "baseline", p, "all", metric, v)
        for method, part in values.items()
        for (p, metric), v in part.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_equal_in_all_scores_up_to_rounding():
    mean = {("A", "l2"): 2.0, ("B", "l2"): 3.0, ("A", "pearson_delta"): np.nan}
    near = {key: v * (1 + 1e-12) for key, v in mean.items()}
    scores = table({"model": mean, "mean": mean, "kNN": near, "ridge": mean | {("B", "l2"): 3.0 + 1e-6}})
    assert same_predictions(scores) == {"mean": ["mean", "kNN"], "ridge": ["ridge"]}  # the model is never merged
    shown = shown_once(scores)
    assert list(dict.fromkeys(shown["method"])) == ["model", "mean = kNN", "ridge"]
    pd.testing.assert_frame_equal(
        shown[shown.method == "mean = kNN"].drop(columns="method"), scores[scores.method == "mean"].drop(columns="method")
    )  # fmt: skip


def test_undefined_is_not_equal_to_defined():
    scores = table({"mean": {("A", "l2"): 2.0, ("A", "mse"): np.nan}, "kNN": {("A", "l2"): 2.0, ("A", "mse"): 1.0}})
    assert list(same_predictions(scores)) == ["mean", "kNN"]
    fewer = table({"mean": {("A", "l2"): 2.0, ("B", "l2"): 1.0}, "kNN": {("A", "l2"): 2.0}})
    assert list(same_predictions(fewer)) == ["mean", "kNN"]


def test_ties_of_ranks_alone_are_no_evidence():
    ranks = {("A", "discrimination_score_l1"): 1.0, ("A", "de_recall"): 0.5}
    assert list(same_predictions(table({"mean": ranks, "kNN": ranks}))) == ["mean", "kNN"]
    undefined = ranks | {("A", "l2"): np.nan}
    assert list(same_predictions(table({"mean": undefined, "kNN": undefined}))) == ["mean", "kNN"]
    for metric, known in REGISTRY.items():
        if known.source != "table":
            assert metric.startswith(COARSE) == (known.source in ("ranks", "genes")), metric


def test_tables_without_baselines_stay_as_they_are():
    scores = table({"model": {("A", "l2"): 2.0}})
    assert same_predictions(scores) == {}
    pd.testing.assert_frame_equal(shown_once(scores), scores)


def test_beyond_the_ceiling():
    goals = {"l2": "↓", "pearson_delta": "↑", "mse": "↓", "mae": "↓", "shift_ratio": "→1"}
    means = pd.DataFrame(
        {"l2": [0.9, 2.0, 1.0], "pearson_delta": [0.4, 0.9, 0.8], "mse": [1.0, 1.0, 1.0], "mae": [2.0, np.nan, 1.0],
         "shift_ratio": [1.0, 0.5, 0.9], "unknown": [9.0, 9.0, 1.0]},
        index=["model", "mean", "ceiling"],
    )  # fmt: skip
    assert beyond_ceiling(means, ["ceiling"], goals) == ["l2", "pearson_delta"]  # a tie is not beyond
    assert beyond_ceiling(means.drop("ceiling"), ["ceiling"], goals) == []
    assert beyond_ceiling(means.assign(l2=[0.9, 2.0, np.nan]), ["ceiling"], goals) == ["pearson_delta"]
