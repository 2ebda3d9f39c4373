"""No change, mean, additive, context transfer: hand-computed answers and where they apply."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.baselines import BASELINES, Additive, ContextTransfer, KNNEffect, MeanEffect, NoChange, applicable
from scjepa.baselines._singles import single_effects
from scjepa.data import ConditionTable


def test_no_change_predicts_zero(make_table):
    query = make_table(["A", "Z+Y"], control=[1.0, 2.0])
    assert np.array_equal(NoChange().fit(make_table(["A"], [[3, 4]])).effects(query), np.zeros((2, 2)))


def test_mean_weighs_perturbations_equally(make_table):
    # A has three rows with mean 2, B one row with 4, A+B one row with 9: (2 + 4 + 9) / 3 = 5
    table = make_table(["A", "A", "A", "B", "A+B"], [1, 2, 3, 4, 9], contexts=["x", "y", "z", "x", "x"])
    out = MeanEffect().fit(table).effects(make_table(["C", "B"], n_genes=1))
    assert out.ravel().tolist() == pytest.approx([5.0, 5.0])


def test_additive_sums_singles_of_the_same_context_or_averages_over_contexts(make_table):
    table = make_table(["A", "A", "B", "B", "C"], [1, 10, 2, 20, 5], contexts=["x", "y", "x", "y", "x"])
    query = make_table(["A+B", "A+B", "A+C", "A+B", "A+B+C"], contexts=["x", "y", "y", "new", "x"], n_genes=1)
    # A+C in y: A was measured there (10), C only in x (5); A+B in a new context: means 5.5 + 11
    assert Additive().fit(table).effects(query).ravel().tolist() == pytest.approx([3, 30, 15, 16.5, 8])


def test_additive_is_nan_for_singles_and_missing_parts(make_table):
    baseline = Additive().fit(make_table(["A", "B", "C+D"], [1, 2, 3]))
    query = make_table(["A", "A+C", "A+B"], n_genes=1)
    assert baseline.applies(query).tolist() == [False, False, True]


def test_additive_uses_singles_of_the_same_kind_and_dose(make_table):
    table = make_table(
        ["A", "A", "A", "B"],
        [1, -1, 7, 2],
        kind=np.array(["KO", "OE", "KO", "KO"]),
        dose=np.array([1.0, 1.0, 5.0, 1.0]),
    )
    query = make_table(["A+B", "A+B"], n_genes=1, kind=np.array(["KO", "OE"]), dose=np.array([1.0, 1.0]))
    np.testing.assert_allclose(Additive().fit(table).effects(query), [[3.0], [np.nan]])


def test_context_transfer_averages_the_other_contexts(make_table):
    table = make_table(["A", "A", "A", "B"], [1, 3, 8, 5], contexts=["x", "y", "z", "x"])
    query = make_table(["A", "B", "B", "A", "C"], contexts=["new", "new", "y", "x", "new"], n_genes=1)
    # A in x and B in y: the first was measured there, the second was not
    np.testing.assert_allclose(ContextTransfer().fit(table).effects(query).ravel(), [4.0, 5.0, 5.0, np.nan, np.nan])


def test_registry_lists_every_baseline_by_its_name():
    simple = ["no change", "mean", "matching mean", "additive", "context transfer"]
    assert list(BASELINES) == [*simple, "kNN", "linear", "ridge", "kernel anchor"]
    assert all(cls.name == name for name, cls in BASELINES.items())


@pytest.mark.parametrize(
    ("label", "context", "missing"),
    [
        ("A+B", "x", {"context transfer", "linear"}),  # no perturbed gene is measured
        ("A", "y", {"additive", "linear"}),
        ("Z", "x", {"additive", "context transfer", "kNN", "linear", "ridge", "kernel anchor"}),
    ],
)
def test_applicable_leaves_out_what_has_no_prediction(make_table, label, context, missing):
    table = make_table(["A", "B"], [1.0, 2.0], contexts=["x", "x"])
    query = make_table([label], contexts=[context], n_genes=1)
    found = [baseline.name for baseline in applicable(table, query)]
    assert found == [name for name in BASELINES if name not in missing]
    assert all(np.isfinite(baseline.effects(query)).all() for baseline in applicable(table, query))


def test_fitted_effects_are_predictions_of_the_training_rows(make_table):
    table = make_table(["A", "B", "A+B"], [1.0, 2.0, 5.0])
    np.testing.assert_allclose(Additive().fit(table).fitted_effects(), [[np.nan], [np.nan], [3.0]])


@pytest.mark.parametrize("baseline", [ContextTransfer(), KNNEffect(k=1)])
def test_measured_effects_are_looked_up_at_their_time(baseline):
    """A for 6 hours does 1, for 24 hours 3; nothing is known of 12 hours."""
    train = ConditionTable(
        (("A",), ("A",)),
        np.array(["x", "x"]),
        np.zeros((2, 1)),
        np.array([[1.0], [3.0]]),
        np.array([5, 5]),
        time=np.array([6.0, 24.0]),
    )
    query = ConditionTable((("A",),) * 3, np.array(["y"] * 3), np.zeros((3, 1)), time=np.array([24.0, 6.0, 12.0]))
    np.testing.assert_array_equal(baseline.fit(train).effects(query), [[3.0], [1.0], [np.nan]])
    assert [effect for (effect,) in single_effects(train, query)] == [3.0, 1.0, None]
