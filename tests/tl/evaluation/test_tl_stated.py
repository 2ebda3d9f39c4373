"""What a prediction says of itself: columns of the table, one warning, two printed lines."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import pl
from scjepa.tl import evaluate, format_scores, summarize_scores, verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the answer was copied"),
    pytest.mark.filterwarnings("ignore:.*cell by cell"),
]
KEY = "perturbation"
SIX = ["method", "kind", "perturbation", "context", "metric", "value"]
QUICK = {"metrics": ["l2", "pearson_delta"], "ceiling": False}


def record(rows: list[tuple], **more) -> dict:
    """A record as models write it; rows are perturbation, context, basis, support, abstain."""
    table = pd.DataFrame(rows, columns=["perturbation", "context", "basis", "support", "abstain"])
    return {"prediction": {"perturbation_key": KEY, "context_key": "", "train": ["A", "B", "C"], "conditions": table} | more}  # fmt: skip


@pytest.fixture
def told(prediction) -> ad.AnnData:
    """A+B (spelled the other way round) was judged by left-out conditions; the model abstains on A+C."""
    rows = [("B+A", "all", "left out", "near", False), ("A+C", "all", "sampling noise", "far", True)]
    reliability = {"median": 0.4236, "near_zero": np.int64(2), "n": np.int64(3)}
    prediction.uns["jepa"] = record(rows, reliability=reliability, note="")
    return prediction


def quietly(*args, **kwargs) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return evaluate(*args, **kwargs)


def test_three_columns_in_the_rows_of_the_model(told, screen):
    scores = quietly(told, screen)
    assert list(scores.columns) == [*SIX, "basis", "support", "abstain"] and scores["abstain"].dtype == bool
    mine = scores[scores.kind == "model"].drop_duplicates("perturbation").set_index("perturbation")
    assert mine.loc["A+B", ["basis", "support", "abstain"]].tolist() == ["left out", "near", False]
    assert mine.loc["A+C", ["basis", "support", "abstain"]].tolist() == ["sampling noise", "far", True]
    others = scores[scores.kind != "model"]
    assert (others["basis"] == "").all() and (others["support"] == "").all() and not others["abstain"].any()
    pd.testing.assert_frame_equal(told.uns["jepa"]["scores"], scores)


def test_scores_of_all_conditions_at_once_say_nothing(told, screen):
    scores = quietly(told, screen, metrics=["l2", "centroid_ami"])
    overall = scores[scores["metric"] == "centroid_ami"]
    assert len(overall) and (overall["basis"] == "").all() and not overall["abstain"].any()


def test_without_statements_the_table_is_as_it_was(told, screen):
    for record_of in (
        lambda r: {k: v for k, v in r.items() if k != "conditions"},
        lambda r: r | {"conditions": r["conditions"].drop(columns="basis")},
        lambda r: r | {"conditions": ["A+B"]},
    ):
        other = told.copy()
        other.uns["jepa"] = {"prediction": record_of(told.uns["jepa"]["prediction"])}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*abstains.*")
            scores = evaluate(other, screen, **QUICK)
        assert list(scores.columns) == SIX and "abstains" not in format_scores(scores)


def test_one_warning_with_counts_and_reliability(told, screen):
    with pytest.warns(UserWarning) as caught:
        evaluate(told, screen, method="mine", **QUICK)
    said = [str(w.message) for w in caught if "abstains" in str(w.message) or "judged" in str(w.message)]
    assert said == [
        "Of 2 predicted conditions mine judged the size of the effect of 1 by sampling noise alone, and abstains on 1; "
        "reliability of the training conditions: median 0.42, 2 of 3 below 0.1."
    ]
    assert [w.filename for w in caught if str(w.message) in said] == [__file__]


@pytest.mark.parametrize(
    ("rows", "reliability", "message"),
    [
        ([("A+B", "none", False), ("A+C", "sampling noise", False)], None,
         "Of 2 predicted conditions model judged the size of the effect of 1 by sampling noise alone and of 1 by nothing."),
        ([("A+B", "left out", True), ("A+C", "left out", False)], {"median": float("nan")},
         "Of 2 predicted conditions model abstains on 1."),
        ([("A+B", "none", False)], {"near_zero": 1, "n": 9},
         "Of 2 predicted conditions model judged the size of the effect of 1 by nothing; reliability of the training "
         "conditions: 1 of 9 below 0.1."),
    ],
)  # fmt: skip
def test_wording_of_the_warning(prediction, screen, rows, reliability, message):
    table = [(p, "all", basis, "near", abstain) for p, basis, abstain in rows]
    prediction.uns["jepa"] = record(table) if reliability is None else record(table, reliability=reliability)
    with pytest.warns(UserWarning) as caught:
        evaluate(prediction, screen, **QUICK)
    assert [str(w.message) for w in caught if "predicted conditions model" in str(w.message)] == [message]


def test_tested_predictions_get_no_warning(prediction, screen, caplog):
    rows = [(p, "all", "left out", "near", False) for p in ("A+B", "A+C")]
    prediction.uns["jepa"] = record(rows, note="3 genes were never measured.")
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, logger="scjepa"):
        warnings.filterwarnings("error", message=".*(judged|abstains).*")
        scores = evaluate(prediction, screen, **QUICK)
    assert "model said of this prediction: 3 genes were never measured." in caplog.text
    assert format_scores(scores).splitlines()[-1] == "model abstains on none of 2 conditions; judged by: left out 2."


def test_statements_survive_a_file(told, screen, tmp_path):
    scores = quietly(told, screen)
    told.write_h5ad(tmp_path / "pred.h5ad")
    back = ad.read_h5ad(tmp_path / "pred.h5ad")
    read = back.uns["jepa"]["scores"]
    assert format_scores(read) == format_scores(scores)
    pd.testing.assert_frame_equal(summarize_scores(read), summarize_scores(scores))
    again = quietly(back, screen)  # the record works from the file as well
    pd.testing.assert_frame_equal(again[["basis", "support", "abstain"]], scores[["basis", "support", "abstain"]])
    scores.to_csv(tmp_path / "scores.csv", index=False)
    assert format_scores(pd.read_csv(tmp_path / "scores.csv")) == format_scores(scores)
    assert pl.scores(read, "l2") is not None


def test_contexts_are_matched(make_screen):
    real = make_screen(("x", "y"))
    pred = real[real.obs[KEY] == "A+C"].copy()
    rows = [("A+C", "x", "left out", "near", False), ("A+C", "y", "none", "far", True)]
    pred.uns["jepa"] = record(rows, context_key="cell_type")
    scores = quietly(pred, real, **QUICK)
    mine = scores[scores.kind == "model"].drop_duplicates("context").set_index("context")
    assert mine["basis"].to_dict() == {"x": "left out", "y": "none"}
    assert mine["abstain"].to_dict() == {"x": False, "y": True}
    pooled = quietly(pred, real, context_key="", **QUICK)  # of contexts taken together, the most cautious counts
    assert pooled[pooled.kind == "model"][["basis", "support", "abstain"]].drop_duplicates().values.tolist() == [
        ["none", "far", True]
    ]


def nine() -> pd.DataFrame:
    """The model abstains on seven conditions of nine, where it is worse than the mean."""
    rows = []
    for i in range(9):
        out = i < 7
        told = ("sampling noise" if out else "left out", "far" if i < 2 else "near", out)
        rows.append(("model", "model", f"p{i}", "all", "l2", 5.0 if out else 2.0, *told))
        rows.append(("mean", "baseline", f"p{i}", "all", "l2", 4.0 if out else 3.0, "", "", False))
        rows.append(("kNN", "baseline", f"p{i}", "all", "l2", 4.0 if out else 3.0, "", "", False))
        rows.append(("no change", "baseline", f"p{i}", "all", "l2", 9.0, "", "", False))
    return pd.DataFrame(rows, columns=[*SIX, "basis", "support", "abstain"])


def test_lines_below_the_verdict():
    lines = format_scores(nine()).splitlines()
    assert lines[-3] == verdict(nine())["verdict"].item()
    assert lines[-2:] == [
        "model abstains on 7 of 9 conditions (support far: 2); judged by: left out 2, sampling noise 7.",
        "l2 of model and best baseline (mean = kNN): 5.000 and 4.000 where it abstains, 2.000 and 3.000 on the 2 others.",
    ]
    assert "abstains" not in format_scores(nine(), verdicts=False)


def test_no_selective_risk_where_it_is_all_or_none():
    scores = nine()
    model = scores["kind"] == "model"
    for flag, count in ((True, "9"), (False, "none")):
        last = format_scores(scores.assign(abstain=model & flag)).splitlines()[-1]
        assert last.startswith(f"model abstains on {count} of 9 conditions")
    alone = format_scores(scores[model]).splitlines()[-1]  # no baseline to compare with
    assert alone.startswith("model abstains on 7 of 9")


def test_each_model_speaks_for_itself():
    scores = nine()
    rival = scores[scores.kind == "model"].assign(method="rival", basis="", support="", abstain=False)
    told = scores[scores.kind == "model"].assign(method="other", basis="none", abstain=False)
    lines = format_scores(pd.concat([scores, rival, told])).splitlines()
    assert [line.split(" abstains")[0] for line in lines if " abstains on " in line] == ["model", "other"]
    assert lines[-1] == "other abstains on none of 9 conditions; judged by: none 9."
