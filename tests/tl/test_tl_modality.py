"""``evaluate_modality``: values against scikit-learn and numpy, rows beside the model, halves, doors."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import root_mean_squared_error

from scjepa import pl
from scjepa.baselines.modalities import RidgeModality
from scjepa.tl import evaluate_modality, format_scores


def cells(x, names=None, features="f"):
    names = [f"cell{i}" for i in range(len(x))] if names is None else names
    var = pd.DataFrame(index=[f"{features}{j}" for j in range(x.shape[1])])
    return ad.AnnData(np.asarray(x, dtype=np.float32), obs=pd.DataFrame(index=names), var=var)


@pytest.fixture
def paired():
    """RNA, protein on a real scale, and a prediction of the last 60 cells that is right but for noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 12)) ** 2
    y = np.stack([2 * x[:, 0], x[:, 1] + x[:, 2], np.zeros(260), x[:, 3]], 1) + 0.5 * rng.normal(size=(260, 4)) * [
        1,
        1,
        0,
        1,
    ]
    rna, protein = cells(x, features="g"), cells(y, features="p")
    pred = protein[200:].copy()
    pred.X = pred.X + 0.3 * rng.normal(size=pred.shape).astype(np.float32)
    return rna, protein, pred


def value(scores, method, metric, feature=None):
    part = scores[(scores["method"] == method) & (scores["metric"] == metric)]
    return float((part if feature is None else part[part["perturbation"] == feature])["value"].iloc[0])


def test_values_are_those_of_the_formulas(paired):
    rna, protein, pred = paired
    scores = evaluate_modality(pred, protein, train=(rna[:200], protein[:200]), source=rna[200:])
    truth = protein[200:].X
    assert value(scores, "model", "rmse") == pytest.approx(root_mean_squared_error(truth.ravel(), pred.X.ravel()))
    assert value(scores, "model", "rmse_feature", "p1") == pytest.approx(
        root_mean_squared_error(truth[:, 1], pred.X[:, 1])
    )
    r = np.corrcoef(truth[:, 0], pred.X[:, 0])[0, 1]
    assert value(scores, "model", "pearson_feature", "p0") == pytest.approx(r, abs=1e-6)
    assert np.isnan(value(scores, "model", "pearson_feature", "p2"))  # constant in the measured cells
    assert value(scores, "mean", "pearson_feature", "p0") == 0
    by_cell = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(truth, pred.X, strict=True)])
    assert value(scores, "model", "pearson_cell") == pytest.approx(by_cell, abs=1e-5)
    ridge = RidgeModality().fit(rna[:200].X, protein[:200].X.astype(float)).predict(rna[200:].X)
    assert value(scores, "ridge", "rmse") == pytest.approx(np.sqrt(((ridge - truth) ** 2).mean()), rel=1e-4)
    assert list(dict.fromkeys(scores["method"])) == ["model", "mean", "ridge", "nearest cells", "kernel ridge"]
    pd.testing.assert_frame_equal(pred.uns["jepa"]["modality_scores"].reset_index(drop=True), scores, check_dtype=False)


def test_order_of_cells_and_features_does_not_matter(paired):
    rna, protein, pred = paired
    order = np.random.default_rng(1).permutation(260)
    ask = lambda p: evaluate_modality(
        pred, p, train=(rna[:200], p[[n for n in p.obs_names if int(n[4:]) < 200]]), source=rna
    )
    shuffled = protein[order][:, ["p3", "p1", "p0", "p2"]].copy()
    a, b = ask(protein), ask(shuffled)
    pd.testing.assert_frame_equal(a, b, rtol=1e-3)


def test_intervals_and_batches(paired):
    _, protein, pred = paired
    pred.layers["lower"], pred.layers["upper"] = pred.X - 0.5, pred.X + 0.5
    protein.obs["batch"] = np.where(np.arange(260) % 2, "a", "b")
    scores = evaluate_modality(pred, protein, batch_key="batch")
    inside = np.abs(pred.X - protein[200:].X) <= 0.5
    mine = (protein[200:].obs["batch"] == "a").to_numpy()
    part = scores[(scores["metric"] == "coverage") & (scores["context"] == "a")].set_index("perturbation")["value"]
    np.testing.assert_allclose(part[["p0", "p1", "p2", "p3"]], inside[mine].mean(0))
    assert set(scores["kind"]) == {"model"}


def test_counts_are_brought_to_the_scale_and_halved():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(3, 1, (80, 1)) * 0.2 + rng.normal(2, 1, 6)))
    protein = cells(counts.astype(float))
    logged = np.log1p(counts)
    pred = cells(logged - logged.mean(1, keepdims=True))
    scores = evaluate_modality(pred, protein, scale="clr")
    assert value(scores, "model", "rmse") == pytest.approx(0, abs=1e-6)
    assert 0 < value(scores, "replicate ceiling", "rmse") < 1
    pred.uns["jepa"] = {"prediction": {"scale": "clr"}}
    assert value(evaluate_modality(pred, protein), "model", "rmse") == pytest.approx(0, abs=1e-6)


def test_printer_and_figure_take_the_table(paired):
    rna, protein, pred = paired
    pred.layers["lower"], pred.layers["upper"] = pred.X - 0.5, pred.X + 0.5
    scores = evaluate_modality(pred, protein, train=(rna[:200], protein[:200]), source=rna[200:])
    text = format_scores(scores)
    assert "rmse feature" in text or "rmse_feature" in text
    assert "model" in text and "kernel ridge" in text
    figure_axes = pl.scores(scores, ["rmse", "pearson_feature"])
    assert figure_axes is not None


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r, p, q: evaluate_modality(q, p[:100]), KeyError, "real lacks 60 of 60 predicted cells"),
        (lambda r, p, q: evaluate_modality(q, p[:, 1:]), KeyError, "real lacks 1 of 4 predicted features"),
        (lambda r, p, q: evaluate_modality(q, p, metrics="mae"), ValueError, "mae"),
        (lambda r, p, q: evaluate_modality(q, p, method="ridge"), ValueError, "name of another row"),
        (lambda r, p, q: evaluate_modality(q, p, scale="log"), ValueError, "log"),
        (lambda r, p, q: evaluate_modality(q, p, train=(r[:200], p[:150]), source=r), ValueError, "50 cells of the source"),
        (lambda r, p, q: evaluate_modality(q, p, train=(r, p), source=r), ValueError, "60 predicted cells are among those"),
        (lambda r, p, q: evaluate_modality(q, p, train=(r[:200], p[:200])), ValueError, "train without source"),
        (lambda r, p, q: evaluate_modality(q, p, scale="tfidf"), ValueError, "give train"),
        (lambda r, p, q: evaluate_modality(q, p, batch_key="b"), KeyError, "neither in real.obs nor in pred.obs"),
    ],
)  # fmt: skip
def test_errors(paired, ask, error, message):
    with pytest.raises(error, match=message):
        ask(*paired)


def test_counts_without_a_scale_are_refused():
    counts = cells(np.random.default_rng(0).poisson(5, (20, 3)).astype(float))
    pred = cells(np.random.default_rng(1).normal(size=(20, 3)))
    with pytest.raises(ValueError, match="real holds counts and pred does not"):
        evaluate_modality(pred, counts)
