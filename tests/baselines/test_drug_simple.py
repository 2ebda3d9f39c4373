"""The simple baselines of drugs: values by hand, what they say nothing of, plain state, and their place as anchors."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import ANCHORS, MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge
from scjepa.data import ConditionTable
from scjepa.model.conditions._anchors import Anchors

RULES = (MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge)
BITS = pd.DataFrame([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]], index=["A", "B", "N", "M"])


@pytest.fixture
def table(make_table) -> ConditionTable:
    """A in x at doses 1 and 10 (1, 3) and in y at 1 (8); B in x at 1 (5); a row at dose zero that says nothing."""
    dose = np.array([1.0, 10.0, 1.0, 1.0, 0.0])
    return make_table(["A", "A", "A", "B", "B"], [1, 3, 8, 5, 99], contexts=["x", "x", "y", "x", "x"], dose=dose)


def ask(make_table, drugs: list[str], contexts: list[str], dose: list[float]) -> ConditionTable:
    return make_table(drugs, contexts=contexts, dose=np.array(dose), n_genes=1)


def test_mean_per_context_by_dose(table, make_table):
    asked = ask(make_table, ["N", "N", "N", "A+B", "A", "N"], [*"xxyxxz"], [1.0, 10.0, 1.0, 1.0, 0.0, 10.0])
    # in x at 1: (1 + 5) / 2, at 10: 3; a new context: the others at that dose
    assert MeanPerContext().fit(table).effects(asked).ravel().tolist() == pytest.approx([3, 3, 8, 6, 0, 3])


def test_mean_per_drug_and_nothing_of_new_ones(table, make_table):
    asked = ask(make_table, ["A", "B", "A+B", "N", "A+N"], ["x"] * 5, [1.0] * 5)
    found = MeanPerDrug().fit(table).effects(asked).ravel()
    np.testing.assert_allclose(found, [4, 5, 9, np.nan, np.nan])
    assert MeanPerDrug().fit(table).applies(asked).tolist() == [True, True, True, False, False]


def test_nearest_dose_in_the_context_first(table, make_table):
    asked = ask(make_table, ["A", "A", "A", "A", "B", "N"], [*"xxyzxx"], [2.0, 7.0, 10.0, 10.0, 50.0, 1.0])
    # in y A was measured at 1 only; in z never: the nearest dose anywhere
    np.testing.assert_allclose(NearestDose().fit(table).effects(asked).ravel(), [1, 3, 8, 3, 5, np.nan])


def test_nearest_molecules_by_hand(table, make_table):
    asked = ask(make_table, ["N", "N", "A", "nobody"], [*"xyxx"], [1.0] * 4)
    # N shares one of four bits with A, two of three with B; in x A's mean is 2, B's 5
    one = TanimotoKNN(features=BITS, k=1).fit(table).effects(asked).ravel()
    np.testing.assert_allclose(one, [5, 8, 2, np.nan], rtol=1e-6)
    two = TanimotoKNN(features=BITS, k=2).fit(table).effects(asked).ravel()
    np.testing.assert_allclose(two[0], (0.25 * 2 + 2 / 3 * 5) / (0.25 + 2 / 3), rtol=1e-6)
    with pytest.raises(ValueError, match="k=0"):
        TanimotoKNN(features=BITS, k=0)


def test_ridge_follows_structure_and_falls_back_to_the_mean(make_table):
    rng = np.random.default_rng(0)
    bits = pd.DataFrame(np.repeat(np.eye(2, 8), 5, axis=0), index=[f"D{i}" for i in range(10)])
    bits.iloc[:, 2:] = rng.random((10, 6)) < 0.1
    does = np.repeat([[1.0], [-1.0]], 5, axis=0) + 0.1 * rng.normal(size=(10, 1))
    train = make_table(list(bits.index[1:9]), does[1:9])
    found = TanimotoRidge(features=bits).fit(train).effects(make_table(["D0", "D9"], n_genes=1)).ravel()
    assert found[0] > 0.5 and found[1] < -0.5
    few = make_table(["D1", "D2"], [1.0, 3.0])  # nothing to learn from
    assert TanimotoRidge(features=bits).fit(few).effects(make_table(["D0"], n_genes=1)).tolist() == [[2.0]]


@pytest.mark.parametrize("rule", RULES)
def test_state_is_plain_and_gives_the_same_predictions(rule, table, make_table):
    made = (rule(features=BITS) if rule in (TanimotoKNN, TanimotoRidge) else rule()).fit(table)
    state = made.state()
    json.dumps(state, default=lambda v: v.tolist())
    asked = ask(make_table, ["A", "N", "A+B"], [*"xxy"], [1.0, 10.0, 3.0])
    np.testing.assert_array_equal(rule.from_state(state).effects(asked), made.effects(asked))
    order = np.array([4, 2, 0, 3, 1])
    np.testing.assert_allclose(
        rule.from_state({**state, "table_": made.fit(table.rows(order)).state()["table_"]}).effects(asked),
        rule.from_state(state).effects(asked),
    )


@pytest.mark.parametrize("rule", RULES)
def test_errors_and_anchors(rule, table, make_table):
    assert ANCHORS[rule.name] is rule
    with pytest.raises(RuntimeError, match=f"{rule.__name__} is not fitted yet"):
        rule().effects(table)
    with pytest.raises(ValueError, match=f"{rule.__name__}.fit: all 5 rows have dose or time zero"):
        rule().fit(make_table([*"ABCDE"], [1] * 5, dose=np.zeros(5)))
    anchors = Anchors(rule.name).fit(table)
    again = Anchors.from_state(anchors.state())
    np.testing.assert_array_equal(again.effects(table)[0], anchors.effects(table)[0])
