"""Doses of each drug in combinations, synergy, the best dose and the window of treatment, on cells with known answers."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import DrugJEPA

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}
DRUGS, LEVELS, EC50, GENES = "ABCD", (0.1, 1.0, 10.0), 1.0, 40
HELPS, HARMS = slice(0, 20), slice(20, 40)


def share(dose: float) -> float:
    return dose / (dose + EC50)


def screen(*, times: bool = False) -> ad.AnnData:
    """A and B help more together, C and D less; each harms in proportion to the log of its dose above 1."""
    rng = np.random.default_rng(0)
    helps = {d: np.r_[np.abs(rng.normal(size=20)), np.zeros(20)] for d in DRUGS}
    harms = np.r_[np.zeros(20), np.ones(20)]
    base = rng.uniform(2.0, 4.0, GENES)
    rows, obs = [], []

    def add(label: str, dose: object, effect: np.ndarray, n: int, context: str, time: float) -> None:
        rows.append(np.maximum(base + effect + rng.normal(scale=0.2, size=(n, GENES)), 0))
        obs.extend([(label, dose, context, time)] * n)

    alone = lambda d, x: share(x) * helps[d] + np.log10(max(x, 1.0)) * 0.3 * harms
    for context in ("x", "y"):
        for time in (6.0, 24.0) if times else (24.0,):
            add("DMSO", "0", np.zeros(GENES), 60, context, 0.0)
            for d in DRUGS:
                for x in LEVELS:
                    add(d, f"{x:g}", alone(d, x) * (0.5 if time < 24 else 1.0), 8, context, time)
            for a, b, sign in (("A", "B", 1), ("D", "C", -1)):
                for x in LEVELS:
                    for y in LEVELS:
                        both = (1 + 0.7 * sign * np.sqrt(share(x) * share(y))) * (alone(a, x) + alone(b, y))
                        add(f"{a}+{b}", f"{x:g}+{y:g}", both * (0.5 if time < 24 else 1.0), 8, context, time)
    frame = pd.DataFrame(obs, columns=["drug", "dose", "line", "time"], index=[f"c{i}" for i in range(len(obs))])
    x = np.vstack(rows).astype(np.float32)
    return ad.AnnData(x, obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


TOXICITY = {f"g{i}": 1.0 for i in range(20, 40)}
BENEFIT = {f"g{i}": 1.0 for i in range(20)}


@pytest.fixture(scope="module")
def model() -> DrugJEPA:
    adata = screen()
    DrugJEPA.setup_anndata(adata, "drug", dose_key="dose", context_key="line", input_scale="lognorm")
    model = DrugJEPA(adata, n_latent=4, n_pcs=8)
    model.train(**QUIET)
    return model


# ---------------------------------------------------------------- a dose for each drug
def test_combinations_are_trained_on_and_asked_at_their_own_doses(model: DrugJEPA) -> None:
    table = model.anchors_.table
    assert (1.0, 10.0) in {d for a, d in zip(table.actions, table.doses, strict=True) if a == ("A", "B")}
    cells = model.predict_drug_response("B+A", dose=["10+1", {"A": 1, "B": 10}, "10+0", 1], context="x", n_cells=3)
    assert cells.obs["dose"].tolist() == ["10+1"] * 6 + ["10+0"] * 3 + ["1"] * 3
    x = cells.X.reshape(4, 3, -1)
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_array_equal(x[2], model.predict_drug_response("B", dose=10, context="x", n_cells=3).X)
    assert np.abs(x[0] - x[3]).max() > 0.1
    assert cells.uns["jepa"]["prediction"]["conditions"]["dose"].tolist() == ["10+1", "10+1", "10+0", "1"]
    effect = model.predict_effect("A+B", dose=["1+10", "10+1"], context="x")
    assert effect["dose"].unique().tolist() == ["1+10", "10+1"]
    swapped = model.predict_effect("B+A", dose="10+1", context="x")["effect"].to_numpy()
    np.testing.assert_allclose(swapped, effect.loc[effect["dose"] == "1+10", "effect"])
    assert model.predict_effect("A+B", dose=[1, 2], context="x")["dose"].dtype == float


def test_predictions_at_text_doses_go_to_a_file_and_models_come_back(model: DrugJEPA, tmp_path: Path) -> None:
    cells = model.predict_drug_response("A+B", dose="1+10", context="x", n_cells=4, include_control=True)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").obs["dose"].astype(str).tolist() == ["0"] * 4 + ["1+10"] * 4
    model.save(str(tmp_path / "model"), save_anndata=True)
    again = DrugJEPA.load(str(tmp_path / "model"))
    np.testing.assert_allclose(
        again.predict_drug_response("A+B", dose="1+10", context="x", n_cells=4).X, cells.X[4:], atol=1e-5
    )
    reliable = model.get_reliability()
    assert {"1+10", "0.1"} <= set(reliable["dose"].astype(str))


def test_the_network_is_told_each_dose() -> None:
    adata = screen()
    DrugJEPA.setup_anndata(adata, "drug", dose_key="dose", context_key="line", input_scale="lognorm")
    model = DrugJEPA(adata, n_latent=4, n_pcs=8, anchor=None, residual=True)
    model.train(**{**QUIET, "max_epochs": 3})
    one, other = (model.predict_drug_response("A+B", dose=d, context="x", n_cells=2).X for d in ("0.1+10", "10+0.1"))
    assert np.abs(one - other).max() > 1e-4


# ---------------------------------------------------------------- synergy
@pytest.mark.parametrize("reference", ["bliss", "hsa", "loewe", "zip"])
def test_synergy_has_the_sign_of_the_truth(model: DrugJEPA, reference: str) -> None:
    helps = model.synergy("A", "B", LEVELS, LEVELS, reference=reference, maximum=np.inf, signature=BENEFIT)
    harms = model.synergy("C", "D", [*LEVELS, 0], LEVELS, reference=reference, maximum=np.inf, signature=BENEFIT)
    assert (helps.attrs["scores"]["synergy"] > 0.1).all(), helps.attrs["scores"]
    assert (harms.attrs["scores"]["synergy"] < helps.attrs["scores"]["synergy"]).all()
    if reference != "hsa":  # less than the sum may still be more than the better drug
        assert (harms.attrs["scores"]["synergy"] < -0.1).all()
    assert helps.attrs["drugs"] == ("A", "B") and helps.attrs["reference"] == reference
    assert len(helps) == 2 * 16 and ("combination_index" in helps) == (reference == "loewe")
    none = helps[(helps["dose_a"] == 0) | (helps["dose_b"] == 0)]
    assert (none["synergy"] == 0).all() and (none["response"] == none["expected"]).all()


def test_synergy_of_a_pair_never_measured_is_abstained_from(model: DrugJEPA) -> None:
    score = lambda a, b: model.synergy(a, b, LEVELS, LEVELS, context="x", signature=BENEFIT).attrs["scores"]["abstain"]
    assert score("A", "C").item() == 1.0 and score("A", "B").item() < 0.5


def test_synergy_does_not_depend_on_which_drug_comes_first(model: DrugJEPA) -> None:
    one = model.synergy("A", "B", LEVELS, [1.0, 10.0], context="x", signature=BENEFIT)
    two = model.synergy("B", "A", [1.0, 10.0], LEVELS, context="x", signature=BENEFIT)
    grids = (
        one.pivot(index="dose_a", columns="dose_b", values="synergy"),
        two.pivot(index="dose_b", columns="dose_a", values="synergy"),
    )
    np.testing.assert_allclose(*grids, atol=1e-6)
    np.testing.assert_allclose(one.attrs["scores"]["maximum"], two.attrs["scores"]["maximum"])
    effect = model.predict_effect("A", dose=10, context="x").set_index("gene")["effect"]
    response = one.query("dose_a == 10 and dose_b == 0")["response"].item()
    assert response == pytest.approx(effect[list(BENEFIT)].sum() / np.sqrt(20), abs=1e-5)


# ---------------------------------------------------------------- benefit and toxicity
def test_the_best_dose_weighs_benefit_against_toxicity(model: DrugJEPA) -> None:
    doses = [0, 0.1, 0.3, 1, 3, 10]
    free = model.optimal_dose("A", doses, TOXICITY, signature=BENEFIT, weight=0.0, context="x")
    dear = model.optimal_dose("A", doses, TOXICITY, signature=BENEFIT, weight=100.0, context="x")
    capped = model.optimal_dose("A", doses, TOXICITY, signature=BENEFIT, weight=0.0, max_toxicity=0.5, context="x")
    assert free["dose"].item() == 10 and dear["dose"].item() <= 1 < free["dose"].item()
    assert 1 < capped["dose"].item() < 10 and capped["toxicity"].item() == pytest.approx(0.5)
    curve = free.attrs["curve"]
    assert list(curve["dose"]) == doses and curve["response"].iloc[0] == 0 and {"toxicity", "support"} <= set(curve)
    assert len(model.optimal_dose("A", doses, TOXICITY)) == 2


def test_the_window_opens_with_benefit_and_closes_with_toxicity(model: DrugJEPA) -> None:
    curve = model.optimal_dose("A", LEVELS, TOXICITY, signature=BENEFIT, context="x").attrs["curve"]
    half = curve["response"].max() / 2
    found = model.treatment_window(
        "A", TOXICITY, doses=[0.1, 0.3, 1, 3, 10], signature=BENEFIT, min_benefit=half, max_toxicity=0.5, context="x"
    )
    assert len(found) == 1 and 0.2 < found["lower"].item() < 2.5 and 1.5 < found["upper"].item() < 10
    none = model.treatment_window("A", TOXICITY, doses=LEVELS, min_benefit=1e3, max_toxicity=0.5)
    assert len(none) == 0 and list(none.columns) == ["perturbation", "line", "lower", "upper", "support", "abstain"]


def test_a_window_of_times() -> None:
    adata = screen(times=True)
    DrugJEPA.setup_anndata(adata, "drug", dose_key="dose", time_key="time", context_key="line", input_scale="lognorm")
    model = DrugJEPA(adata, n_latent=4, n_pcs=8)
    model.train(**QUIET)
    options = {"signature": BENEFIT, "dose": 10, "context": "x"}
    curve = model.treatment_window("A", TOXICITY, times=[6, 12, 24], min_benefit=0, max_toxicity=9, **options).attrs[
        "curve"
    ]
    early, late = curve["response"].iloc[[0, -1]]
    assert late > 1.4 * early
    found = model.treatment_window(
        "A", TOXICITY, times=[6, 12, 24], min_benefit=(early + late) / 2, max_toxicity=9, **options
    )
    assert 6 < found["lower"].item() < 24 and found["upper"].item() == 24


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.synergy("A", "A", [1], [1]), "a and b are both 'A': synergy compares two drugs"),
        (lambda m: m.synergy("A+B", "C", [1], [1]), r"'A\+B' is not one drug"),
        (lambda m: m.synergy("A", "B", [1, 2], LEVELS, reference="zip"), "doses_a has 2 doses above 0.*at least 3"),
        (lambda m: m.synergy("A", "B", [0], [1]), "doses_a has 0 doses above 0: reference='bliss' needs at least 1"),
        (lambda m: m.synergy("A", "B", [1], [-1]), "doses_b=.-1.: expected numbers of at least 0"),
        (lambda m: m.synergy("A", "B", [1], [1], reference="highest"), "reference='highest' is not"),
        (lambda m: m.optimal_dose("A", [1], TOXICITY), r"doses=\[1.0\]: expected at least two different ones"),
        (lambda m: m.optimal_dose("A", [1, 2], {"nope": 1}), "toxicity names none of the model's genes"),
        (lambda m: m.treatment_window("A", TOXICITY, min_benefit=1, max_toxicity=1), "give one of doses"),
        (
            lambda m: m.treatment_window("A", TOXICITY, times=[1, 2], min_benefit=1, max_toxicity=1),
            "treatment_window needs times, and the model was set up without time_key",
        ),
        (lambda m: m.predict_drug_response("A+B", dose="1+2+3"), "has 3 numbers for the 2 parts"),
    ],
)
def test_questions_that_are_refused(model: DrugJEPA, ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(model)
