"""``evaluate_fates``: values against scikit-learn, errors over clones, comparison, words."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from scjepa.tl import evaluate_fates, format_fates

FATES = ["A", "B", "C"]


@pytest.fixture
def cells():
    """90 cells of 30 clones, probabilities that tell A well and B from C hardly."""
    rng = np.random.default_rng(0)
    clone = np.repeat(np.arange(30), 3)
    fate = np.array(FATES)[(np.arange(30) % 3)[clone]]
    logits = np.stack([3.0 * (fate == "A"), 0.4 * (fate == "B"), 0.4 * (fate == "C")], 1) + rng.normal(size=(90, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return pd.DataFrame(p, columns=FATES), fate, clone


def value(scores, metric="auroc", fate="all", against=None, method="model", column="value"):
    part = scores[(scores["method"] == method) & (scores["metric"] == metric) & (scores["fate"] == fate)]
    return part[part["against"] == against][column].item() if against else part[column].iloc[0]


def test_values_are_those_of_scikit_learn(cells):
    p, fate, clone = cells
    scores = evaluate_fates(p, fate, clone_key=clone)
    assert value(scores) == pytest.approx(roc_auc_score(fate, p, multi_class="ovr"))
    assert value(scores, fate="B") == pytest.approx(roc_auc_score(fate == "B", p["B"]))
    assert value(scores, "log_loss") == pytest.approx(log_loss(fate, np.clip(p, 1e-3, None)), rel=1e-3)
    two = fate != "A"
    share = (p["B"] / (p["B"] + p["C"]))[two]
    assert value(scores, fate="B", against="C") == pytest.approx(roc_auc_score(fate[two] == "B", share))
    assert value(scores, fate="B", against="C", column="n_cells") == 60
    assert value(scores, column="n_clones") == 30
    assert value(scores, method="fate frequencies") == 0.5
    assert value(scores, "log_loss", method="fate frequencies") == pytest.approx(np.log(3))


def test_errors_are_over_clones_not_cells():
    rng = np.random.default_rng(1)
    fate = np.where(rng.random(40) < 0.5, "A", "B")
    a = np.clip(0.5 + 0.2 * ((fate == "A") - 0.5) + rng.normal(0, 0.2, 40), 0.01, 0.99)
    one = pd.DataFrame({"A": a, "B": 1 - a})
    each = evaluate_fates(one, fate)
    copied = evaluate_fates(pd.concat([one] * 4), np.tile(fate, 4), clone_key=np.tile(np.arange(40), 4))
    assert value(copied) == pytest.approx(value(each))
    assert value(copied, column="se") == pytest.approx(value(each, column="se"), rel=0.1)
    blind = evaluate_fates(pd.concat([one] * 4), np.tile(fate, 4))
    assert value(blind, column="se") < 0.65 * value(each, column="se")


def test_the_best_baseline_is_compared_clone_for_clone(cells):
    p, fate, clone = cells
    rng = np.random.default_rng(2)
    noise = pd.DataFrame(rng.dirichlet(np.ones(3), 90), columns=FATES)
    scores = evaluate_fates(p, fate, clone_key=clone, baselines={"noise": noise, "same": p})
    assert value(scores, column="baseline") == "same" and value(scores, column="improvement") == 0
    assert value(scores, column="better") == "unclear"
    scores = evaluate_fates(p, fate, clone_key=clone, baselines={"noise": noise})
    assert value(scores, column="better") == "yes" and value(scores, column="lower") > 0
    assert value(scores, "log_loss", column="baseline") == "fate frequencies"
    worse = evaluate_fates(noise, fate, clone_key=clone, baselines={"p": p})
    assert value(worse, column="better") == "no" and "WORSE" in format_fates(worse)


def test_few_clones_are_never_clear(cells):
    p, fate, clone = cells
    scores = evaluate_fates(p[:27], fate[:27], clone_key=clone[:27])
    assert value(scores, column="better") == "unclear" and "fewer than 10 clones" in format_fates(scores)


def test_printer_shows_the_hardest_pair(cells):
    p, fate, clone = cells
    scores = evaluate_fates({"mine": p, "again": p}, fate, clone_key=clone)
    text = format_fates(scores).splitlines()
    hard = value(scores, fate="B", against="C", method="mine")
    assert [line.split()[0] for line in text[1:4]] == ["mine", "again", "fate"]
    assert f"B / C {hard:.3f}".replace("0.", ".") in text[1]
    assert text[4].startswith("90 cells of 30 clones")


def test_cells_without_truth_are_not_scored_and_shares_become_fates(cells):
    p, fate, clone = cells
    known = pd.Series(fate).where(np.arange(90) < 60)
    assert value(evaluate_fates(p, known, clone_key=clone)) == value(
        evaluate_fates(p[:60], fate[:60], clone_key=clone[:60])
    )
    shares = pd.DataFrame({f: 0.6 * (fate == f) + 0.1 for f in FATES})
    shares.loc[60:74] = 0.0  # no late cell
    shares.loc[75:] = 1 / 3  # a tie
    pd.testing.assert_frame_equal(evaluate_fates(p, shares, clone_key=clone), evaluate_fates(p, known, clone_key=clone))


def test_anndata_is_read_and_written(cells, tmp_path):
    p, fate, clone = cells
    names = [f"cell{i}" for i in range(90)]
    obs = pd.DataFrame({"fate": fate, "clone": clone}, index=names)
    adata = ad.AnnData(np.zeros((90, 1)), obs=obs, obsm={"fate_probabilities": p.set_axis(names)})
    scores = evaluate_fates(adata, "fate", clone_key="clone")
    pd.testing.assert_frame_equal(scores, evaluate_fates(p, fate, clone_key=clone))
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad").uns["jepa"]["fate_scores"]
    assert format_fates(again) == format_fates(scores)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"truth": ["A"] * 90}, ValueError, r"1 fate\(s\) \('A'\): scores need at least two"),
        ({"truth": ["A"]}, ValueError, "truth has 1 cells, probabilities 90"),
        ({"truth": "fate"}, ValueError, "probabilities are no AnnData"),
        ({"clone_key": "clone"}, ValueError, "probabilities are no AnnData"),
        ({"clone_key": [1]}, ValueError, "clone_key has 1 cells"),
        ({"clone_key": [None] * 90}, ValueError, "90 cells with a known fate have no clone"),
        ({"probabilities": np.zeros((90, 3))}, TypeError, "model is a ndarray: expected a DataFrame"),
        ({"baselines": {"model": pd.DataFrame()}}, ValueError, "two rows of one name"),
        ({"baselines": {"x": pd.DataFrame({"A": np.ones(90)})}}, ValueError, "x has no column for 'B', 'C'"),
        ({"baselines": {"x": pd.DataFrame(np.ones((90, 3)), columns=FATES)}}, ValueError, "x has values that are no prob"),
        ({"baselines": {"x": pd.DataFrame(np.ones((3, 3)), columns=FATES)}}, ValueError, "x has 3 cells, expected 90"),
        ({"n_boot": 10}, ValueError, "n_boot=10: expected a whole number of at least 100"),
        ({"level": 1}, ValueError, "level=1: expected"),
        ({"probabilities": ad.AnnData(np.zeros((90, 1)))}, KeyError, "key='fate_probabilities' is not in obsm"),
    ],
)  # fmt: skip
def test_errors_say_what_was_found(cells, change, error, message):
    p, fate, clone = cells
    arguments = {"probabilities": p, "truth": fate, "clone_key": clone} | change
    with pytest.raises(error, match=message):
        evaluate_fates(**arguments)


def test_printer_refuses_other_tables():
    with pytest.raises(ValueError, match="expected the table of scjepa.tl.evaluate_fates"):
        format_fates(pd.DataFrame({"method": ["x"]}))


def test_truth_and_clones_of_more_cells_are_looked_up_by_name():
    names = list("abcdef")
    table = pd.DataFrame({"A": [0.9, 0.6, 0.4, 0.2], "B": [0.1, 0.4, 0.6, 0.8]}, index=list("cadb"))
    truth = pd.Series(["A", "B", "A", "B", "A", "B"], index=names)
    clones = pd.Series([1, 2, 3, 4, 5, 6], index=names)
    by_name = evaluate_fates(table, truth, clone_key=clones, n_boot=100)
    by_place = evaluate_fates(table, truth[list("cadb")].tolist(), clone_key=[3, 1, 4, 2], n_boot=100)
    pd.testing.assert_frame_equal(by_name, by_place)
