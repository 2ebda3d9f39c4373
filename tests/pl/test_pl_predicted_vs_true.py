"""pl.predicted_vs_true: dots are the effects, r is the Pearson Δ of tl.evaluate."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.text import Text

from scjepa import pl
from scjepa.tl import evaluate

KEY = "perturbation"


@pytest.fixture
def cells():
    """Real cells in two contexts and a noisy prediction of A+B."""
    rng = np.random.default_rng(0)
    label = np.tile(np.repeat(["control", "A", "B", "A+B"], 10), 2)
    x = rng.uniform(1, 3, size=(80, 12)) + np.where(label == "A+B", 1.0, 0.0)[:, None] * np.linspace(-1, 2, 12)
    obs = pd.DataFrame({KEY: label, "type": np.repeat(["t", "u"], 40)}, index=[f"c{i}" for i in range(80)])
    real = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(12)]))
    pred = real[label == "A+B"].copy()
    pred.X = pred.X + rng.normal(0, 0.4, size=(1, 12))
    return pred, real


def dots(ax) -> np.ndarray:
    """All dots, sorted by the true effect."""
    points = np.vstack([c.get_offsets() for c in ax.collections])
    return points[np.argsort(points[:, 0])]


def test_dots_are_effects_and_r_is_pearson_delta(cells):
    pred, real = cells
    ax = pl.predicted_vs_true(pred, real, "B+A", perturbation_key=KEY)
    label = real.obs[KEY].to_numpy()
    base, true = real.X[label == "control"].mean(0), real.X[label == "A+B"].mean(0)
    expected = np.column_stack([true - base, pred.X.mean(0) - base])
    np.testing.assert_allclose(dots(ax), expected[np.argsort(expected[:, 0])], rtol=1e-10)
    scores = evaluate(pred, real, perturbation_key=KEY, metrics="pearson_delta", baselines=None, ceiling=False)
    assert ax.get_title() == f"B+A: r = {scores['value'].item():.3f}"


def test_largest_true_effects_are_named(cells):
    pred, real = cells
    ax = pl.predicted_vs_true(pred, real, "A+B", perturbation_key=KEY, n_labels=3)
    label = real.obs[KEY].to_numpy()
    true = real.X[label == "A+B"].mean(0) - real.X[label == "control"].mean(0)
    assert {t.get_text() for t in ax.texts} == set(real.var_names[np.argsort(-np.abs(true))[:3]])


@pytest.mark.parametrize("dominant", [0, 6])
def test_names_do_not_overlap(cells, dominant):
    pred, real = cells
    real.var_names = [f"GENE{i}" for i in range(12)]
    pred.var_names = real.var_names
    label = real.obs[KEY].to_numpy()
    for adata, rows in ((real, label == "A+B"), (pred, slice(None))):
        adata.X[rows, :2] += dominant  # two genes far out: the others are one heap
    ax = pl.predicted_vs_true(pred, real, "A+B", perturbation_key=KEY, n_labels=12)
    ax.get_figure().canvas.draw()
    boxes = [Text.get_window_extent(t) for t in ax.texts]  # of the names without their lines
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)
    named = ax.transData.transform([t.xy for t in ax.texts])
    assert not any(box.contains(*dot) for box in boxes for dot in named)


def test_sparse_counts_context_gene_order_and_own_controls(cells):
    pred, real = cells
    counts = np.rint(np.expm1(real.X))
    real.layers["counts"] = sp.csr_matrix(counts)
    scaled = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    keep = (real.obs["type"] == "u").to_numpy()
    label = real.obs[KEY].to_numpy()
    true = scaled[(label == "A+B") & keep].mean(0) - scaled[(label == "control") & keep].mean(0)
    own = real[(label == "control") & keep].copy()
    both = ad.concat([pred[pred.obs["type"] == "u"], own])[:, ::-1].copy()
    both.X = sp.csr_matrix(both.X)
    both.uns["jepa"] = {"prediction": {"perturbation_key": KEY, "context_key": "type"}}
    ax = pl.predicted_vs_true(both, real, "A+B", layer="counts")
    points = dots(ax)
    effect = pred.X[(pred.obs["type"] == "u").to_numpy()].mean(0) - own.X.mean(0)
    np.testing.assert_allclose(points, np.column_stack([true, effect])[np.argsort(true)], rtol=1e-4, atol=1e-5)
    assert ax.get_title().startswith("A+B in u: r = ")


def test_own_axes_and_file(cells, tmp_path):
    figure, ax = plt.subplots()
    assert pl.predicted_vs_true(*cells, "A+B", perturbation_key=KEY, ax=ax, save=tmp_path / "p.png") is ax
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_errors(cells):
    pred, real = cells
    draw = pl.predicted_vs_true
    with pytest.raises(ValueError, match="perturbation_key is missing"):
        draw(pred, real, "A+B")
    with pytest.raises(ValueError, match=r"pred has no cells of perturbation 'A\+C'.*Did you mean 'A\+B'"):
        draw(pred, real, "A+C", perturbation_key=KEY)
    with pytest.raises(ValueError, match=r"real has no cells of perturbation 'A\+B'"):
        draw(pred, real[real.obs[KEY] != "A+B"].copy(), "A+B", perturbation_key=KEY)
    with pytest.raises(ValueError, match="in 2 contexts: give context, one of 't', 'u'"):
        draw(pred, real, "A+B", perturbation_key=KEY, context_key="type")
    with pytest.raises(ValueError, match="context='v' is not among the contexts of pred"):
        draw(pred, real, "A+B", perturbation_key=KEY, context_key="type", context="v")
    with pytest.raises(ValueError, match="real has no control cells"):
        draw(pred, real[real.obs[KEY] != "control"].copy(), "A+B", perturbation_key=KEY)
    with pytest.raises(ValueError, match="10 genes of pred are not in real.var_names: 'g0'"):
        draw(pred, real[:, 10:].copy(), "A+B", perturbation_key=KEY)
    with pytest.raises(ValueError, match="context='t' needs context_key"):
        draw(pred, real, "A+B", perturbation_key=KEY, context="t")
