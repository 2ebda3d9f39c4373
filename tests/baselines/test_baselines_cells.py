"""Baselines on AnnData: the same answers as on tables, the models' signatures, and what bad input gets."""

from __future__ import annotations

import logging
from inspect import signature

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa import PerturbJEPA, tl
from scjepa.baselines import BASELINES, Additive, ContextTransfer, MeanEffect, NoChange
from scjepa.data import condition_table, shift_cells

EFFECT = {"control": [0, 0, 0, 0], "A": [1, 0, 0, 0], "B": [0, 0.5, 0, 0.25], "A+B": [1, 0.5, 0.5, 0]}


@pytest.fixture
def screen() -> ad.AnnData:
    """Two lines x four labels x 6 cells; noise sums to zero in every condition, so effects are exact."""
    rng = np.random.default_rng(0)
    blocks, obs = [], []
    for j, line in enumerate(["x", "y"]):
        for label, effect in EFFECT.items():
            noise = rng.uniform(-0.5, 0.5, (6, 4))
            blocks.append(3.0 + j + np.array(effect) * (1 + j) + noise - noise.mean(0))
            obs += [(label, line)] * 6
    frame = pd.DataFrame(obs, columns=["p", "line"], index=[f"cell{i}" for i in range(48)])
    return ad.AnnData(np.vstack(blocks), obs=frame, var=pd.DataFrame(index=["g1", "g2", "g3", "g4"]))


def test_predictions_have_the_signature_of_the_models():
    own = signature(Additive.predict_perturbation).parameters
    models = {k: v for k, v in signature(PerturbJEPA.predict_perturbation).parameters.items() if k in own}
    assert list(own) == list(models)
    assert [(p.kind, p.default) for p in own.values()] == [(p.kind, p.default) for p in models.values()]


def test_predicted_cells_are_controls_moved_by_the_effect(screen):
    baseline = Additive().fit_anndata(screen, "p", context_key="line", holdout=["A+B"])
    pred = baseline.predict_perturbation("B+A")
    assert pred.shape == (12, 4) and pred.X.dtype == np.float32
    upper = screen[screen.obs["p"] != "A+B"].X.max(0)  # of the training cells: in g2 it counts
    for j, line in enumerate(["x", "y"]):
        controls = screen[(screen.obs["p"] == "control") & (screen.obs["line"] == line)]
        moved = shift_cells(controls.X, (1 + j) * np.array([1, 0.5, 0, 0.25]), upper)
        here = pred[pred.obs["line"] == line]
        np.testing.assert_allclose(here.X, moved, rtol=1e-6)
        assert here.obs["source"].tolist() == controls.obs_names.tolist()
    assert (pred.X <= upper.astype(np.float32)).all()
    held_out = screen.copy()
    held_out.X[(screen.obs["p"] == "A+B").to_numpy()] += 4  # nobody looks at them
    again = Additive().fit_anndata(held_out, "p", context_key="line", holdout=["A+B"]).predict_perturbation("B+A")
    np.testing.assert_array_equal(again.X, pred.X)
    assert set(pred.obs["p"]) == {"B+A"} and set(pred.obs["jepa_prediction"]) == {"predicted"}
    assert pred.obs_names.is_unique and pred.var_names.tolist() == screen.var_names.tolist()


def test_it_is_the_table_interface_with_cells_around_it(screen):
    for cls in (cls for cls in BASELINES.values() if cls not in (ContextTransfer,)):
        baseline = cls().fit_anndata(screen, "p", context_key="line")
        table = cls().fit(condition_table(screen, "p", context_key="line"))
        np.testing.assert_array_equal(baseline.table_.effects, table.table_.effects)
        wanted = table.effects(table.table_.rows([2]))  # the last label of the first line in alphabetical order
        action, place = table.table_.actions[2], str(table.table_.contexts[2])
        if not np.isfinite(wanted).all():
            continue
        pred = baseline.predict_perturbation("+".join(action), context=place)
        control = screen[(screen.obs["p"] == "control") & (screen.obs["line"] == place)].X.mean(0)
        np.testing.assert_allclose(pred.X.mean(0) - control, wanted[0], atol=1e-5)


