"""tl.verdict: which baseline is the best, intervals by hand, and what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.tl import format_scores, verdict

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value"]


def table(metric: str = "l2", **values: list[float]) -> pd.DataFrame:
    rows = []
    for method, numbers in values.items():
        kind = {"model": "model", "ceiling": "ceiling"}.get(method, "baseline")
        name = "replicate ceiling" if method == "ceiling" else method
        rows += [(name, kind, f"p{i}", "all", metric, v) for i, v in enumerate(numbers)]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_best_baseline_and_the_sign_of_the_improvement():
    n = np.arange(8.0)
    for metric, model, good, bad in (
        ("l2", 1, 2, 3),
        ("pearson_delta", 0.9, 0.8, 0.1),
        ("variance_ratio", 1.1, 0.8, 1.9),
    ):
        scores = table(metric, model=list(model + 0 * n), weak=list(bad + 0 * n), strong=list(good + 0 * n))
        row = verdict(scores, metrics=[metric]).iloc[0]
        assert (row["baseline"], row["better"], row["n_conditions"]) == ("strong", "yes", 8)
        expected = {"l2": 1, "pearson_delta": 0.1, "variance_ratio": 0.1}[metric]
        assert row["improvement"] == pytest.approx(expected)
        worse = scores.assign(method=scores["method"].map({"model": "strong", "strong": "model", "weak": "weak"}),
                              kind=scores["method"].map({"model": "baseline", "strong": "model", "weak": "baseline"}))  # fmt: skip
        row = verdict(worse, metrics=[metric]).iloc[0]
        assert row["better"] == "no" and "WORSE" in row["verdict"] and row["upper"] < 0


def test_the_interval_is_that_of_a_paired_bootstrap():
    rng = np.random.default_rng(0)
    easy = rng.uniform(0, 10, 200)  # conditions differ far more than methods do
    gain = rng.normal(0.1, 0.5, 200)
    row = verdict(table(model=list(easy), other=list(easy + gain)), n_boot=4000).iloc[0]
    half = 1.96 * gain.std() / np.sqrt(200)
    assert row["lower"] == pytest.approx(gain.mean() - half, abs=0.012)
    assert row["upper"] == pytest.approx(gain.mean() + half, abs=0.012)
    wide = verdict(table(model=list(easy), other=list(easy + gain)), n_boot=4000, level=0.99).iloc[0]
    assert wide["lower"] < row["lower"] and wide["upper"] > row["upper"]


def test_no_difference_is_unclear_and_seeded():
    rng = np.random.default_rng(1)
    scores = table(model=list(rng.normal(5, 1, 30)), other=list(rng.normal(5, 1, 30)))
    first = verdict(scores, seed=1)
    assert first["better"].item() == "unclear" and "no clear difference" in first["verdict"].item()
    pd.testing.assert_frame_equal(first, verdict(scores, seed=1))
    assert verdict(scores, seed=2)["lower"].item() != first["lower"].item()


def test_few_conditions_are_no_proof():
    row = verdict(table(model=[1.0, 1.0, 3.0], other=[2.0, 2.0, 2.0])).iloc[0]
    assert row["better"] == "unclear"
    assert row["verdict"] == (
        "l2: model 1.667, best baseline (other) 2.000: better in 2 of 3 conditions, too few to tell."
    )
    assert np.isnan(verdict(table(model=[1.0], other=[2.0]))["lower"].item())


def test_baselines_with_few_of_the_conditions_do_not_count():
    scores = table(model=[2.0] * 8, common=[3.0] * 8, rare=[0.1] * 3)
    assert verdict(scores)["baseline"].item() == "common"
    scores = table(model=[2.0] * 8, rare=[0.1] * 3)
    row = verdict(scores).iloc[0]
    assert row["baseline"] == "" and "no baseline has a score" in row["verdict"]


def test_dynamic_range_says_whether_the_metric_can_tell():
    scores = table("pearson_delta", model=[0.5] * 6, mean=[0.2] * 6, ceiling=[0.6] * 6)
    assert verdict(scores)["dynamic_range"].item() == pytest.approx(0.5)  # (.6 - .2) / (1 - .2)
    assert np.isnan(verdict(table(model=[0.5] * 6, other=[0.2] * 6))["dynamic_range"].item())


def test_several_models_and_the_printed_lines():
    scores = pd.concat([table(model=[1.0] * 6, mean=[2.0] * 6), table(model=[3.0] * 6).assign(method="rival")])
    found = verdict(scores)
    assert dict(zip(found["method"], found["better"], strict=True)) == {"model": "yes", "rival": "no"}
    printed = format_scores(scores).splitlines()
    assert printed[-2:] == found["verdict"].tolist()
    assert not format_scores(scores, verdicts=False).endswith(".:")
    assert len(format_scores(scores, verdicts=False).splitlines()) == len(printed) - 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 1.0}, "level=1.0: expected a number between 0 and 1"),
        ({"n_boot": 5}, "n_boot=5: expected at least 100"),
        ({"metrics": ["mse"]}, "metrics \\['mse'\\] are not in scores"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        verdict(table(model=[1.0] * 6, mean=[2.0] * 6), **arguments)


def test_a_table_of_something_else():
    with pytest.raises(ValueError, match="scores lacks the columns"):
        verdict(pd.DataFrame({"a": [1]}))
