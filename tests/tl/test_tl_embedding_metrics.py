"""tl.embedding_metrics: scores by hand, agreement with scipy, and what no change and shuffling give."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import spearmanr

from scjepa.tl import embedding_metrics, summarize_scores

KEY = {"perturbation_key": "p"}


@pytest.fixture
def pair() -> tuple[ad.AnnData, ad.AnnData]:
    rng = np.random.default_rng(0)
    label, context = np.repeat(["control", "A", "B", "C"], 6), np.tile(["x", "y"], 12)
    obs = pd.DataFrame({"p": label, "cell_type": context}, index=[f"c{i}" for i in range(24)])
    z = rng.normal(size=(24, 5)) + 3 * (context == "y")[:, None]
    for j, name in enumerate("ABC"):
        z[label == name, j] += 4
    real = ad.AnnData(np.ones((24, 1)), obs=obs, obsm={"X_jepa": z})
    pred = real[label != "control"].copy()
    pred.obsm["X_jepa"] = pred.obsm["X_jepa"] + rng.normal(size=(18, 5)) * 0.5
    return pred, real


def value(table, method, metric, perturbation="A", context="x") -> float:
    rows = table[(table.method == method) & (table.metric == metric)]
    return rows[(rows.perturbation == perturbation) & (rows.context == context)]["value"].item()


def mean(adata, perturbation, context="x"):
    return adata.obsm["X_jepa"][(adata.obs.p == perturbation) & (adata.obs.cell_type == context)].mean(0)


def test_agrees_with_scipy(pair):
    pred, real = pair
    table = embedding_metrics(pred, real, **KEY, context_key="cell_type")
    z, true, start = mean(pred, "A"), mean(real, "A"), mean(real, "control")
    expected = {
        "cosine": 1 - cosine(z, true),
        "l2": np.linalg.norm(z - true),
        "spearman": spearmanr(z, true).statistic,
        "cosine_shift": 1 - cosine(z - start, true - start),
        "spearman_shift": spearmanr(z - start, true - start).statistic,
    }
    for metric, number in expected.items():
        assert value(table, "model", metric) == pytest.approx(number), metric
    assert value(table, "no change", "l2") == pytest.approx(np.linalg.norm(start - true))
    assert np.isnan(value(table, "no change", "cosine_shift"))
    others = [np.linalg.norm(mean(pred, p) - true) for p in "BC"]
    assert value(table, "shuffled conditions", "l2") == pytest.approx(np.mean(others))


def test_a_prediction_that_only_knows_the_context_does_not_beat_shuffled_conditions(pair):
    pred, real = pair
    shared = real[real.obs.p != "control"]
    for context in "xy":
        pred.obsm["X_jepa"][(pred.obs.cell_type == context).to_numpy()] = (
            shared[shared.obs.cell_type == context].obsm["X_jepa"].mean(0)
        )
    table = embedding_metrics(pred, real, **KEY, context_key="cell_type")
    wide = table.pivot_table(index=["perturbation", "context", "metric"], columns="method", values="value")
    np.testing.assert_allclose(wide["model"], wide["shuffled conditions"])


def test_perfect_prediction_and_one_condition(pair):
    _, real = pair
    pred = real[real.obs.p == "A"].copy()
    table = embedding_metrics(pred, real, **KEY, context_key="cell_type", method="mine")
    for metric, best in (("cosine", 1), ("l2", 0), ("spearman", 1), ("cosine_shift", 1), ("spearman_shift", 1)):
        assert value(table, "mine", metric) == pytest.approx(best)
    assert table.loc[table.method == "shuffled conditions", "value"].isna().all(), "no other condition to shuffle with"
    assert pred.uns["jepa"]["embedding_metrics"].shape == table.shape
    summary = summarize_scores(table)
    assert summary.loc["mine", "l2"] == pytest.approx(0) and summary.loc["no change", "l2"] > 2


def test_the_record_of_the_prediction_names_the_columns(pair):
    pred, real = pair
    pred.uns["jepa"] = {"prediction": {"perturbation_key": "p", "control": "control", "context_key": "cell_type"}}
    assert set(embedding_metrics(pred, real)["context"]) == {"x", "y"}
    assert set(embedding_metrics(pred, real, context_key="")["context"]) == {"all"}


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "match"),
    [
        (lambda p, r: r.obsm.pop("X_jepa"), {}, KeyError, "obsm='X_jepa' is not in real.obsm.*get_latent"),
        (lambda p, r: r.obsm.update(X_jepa=np.ones((24, 4))), {}, ValueError, "has 5 dimensions, real.* has 4"),
        (lambda p, r: p.obsm["X_jepa"].fill(np.nan), {}, ValueError, r"pred.obsm\['X_jepa'\].*finite numbers"),
        (lambda p, r: None, {"method": "no change"}, ValueError, "method='no change' is the name of a baseline"),
        (lambda p, r: p.obs.insert(0, "q", "control"), {"perturbation_key": "q"}, ValueError, "pred has no predicted"),
    ],
)
def test_errors(pair, change, kwargs, error, match):
    pred, real = pair
    change(pred, real)
    with pytest.raises(error, match=match):
        embedding_metrics(pred, real, **{**KEY, **kwargs})
