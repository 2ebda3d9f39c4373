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


def claims(**metrics: dict[str, list[float]]) -> pd.DataFrame:
    return pd.concat([table(metric, **values) for metric, values in metrics.items()])


def noisy(gain: float, n: int = 12, seed: int = 0) -> dict[str, list[float]]:
    """A model that is better than a baseline of about 3 by ``gain``, with noise of 1."""
    noise = np.random.default_rng(seed).normal(0, 1, n)
    noise = (noise - noise.mean()) / noise.std()
    return {"model": list(3 - gain - noise), "mean": [3.0] * n}


def test_holm_over_the_metrics_of_a_model():
    scores = claims(l2=noisy(2.0), mae=noisy(0.75, seed=1), e_distance=noisy(0.0, seed=2))
    found = verdict(scores).set_index("metric")
    alone = verdict(scores, metrics=["mae"]).iloc[0]
    assert alone["better"] == "yes" and "95 % CI of the improvement" in alone["verdict"]
    assert alone["p_adjusted"] == alone["p_value"] == found.loc["mae", "p_value"]
    p = found["p_value"]
    assert p["l2"] == 1 / 5001 and 0.025 < p["mae"] < 0.05 and p["e_distance"] > 0.9
    np.testing.assert_allclose(found["p_adjusted"], [3 * p["l2"], 2 * p["mae"], p["e_distance"]])
    assert found["better"].to_dict() == {"l2": "yes", "mae": "unclear", "e_distance": "unclear"}
    assert "95 % CI (Holm, 3 claims) of the improvement" in found.loc["l2", "verdict"]
    for metric, level in (("l2", 1 - 0.05 / 3), ("mae", 0.975), ("e_distance", 0.975)):  # mae is where it stopped
        one = verdict(scores, metrics=[metric], level=level).iloc[0]
        assert found.loc[metric, ["lower", "upper"]].tolist() == pytest.approx(one[["lower", "upper"]].tolist())


def test_verdict_interval_and_corrected_p_agree():
    rng = np.random.default_rng(3)
    metrics = ["l2", "mae", "mse", "mse_delta", "mae_delta", "weighted_mse", "mmd"]
    for _ in range(10):
        scores = claims(**{m: noisy(rng.uniform(-1.2, 1.2), n=9, seed=rng.integers(1000)) for m in metrics})
        found = verdict(scores, metrics=metrics)
        decided = found["better"] != "unclear"
        np.testing.assert_array_equal(decided, (found["lower"] > 0) | (found["upper"] < 0))
        np.testing.assert_array_equal(decided, found["p_adjusted"] <= 0.05)
    sure = verdict(claims(**{m: noisy(4.0, n=8) for m in metrics}), metrics=metrics)
    assert (sure["better"] == "yes").all()  # eight conditions can decide seven claims


def test_the_families_of_two_models_are_apart():
    scores = claims(l2=noisy(0.75, seed=1), mae=noisy(0.0, seed=2))
    both = pd.concat([scores, scores[scores.kind == "model"].assign(method="rival")])
    found = verdict(both)
    assert found["method"].tolist() == ["model", "rival"] * 2 and found["metric"].tolist() == ["l2"] * 2 + ["mae"] * 2
    pd.testing.assert_frame_equal(found[found.method == "model"].reset_index(drop=True), verdict(scores))


def test_metrics_with_few_conditions_are_not_in_the_family():
    found = verdict(claims(l2=noisy(0.75, seed=1), mae=noisy(1.0, n=4))).set_index("metric")
    assert found.loc["l2", "p_adjusted"] == found.loc["l2", "p_value"] and found.loc["l2", "better"] == "yes"
    assert np.isnan(found.loc["mae", ["p_value", "p_adjusted"]].astype(float)).all()


def undefined(still: float) -> pd.DataFrame:
    """The model correlates better than the mean; "no change" has no correlation, and an L2 of ``still``."""
    return claims(
        l2={"model": [2.0] * 8, "mean": [3.0] * 8, "no change": [still] * 8},
        pearson_delta={"model": [0.8] * 8, "mean": [0.2] * 8, "no change": [np.nan] * 8},
    )


