"""Predictions stay possible: no gene beyond what training cells show, and the package reads what it predicted."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scjepa
from scjepa import PerturbJEPA
from scjepa._scale import check_scale, lognormalise
from scjepa.baselines import Additive

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
TRIPLE = "A+B+C"


def activations(seed: int = 0) -> ad.AnnData:
    """Counts per million, logged, of 40 genes; A, B and C each raise the same three genes, together no more than one."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["control", "A", "B", "C", "A+B", TRIPLE], [60, 30, 30, 30, 30, 30])
    rate = np.tile(rng.gamma(2.0, 4.0, 40) + 1, (len(labels), 1))
    rate[:, :3] = 0.3
    rate[labels != "control", :3] = 60.0
    counts = rng.poisson(rate * rng.lognormal(0, 0.3, (len(labels), 1)))
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(np.asarray(lognormalise(counts, 1e6)), obs=obs)


def fitted(adata: ad.AnnData, *, train: dict | None = None, setup: dict | None = None, **init) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, "p", **(setup or {}))
    model = PerturbJEPA(adata, **{"n_pcs": 10, "n_latent": 6, **init})
    model.train(**{**QUIET, "holdout": [TRIPLE], **(train or {})})
    return model


def highest(adata: ad.AnnData) -> np.ndarray:
    """Largest value of each gene outside the held-out condition."""
    return adata.X[(adata.obs["p"] != TRIPLE).to_numpy()].max(0)


@pytest.fixture(scope="module")
def model() -> PerturbJEPA:
    return fitted(activations())


def test_sums_of_strong_activations_are_possible_cells(model: PerturbJEPA) -> None:
    """Without a bound the anchor puts three genes beyond anything that is logged, and evaluation refused them."""
    design = model._design
    table = design.table(design.ask(TRIPLE, ["all"]), model.anchor_.table_.control[:1])
    asked = model.anchor_.table_.control[0] + model.anchor_.effects(table)[0]
    assert asked[:3].min() > 15
    predicted = model.predict_perturbation([TRIPLE, "A+C"], include_control=True)
    assert (predicted.X <= highest(model.adata)).all() and (predicted.X >= 0).all()
    cells = predicted[predicted.obs["p"] == TRIPLE].X
    np.testing.assert_array_equal(cells[:, :3], np.tile(highest(model.adata)[:3], (60, 1)))  # the mean is beyond it
    control = predicted[predicted.obs["p"] == "control"].X.mean(0)
    inside = np.flatnonzero((asked > 0) & (asked < highest(model.adata)))
    assert len(inside) > 30
    effect = model.predict_effect(TRIPLE)["effect"].to_numpy()
    np.testing.assert_allclose(cells.mean(0, dtype=np.float64) - control, effect, atol=1e-4)


def test_the_package_reads_its_own_predictions(model: PerturbJEPA) -> None:
    predicted = model.predict_perturbation(TRIPLE, include_control=True)
    assert check_scale(predicted.X) == "lognorm"
    scores = scjepa.tl.evaluate(predicted, model.adata, metrics=["l2", "e_distance"], baselines=[Additive()])
    mean = scores.groupby(["method", "metric"])["value"].mean()
    assert mean["model", "l2"] < mean["additive", "l2"] / 2  # the real cells show no more than A alone does
    PerturbJEPA.setup_anndata(predicted, "p")
    again = PerturbJEPA(predicted, n_pcs=5, n_latent=4, residual=False)
    again.train(**QUIET)
    assert (again.max_expression_ <= model.max_expression_).all()


@pytest.mark.parametrize(
    ("init", "train"),
    [
        ({"anchor": None}, {}),
        ({"set_loss": "energy"}, {"joint": True}),
        ({"anchor": "additive", "residual": False}, {}),
        ({"predictor_input": "both"}, {"plan_kwargs": {"lr": 0.05}, "max_epochs": 3}),
    ],
)
def test_every_kind_of_model_is_bounded(init: dict, train: dict) -> None:
    model = fitted(activations(1), train=train, **init)
    np.testing.assert_array_equal(model.max_expression_, highest(model.adata))
    assert model.max_expression_.dtype == np.float32
    predicted = model.predict_perturbation(TRIPLE)
    assert (predicted.X <= highest(model.adata)).all() and (predicted.X >= 0).all()


def test_intervals_hold_possible_means(model: PerturbJEPA) -> None:
    found = model.predict_effect(TRIPLE)
    control = model.adata.X[(model.adata.obs["p"] == "control").to_numpy()].mean(0, dtype=np.float64)
    one_count = np.log1p(model.reference_unit_)
    most = np.maximum(highest(model.adata), one_count)
    assert (found["effect"] + control <= highest(model.adata) + 1e-6).all()
    assert (found["upper"] + control <= most * (1 + 2e-5)).all()
    assert (found["lower"] + control >= -1e-4).all()
    assert (found["lower"] <= found["effect"]).all() and (found["effect"] <= found["upper"]).all()
    assert found["effect"].to_numpy()[:3] == pytest.approx((highest(model.adata) - control)[:3], abs=1e-5)


def test_a_gene_that_no_training_cell_shows_stays_silent_but_may_be_found() -> None:
    adata = activations()
    adata.X[(adata.obs["p"] != TRIPLE).to_numpy(), 7] = 0
    model = fitted(adata)
    assert model.max_expression_[7] == 0
    assert model.predict_perturbation(TRIPLE).X[:, 7].max() == 0
    row = model.predict_effect(TRIPLE).iloc[7]
    assert row["effect"] == row["lower"] == 0 < row["upper"] <= np.log1p(model.reference_unit_) * 1.0001


