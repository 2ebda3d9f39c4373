"""Summaries of score tables: which conditions are averaged, order, printing."""

from __future__ import annotations

import pandas as pd
import pytest

from scjepa.metrics import l2
from scjepa.tl import format_scores, summarize_scores
from scjepa.tl._modality import METRICS as MODALITY
from scjepa.tl.evaluation._profiles import GOALS, METRICS
from scjepa.tl.evaluation._scores import COLUMNS, check_scores


def table(values: dict, metric: str = "l2") -> pd.DataFrame:
    """{method: {perturbation: value}}; methods whose name starts with "model" are models, "ceiling" is one."""
    kind = lambda method: "model" if method.startswith("model") else "ceiling" if method == "ceiling" else "baseline"
    rows = [(method, kind(method), p, "all", metric, v) for method, part in values.items() for p, v in part.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_means_over_shared_conditions():
    """The baseline lacks D: nobody is averaged over it."""
    scores = table({"model": {"A": 1, "B": 2, "C": 3, "D": 100}, "mean": {"A": 3, "B": 4, "C": 5}})
    out = summarize_scores(scores)
    assert out.loc["model", "l2"] == 2 and out.loc["mean", "l2"] == 4
    assert out["n_conditions"].tolist() == [3, 3]


def test_a_narrow_baseline_does_not_shrink_the_table():
    scores = table({"model": {"A": 1, "B": 2, "C": 3}, "mean": {"A": 3, "B": 4, "C": 5}, "additive": {"A": 0.5}})
    out = summarize_scores(scores)
    assert out.loc["model", "l2"] == 2 and out.loc["additive", "l2"] == 0.5
    assert out["n_conditions"].to_dict() == {"model": 3, "additive": 1, "mean": 3}


def test_disjoint_methods_keep_their_own_conditions():
    out = summarize_scores(table({"model": {"A": 1, "B": 3}, "mean": {"C": 3, "D": 5}}))
    assert out["l2"].tolist() == [2, 4] and out["n_conditions"].tolist() == [2, 2]


def test_contexts_make_conditions():
    scores = pd.concat([table({"model": {"A": 1}}), table({"model": {"A": 3}}).assign(context="other")])
    out = summarize_scores(scores)
    assert out.loc["model", "l2"] == 2 and out.loc["model", "n_conditions"] == 2


def test_order_models_as_given_then_baselines_by_l2():
    scores = table({"mean": {"A": 3}, "model b": {"A": 9}, "additive": {"A": 1}, "model a": {"A": 2}})
    assert summarize_scores(scores).index.tolist() == ["model b", "model a", "additive", "mean"]


def test_the_ceiling_comes_last_and_decides_nothing():
    """It has one condition of three: the others keep all three, and no star goes to it."""
    scores = table({"ceiling": {"B": 0.1}, "mean": {"A": 3, "B": 4, "C": 5}, "model": {"A": 1, "B": 2, "C": 3}})
    out = summarize_scores(scores)
    assert out.index.tolist() == ["model", "mean", "ceiling"]
    assert out["n_conditions"].to_dict() == {"model": 3, "mean": 3, "ceiling": 1} and out.loc["model", "l2"] == 2
    text = format_scores(scores)
    assert "2.000*" in text and "0.100 " in text and "0.100*" not in text
    assert "not comparable: ceiling (1)" in text
    alone = format_scores(table({"ceiling": {"A": 1.0, "B": 2.0}}))
    assert "1.500" in alone and "*" not in alone.splitlines()[2]


def test_undefined_values():
    scores = pd.concat([
        table({"model": {"A": 1, "B": 1}, "no change": {"A": 2, "B": 2}}),
        table({"model": {"A": 0.5, "B": 0.7}, "no change": {"A": float("nan"), "B": float("nan")}}, "pearson_delta"),
        table({"model": {"A": float("nan")}, "no change": {"A": float("nan")}}, "e_distance"),
    ])  # fmt: skip
    out = summarize_scores(scores)
    assert list(out.columns) == ["l2", "pearson_delta", "n_conditions"]  # e_distance has no value at all
    assert out.loc["model", "pearson_delta"] == pytest.approx(0.6) and pd.isna(out.loc["no change", "pearson_delta"])
    assert out.loc["no change", "n_conditions"] == 2


def test_every_metric_has_a_goal():
    assert tuple(GOALS) == (*METRICS, "w1", "w2", *MODALITY)  # of cells at a time, and of modalities


def test_printed_table():
    scores = pd.concat([
        table({"model": {"A": 1, "B": 1}, "mean": {"A": 2, "B": 2}, "additive": {"A": 0.1}}),
        table({"model": {"A": 0.5, "B": 0.5}, "mean": {"A": 0.6, "B": 0.6}, "additive": {"A": 0.9}}, "pearson_delta"),
        table({"model": {"A": 0.8, "B": 0.8}, "mean": {"A": 1.1, "B": 1.1}, "additive": {"A": 1.0}}, "variance_ratio"),
    ])  # fmt: skip
    scores = pd.concat([scores, table({"model": {"C": 1}, "mean": {"C": 2}})])
    lines = format_scores(scores).splitlines()
    assert lines[0].split() == ["method", "l2", "↓", "pearson_delta", "↑", "variance_ratio", "→1", "n"]
    assert lines[2].split() == ["model", "1.000*", "0.500", "0.800", "3"]
    # additive is best in every column, but on one easy condition only: no star
    assert lines[3].split() == ["additive", "0.100", "0.900", "1.000", "1"]
    assert lines[4].split() == ["mean", "2.000", "0.600*", "1.100*", "3"]
    assert lines[5] == "Means over 3 conditions; * best. Over fewer conditions, not comparable: additive (1)."
    assert len({len(line) for line in lines[1:5]}) == 1  # aligned


def test_note_when_conditions_are_left_out():
    text = format_scores(table({"model": {"A": 1, "B": 2, "C": 3, "D": 9}, "mean": {"A": 3, "B": 4, "C": 5}}))
    assert "Means over the 3 of 4 conditions that all methods score" in text


def test_the_same_prediction_is_one_row_that_keeps_its_names():
    scores = pd.concat([
        table({"model": {"A": 1.0}, "mean": {"A": 2.0}, "context transfer": {"A": 2.0}, "kNN": {"A": 2.0}}),
        table({"model": {"A": 0.5}, "mean": {"A": 0.1}, "context transfer": {"A": 0.1}, "kNN": {"A": 0.2}}, "mse"),
    ])  # fmt: skip
    lines = format_scores(scores, verdicts=False).splitlines()
    assert {line.split("  ")[0] for line in lines[2:5]} == {"model", "mean = context transfer", "kNN"}
    assert summarize_scores(scores).loc["context transfer", "l2"] == 2  # look-ups by name go on working


def test_a_model_equal_to_a_baseline_keeps_its_row():
    lines = format_scores(table({"model": {"A": 1.0}, "mean": {"A": 1.0}}), verdicts=False).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["model", "mean"]


def test_a_foot_note_where_the_ceiling_is_beaten():
    scores = pd.concat([
        table({"ceiling": {"A": 1.0, "B": 2.0}, "mean": {"A": 1.4, "B": 1.5}, "model": {"A": 2.0, "B": 3.0}}),
        table({"ceiling": {"A": 0.8, "B": 0.8}, "mean": {"A": 0.1, "B": 0.2}, "model": {"A": 0.9, "B": 0.9}},
              "pearson_delta"),
        table({"ceiling": {"A": 0.8, "B": 0.8}, "mean": {"A": 1.0, "B": 1.0}, "model": {"A": 0.9, "B": 0.9}},
              "shift_ratio"),
        table({"ceiling": {"A": 1.0, "B": 1.0}, "mean": {"A": 1.0, "B": 0.2}, "model": {"A": 0.9, "B": 0.9}},
              "discrimination_score_l1"),
    ])  # fmt: skip
    assert format_scores(scores, verdicts=False).splitlines()[-1] == (
        "Better than the replicate ceiling in some row: l2, pearson_delta. The ceiling is half against half of the "
        "cells, corrected for their number where a formula exists, and no limit: a prediction with less noise than an "
        "experiment can beat it."
    )
    below = scores[scores.metric == "discrimination_score_l1"]
    assert format_scores(below, verdicts=False).splitlines()[-1] == "Means over 2 conditions; * best."


def test_a_ceiling_over_fewer_conditions_is_not_beaten():
    text = format_scores(table({"ceiling": {"A": 2.0}, "model": {"A": 1.0, "B": 1.0}}), verdicts=False)
    assert "Better than" not in text and "not comparable: ceiling (1)" in text


def test_tables_with_and_without_statements_can_be_joined():
    plain = table({"rival": {"A": 2.0}, "mean": {"A": 3.0}})
    told = table({"model": {"A": 1.0, "B": 1.0}}).assign(basis="left out", support="near", abstain=[True, False])
    for scores in (pd.concat([plain, told]), pd.concat([told, plain.astype({"method": "category"})])):
        checked = check_scores(scores).set_index(["method", "perturbation"])
        assert checked.loc[("model", "A"), ["basis", "support", "abstain"]].tolist() == ["left out", "near", True]
        assert checked.loc[("rival", "A"), ["basis", "support", "abstain"]].tolist() == ["", "", False]
        assert checked["abstain"].dtype == bool
        assert summarize_scores(scores).loc["model", "l2"] == 1
    as_text = told.assign(abstain=["True", "False"]).astype({"basis": "category", "abstain": "category"})
    assert check_scores(as_text)["abstain"].tolist() == [True, False]
    assert list(check_scores(plain).columns) == list(COLUMNS)


def test_ties_are_all_best():
    text = format_scores(table({"model": {"A": 1.0}, "mean": {"A": 1.0001}}))
    assert text.count("1.000*") == 2


def test_missing_numbers_are_dashes():
    scores = pd.concat([table({"model": {"A": 1}, "mean": {"A": 2}}),
                        table({"model": {"A": 0.5}, "mean": {"A": float("nan")}}, "pearson_delta")])  # fmt: skip
    assert format_scores(scores).splitlines()[3].split() == ["mean", "2.000", "–", "1"]


def test_wrong_tables():
    with pytest.raises(ValueError, match=r"scores lacks the columns \['kind'\]"):
        summarize_scores(table({"model": {"A": 1}}).drop(columns="kind"))
    with pytest.raises(ValueError, match="scores has no rows"):
        format_scores(table({}))
    with pytest.raises(ValueError, match="expected the table returned by scjepa.tl.evaluate"):
        summarize_scores(l2)
    with pytest.raises(ValueError, match="scores has no values"):
        summarize_scores(table({"model": {"A": float("nan")}}))