def test_evaluate_needs_no_arguments_and_agrees_with_its_own_row(screen):
    baseline = Additive().fit_anndata(screen, "p", context_key="line", holdout=["A+B"])
    scores = tl.evaluate(baseline.predict_perturbation("A+B", include_control=True), screen, method="mine", n_pcs=3)
    table = tl.summarize_scores(scores)
    pd.testing.assert_series_equal(table.loc["mine"], table.loc["additive"], check_names=False, rtol=1e-4)
    assert table.loc["mine", "l2"] == pytest.approx(np.mean([1, 2]) * np.linalg.norm([0.5, 0.25]), rel=1e-5)


def test_holdout_by_perturbation_context_or_pair(screen):
    fitted = lambda holdout: MeanEffect().fit_anndata(screen, "p", context_key="line", holdout=holdout).table_
    names = lambda table: {("+".join(a), str(c)) for a, c in zip(table.actions, table.contexts, strict=True)}
    every = {(p, c) for p in ("A", "B", "A+B") for c in ("x", "y")}
    assert names(fitted(None)) == every
    assert names(fitted(["B+A"])) == {pair for pair in every if pair[0] != "A+B"}
    assert names(fitted(["y"])) == {pair for pair in every if pair[1] == "x"}
    assert names(fitted([("A", "y")])) == every - {("A", "y")}
    with pytest.raises(ValueError, match="holdout entry 'Z' matches no perturbed cells"):
        fitted(["Z"])


def test_new_contexts_new_cells_and_gene_order(screen):
    """Cells of a new line without labels, genes shuffled: all of them are controls of the context that is named."""
    baseline = Additive().fit_anndata(screen, "p", context_key="line", holdout=["A+B"])
    new = ad.AnnData(np.tile([5.5, 9.0, 6.0, 7.0, 8.0], (3, 1)), var=pd.DataFrame(index=["g4", "no", "g1", "g3", "g2"]))
    pred = baseline.predict_perturbation("A+B", new, context="z")
    # single effects are averaged over the two lines: 1.5 times; no gene beyond what training cells or controls show
    upper = np.maximum(screen[screen.obs["p"] != "A+B"].X.max(0), [6, 8, 7, 5.5])
    wanted = np.minimum([6 + 1.5, 8 + 0.75, 7, 5.5 + 0.375], upper)
    np.testing.assert_allclose(pred.X, np.tile(wanted, (3, 1)), rtol=1e-6)
    assert set(pred.obs["line"]) == {"z"}
    with pytest.raises(ValueError, match="adata.obs has no column 'line'"):
        baseline.predict_perturbation("A+B", new)
    with pytest.raises(ValueError, match="1 of the 4 training genes are missing from adata.var_names: 'g3'"):
        baseline.predict_perturbation("A+B", new[:, ["g4", "g1", "g2"]].copy(), context="z")


def test_number_of_cells_controls_and_seed(screen):
    baseline = NoChange().fit_anndata(screen, "p", context_key="line")
    pred = baseline.predict_perturbation(["A", "A+B"], n_cells=4, include_control=True, context=["y"], seed=1)
    assert pred.obs["p"].tolist() == ["control"] * 4 + ["A"] * 4 + ["A+B"] * 4
    assert pred.obs["jepa_prediction"].tolist() == ["control"] * 4 + ["predicted"] * 8
    np.testing.assert_array_equal(pred.X[:4], pred.X[4:8])
    np.testing.assert_allclose(pred.X[:4], screen[pred.obs["source"][:4].tolist()].X, rtol=1e-6)
    again = baseline.predict_perturbation(["A", "A+B"], n_cells=4, include_control=True, context=["y"], seed=1)
    other = baseline.predict_perturbation(["A", "A+B"], n_cells=4, include_control=True, context=["y"], seed=2)
    assert again.obs["source"].tolist() == pred.obs["source"].tolist() != other.obs["source"].tolist()
    many = baseline.predict_perturbation("A", n_cells=50, context="x")
    assert many.n_obs == 50 and many.obs_names.is_unique