def test_controls_beyond_the_training_cells_stay_as_they_are(model: PerturbJEPA) -> None:
    """Other cells may show more: what was measured is possible, and the bound of that gene is theirs."""
    query = model.adata[(model.adata.obs["p"] == "control").to_numpy()].copy()
    query.X[0, 5], query.X[:, 6] = 14.5, query.X[:, 6] + 4
    query.X = np.minimum(query.X, 14.9)
    bound = np.maximum(highest(model.adata), query.X.max(0))
    assert (bound > highest(model.adata)).sum() >= 2
    predicted = model.predict_perturbation(TRIPLE, query)
    assert (predicted.X <= bound).all()
    dosed = activations()
    dosed.obs["dose"] = np.where(dosed.obs["p"] == "control", 0.0, 1.0)
    nothing = fitted(dosed, setup={"dose_key": "dose"}).predict_perturbation(TRIPLE, query.copy(), dose=0.0)
    np.testing.assert_array_equal(nothing.X, query.X)


def test_held_out_and_validation_cells_are_not_looked_at() -> None:
    adata = activations()
    changed = adata.copy()
    changed.X[(adata.obs["p"] == TRIPLE).to_numpy()] *= 1.2
    assert changed.X.max() < 15
    np.testing.assert_array_equal(fitted(changed).max_expression_, highest(adata))
    part = fitted(adata, train={"train_size": 0.7})
    np.testing.assert_array_equal(part.max_expression_, adata.X[part.train_indices].max(0))


def test_the_bound_is_kept(model: PerturbJEPA, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model.save(str(tmp_path / "s"))
    model.export(tmp_path / "e")
    for folder in ("s", "e"):
        again = PerturbJEPA.load(str(tmp_path / folder), model.adata.copy())
        np.testing.assert_array_equal(again.max_expression_, model.max_expression_)
        np.testing.assert_array_equal(again.predict_perturbation(TRIPLE).X, model.predict_perturbation(TRIPLE).X)


def test_query_models_know_what_both_showed(model: PerturbJEPA) -> None:
    new = activations(2)
    new.X[:, 10] *= 0.1
    new.X[(new.obs["p"] == "A").to_numpy(), 11] = 13.0
    query = PerturbJEPA.load_query_data(new, model)
    np.testing.assert_array_equal(query.max_expression_, model.max_expression_)
    query.train(holdout=[TRIPLE], **QUIET)
    np.testing.assert_array_equal(query.max_expression_, np.maximum(model.max_expression_, highest(new)))
    assert query.max_expression_[10] == model.max_expression_[10] and query.max_expression_[11] == 13


def test_models_saved_before_it_was_recorded_have_no_bound(model: PerturbJEPA) -> None:
    old = PerturbJEPA.load_query_data(activations(), model)
    old.max_expression_ = old.reference_["max_expression"] = None
    assert old.predict_perturbation(TRIPLE).X[:, :3].max() > 15
    assert np.isfinite(old.predict_effect(TRIPLE)[["effect", "lower", "upper"]]).all(None)
    old.reference_.pop("max_expression")
    old.train(holdout=[TRIPLE], **QUIET)
    assert old.max_expression_ is None


def test_profiles_may_go_beyond_every_profile() -> None:
    """The mean of a combination can well lie beyond all means that were measured; no gene beyond the highest one."""
    adata = activations()
    labels = ["control", "A", "B", "C", "A+B"]
    x = np.stack([adata.X[(adata.obs["p"] == name).to_numpy()].mean(0) for name in labels])
    x[:, 9] = [1.0, 2.0, 2.0, 2.0, 3.0]
    model = fitted(
        ad.AnnData(x, obs=pd.DataFrame({"p": labels}, index=labels)), train={"holdout": None}, anchor=Additive()
    )
    predicted = model.predict_perturbation(TRIPLE).X[0]
    assert predicted[9] == pytest.approx(4.0, abs=1e-3)
    assert predicted[:3].tolist() == [x.max().astype(np.float32)] * 3
    baseline = Additive().fit_anndata(model.adata, "p")
    np.testing.assert_allclose(baseline.predict_perturbation(TRIPLE).X[0], predicted, atol=1e-5)


@pytest.mark.parametrize("target", [0, -1.0, float("nan"), 1e7, "much", True])
def test_a_target_sum_that_is_not_logged_to_possible_values_is_refused(target) -> None:
    adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=10, n_control=20)
    for cls, key in ((PerturbJEPA, ["perturbation"]), (scjepa.ExpressionJEPA, [])):
        with pytest.raises(ValueError, match=r"target_sum=.*: expected a number above 0 and below 3.27e\+06"):
            cls.setup_anndata(adata, *key, target_sum=target)


def test_counts_per_million_are_evaluated_as_they_were_predicted() -> None:
    adata = scjepa.datasets.simulate_perturbseq(60, 8, 5, 4, n_cells=30, n_control=60, contexts=("one",))
    adata.obs["p"] = adata.obs["perturbation"]
    double = sorted(p for p in adata.obs["p"].unique() if "+" in p)[0]
    model = fitted(adata, setup={"target_sum": 1e6}, train={"holdout": [double]})
    predicted = model.predict_perturbation([double, "+".join(model.actions_)], include_control=True)
    assert (predicted.X <= model.max_expression_).all()
    real = adata.copy()
    sc.pp.normalize_total(real, target_sum=1e6)
    sc.pp.log1p(real)
    scored = predicted[predicted.obs["p"].isin(["control", double])].copy()
    scores = scjepa.tl.evaluate(scored, real, metrics="l2").groupby("method")["value"].mean()
    assert scores["model"] < scores["no change"]
