"""predict_effect: agreement with predicted cells, columns, support and abstention, coverage, and bad input."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scjepa
from scjepa import PerturbJEPA, metrics
from scjepa.data import condition_table
from scjepa.model.conditions import Intervals

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 60, "n_regulators": 10, "n_single": 8, "n_double": 8, "n_cells": 30, "n_control": 60, **options}
    )


def fitted(adata: ad.AnnData, *, train: dict | None = None, setup: dict | None = None, **init) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, **{"perturbation_key": "perturbation", "context_key": "context", **(setup or {})})
    model = PerturbJEPA(adata, **{"n_pcs": 10, "n_latent": 6, **init})
    model.train(**{**QUIET, **(train or {})})
    return model


@pytest.fixture(scope="module")
def doubles() -> list[str]:
    return sorted(p for p in screen().obs["perturbation"].unique() if "+" in p)


@pytest.fixture(scope="module")
def model(doubles: list[str]) -> PerturbJEPA:
    """With the network, two doubles held out."""
    return fitted(screen(), train={"holdout": doubles[:2]})


@pytest.fixture(scope="module")
def anchored(doubles: list[str]) -> PerturbJEPA:
    return fitted(screen(), train={"holdout": doubles[:2]}, residual=False)


@pytest.mark.parametrize("which", ["model", "anchored"])
def test_effect_is_the_shift_of_the_predicted_cells(which: str, doubles: list[str], request) -> None:
    model = request.getfixturevalue(which)
    labels = [doubles[0], doubles[0].split("+")[0]]
    found = model.predict_effect(labels)
    for (label, place), rows in found.groupby(["perturbation", "context"]):
        cells = model.predict_perturbation(label, context=place, include_control=True)
        control = (cells.obs["jepa_prediction"] == "control").to_numpy()
        assert np.allclose(rows["effect"], cells.X[~control].mean(0) - cells.X[control].mean(0), atol=1e-4)


def test_table_is_tidy(anchored: PerturbJEPA, doubles: list[str]) -> None:
    found = anchored.predict_effect(doubles[:2])
    assert list(found) == [
        *("perturbation", "context", "gene", "effect", "lower", "upper", "distance", "support", "abstain")
    ]
    assert not found.duplicated(["perturbation", "context", "gene"]).any()
    assert np.isfinite(found[["effect", "lower", "upper", "distance"]]).all(axis=None)
    assert ((found["lower"] <= found["effect"]) & (found["effect"] <= found["upper"])).all()
    assert found["abstain"].dtype == bool


def test_asking_for_genes_changes_nothing_else(anchored: PerturbJEPA, doubles: list[str]) -> None:
    every = anchored.predict_effect(doubles[0], context="state A").set_index("gene")
    some = [anchored.var_names[7], anchored.var_names[2]]
    pd.testing.assert_frame_equal(
        anchored.predict_effect(doubles[0], context="state A", genes=some).set_index("gene"), every.loc[some]
    )


def test_intervals_are_nested_in_level(anchored: PerturbJEPA, doubles: list[str]) -> None:
    ends = [anchored.predict_effect(doubles[0], level=level)[["lower", "upper"]] for level in (0.5, 0.9, 0.99)]
    for narrow, wide in zip(ends, ends[1:], strict=False):
        assert (wide["lower"] <= narrow["lower"]).all()
        assert (wide["upper"] >= narrow["upper"]).all()
        assert (wide["upper"] > narrow["upper"]).any()


def test_support_of_trained_and_left_out_conditions(anchored: PerturbJEPA, doubles: list[str]) -> None:
    found = anchored.predict_effect([doubles[0], doubles[4]], context="state A").groupby("perturbation").first()
    assert found.loc[doubles[4], "support"] == "trained"
    assert found.loc[doubles[0], "support"] in ("near", "far")
    assert found.loc[doubles[4], "distance"] < found.loc[doubles[0], "distance"]
    assert not found.loc[doubles[4], "abstain"]


def test_left_out_doubles_are_covered() -> None:
    inside = []
    for seed in range(3):
        adata = screen(seed=seed, n_double=12)
        held = sorted(p for p in adata.obs["perturbation"].unique() if "+" in p)[::3]
        found = fitted(adata, train={"holdout": held}, residual=False).predict_effect(held)
        truth = condition_table(adata, "perturbation", context_key="context")
        for i, action in enumerate(truth.actions):
            mine = found[(found["perturbation"] == "+".join(action)) & (found["context"] == truth.contexts[i])]
            if len(mine):
                inside.append(metrics.interval_coverage(truth.effects[i], mine["lower"], mine["upper"]))
    assert len(inside) == 24
    assert 0.85 < np.mean(inside) < 0.97


def test_a_gene_like_no_other_is_far() -> None:
    """All genes share a description but one, which lies at a right angle to them."""
    adata = screen()
    names = sorted({g for label in adata.obs["perturbation"].unique() for g in label.split("+")} - {"control"})
    features = pd.DataFrame(np.tile([1.0, 0.0], (len(names) + 2, 1)), index=[*names, "alike", "strange"])
    features[1] = np.linspace(0, 0.02, len(features))
    features.loc["strange"] = [0.0, -1.0]
    model = fitted(adata, gene_embeddings=features, residual=False)
    ask = lambda: model.predict_effect(["alike", "strange"], context="state A").groupby("perturbation").first()
    # the description says nothing of the effects here, so no gene is near
    assert (ask()["support"] == "far").all() and ask()["abstain"].all() and (ask()["distance"] > 0.95).all()
    model.anchors_.unseen.picks_["unseen"]["mixture"] = [[None, "features", 0.1, 1.0, False]]
    model.intervals_ = Intervals(model.anchors_)
    found = ask()
    assert found["support"].to_dict() == {"alike": "near", "strange": "far"}
    assert found.loc["strange", "abstain"]
    assert found.loc["strange", "distance"] > found.loc["alike", "distance"]


ALONE = (
    "No training condition could be left out that is like 2 of 2 predicted conditions .of a context never trained on"
)


def test_a_class_that_cannot_be_left_out_goes_by_sampling_noise(doubles: list[str]) -> None:
    """With one training context nothing says how well effects carry over to another one."""
    adata = screen()
    null = adata.obs_names[(adata.obs["perturbation"] == "control") & (adata.obs["context"] == "state A")][:20]
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str)
    adata.obs.loc[null, "perturbation"] = "NULL"
    model = fitted(adata, train={"holdout": ["state B"]}, residual=False)
    single = next(p for p in sorted(model.trained_on_["perturbation"]) if "+" not in p and p != "NULL")
    with pytest.warns(UserWarning, match=ALONE):
        found = model.predict_effect([single, "NULL"], context="state B")
    assert (found["support"] == "far").all()
    assert np.isfinite(found[["lower", "upper"]]).all(axis=None)
    abstain = found.groupby("perturbation")["abstain"].first()
    assert not abstain[single] and abstain["NULL"]  # of controls under another name nothing is left
    with pytest.warns(UserWarning, match=r"reliability of the \d+ training conditions: median 0\.\d\d, \d+ below 0\.1"):
        predicted = model.predict_perturbation([single, "NULL"], context="state B")
    record = predicted.uns["jepa"]["prediction"]
    stated = record["conditions"].set_index("perturbation")
    assert stated["basis"].to_dict() == {single: "sampling noise", "NULL": "sampling noise"}
    assert stated["abstain"].to_dict() == {single: False, "NULL": True}
    assert record["reliability"]["n"] == len(model.trained_on_) and record["note"].startswith("No training condition")
    # shrunken by its own reliability, nearly
    size, table = lambda found: np.linalg.norm(found["effect"]), model.anchors_.table
    kept = size(found[found["perturbation"] == single]) / np.linalg.norm(
        table.effects[[a == (single,) for a in table.actions]]
    )
    assert 0.7 < kept < 1.0
    assert size(found[found["perturbation"] == "NULL"]) < 0.3 * size(found[found["perturbation"] == single])


def test_profiles_cannot_tell_noise_and_abstain(caplog) -> None:
    adata = screen()
    table = condition_table(adata, "perturbation", context_key="context")
    rows = [*zip(["+".join(a) for a in table.actions], table.contexts, table.perturbed, strict=True)]
    rows += [("control", c, table.control[table.contexts == c][0]) for c in ("state A", "state B")]
    obs = pd.DataFrame([r[:2] for r in rows], columns=["perturbation", "context"]).astype(str).rename(index=str)
    profiles = ad.AnnData(np.array([r[2] for r in rows], np.float32), obs=obs, var=adata.var.copy())
    with caplog.at_level(logging.INFO, logger="scjepa"):
        model = fitted(profiles, train={"holdout": ["state B"]})
    assert "too few cells per condition to know the sampling noise: all conditions are believed alike" in caplog.text
    single = next(p for p in sorted(model.trained_on_["perturbation"]) if "+" not in p)
    with pytest.warns(UserWarning, match="their effects are shrunken by a fixed rule; the model abstains on 1 of 1"):
        predicted = model.predict_perturbation(single, context="state B")
    record = predicted.uns["jepa"]["prediction"]
    assert record["conditions"]["basis"].tolist() == ["none"] and "reliability" not in record


def test_a_condition_of_two_cells_is_as_good_as_not_measured() -> None:
    adata = screen()
    single = next(p for p in sorted(adata.obs["perturbation"].unique()) if "+" not in p and p != "control")
    mine = np.flatnonzero((adata.obs["perturbation"] == single) & (adata.obs["context"] == "state A"))
    model = fitted(adata[np.setdiff1d(np.arange(adata.n_obs), mine[2:])].copy(), residual=False)
    with pytest.warns(UserWarning, match="1 of 1 were trained on in fewer than 3 cells"):
        found = model.predict_effect(single, context="state A")
    assert (found["support"] == "trained").all() and found["abstain"].all()


def test_a_judged_question_warns_of_nothing(anchored: PerturbJEPA) -> None:
    known = anchored.trained_on_["perturbation"].iloc[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # anndata has warnings of its own about pandas
        predicted = anchored.predict_perturbation(known)
    record = predicted.uns["jepa"]["prediction"]
    assert record["note"] == "" and record["conditions"]["support"].unique().tolist() == ["trained"]


def test_one_training_condition_still_gives_finite_intervals() -> None:
    adata = screen()
    single = next(p for p in sorted(adata.obs["perturbation"].unique()) if "+" not in p and p != "control")
    kept = adata[adata.obs["perturbation"].isin(["control", single]) & (adata.obs["context"] == "state A")].copy()
    found = fitted(kept, setup={"context_key": None}, residual=False).predict_effect(single)
    assert "context" not in found
    assert (found["support"] == "trained").all()
    assert np.isfinite(found[["lower", "upper"]]).all(axis=None)


def test_predictions_no_better_than_no_change_abstain() -> None:
    """Perturbed cells from the controls' distribution, and so many controls that their noise is no shared effect."""
    adata = screen(n_control=3000)
    rng = np.random.default_rng(0)
    adata.X = rng.poisson(2.0, adata.shape).astype(np.float32)
    double = next(p for p in sorted(adata.obs["perturbation"].unique()) if "+" in p)
    found = fitted(adata, train={"holdout": [double]}, residual=False).predict_effect(double)
    assert found["abstain"].all()