def test_indices_select_controls(screen, caplog):
    baseline = NoChange().fit_anndata(screen, "p", context_key="line")
    with caplog.at_level(logging.INFO, logger="scjepa"):
        pred = baseline.predict_perturbation("A", indices=np.array([0, 2, 7]))  # 7 is a perturbed cell
    assert pred.obs["source"].tolist() == ["cell0", "cell2"]
    assert "1 of the selected cells are not controls" in caplog.text
    mask = (screen.obs["line"] == "y").to_numpy()
    assert set(baseline.predict_perturbation("A", indices=mask).obs["line"]) == {"y"}
    for indices, error, match in [
        (mask[:5], ValueError, "the boolean mask has 5 entries for 48 cells"),
        (["cell0"], ValueError, "expected integers or a boolean mask"),
        ([48], IndexError, "indices run from 48 to 48, but there are 48 cells"),
        ([], ValueError, "no cells selected"),
        ([7], ValueError, "none of the 1 selected cells is a control"),
    ]:
        with pytest.raises(error, match=match):
            baseline.predict_perturbation("A", indices=indices)


def test_counts_sparse_layers_and_batches():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(4.0, size=(40, 6)).astype(np.float32))
    obs = pd.DataFrame({"p": ["control", "A"] * 20, "b": ["1"] * 20 + ["2"] * 20}, index=[f"c{i}" for i in range(40)])
    cells = ad.AnnData(sp.csr_matrix((40, 6), dtype=np.float32), obs=obs, layers={"counts": counts})
    baseline = MeanEffect().fit_anndata(cells, "p", layer="counts", batch_key="b")
    np.testing.assert_array_equal(
        baseline.table_.effects, condition_table(cells, "p", layer="counts", batch_key="b").effects
    )
    pred = baseline.predict_perturbation("A", include_control=True)
    dense = counts.toarray()
    lognorm = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(pred.X[:20], lognorm[::2], rtol=1e-5)
    with pytest.raises(ValueError, match="layer='counts' is not among adata.layers"):
        baseline.predict_perturbation("A", ad.AnnData(np.ones((2, 6)), var=cells.var))


def test_what_the_baseline_can_not_predict(screen):
    baseline = Additive().fit_anndata(screen, "p", context_key="line")
    with pytest.raises(ValueError, match="'additive' has no prediction for 2 of 4 conditions: 'A in x', 'A in y'"):
        baseline.predict_perturbation(["A", "A+B"])
    for asked, match in [([], "perturbations is empty"), (["A", "A"], "more than once"), ("control", "is the control")]:
        with pytest.raises(ValueError, match=match):
            baseline.predict_perturbation(asked)
    with pytest.raises(ValueError, match="context='z' is not among the contexts with control cells"):
        baseline.predict_perturbation("A+B", context="z")
    with pytest.raises(ValueError, match="there is no context_key"):
        NoChange().fit_anndata(screen, "p").predict_perturbation("A", context="x")
    with pytest.raises(ValueError, match="n_cells=0: expected a whole number"):
        baseline.predict_perturbation("A+B", n_cells=0)
    with pytest.raises(TypeError, match="adata: expected an AnnData, got DataFrame"):
        baseline.predict_perturbation("A+B", screen.to_df())


def test_not_fitted_on_cells(screen):
    message = r"Additive was not fitted on cells: call fit_anndata\(adata, perturbation_key\) first"
    for baseline in (Additive(), Additive().fit(condition_table(screen, "p"))):
        with pytest.raises(RuntimeError, match=message):
            baseline.predict_perturbation("A+B")


def test_state_holds_no_cells(screen):
    baseline = Additive().fit_anndata(screen, "p", context_key="line")
    assert set(baseline.state()) == {"table_"}
    copy = Additive.from_state(baseline.state())
    np.testing.assert_array_equal(copy.effects(copy.table_), baseline.effects(baseline.table_))