def test_no_winner_where_a_stronger_baseline_is_undefined():
    found = verdict(undefined(1.5)).set_index("metric")
    assert found["better"].to_dict() == {"l2": "no", "pearson_delta": "unclear"}
    row = found.loc["pearson_delta"]
    assert row["lower"] > 0 and row["baseline"] == "mean"
    assert row["verdict"] == (
        "pearson delta: model 0.800, best baseline (mean) 0.200: better, 95 % CI (Holm, 2 claims) of the improvement "
        "0.600 to 0.600, 8 conditions; no winner is named: as good but undefined here: no change (l2 1.500, model 2.000)."
    )
    assert verdict(undefined(2.0))["better"].tolist() == ["unclear", "unclear"]  # as good is enough
    assert verdict(undefined(2.5))["better"].tolist() == ["yes", "yes"]  # weaker: does not matter
    alone = verdict(undefined(1.5), metrics=["pearson_delta"])
    assert alone["better"].item() == "unclear"  # errors are read even where they are not judged


def test_another_error_says_which_is_stronger():
    scores = undefined(1.5)
    mae = scores.assign(metric=scores["metric"].replace("l2", "mae"))
    row = verdict(mae).set_index("metric").loc["pearson_delta"]
    assert row["better"] == "unclear" and "no change (mae 1.500, model 2.000)" in row["verdict"]
    assert verdict(scores[scores.metric != "l2"])["better"].item() == "yes"  # nothing to tell it by


def test_a_loss_stays_a_loss_where_a_stronger_baseline_is_undefined():
    scores = undefined(1.5)
    scores.loc[(scores.metric == "pearson_delta") & (scores.method == "mean"), "value"] = 0.9
    row = verdict(scores).set_index("metric").loc["pearson_delta"]
    assert row["better"] == "no" and "undefined" not in row["verdict"]


def test_undefined_baselines_are_named_beside_unclear_and_missing_comparisons():
    scores = undefined(1.5)
    mean = (scores.metric == "pearson_delta") & (scores.method == "mean")
    scores.loc[mean, "value"] = np.resize([0.79, 0.81], mean.sum())
    line = verdict(scores)["verdict"].iloc[1]
    assert "no clear difference" in line and line.endswith(
        "; as good but undefined here: no change (l2 1.500, model 2.000)."
    )
    line = verdict(scores[scores.method != "mean"])["verdict"].iloc[1]
    assert line == (
        "pearson delta: model 0.800; no baseline has a score to compare with; as good but undefined here: "
        "no change (l2 1.500, model 2.000)."
    )


def test_baselines_that_are_the_same_are_named_together():
    scores = claims(l2={"model": [1.0] * 8, "mean": [2.0] * 8, "kNN": [2.0 + 1e-12] * 8, "ridge": [3.0] * 8})
    row = verdict(scores).iloc[0]
    assert row["baseline"] == "mean" and "best baseline (mean = kNN) 2.000" in row["verdict"]


def test_a_model_that_is_its_anchor_is_not_better_by_rounding():
    n = np.arange(8.0)
    row = verdict(table(model=list(2 + n), anchor=list(2 + n + 1e-4), other=list(3 + n))).iloc[0]
    assert row["baseline"] == "anchor" and row["better"] == "unclear" and row["lower"] > 0
    assert row["verdict"].endswith("best baseline (anchor) 5.500: the same prediction to 0.1% in each of 8 conditions.")
    assert verdict(table(model=list(2 + n), anchor=list(2 + n + 0.1))).iloc[0]["better"] == "yes"


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
        ({"n_boot": 5}, "n_boot=5: expected at least 100 resamples to judge 1 metrics at level 0.95"),
        ({"n_boot": 1000, "level": 0.999}, "n_boot=1000: expected at least 2000"),
        ({"metrics": ["mse"]}, "metrics \\['mse'\\] are not in scores"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        verdict(table(model=[1.0] * 6, mean=[2.0] * 6), **arguments)


def test_a_table_of_something_else():
    with pytest.raises(ValueError, match="scores lacks the columns"):
        verdict(pd.DataFrame({"a": [1]}))