def test_another_anchor_is_calibrated_by_fitting_it_again(doubles: list[str]) -> None:
    model = fitted(screen(), train={"holdout": doubles[:2]}, anchor="ridge", residual=False)
    found = model.predict_effect(doubles[0])
    assert (found["upper"] > found["lower"]).all()
    assert found["support"].isin(["near", "far"]).all()


def test_doses_and_kinds_have_columns() -> None:
    adata = screen()
    adata.obs["dose_um"] = np.where(adata.obs["perturbation"] == "control", 0.0, np.arange(adata.n_obs) % 2 + 1.0)
    model = fitted(adata, setup={"dose_key": "dose_um"}, residual=False)
    single = next(p for p in sorted(model.trained_on_["perturbation"]) if "+" not in p)
    found = model.predict_effect(single, dose=[0.0, 1.0], context="state A")
    assert found.groupby("dose_um").size().tolist() == [adata.n_vars] * 2
    nothing = found[found["dose_um"] == 0]
    assert (nothing[["effect", "lower", "upper", "distance"]] == 0).all(axis=None)


def test_saved_models_give_the_same_intervals(anchored: PerturbJEPA, doubles: list[str], tmp_path) -> None:
    anchored.save(tmp_path / "model", overwrite=True)
    again = PerturbJEPA.load(tmp_path / "model", anchored.adata)
    ends = ["lower", "upper", "distance"]
    assert np.allclose(again.predict_effect(doubles[0])[ends], anchored.predict_effect(doubles[0])[ends], atol=1e-6)


