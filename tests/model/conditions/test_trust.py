"""What predictions rest on: expected gain by hand, the record in uns, the one warning, and when the model abstains."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scjepa
from scjepa import PerturbJEPA
from scjepa.baselines import KernelEffect
from scjepa.baselines._noise import effect_noise, reliability
from scjepa.model.conditions._trust import expected_gain

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
RECORD = ["perturbation", "context", "basis", "support", "abstain"]


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 50, "n_regulators": 10, "n_single": 8, "n_double": 8, "n_cells": 30, "n_control": 60, **options}
    )


def fitted(adata: ad.AnnData, *, train: dict | None = None, setup: dict | None = None, **init) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, **{"perturbation_key": "perturbation", "context_key": "context", **(setup or {})})
    model = PerturbJEPA(adata, **{"n_pcs": 8, "n_latent": 4, "residual": False, **init})
    model.train(**{**QUIET, **(train or {})})
    return model


def measured(
    effects: dict[tuple[str, str], np.ndarray | float], *, n: int = 25, m: int = 120, seed: int = 0, genes: int = 40
) -> ad.AnnData:
    """Log-normalised cells with known effects of ``(perturbation, context)``; contexts differ in all genes."""
    rng = np.random.default_rng(seed)
    contexts = sorted({c for _, c in effects})
    base = {c: 4 + 0.3 * rng.normal(size=genes) for c in contexts}
    x, rows = [], []
    for (label, c), effect in [*((("control", c), 0.0) for c in contexts), *effects.items()]:
        k = m if label == "control" else n
        x.append(base[c] + effect + 0.5 * rng.normal(size=(k, genes)))
        rows += [(label, c)] * k
    obs = pd.DataFrame(rows, columns=["perturbation", "context"]).rename(index=str)
    return ad.AnnData(np.maximum(np.concatenate(x), 0).astype(np.float32), obs=obs)


def contexts_of_their_own() -> ad.AnnData:
    """Effects that are half shared and half of each context, whatever its controls."""
    rng = np.random.default_rng(0)
    common = {p: 0.5 * rng.normal(size=40) for p in "ABCDEFGH"}
    return measured({(p, c): common[p] + 0.5 * rng.normal(size=40) for p in "ABCDEFGH" for c in "wxyz"})


def control_mean(adata: ad.AnnData, context: str) -> np.ndarray:
    mine = (adata.obs["perturbation"] == "control") & (adata.obs["context"] == context)
    return adata.X[mine.to_numpy()].mean(0)


def asked(model: PerturbJEPA, *args, **kwargs) -> tuple[ad.AnnData, list[warnings.WarningMessage]]:
    """Return predictions and the warnings of this package that came with them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = model.predict_perturbation(*args, **kwargs)
    return out, [w for w in caught if w.category is UserWarning]


def record(predicted: ad.AnnData) -> dict:
    return predicted.uns["jepa"]["prediction"]


@pytest.fixture(scope="module")
def doubles() -> list[str]:
    return sorted(p for p in screen().obs["perturbation"].unique() if "+" in p)


@pytest.fixture(scope="module")
def model(doubles: list[str]) -> PerturbJEPA:
    return fitted(screen(), train={"holdout": doubles[:2]})


# ---------------------------------------------------------------- expected gain
def test_expected_gain_by_hand() -> None:
    effect = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(expected_gain(effect, 1.0, 5.0), [25 / 30, 0.25 / 5.25, 0])
    np.testing.assert_allclose(expected_gain(effect, 0.75, 5.0), [12.5 / 17.5, 0.125 / 5.125, 0])
    np.testing.assert_allclose(expected_gain(effect, 1.5, 5.0), [50 / 55, 0.5 / 5.5, 0])
    for half in (0.5, 0.2, -1.0):  # twice too large is as bad as no change
        assert expected_gain(effect, half, 5.0).tolist() == [0, 0, 0]
    assert expected_gain(effect, 1.0, 0.0).tolist() == [1, 1, 0]


