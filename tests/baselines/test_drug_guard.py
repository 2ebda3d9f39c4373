"""Cautious weights: what surely wins is believed, what wins by a few units' luck is not, and losses are bounded."""

from __future__ import annotations

import numpy as np
import pytest
from tests.baselines.test_drug_effect import activity, asked, library, rmse, split

from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs._guard import weigh, weigh_cautiously
from scjepa.data import ConditionTable

NAMES = ["no change", "mean", "ridge"]


def products(errors: np.ndarray) -> np.ndarray:
    return np.einsum("nkg,nlg->nkl", errors, errors)


def cautious(errors: np.ndarray, units: np.ndarray | None = None):
    units = np.arange(len(errors)) if units is None else units
    return weigh_cautiously(products(errors), NAMES, NAMES, units, errors.shape[2], ["mean per context", "mean"])


def test_what_wins_everywhere_is_followed_and_what_loses_is_not() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(size=(20, 1, 200)) * np.array([1.2, 1.0, 0.8])[:, None]
    found = cautious(errors)
    assert (
        found.weights == {"ridge": pytest.approx(1.0)} and found.plain == "mean" and found.follow == pytest.approx(1.0)
    )
    assert found.error == pytest.approx(0.8, abs=0.02) and found.errors["mean"] == pytest.approx(1.0, abs=0.02)
    assert cautious(errors[:, [2, 1, 0]]).weights == {"no change": pytest.approx(1.0)}
    assert cautious(errors[:, [0, 2, 1]]).weights == {"mean": pytest.approx(1.0)}


def test_gains_that_units_do_not_agree_on_are_left_alone() -> None:
    """The ridge wins 2 % on average, but loses as often as it wins: the usual weights follow it, cautious ones do not."""
    rng = np.random.default_rng(1)
    errors = np.repeat(rng.normal(size=(16, 1, 200)), 3, axis=1)
    errors[:, 2] *= np.where(np.arange(16) % 2, 0.90, 1.06)[:, None]
    errors[:, 0] *= 1.5
    usual = weigh(products(errors), NAMES, NAMES, np.arange(16), 200)
    assert usual.weights["ridge"] > 0.2
    assert cautious(errors).weights.get("ridge", 0.0) < 0.02


def test_great_gains_of_some_units_are_no_risk() -> None:
    """A quarter gains a fifth, no one loses: the spread is wide, but only upward."""
    rng = np.random.default_rng(2)
    errors = np.repeat(rng.normal(size=(40, 1, 200)), 3, axis=1)
    errors[:, 2] *= np.where(np.arange(40) % 4, 0.999, 0.8)[:, None]
    errors[:, 0] *= 1.5
    assert cautious(errors).weights.get("ridge", 0.0) > 0.95


def test_rows_of_a_unit_count_as_one() -> None:
    """One drug in thirty rows is no thirty witnesses."""
    rng = np.random.default_rng(3)
    errors = np.repeat(rng.normal(size=(36, 1, 200)), 3, axis=1)
    units = np.r_[np.zeros(30, int), np.arange(1, 7)]
    errors[:30, 2] *= 0.9
    errors[30:, 2] *= 1.1
    errors[:, 0] *= 1.5
    assert cautious(errors, units).weights == {"mean": pytest.approx(1.0)}


def test_one_unit_or_no_error_leaves_the_null_prediction() -> None:
    rng = np.random.default_rng(4)
    errors = rng.normal(size=(3, 3, 50)) * np.array([1.0, 1.0, 0.1])[:, None]
    assert cautious(errors, np.zeros(3)).weights == {"mean": 1.0}
    assert cautious(np.zeros((3, 3, 50))).weights == {"mean": 1.0}


@pytest.mark.parametrize(("n_drugs", "contexts"), [(12, ("x", "y")), (20, ("x",))])
def test_molecules_never_seen_do_not_lose_to_the_mean_in_small_sets(n_drugs: int, contexts: tuple[str, ...]) -> None:
    """Structures that tell nothing, in sets of 12 and 20 drugs: within .2 % of the mean in every fold."""
    for seed in range(2):
        bits = library(n_drugs, seed)
        table = activity(bits, seed + 30, structured=False, contexts=contexts)
        names = np.array([a[0] for a in table.actions])
        for fold in range(2):
            test = np.flatnonzero(np.isin(names, bits.index[fold::4]))
            train = np.setdiff1d(np.arange(len(table)), test)
            y, where = table.effects[train], table.contexts[train]
            mean = np.array([y[where == c].mean(0) for c in table.contexts[test]])
            predicted = DrugEffect(features=bits).fit(table.rows(train)).effects(asked(table, test))
            assert rmse(predicted, table.effects[test]) <= 1.002 * rmse(mean, table.effects[test])


def test_structure_that_tells_is_still_believed_in_a_small_set() -> None:
    bits = library(18, 0)
    table = activity(bits, 1)
    train, test = split(table, 4)
    model = DrugEffect(features=bits).fit(table.rows(train))
    true, y, where = table.effects[test], table.effects[train], table.contexts[train]
    mean = np.array([y[where == c].mean(0) for c in table.contexts[test]])
    assert rmse(model.effects(asked(table, test)), true) < 0.8 * rmse(mean, true)


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_the_ends_of_one_drugs_curve_are_no_worse_than_mean_and_nearest_dose(noise: float) -> None:
    """One drug from cells, where nothing can be left out: clean and steep, the nearest dose is right; noisy, the mean is."""
    dose, n = np.array([0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0]), np.full(7, 50)
    lost: list[list[float]] = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        size = dose / (dose + 5.0) if noise < 0.5 else np.ones(7)
        y = np.outer(size, 0.3 * rng.normal(size=40)) + noise * rng.normal(size=(7, 40)) / np.sqrt(10)
        variance = np.full(40, noise**2 * 5)  # of a mean of 50 cells: a tenth of the squared noise
        table = ConditionTable(
            (("A",),) * 7, np.array(["x"] * 7), np.zeros_like(y), y, n, dose=dose, variance=variance, n_controls=n * 20
        )
        for out, near in ((0, 1), (6, 5)):
            train = np.setdiff1d(np.arange(7), [out])
            said = DrugEffect().fit(table.rows(train)).effects(asked(table, np.array([out])))
            lost.append([rmse(p, table.effects[[out]]) for p in (said, y[[near]], y[train].mean(0)[None])])
    mine, nearest, mean = np.mean(lost, axis=0)
    assert mine <= 1.02 * min(nearest, mean)