@pytest.mark.parametrize("level", [0, 1, 90, "0.9", True])
def test_levels_lie_between_zero_and_one(anchored: PerturbJEPA, doubles: list[str], level: object) -> None:
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        anchored.predict_effect(doubles[0], level=level)


def test_unknown_genes_are_named(anchored: PerturbJEPA, doubles: list[str]) -> None:
    with pytest.raises(ValueError, match="'nosuchgene' asked for, not among the 60 genes of the model"):
        anchored.predict_effect(doubles[0], genes=["nosuchgene"])


def test_a_model_without_an_anchor_says_how_to_mend_it(doubles: list[str]) -> None:
    model = fitted(screen(), anchor=None)
    with pytest.raises(ValueError, match=r"trained with anchor=None: intervals come from .*anchor='kernel'"):
        model.predict_effect(doubles[0])


def test_joint_training_has_no_intervals(doubles: list[str]) -> None:
    model = fitted(screen(), train={"joint": True})
    with pytest.raises(ValueError, match="trained with joint=True"):
        model.predict_effect(doubles[0])


def test_columns_of_the_user_are_not_overwritten() -> None:
    adata = screen()
    adata.obs["support"] = adata.obs["context"]
    model = fitted(adata, setup={"context_key": "support"}, residual=False)
    with pytest.raises(ValueError, match="context_key='support': the result has a column of its own by this name"):
        model.predict_effect(model.trained_on_["perturbation"].iloc[0])
