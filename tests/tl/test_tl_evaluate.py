"""tl.evaluate: known values, invariances, where training conditions come from, pseudobulk, real data."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import ImplicitModificationWarning
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from scjepa.baselines import Additive, Baseline, NoChange
from scjepa.tl import evaluate, format_scores, summarize_scores

# copies of measured cells are the simplest predictions with known scores; the warning has tests of its own
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the answer was copied"),
    pytest.mark.filterwarnings("ignore:.*cell by cell"),
]
KEY = "perturbation"


def same(a: pd.DataFrame, b: pd.DataFrame, **kwargs) -> None:
    pd.testing.assert_frame_equal(a, b, **{"rtol": 1e-5, "atol": 1e-6, **kwargs})


def test_known_values_of_the_model(screen, prediction, value, effect):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    assert value(scores, "model", "l2") == pytest.approx(0.3)
    pred, true = np.array(effect["A+B"]) + [0, 0, 0.3, 0, 0, 0], np.array(effect["A+B"])
    assert value(scores, "model", "pearson_delta") == pytest.approx(np.corrcoef(pred, true)[0, 1])
    assert value(scores, "model", "shift_ratio") == pytest.approx(np.linalg.norm(pred) / np.linalg.norm(true))
    reference = np.mean([effect["A"], effect["B"], effect["C"]], axis=0)
    expected = np.corrcoef(pred - reference, true - reference)[0, 1]
    assert value(scores, "model", "pearson_delta_systema") == pytest.approx(expected)
    assert value(scores, "model", "l2", "A+C") == pytest.approx(0)
    assert value(scores, "model", "e_distance", "A+C") == pytest.approx(0, abs=1e-9)
    assert value(scores, "model", "variance_ratio", "A+C") == pytest.approx(1)


def test_known_values_of_baselines(screen, prediction, value, effect):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    assert value(scores, "additive", "l2") == pytest.approx(0, abs=1e-9)
    epistasis = np.array(effect["A+C"]) - np.array(effect["A"]) - np.array(effect["C"])
    assert value(scores, "additive", "l2", "A+C") == pytest.approx(np.linalg.norm(epistasis))
    assert value(scores, "no change", "l2") == pytest.approx(np.linalg.norm(effect["A+B"]))
    assert value(scores, "no change", "shift_ratio") == 0
    assert np.isnan(value(scores, "no change", "pearson_delta"))
    assert np.isnan(value(scores, "mean", "pearson_delta_systema"))
    assert value(scores, "no change", "e_distance") > 10 * value(scores, "additive", "e_distance")


def test_table_and_uns(screen, prediction):
    scores = evaluate(prediction, screen, perturbation_key=KEY, method="mine")
    assert list(scores.columns) == ["method", "kind", "perturbation", "context", "metric", "value"]
    assert not scores.duplicated(["method", "perturbation", "context", "metric"]).any()
    assert set(scores.loc[scores.kind == "model", "method"]) == {"mine"}
    assert set(scores["context"]) == {"all"}
    same(prediction.uns["jepa"]["scores"], scores)


def test_a_view_becomes_data_of_its_own_without_a_warning(screen, prediction, caplog):
    prediction.uns["jepa"] = {"prediction": {"perturbation_key": KEY, "train": ["A", "B", "C"], "context_key": ""}}
    view = prediction[prediction.obs[KEY] == "A+B"]
    assert view.is_view
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error", ImplicitModificationWarning)
        scores = evaluate(view, screen, baselines=None)
    assert "pred is a view: it is copied in place" in caplog.text
    assert set(scores["perturbation"]) == {"A+B"}
    same(view.uns["jepa"]["scores"], scores)
    assert set(view.uns["jepa"]) == {"prediction", "scores", "leak_checks"} and not view.is_view
    assert set(prediction.uns["jepa"]) == {"prediction"}  # what the view looked at is untouched


def test_scores_survive_a_file(screen, prediction, tmp_path):
    prediction.uns["jepa"] = {"prediction": {"perturbation_key": KEY, "train": ["A", "B", "C"], "context_key": ""}}
    scores = evaluate(prediction, screen)
    prediction.write_h5ad(tmp_path / "pred.h5ad")
    back = ad.read_h5ad(tmp_path / "pred.h5ad")
    read = back.uns["jepa"]["scores"]
    same(read.astype(scores.dtypes.to_dict()).reset_index(drop=True), scores)
    same(evaluate(back, screen), scores)  # the record works from the file as well
    pd.testing.assert_frame_equal(summarize_scores(read), summarize_scores(scores))
    assert format_scores(read) == format_scores(scores)


def test_energy_distance_in_pcs_of_training_cells(screen, prediction, value):
    """The formula by hand: sklearn PCA on controls and singles, one common scale."""
    scores = evaluate(prediction, screen, perturbation_key=KEY, n_pcs=3)
    label = screen.obs[KEY].to_numpy()
    pca = PCA(3, svd_solver="full").fit(screen.X[np.isin(label, ["control", "A", "B", "C"])])
    scale = np.sqrt(pca.explained_variance_).mean()
    x = pca.transform(prediction.X[(prediction.obs[KEY] == "A+B").to_numpy()]) / scale
    y = pca.transform(screen.X[label == "A+B"]) / scale
    expected = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert value(scores, "model", "e_distance") == pytest.approx(expected, rel=1e-4)
    assert value(scores, "model", "variance_ratio") == pytest.approx(x.var(0).sum() / y.var(0).sum(), rel=1e-4)


def test_held_out_cells_do_not_shape_the_coordinates(screen, prediction, value):
    """Changing the cells of one held-out condition must not change a score of another."""
    before = evaluate(prediction, screen, perturbation_key=KEY, n_pcs=2)
    screen.X[(screen.obs[KEY] == "A+C").to_numpy()] *= 2
    after = evaluate(prediction, screen, perturbation_key=KEY, n_pcs=2)
    for metric in ("e_distance", "variance_ratio"):
        assert value(after, "model", metric) == value(before, "model", metric)
        assert value(after, "model", metric, "A+C") != value(before, "model", metric, "A+C")


def test_order_of_cells_and_genes_does_not_matter(screen, prediction):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    rng = np.random.default_rng(0)
    shuffled = screen[rng.permutation(screen.n_obs), rng.permutation(screen.n_vars)].copy()
    shuffled_pred = prediction[rng.permutation(prediction.n_obs)].copy()
    same(evaluate(shuffled_pred, shuffled, perturbation_key=KEY), scores, check_dtype=False)


def test_real_may_have_more_genes_than_pred(screen, prediction, value):
    fewer = prediction[:, ["g5", "g3", "g1"]].copy()
    scores = evaluate(fewer, screen, perturbation_key=KEY)
    assert value(scores, "model", "l2") == pytest.approx(0.3)
    assert value(scores, "no change", "l2") == pytest.approx(np.linalg.norm([0.5, 0, 1]))


def test_sparse_is_dense(screen, prediction):
    scores = evaluate(prediction, screen, perturbation_key=KEY, n_pcs=4)
    screen.X, prediction.X = sp.csr_matrix(screen.X), sp.csc_matrix(prediction.X)
    same(evaluate(prediction, screen, perturbation_key=KEY, n_pcs=4), scores)


def test_counts_are_normalised_before_genes_are_dropped(caplog):
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A", "B"], 20)
    counts = rng.poisson(5.0, size=(60, 30)).astype(float)
    obs = pd.DataFrame({"p": label}, index=[f"c{i}" for i in range(60)])
    lognorm = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    real = ad.AnnData(lognorm, obs=obs, layers={"counts": sp.csr_matrix(counts)})
    pred = real[label == "A", :10].copy()
    scores = evaluate(pred, real, perturbation_key="p", n_pcs=5)
    with caplog.at_level(logging.INFO, logger="scjepa"):
        from_counts = evaluate(pred, real, perturbation_key="p", n_pcs=5, layer="counts")
    same(from_counts, scores, atol=1e-4)
    assert caplog.text.count("holds counts: normalized to 10000") == 1


def test_spelling_of_combinations(screen, prediction, value):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    prediction.obs[KEY] = prediction.obs[KEY].astype(str).replace({"A+B": "B+A", "A+C": "C+ctrl+A"})
    same(evaluate(prediction, screen, perturbation_key=KEY), scores)


def test_predictors_own_controls(screen, prediction, value, effect):
    """A predictor with an offset in controls and predictions alike has the right effect, and a wrong mean."""
    own = screen[screen.obs[KEY] == "control"].copy()
    both = ad.concat([prediction, own])
    both.X = both.X + 1.0
    with_controls = evaluate(both, screen, perturbation_key=KEY)
    assert value(with_controls, "model", "shift_ratio", "A+C") == pytest.approx(1)
    assert value(with_controls, "model", "l2", "A+C") == pytest.approx(np.sqrt(6))
    without = evaluate(both[both.obs[KEY] != "control"].copy(), screen, perturbation_key=KEY)
    assert value(without, "model", "shift_ratio", "A+C") > 1.2


def test_contexts_are_conditions_of_their_own(value, make_screen):
    real = make_screen(("x", "y"))
    test = (real.obs["cell_type"] == "y") & (real.obs[KEY] == "A+C")
    pred = real[test].copy()
    scores = evaluate(pred, real, perturbation_key=KEY, context_key="cell_type")
    assert set(scores["context"]) == {"y"} and set(scores["perturbation"]) == {"A+C"}
    assert value(scores, "model", "l2", "A+C", "y") == pytest.approx(0, abs=1e-9)
    # the same perturbation in the other context is a training condition, and predicts it exactly
    assert value(scores, "context transfer", "l2", "A+C", "y") == pytest.approx(0, abs=1e-9)
    pooled = evaluate(pred, real, perturbation_key=KEY)
    assert set(pooled["context"]) == {"all"} and "context transfer" not in set(pooled["method"])


@pytest.mark.parametrize(
    "record",
    [["A", "control"], np.array(["A"], dtype=object), pd.DataFrame({"perturbation": ["A"], "context": ["whatever"]})],
    ids=["list", "array", "table"],
)
def test_training_conditions_of_the_record(screen, prediction, value, record, effect):
    prediction.uns["jepa"] = {"prediction": {"perturbation_key": KEY, "train": record}}
    scores = evaluate(prediction, screen)
    assert value(scores, "mean", "l2") == pytest.approx(np.linalg.norm(np.subtract(effect["A"], effect["A+B"])))
    assert "additive" not in set(scores["method"])  # B and C were not seen


def test_record_with_contexts(effect, make_screen):
    real = make_screen(("x", "y"))
    pred = real[(real.obs["cell_type"] == "y") & (real.obs[KEY] == "A+B")].copy()
    keys = {"perturbation_key": KEY, "context_key": "cell_type", "control": "control", "separator": "+"}
    table = pd.DataFrame({"perturbation": ["A", "B"], "context": ["x", "y"]})
    pred.uns["jepa"] = {"prediction": keys | {"train": table}}
    scores = evaluate(pred, real)
    expected = np.mean([effect["A"], effect["B"]], axis=0) - effect["A+B"]
    got = scores.query("method == 'mean' and metric == 'l2'")["value"].item()
    assert got == pytest.approx(np.linalg.norm(expected))
    assert set(evaluate(pred, real, context_key="")["context"]) == {"all"}  # an empty key overrides the record


def test_seen_conditions_of_the_record_are_a_warning(screen, prediction):
    prediction.uns["jepa"] = {"prediction": {"perturbation_key": KEY, "train": ["A", "B", "C", "B+A"]}}
    with pytest.warns(UserWarning, match="1 predicted conditions were seen in training: 'A\\+B'"):
        evaluate(prediction, screen)


def test_explicit_train_is_what_baselines_learn_from(screen, prediction, value, effect):
    train = screen[screen.obs[KEY].isin(["control", "A"])].copy()
    scores = evaluate(prediction, screen, train=train, perturbation_key=KEY)
    assert value(scores, "mean", "l2") == pytest.approx(np.linalg.norm(np.subtract(effect["A"], effect["A+B"])))
    usual = evaluate(prediction, screen, perturbation_key=KEY)
    everything = screen[~screen.obs[KEY].isin(["A+B", "A+C"])].copy()
    same(evaluate(prediction, screen, train=everything, perturbation_key=KEY).query("metric == 'l2'"),
         usual.query("metric == 'l2'"))  # fmt: skip


def test_leak_in_train_is_an_error(screen, prediction):
    train = screen[screen.obs[KEY] != "A+C"].copy()
    with pytest.raises(ValueError, match="1 predicted conditions are among the conditions of train: 'A\\+B'"):
        evaluate(prediction, screen, train=train, perturbation_key=KEY)


def test_no_training_conditions(screen, prediction):
    only = screen[screen.obs[KEY].isin(["control", "A+B", "A+C"])].copy()
    with pytest.warns(UserWarning, match="only 'no change' is shown"):
        scores = evaluate(prediction, only, perturbation_key=KEY)
    assert set(scores["method"]) == {"model", "no change", "replicate ceiling"}
    assert scores.query("metric == 'pearson_delta_systema'")["value"].isna().all()
    assert scores.query("metric == 'e_distance'")["value"].notna().all()  # coordinates of the controls


def test_choice_of_baselines_and_metrics(screen, prediction):
    alone = evaluate(prediction, screen, perturbation_key=KEY, baselines=None, ceiling=False)
    assert set(alone["method"]) == {"model"}
    scores = evaluate(prediction, screen, perturbation_key=KEY, baselines=[Additive()], metrics=["l2", "e_distance"])
    assert set(scores["method"]) == {"model", "additive", "replicate ceiling"} and set(scores["metric"]) == {
        "l2",
        "e_distance",
    }
    assert set(evaluate(prediction, screen, perturbation_key=KEY, metrics="l2")["metric"]) == {"l2"}


def test_baselines_have_rows_only_where_they_apply(screen, value, effect):
    class OnlyAB(Baseline):
        name = "only A+B"

        def fit(self, table):
            return self

        def effects(self, query):
            out = np.full(query.control.shape, np.nan)
            out[[action == ("A", "B") for action in query.actions]] = 1.0
            return out

    pred = screen[screen.obs[KEY].isin(["A+B", "A+C"])].copy()
    scores = evaluate(pred, screen, perturbation_key=KEY, baselines=[OnlyAB()])
    assert set(scores.loc[scores.method == "only A+B", "perturbation"]) == {"A+B"}
    assert value(scores, "only A+B", "l2") == pytest.approx(np.linalg.norm(np.array(effect["A+B"]) - 1))


def test_baselines_that_predict_the_same_are_scored_once_and_keep_their_rows(screen, value):
    class Rounded(Baseline):
        name = "rounded"

        def fit(self, table):
            self.wrapped = Additive().fit(table)
            return self

        def effects(self, query):
            return self.wrapped.effects(query) * (1 + 1e-15)

    pred = screen[screen.obs[KEY].isin(["A+B", "A+C"])].copy()
    scores = evaluate(pred, screen, perturbation_key=KEY, profile="full", n_pcs=3, baselines=[Additive(), Rounded()])
    parts = [scores[scores.method == m].drop(columns="method").reset_index(drop=True) for m in ("additive", "rounded")]
    pd.testing.assert_frame_equal(*parts, check_exact=True)  # ranks and tests of genes too
    assert summarize_scores(scores).loc["rounded", "l2"] == summarize_scores(scores).loc["additive", "l2"]
    assert "additive = rounded" in format_scores(scores)


def test_one_training_condition_makes_baselines_the_same(screen, prediction):
    train = screen[screen.obs[KEY].isin(["control", "A"])].copy()
    scores = evaluate(prediction, screen, train=train, perturbation_key=KEY)
    assert {"mean", "matching mean"} <= set(scores["method"])
    rows = [line.split("  ")[0] for line in format_scores(scores, verdicts=False).splitlines()]
    assert "mean = matching mean" in rows and "mean" not in rows


def test_subsets_of_cells(screen, prediction, value):
    few = evaluate(prediction, screen, perturbation_key=KEY, max_cells=10, seed=3)
    same(evaluate(prediction, screen, perturbation_key=KEY, max_cells=10, seed=3), few)
    all_cells = evaluate(prediction, screen, perturbation_key=KEY, max_cells=30)
    for metric in ("l2", "pearson_delta"):  # means use all cells
        assert value(few, "model", metric) == value(all_cells, "model", metric)
    assert value(few, "model", "e_distance") != value(all_cells, "model", "e_distance")
    assert value(few, "model", "e_distance") != value(
        evaluate(prediction, screen, perturbation_key=KEY, max_cells=10, seed=4), "model", "e_distance"
    )


def test_one_profile_per_condition(screen, effect):
    labels = list(effect)
    profiles = 4 + np.array([effect[p] for p in labels], dtype=float)
    bulk = ad.AnnData(profiles, obs=pd.DataFrame({KEY: labels}, index=labels), var=screen.var)
    pred = bulk[["A+B", "A+C"]].copy()
    scores = evaluate(pred, bulk, perturbation_key=KEY)
    assert scores[scores.metric.isin(["e_distance", "variance_ratio"])]["value"].isna().all()
    table = summarize_scores(scores)
    assert "e_distance" not in table and "variance_ratio" not in table
    assert table.loc["model", "l2"] == pytest.approx(0, abs=1e-6)
    assert "e_distance" not in format_scores(scores)
    # one predicted profile against real cells: means are scored, spread is not
    mixed = evaluate(pred, screen, perturbation_key=KEY).query("method == 'model'").set_index("metric")["value"]
    assert mixed["l2"].max() == pytest.approx(0, abs=1e-6) and mixed["e_distance"].isna().all()


def test_negative_predictions(screen, prediction, caplog):
    prediction.X[0, 0] = -0.25
    with caplog.at_level(logging.WARNING, logger="scjepa"):
        evaluate(prediction, screen, perturbation_key=KEY, metrics="l2", baselines=None)
    assert "pred.X has 1 negative values (smallest -0.25)" in caplog.text


def test_named_baselines_get_unique_rows(screen, prediction):
    with pytest.raises(ValueError, match="baselines has two of one name"):
        evaluate(prediction, screen, perturbation_key=KEY, baselines=[NoChange(), NoChange()])


def test_norman_doubles_additive_baseline():
    """The additive baseline on the five Norman doubles whose singles were measured: L2 .446, Pearson Δ .870."""
    folder = Path(os.environ.get("SCJEPA_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    path = folder / "perturbench_norman19_mcfaline23.h5ad"
    if not path.exists():
        pytest.skip(f"needs {path.name}: set SCJEPA_DATA to the folder that holds it")
    cells = ad.read_h5ad(path)
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    label = cells.obs["condition"].astype(str)
    singles = {c for c in label.unique() if "+" not in c}
    doubles = [c for c in label.unique() if "+" in c and set(c.split("+")) <= singles]
    pred = cells[label.isin(doubles)].copy()
    scores = evaluate(pred, cells, perturbation_key="condition", baselines=[Additive()])
    table = summarize_scores(scores)
    assert table.loc["additive", "n_conditions"] == 5
    assert table.loc["additive", "l2"] == pytest.approx(0.446, abs=5e-4)
    assert table.loc["additive", "pearson_delta"] == pytest.approx(0.870, abs=5e-4)
    assert table.loc["model", "l2"] == pytest.approx(0, abs=1e-5)
    assert table.loc["replicate ceiling", "l2"] == pytest.approx(0.251, abs=0.005)
    assert table.loc["replicate ceiling", "pearson_delta"] == pytest.approx(0.922, abs=0.005)