def test_expected_gain_is_what_a_prediction_takes_off() -> None:
    """Measured effects are b times the predicted ones, and an error: 1 - |measured - predicted|^2 / |measured|^2."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(1, 400))
    truth = 0.8 * effect + rng.normal(scale=0.5, size=(4_000, 400))
    error = ((truth - effect) ** 2).sum(1).mean()
    gain = 1 - error / (truth**2).sum(1).mean()
    assert expected_gain(effect, 0.8, error).item() == pytest.approx(gain, rel=0.01)


# ---------------------------------------------------------------- the record
def test_record_has_a_row_for_every_question(model: PerturbJEPA, doubles: list[str]) -> None:
    labels = [doubles[0], doubles[0].split("+")[0]]
    found = record(asked(model, labels)[0])
    conditions = found["conditions"]
    assert list(conditions) == RECORD and conditions["abstain"].dtype == bool
    assert [*zip(conditions["perturbation"], conditions["context"], strict=True)] == [
        (label, c) for label in labels for c in ("state A", "state B")
    ]
    assert conditions["support"].tolist()[2:] == ["trained"] * 2 and set(conditions["basis"]) == {"left out"}
    table = model.anchors_.table
    share = reliability((table.effects**2).sum(1), effect_noise(table.variance, table.n_cells, table.n_controls))
    assert found["reliability"] == {
        "median": pytest.approx(np.median(share)),
        "near_zero": int((share < 0.1).sum()),
        "n": len(model.trained_on_),
    }


def test_record_agrees_with_predicted_effects(model: PerturbJEPA, doubles: list[str]) -> None:
    conditions = record(asked(model, doubles)[0])["conditions"].set_index(["perturbation", "context"])
    effects = model.predict_effect(doubles).groupby(["perturbation", "context"]).first()
    for name in ("support", "abstain"):
        assert conditions[name].to_dict() == effects[name].to_dict()


def test_record_is_written_and_read(model: PerturbJEPA, doubles: list[str], tmp_path) -> None:
    predicted = asked(model, doubles[:2], n_cells=3)[0]
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    found, expected = record(ad.read_h5ad(tmp_path / "predicted.h5ad")), record(predicted)
    as_text = lambda frame: frame.astype({c: str for c in RECORD if c != "abstain"}).reset_index(drop=True)
    left, right = (as_text(r["conditions"]) for r in (found, expected))
    pd.testing.assert_frame_equal(left, right, check_index_type=False, check_column_type=False)
    assert str(found["note"]) == expected["note"]
    assert {k: float(v) for k, v in found["reliability"].items()} == expected["reliability"]


def test_doses_and_kinds_are_on_record() -> None:
    adata = screen()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["um"] = np.where(control, 0.0, np.arange(adata.n_obs) % 2 + 1.0)
    adata.obs["how"] = np.where(control, "none", "KO")
    model = fitted(adata, setup={"dose_key": "um", "kind_key": "how"})
    single = next(p for p in sorted(model.trained_on_["perturbation"]) if "+" not in p)
    predicted, said = asked(model, single, dose=[0.0, 2.0], context="state A")
    conditions = record(predicted)["conditions"]
    assert list(conditions) == [*RECORD, "dose", "kind"]
    assert conditions["dose"].tolist() == [0.0, 2.0] and conditions["kind"].tolist() == ["KO", "KO"]
    assert conditions["abstain"].tolist() == [False, False]  # that nothing happens is certain
    assert not said


@pytest.mark.parametrize(
    "options", [{"anchor": None, "residual": True}, {"train": {"joint": True}, "residual": True}], ids=["none", "joint"]
)
def test_models_without_an_anchor_say_nothing(options: dict, doubles: list[str]) -> None:
    predicted, said = asked(fitted(screen(), **options), doubles[0])
    assert not said
    assert not {"conditions", "note", "reliability"} & set(record(predicted))
    assert "train" in record(predicted)


# ---------------------------------------------------------------- the warning
def test_one_warning_a_call_at_the_line_of_the_caller(doubles: list[str]) -> None:
    model = fitted(screen(), train={"holdout": ["state B"]})
    single = doubles[0].split("+")[0]
    predicted, said = asked(model, [single, doubles[0]], context="state B")
    assert len(said) == 1 and said[0].filename == __file__
    text = str(said[0].message)
    assert record(predicted)["note"] == text
    known = record(predicted)["reliability"]
    assert text == (
        "No training condition could be left out that is like 2 of 2 predicted conditions (of a context never trained on, "
        "after training in 1 context): their effects are shrunken by sampling noise alone; reliability of the "
        f"{known['n']} training conditions: median {known['median']:.2f}, {known['near_zero']} below 0.1."
    )
    with pytest.warns(UserWarning, match="No training condition") as caught:
        model.predict_effect([single, doubles[0]], context="state B")
    assert [(str(w.message), w.filename) for w in caught] == [(text, __file__)]


def test_combinations_without_left_out_ones_are_named(doubles: list[str]) -> None:
    adata = screen()
    few = fitted(adata[~adata.obs["perturbation"].isin(doubles[2:])].copy(), train={"holdout": doubles[:1]})
    predicted, (said,) = asked(few, [doubles[0], doubles[0].split("+")[0]])
    assert (
        "like 2 of 4 predicted conditions (fewer than three combinations were measured whose genes were measured alone "
        "too): their effects are shrunken by "
    ) in str(said.message)
    basis = record(predicted)["conditions"].set_index("perturbation")["basis"]
    assert set(basis[doubles[0]]) == {"sampling noise"} and set(basis.drop(doubles[0])) == {"left out"}


def test_genes_never_perturbed_need_three_that_were() -> None:
    rng = np.random.default_rng(0)
    adata = measured({("A", "x"): rng.normal(size=40), ("B", "x"): rng.normal(size=40)})
    features = pd.DataFrame(rng.normal(size=(3, 4)), index=["A", "B", "NEW"])
    model = fitted(adata, gene_embeddings=features)
    predicted, (said,) = asked(model, "NEW")
    assert (
        "like 1 of 1 predicted conditions (genes never perturbed, after training on fewer than three): their effects are "
        "shrunken by sampling noise alone; the model abstains on 1 of 1 (no better than no change can be expected)"
    ) in str(said.message)
    assert record(predicted)["conditions"]["abstain"].all()


def test_profiles_go_by_a_fixed_rule() -> None:
    rng = np.random.default_rng(0)
    adata = measured({(p, c): rng.normal(size=40) for p in "ABC" for c in "xy"}, n=1, m=1)
    predicted, (said,) = asked(fitted(adata, train={"holdout": ["y"]}), ["A", "B"], context="y")
    assert str(said.message) == (
        "No training condition could be left out that is like 2 of 2 predicted conditions (of a context never trained on, "
        "after training in 1 context): their effects are shrunken by a fixed rule; the model abstains on 2 of 2 (no better "
        "than no change can be expected)."
    )
    assert "reliability" not in record(predicted) and set(record(predicted)["conditions"]["basis"]) == {"none"}


def test_conditions_of_two_cells_are_named() -> None:
    rng = np.random.default_rng(0)
    adata = measured({(p, c): rng.normal(size=40) for p in "ABC" for c in "xy"})
    mine = np.flatnonzero((adata.obs["perturbation"] == "A") & (adata.obs["context"] == "x"))
    model = fitted(adata[np.setdiff1d(np.arange(adata.n_obs), mine[2:])].copy())
    predicted, (said,) = asked(model, ["A", "B"])
    assert str(said.message).startswith(
        "1 of 4 were trained on in fewer than 3 cells and are as good as not measured; reliability of the 6"
    )
    assert record(predicted)["conditions"]["abstain"].tolist() == [True, False, False, False]
    three = fitted(adata[np.setdiff1d(np.arange(adata.n_obs), mine[3:])].copy())
    assert not asked(three, ["A", "B"])[1]


def test_contexts_that_differ_without_their_controls_telling_are_named() -> None:
    model = fitted(contexts_of_their_own(), train={"holdout": ["z"]})
    predicted, (said,) = asked(model, list("AB"), context="z")
    report = model.anchor_.context_report()
    assert report.note and report.contexts == 3
    assert f"{report.note}; anchor=scjepa.baselines.KernelEffect(cautious=True) trusts them less; " in str(
        said.message
    ).replace("The 3", "the 3")
    assert set(record(predicted)["conditions"]["basis"]) == {"left out"}
    # nothing of it in contexts that were trained on
    assert not asked(model, list("AB"), context="x")[1]


def test_another_anchor_than_the_kernel_has_no_basis(doubles: list[str]) -> None:
    model = fitted(screen(), train={"holdout": doubles[:2]}, anchor="ridge")
    predicted, (said,) = asked(model, doubles[0])
    assert set(record(predicted)["conditions"]["basis"]) == {"none"}
    assert "The anchor 'ridge' does not judge by left-out conditions how large effects should be" in str(said.message)


# ---------------------------------------------------------------- abstention
def replicates(seed: int, *, strong: int = 5, null: int = 5) -> ad.AnnData:
    """Two replicates of a screen; null perturbations are controls under another name. Strong effects are four times the noise."""
    rng = np.random.default_rng(seed)
    effects = {}
    for i in range(strong + null):
        effect = 0.2 * rng.normal(size=200) * (i < strong)
        effects |= {(f"{'S' if i < strong else 'N'}{i}", c): effect for c in ("one", "two")}
    adata = measured(effects, seed=seed, m=300, genes=200)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str)
    return adata


def test_null_perturbations_are_abstained_on_and_strong_ones_are_not() -> None:
    """Trained on one replicate, asked about the other: sampling noise alone says which effects are there."""
    labels, abstain, size = [f"S{i}" for i in range(5)] + [f"N{i}" for i in range(5, 10)], [], []
    for seed in range(3):
        predicted, (said,) = asked(fitted(replicates(seed), train={"holdout": ["two"]}), labels, context="two")
        found = record(predicted)["conditions"]
        assert set(found["basis"]) == {"sampling noise"} and set(found["support"]) == {"far"}
        n = int(found["abstain"].sum())
        assert f"; the model abstains on {n} of 10 (no better than no change can be expected); " in str(said.message)
        abstain.append(found.set_index("perturbation").loc[labels, "abstain"])
        means = predicted.to_df().groupby(predicted.obs["perturbation"], observed=True).mean()
        size.append(((means - control_mean(replicates(seed), "two")) ** 2).sum(1).loc[labels])
    strong, null = np.array(abstain)[:, :5], np.array(abstain)[:, 5:]
    assert not strong.any() and null.mean() >= 0.8  # by chance a null one looks like an effect now and then
    assert np.array(size)[:, 5:].mean() < 0.05 * np.array(size)[:, :5].mean()


def test_where_all_are_null_all_are_abstained_on() -> None:
    model = fitted(replicates(0, strong=0, null=8), train={"holdout": [("N0", "two"), ("N1", "two")]})
    predicted, (said,) = asked(model, ["N0", "N1"], context="two")
    assert record(predicted)["conditions"]["abstain"].all()
    assert str(said.message).startswith("The model abstains on 2 of 2 (no better than no change can be expected); ")


def test_strong_effects_are_used_in_a_third_replicate() -> None:
    other = measured({("S0", "three"): 0.0}, seed=7, genes=200)
    predicted, _ = asked(fitted(replicates(1)), ["S0", "S4"], adata=other, context="three")
    found = record(predicted)["conditions"]
    assert not found["abstain"].any() and set(found["basis"]) == {"left out"}


def test_trained_conditions_are_never_abstained_on() -> None:
    """They were measured: how small they are is known."""
    model = fitted(replicates(0))
    predicted, said = asked(model, ["S0", "N5"])
    found = record(predicted)["conditions"]
    assert set(found["support"]) == {"trained"} and not found["abstain"].any() and not said


def test_a_cautious_anchor_is_kept() -> None:
    model = fitted(contexts_of_their_own(), train={"holdout": ["z"]}, anchor=KernelEffect(cautious=True))
    assert model.anchor_.cautious
    assert model.anchor_.context_report().contexts == 3
