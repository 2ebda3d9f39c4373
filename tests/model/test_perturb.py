"""PerturbJEPA: predictions against known answers, simulated truth and real doubles; provenance; bad input."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scjepa
from scjepa import PerturbJEPA
from scjepa.data import condition_table

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 60, "n_regulators": 8, "n_single": 5, "n_double": 4, "n_cells": 30, "n_control": 60, **options}
    )


def fitted(adata: ad.AnnData, *, train: dict | None = None, setup: dict | None = None, **init) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, **{"perturbation_key": "perturbation", "context_key": "context", **(setup or {})})
    model = PerturbJEPA(adata, **{"n_pcs": 10, "n_latent": 6, **init})
    model.train(**{"max_epochs": 1, **QUIET, **(train or {})})
    return model


@pytest.fixture(scope="module")
def double() -> str:
    return sorted(p for p in screen().obs["perturbation"].unique() if "+" in p)[0]


@pytest.fixture(scope="module")
def model(double: str) -> PerturbJEPA:
    return fitted(screen(), train={"holdout": [double]})


@pytest.fixture(scope="module")
def anchored(double: str) -> PerturbJEPA:
    return fitted(screen(), train={"holdout": [double]}, residual=False)


def mean_effect(model: PerturbJEPA, label: str, context: str) -> np.ndarray:
    predicted = model.predict_perturbation(label, context=context, include_control=True)
    control = (predicted.obs["jepa_prediction"] == "control").to_numpy()
    return predicted.X[~control].mean(0) - predicted.X[control].mean(0)


def test_without_the_network_the_prediction_is_the_anchor(anchored: PerturbJEPA, double: str) -> None:
    """The promise of the design: at the start the model is its closed-form anchor."""
    table = condition_table(anchored.adata, "perturbation", context_key="context")
    row = next(
        i for i, a in enumerate(table.actions) if "+".join(a) == double and table.contexts[i] == "state A"
    )  # as simulated, labels are sorted
    training = anchored.adata[anchored.adata.obs["perturbation"] != double]
    full = scjepa.baselines.KernelEffect().fit(condition_table(training, "perturbation", context_key="context"))
    wanted = np.maximum(table.control[row] + full.effects(table.rows([row]))[0], 0) - table.control[row]
    np.testing.assert_allclose(mean_effect(anchored, double, "state A"), wanted, atol=2e-3)


def test_untrained_network_changes_nothing(anchored: PerturbJEPA) -> None:
    x = np.random.default_rng(0).normal(size=(4, 7, 10)).astype(np.float32)
    import torch

    out = anchored.module.shift(torch.from_numpy(x), torch.eye(len(anchored.actions_))[:4])
    assert float(out.abs().max()) == 0.0


def test_simulated_truth_is_recovered(double: str) -> None:
    adata = screen(n_cells=80, n_control=200, depth=10_000, batch_effect=0.0)
    model = fitted(adata, train={"holdout": [double], "max_epochs": 3})
    truth = scjepa.datasets.true_effects(adata)
    for context in ("state A", "state B"):
        # rows of the truth: perturbation x context
        target = truth.loc[(double, context)].to_numpy() if isinstance(truth.index, pd.MultiIndex) else None
        assert target is not None
        predicted = mean_effect(model, double, context)
        assert np.corrcoef(predicted, target)[0, 1] > 0.9
        assert np.linalg.norm(predicted - target) < 0.5 * np.linalg.norm(target)
        assert 0.7 < np.linalg.norm(predicted) / np.linalg.norm(target) < 1.3


def test_order_of_genes_in_a_label_does_not_matter(model: PerturbJEPA, double: str) -> None:
    swapped = "+".join(reversed(double.split("+")))
    assert swapped != double
    one, other = model.predict_perturbation(double), model.predict_perturbation(swapped)
    np.testing.assert_array_equal(one.X, other.X)
    assert set(other.obs["perturbation"]) == {swapped}
    np.testing.assert_array_equal(model.predict_perturbation(double.replace("+", "+ctrl+")).X, one.X)


def test_order_of_cells_does_not_matter(anchored: PerturbJEPA, double: str) -> None:
    adata = screen()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    again = fitted(shuffled, train={"holdout": [double]}, residual=False)
    for context in ("state A", "state B"):
        np.testing.assert_allclose(
            mean_effect(again, double, context), mean_effect(anchored, double, context), atol=1e-3
        )


def test_a_question_is_answered_alike_alone_and_in_company(model: PerturbJEPA, double: str) -> None:
    seen = model.trained_on_["perturbation"].iloc[0]
    both = model.predict_perturbation([seen, double], n_cells=9)
    alone = model.predict_perturbation(double, n_cells=9)
    np.testing.assert_array_equal(both[both.obs["perturbation"] == double].X, alone.X)


def test_what_comes_out(model: PerturbJEPA, double: str, tmp_path: Path) -> None:
    out = model.predict_perturbation(double, n_cells=5, include_control=True, seed=3)
    assert out.shape == (20, 60)
    assert list(out.var_names) == list(model.adata.var_names)
    assert out.obs_names.is_unique
    assert out.X.dtype == np.float32
    assert (out.X >= 0).all()
    assert out.X.max() < 15
    assert out.obs["perturbation"].tolist() == ["control"] * 10 + [double] * 10
    assert out.obs["context"].tolist() == (["state A"] * 5 + ["state B"] * 5) * 2
    controls = model.adata.obs.loc[out.obs["source"]]
    assert set(controls["perturbation"]) == {"control"}
    assert (controls["context"].to_numpy() == out.obs["context"].to_numpy()).all()
    np.testing.assert_allclose(out.obsm["X_jepa"], model.get_latent(out.copy()), atol=1e-4)
    record = out.uns["jepa"]["prediction"]
    assert record["control"] == "control"
    assert double not in set(record["train"]["perturbation"])
    out.write_h5ad(tmp_path / "p.h5ad")
    again = ad.read_h5ad(tmp_path / "p.h5ad")
    np.testing.assert_array_equal(again.X, out.X)
    assert len(again.uns["jepa"]["prediction"]["train"]) == len(record["train"])


def test_included_controls_are_the_real_ones(model: PerturbJEPA, double: str) -> None:
    out = model.predict_perturbation(double, include_control=True, context="state B")
    control = out[out.obs["perturbation"] == "control"]
    real = model._read(model.adata).rows(model.adata.obs_names.get_indexer(control.obs["source"]))
    np.testing.assert_array_equal(control.X, real)


def test_more_cells_than_controls_and_seeds(model: PerturbJEPA, double: str) -> None:
    many = model.predict_perturbation(double, n_cells=100, context="state A")
    assert many.n_obs == 100
    assert many.obs_names.is_unique
    again = model.predict_perturbation(double, n_cells=100, context="state A")
    np.testing.assert_array_equal(many.X, again.X)
    other = model.predict_perturbation(double, n_cells=100, context="state A", seed=1)
    assert not np.array_equal(many.X, other.X)


def test_controls_of_another_adata_and_of_a_new_context(model: PerturbJEPA, double: str) -> None:
    own = model.predict_perturbation(double, context="state A")
    backwards = np.arange(model.adata.n_vars)[::-1]
    query = model.adata[model.adata.obs["context"] == "state A"][:, backwards].copy()
    np.testing.assert_allclose(model.predict_perturbation(double, query).X, own.X, atol=1e-5)
    query = query[query.obs["perturbation"] == "control"].copy()
    query.obs["context"] = "new state"
    new = model.predict_perturbation(double, query)
    assert set(new.obs["context"]) == {"new state"}
    del query.obs["context"]
    with pytest.raises(ValueError, match="has no column 'context'.*name the one context"):
        model.predict_perturbation(double, query)
    named = model.predict_perturbation(double, query, context="new state")
    np.testing.assert_allclose(named.X, new.X, atol=1e-5)
    del query.obs["perturbation"]
    np.testing.assert_allclose(model.predict_perturbation(double, query, context="new state").X, new.X, atol=1e-5)


def test_indices_choose_the_controls(model: PerturbJEPA, double: str, caplog: pytest.LogCaptureFixture) -> None:
    obs = model.adata.obs
    chosen = np.flatnonzero((obs["perturbation"] == "control") & (obs["context"] == "state B"))[:4]
    perturbed = np.flatnonzero(obs["perturbation"] != "control")[:3]
    with caplog.at_level(logging.INFO):
        out = model.predict_perturbation(double, indices=np.concatenate([chosen, perturbed]))
    assert out.obs["source"].tolist() == obs.index[chosen].tolist()
    assert "3 of the selected cells are not controls" in caplog.text
    with pytest.raises(ValueError, match="none of the 3 selected cells is a control"):
        model.predict_perturbation(double, indices=perturbed)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.predict_perturbation([]), "perturbations is empty"),
        (lambda m: m.predict_perturbation("control"), "is the control, not a perturbation"),
        (lambda m: m.predict_perturbation(["R01", "R01"]), "names 'R01' more than once"),
        (lambda m: m.predict_perturbation("R01++R02"), "has an empty part"),
        (lambda m: m.predict_perturbation("R01", context="state C"), "context='state C' is not among.*'state A'"),
        (lambda m: m.predict_perturbation("R01", dose=1.0), "set up without dose_key"),
        (lambda m: m.predict_perturbation("R01", kind="KD"), "set up without kind_key"),
        (lambda m: m.predict_perturbation("R01", n_cells=0), "n_cells=0: expected a whole number"),
        (lambda m: m.predict_perturbation("nogene"), "was not perturbed in any training cell and has no features"),
    ],
)
def test_bad_questions(model: PerturbJEPA, ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(model)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"anchor": "kernl"}, "anchor='kernl': expected 'kernel'"),
        ({"predictor_input": "x"}, "predictor_input='x'"),
        ({"residual": "maybe"}, "residual='maybe'"),
        ({"set_loss": "mse"}, "set_loss='mse'"),
        ({"regularizer": "none"}, "regularizer='none'"),
        ({"n_latent": 0}, "n_latent=0"),
    ],
)
def test_bad_models(init: dict, message: str) -> None:
    adata = screen()
    PerturbJEPA.setup_anndata(adata, "perturbation")
    with pytest.raises(ValueError, match=message):
        PerturbJEPA(adata, **init)


def test_bad_setups() -> None:
    adata = screen()
    with pytest.raises(ValueError, match="control='contrl'.*Did you mean 'control'"):
        PerturbJEPA.setup_anndata(adata, "perturbation", "contrl")
    with pytest.raises(KeyError, match="perturbation_key='perturbations' is not a column.*Did you mean 'perturbation'"):
        PerturbJEPA.setup_anndata(adata, "perturbations")
    with pytest.raises(ValueError, match="all cells are controls"):
        PerturbJEPA.setup_anndata(adata[adata.obs["perturbation"] == "control"].copy(), "perturbation")
    orphan = adata[~((adata.obs["perturbation"] == "control") & (adata.obs["context"] == "state B"))].copy()
    with pytest.raises(ValueError, match="1 contexts have perturbed cells but no control cells.*'state B'"):
        PerturbJEPA.setup_anndata(orphan, "perturbation", context_key="context")
    adata.obs["dose"] = -1.0
    with pytest.raises(ValueError, match="dose_key='dose'.*below 0"):
        PerturbJEPA.setup_anndata(adata, "perturbation", dose_key="dose")
    adata.obs["dose"] = "much"
    with pytest.raises(ValueError, match="dose_key='dose': 660 of 660 values are no doses of their labels.*'much'"):
        PerturbJEPA.setup_anndata(adata, "perturbation", dose_key="dose")
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object)
    adata.obs.iloc[:3, adata.obs.columns.get_loc("perturbation")] = np.nan
    with pytest.raises(ValueError, match="3 of .* cells have a missing value"):
        PerturbJEPA.setup_anndata(adata, "perturbation")


def test_bad_doses_at_prediction() -> None:
    adata = screen(doses=(0.5, 2.0), n_cells=10)
    model = fitted(adata, setup={"dose_key": "dose", "kind_key": "kind"})
    label = model.trained_on_["perturbation"].iloc[0]
    for dose in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="expected numbers of at least 0"):
            model.predict_perturbation(label, dose=dose)
    with pytest.raises(ValueError, match="kind='XX' is not among"):
        model.predict_perturbation(label, kind="XX")
    out = model.predict_perturbation(label, dose=[0.5, 2.0], n_cells=3, context="state A")
    assert out.obs["dose"].tolist() == [0.5] * 3 + [2.0] * 3
    low, high = out.X[:3] - out.X[:3].mean(), out.X[3:] - out.X[3:].mean()
    assert not np.allclose(low, high)


def test_stronger_dose_moves_cells_further() -> None:
    adata = screen(doses=(0.25, 0.5, 1.0), n_cells=40, context_effect=0.0)
    model = fitted(adata, setup={"dose_key": "dose"}, train={"max_epochs": 3})
    label = model.trained_on_["perturbation"].iloc[0]
    control = model.predict_perturbation(label, include_control=True, context="state A")
    start = control.X[(control.obs["perturbation"] == "control").to_numpy()].mean(0)
    norms = [
        np.linalg.norm(model.predict_perturbation(label, dose=d, context="state A").X.mean(0) - start)
        for d in (0.25, 0.5, 1.0)
    ]
    assert norms[0] < norms[1] < norms[2]


def test_genes_never_perturbed_are_predicted_from_loadings_or_embeddings(model: PerturbJEPA) -> None:
    unseen = next(g for g in model.adata.var_names if g not in model.actions_)
    out = model.predict_perturbation(unseen, n_cells=3)
    assert np.isfinite(out.X).all()
    genes = [*model.actions_, "elsewhere"]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(len(genes), 4)), index=genes)
    table.loc["elsewhere"] = table.loc[model.actions_[0]]
    with_features = fitted(screen(), gene_embeddings=table)
    assert with_features.predict_perturbation("elsewhere", n_cells=3).shape == (6, 60)
    with pytest.raises(ValueError, match="has no features"):
        with_features.predict_perturbation(unseen)


def test_other_anchors_and_none(double: str) -> None:
    additive = fitted(screen(), anchor="additive", residual=False, train={"holdout": [double]})
    table = condition_table(additive.adata, "perturbation", context_key="context")
    singles = {
        (a[0], c): e for a, c, e in zip(table.actions, table.contexts, table.effects, strict=True) if len(a) == 1
    }
    start = table.control[list(table.contexts).index("state A")]
    wanted = np.maximum(start + sum(singles[gene, "state A"] for gene in double.split("+")), 0) - start
    np.testing.assert_allclose(mean_effect(additive, double, "state A"), wanted, atol=2e-3)
    ridge = fitted(screen(), anchor=scjepa.baselines.Ridge(), residual=False, train={"holdout": [double]})
    assert np.linalg.norm(mean_effect(ridge, double, "state A")) > 0
    pure = fitted(screen(), anchor=None, residual=False, train={"holdout": [double]})
    np.testing.assert_allclose(mean_effect(pure, double, "state A"), 0, atol=1e-5)
    transfer = fitted(screen(), anchor="context transfer", residual=False, train={"holdout": [double]})
    with pytest.raises(
        ValueError, match=f"the anchor 'context transfer' has no prediction for '{double}'".replace("+", r"\+")
    ):
        transfer.predict_perturbation(double)


def test_profiles_instead_of_cells(caplog: pytest.LogCaptureFixture) -> None:
    """One averaged profile per condition: the anchor predicts alone."""
    adata = screen(contexts=("one",), n_cells=200)
    table = condition_table(adata, "perturbation")
    x = np.concatenate([table.control[:1], table.perturbed])
    labels = ["control", *("+".join(a) for a in table.actions)]
    profiles = ad.AnnData(x, obs=pd.DataFrame({"perturbation": labels}, index=labels))
    with caplog.at_level(logging.INFO):
        model = fitted(profiles, setup={"context_key": None}, train={"holdout": [labels[-1]]})
    assert "the anchor predicts" in caplog.text
    out = model.predict_perturbation(labels[-1])
    assert out.shape == (1, 60)
    effect, truth = out.X[0] - x[0], x[-1] - x[0]
    assert np.linalg.norm(effect - truth) < np.linalg.norm(truth)


def test_joint_training_predicts_in_the_embedding(double: str) -> None:
    model = fitted(screen(), train={"joint": True, "holdout": [double], "max_epochs": 2}, set_loss="energy")
    assert model.joint_
    assert np.isfinite(model.predict_perturbation(double).X).all()
    assert "inverse_dynamics_train" in model.history


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_inverse_dynamics_has_the_weight_it_is_given(weight: float) -> None:
    model = fitted(screen(), train={"joint": True}, inverse_dynamics=weight)
    assert model.module.objectives["joint"].inverse_dynamics == weight


def test_validation_conditions_are_seen_by_nothing_but_early_stopping() -> None:
    adata = screen()
    model = fitted(adata, train={"split_by": "condition"})
    validating = set(adata.obs["perturbation"].iloc[model.validation_indices])
    assert validating
    pairs = set(zip(model.trained_on_["perturbation"], model.trained_on_["context"], strict=True))
    rows = adata.obs.iloc[model.validation_indices][["perturbation", "context"]].drop_duplicates()
    assert not pairs & set(rows.itertuples(index=False, name=None))
    assert "predictor_validation_loss" in model.history


def test_norman_doubles_beat_the_additive_baseline(shared_data: Path) -> None:
    """Real cells: five doubles held out together, both singles measured."""
    adata = ad.read_h5ad(shared_data / "perturbench_norman19_mcfaline23.h5ad")
    adata = adata[adata.obs["dataset"] == "norman19"].copy()
    labels = set(adata.obs["condition"].astype(str))
    doubles = sorted(x for x in labels if "+" in x and set(x.split("+")) <= labels)
    assert len(doubles) == 5
    PerturbJEPA.setup_anndata(adata, "condition")
    model = PerturbJEPA(adata)
    model.train(max_epochs=4, holdout=doubles, **QUIET)
    scores = scjepa.tl.evaluate(model.predict_perturbation(doubles, include_control=True), adata)
    mean = scores.groupby(["method", "metric"])["value"].mean().unstack()
    assert mean.loc["model", "l2"] < 0.95 * mean.loc["additive", "l2"]
    assert mean.loc["model", "pearson_delta"] > mean.loc["additive", "pearson_delta"] + 0.01
    assert 0.7 < mean.loc["model", "variance_ratio"] < 1.3
    assert 0.8 < mean.loc["model", "shift_ratio"] < 1.15


def test_sparse_input_is_not_densified(double: str) -> None:
    adata = screen()
    assert sp.issparse(adata.X)
    model = fitted(adata, train={"holdout": [double]})
    assert sp.issparse(model.adata.X)


def test_contexts_with_effects_of_their_own_are_not_mixed(shared_data: Path) -> None:
    """Norman (activation, K562) beside McFaline (interference, three lines): the model keeps up with its anchor."""
    adata = ad.read_h5ad(shared_data / "perturbench_norman19_mcfaline23.h5ad")
    labels = set(adata.obs["condition"].astype(str))
    doubles = sorted(x for x in labels if "+" in x and set(x.split("+")) <= labels)
    PerturbJEPA.setup_anndata(adata, "condition", context_key="cell_type")
    model = PerturbJEPA(adata)
    model.train(max_epochs=2, holdout=doubles, **QUIET)
    place = adata.obs["cell_type"][adata.obs["condition"] == doubles[0]].iloc[0]
    scores = scjepa.tl.evaluate(model.predict_perturbation(doubles, context=place, include_control=True), adata)
    mean = scores.groupby(["method", "metric"])["value"].mean().unstack()
    assert mean.loc["model", "l2"] < 1.05 * mean.loc["kernel anchor", "l2"]


def test_a_second_training_with_another_holdout_starts_afresh() -> None:
    """What is held out the second time must not have been seen the first time."""
    adata, noise = screen(), screen()
    cells = ((noise.obs["context"] == "state B") & (noise.obs["perturbation"] != "control")).to_numpy()
    x = noise.X.toarray()
    x[cells] = np.random.default_rng(0).poisson(5, (int(cells.sum()), x.shape[1]))
    noise.X = sp.csr_matrix(x.astype(np.float32))
    out = []
    for data in (adata, noise):
        again = fitted(data)
        again.train(max_epochs=1, holdout=["state B"], **QUIET)
        out.append(again.predict_perturbation(again.trained_on_["perturbation"].iloc[0], context="state B").X)
    np.testing.assert_array_equal(*out)


def test_training_on_appends_to_the_history(double: str) -> None:
    again = fitted(screen(), train={"holdout": [double], "max_epochs": 2})
    again.train(max_epochs=1, holdout=[double], **QUIET)
    assert again.history["train_loss"].index.tolist() == [0, 1, 2]


def test_a_failed_second_training_keeps_the_model(double: str) -> None:
    again = fitted(screen(), train={"holdout": [double]})
    before = again.predict_perturbation(double).X
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        again.train(max_epochs=5, holdout=[double], plan_kwargs={"lr": 1e12}, **QUIET)
    np.testing.assert_array_equal(again.predict_perturbation(double).X, before)


def test_labels_of_held_out_genes_tell_the_network_nothing() -> None:
    """A gene held out everywhere is predicted as if its label had never been in the data."""
    adata = screen()
    gene = sorted(p for p in adata.obs["perturbation"].unique() if "+" not in p and p != "control")[0]
    held = [p for p in adata.obs["perturbation"].unique() if gene in p.split("+")]
    without = adata[~adata.obs["perturbation"].isin(held)].copy()
    without.obs["perturbation"] = without.obs["perturbation"].astype(str)
    a = fitted(adata, train={"holdout": held, "max_epochs": 3}, residual=True)
    controls = without[without.obs["perturbation"] == "control"].copy()
    anchor_only = fitted(screen(), train={"holdout": held, "max_epochs": 3}, residual=False)
    np.testing.assert_allclose(
        a.predict_perturbation(gene, controls).X, anchor_only.predict_perturbation(gene, controls).X, atol=1e-4
    )


def test_data_normalized_in_place_after_training(double: str) -> None:
    import scanpy as sc

    again = fitted(screen(), train={"holdout": [double]})
    before = again.get_latent()
    sc.pp.normalize_total(again.adata, target_sum=1e4)
    sc.pp.log1p(again.adata)
    np.testing.assert_allclose(again.get_latent(), before, atol=2e-2)


def test_columns_that_predictions_write_are_refused() -> None:
    adata = screen()
    adata.obs["source"] = adata.obs["perturbation"]
    with pytest.raises(ValueError, match="perturbation_key='source': predictions write a column of this name"):
        PerturbJEPA.setup_anndata(adata, "source")
    with pytest.raises(ValueError, match="context_key='perturbation' is the same column as perturbation_key"):
        PerturbJEPA.setup_anndata(adata, "perturbation", context_key="perturbation")


def test_a_bare_pair_holds_out_one_condition() -> None:
    adata = screen()
    label = sorted(p for p in adata.obs["perturbation"].unique() if "+" not in p and p != "control")[0]
    for pair in ((label, "state B"), [(label, "state B")], [[label, "state B"]]):
        again = fitted(adata, train={"holdout": pair}, residual=False)
        held = adata.obs.iloc[again.test_indices]
        assert set(held["perturbation"]) == {label}
        assert set(held["context"]) == {"state B"}


def test_dose_zero_is_no_effect() -> None:
    adata = screen(doses=(0.5, 2.0), n_cells=10)
    again = fitted(adata, setup={"dose_key": "dose"})
    out = again.predict_perturbation(again.trained_on_["perturbation"].iloc[0], dose=0.0, include_control=True)
    control = (out.obs["jepa_prediction"] == "control").to_numpy()
    np.testing.assert_array_equal(out.X[~control], out.X[control])


def test_unlabelled_query_cells_are_left_out_and_counted(model: PerturbJEPA, double: str, caplog) -> None:
    query = model.adata[(model.adata.obs["perturbation"] == "control").to_numpy()].copy()
    query.obs["perturbation"] = query.obs["perturbation"].astype(object)
    query.obs.iloc[:7, query.obs.columns.get_loc("perturbation")] = np.nan
    with caplog.at_level(logging.INFO):
        out = model.predict_perturbation(double, query)
    assert out.n_obs == query.n_obs - 7
    assert "7 of the cells have no perturbation label" in caplog.text


def test_integer_labels() -> None:
    adata = screen()
    codes = {label: i + 1 for i, label in enumerate(sorted(set(adata.obs["perturbation"]) - {"control"}))}
    adata.obs["code"] = [codes.get(label, 0) for label in adata.obs["perturbation"]]
    again = fitted(adata, setup={"perturbation_key": "code", "control": 0})
    assert again.predict_perturbation(3, n_cells=2).n_obs == 4
    with pytest.raises(ValueError, match="perturbations is None"):
        again.predict_perturbation(None)
    with pytest.raises(ValueError, match="context is empty"):
        again.predict_perturbation(3, context=[])


def test_gene_embeddings_are_checked() -> None:
    adata = screen()
    PerturbJEPA.setup_anndata(adata, "perturbation")
    with pytest.raises(TypeError, match="expected a pandas DataFrame"):
        PerturbJEPA(adata, np.ones((3, 2)))
    with pytest.raises(ValueError, match="missing or no finite numbers"):
        PerturbJEPA(adata, pd.DataFrame({"f": [np.nan]}, index=["R01"]))


def test_trained_singles_with_an_anchor_for_combinations_only(double: str) -> None:
    additive = fitted(screen(), anchor="additive", residual=False, train={"holdout": [double]})
    table = condition_table(additive.adata, "perturbation", context_key="context")
    single = double.split("+")[0]
    row = next(i for i, a in enumerate(table.actions) if a == (single,) and table.contexts[i] == "state A")
    wanted = np.maximum(table.perturbed[row], 0) - table.control[row]
    np.testing.assert_allclose(mean_effect(additive, single, "state A"), wanted, atol=0.05)


def test_loading_onto_permuted_and_larger_data(model: PerturbJEPA, tmp_path: Path) -> None:
    model.save(str(tmp_path / "m"))
    z = model.get_latent()
    order = np.random.default_rng(0).permutation(60)
    again = PerturbJEPA.load(str(tmp_path / "m"), model.adata[:, order].copy())
    np.testing.assert_allclose(again.get_latent(), z, atol=1e-5)
    np.testing.assert_allclose(again.get_latent(model.adata.copy()), z, atol=1e-5)
    with pytest.raises(ValueError, match="1 of the model's 60 genes are missing"):
        PerturbJEPA.load(str(tmp_path / "m"), model.adata[:, 1:].copy())
    other = model.adata.copy()
    other.obs["perturbation"] = "new"
    with pytest.raises(ValueError, match="load it with adata=False"):
        PerturbJEPA.load(str(tmp_path / "m"), other)


def test_diagnostics_tell_width_and_size(model: PerturbJEPA) -> None:
    table = model.get_diagnostics()
    assert 0.5 < table.loc["variance ratio", "value"] < 1.5
    assert 0.5 < table.loc["shift ratio", "value"] < 1.5
    # two contexts can't tell whether control profiles say how they differ
    assert np.isnan(table.loc["context slope", "value"]) and "+- inf" in table.loc["context slope", "expected"]
    won = [f"network gain, {cls}" for cls in model.gate_gains_]
    assert won == [name for name in table.index if name.startswith("network gain")]
    assert all(0 < table.loc[name, "value"] <= 1 for name in won)


def test_backed_query_is_refused(model: PerturbJEPA, tmp_path: Path) -> None:
    model.adata.write_h5ad(tmp_path / "q.h5ad")
    with pytest.raises(ValueError, match="adata is backed"):
        model.get_latent(ad.read_h5ad(tmp_path / "q.h5ad", backed="r"))
