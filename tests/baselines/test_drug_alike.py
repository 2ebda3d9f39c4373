"""Drugs with like responses elsewhere: what is learned of a context from the drugs given there."""

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs._alike import LEAST_DRUGS, STRENGTHS, _ridge, responses_alike
from scjepa.baselines.drugs._experts import ALIKE
from scjepa.baselines.drugs._rows import Rows
from scjepa.data import ConditionTable

DRUGS = tuple(f"d{i:02d}" for i in range(30))


def turned(seed=0, noise=0.3, here=24):
    """Effects of drugs in x, and in y, where the programmes of x come out as others; the last drugs are not given in y."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(len(DRUGS), 3))
    x, y = (score @ rng.normal(size=(3, 40)) + noise * rng.normal(size=(len(DRUGS), 40)) for _ in range(2))
    design = np.vstack([np.eye(len(DRUGS)), np.eye(len(DRUGS))[:here]])
    rows = Rows(DRUGS, design, np.array(["x"] * len(DRUGS) + ["y"] * here))
    return rows, np.vstack([x, y[:here]]), y[here:]


def asked(rows, names, context="y"):
    at = [rows.drugs.index(name) for name in names]
    return Rows(rows.drugs, np.eye(len(rows.drugs))[at], np.array([context] * len(at)))


def test_programmes_that_come_out_as_others_are_learned():
    rows, values, truth = turned()
    said = responses_alike(rows, values, asked(rows, DRUGS[24:]))
    copied, error = values[24:30], lambda p: np.linalg.norm(p - truth)
    assert error(said) < 0.6 * error(0 * truth) and error(said) < 0.4 * error(copied)


def test_nothing_is_said_where_nothing_can_be_learned():
    rows, values, _ = turned()
    fresh = Rows((*DRUGS, "new"), np.eye(31)[[30]], np.array(["y"]))
    assert not responses_alike(rows, values, fresh).any()  # never given
    assert not responses_alike(rows, values, asked(rows, DRUGS[:2], "z")).any()  # a context without rows
    one = rows.take(np.arange(30))
    assert not responses_alike(one, values[:30], asked(one, DRUGS[:2], "x")).any()  # one context
    few = np.r_[:30, 30 : 30 + LEAST_DRUGS - 1]
    assert not responses_alike(rows.take(few), values[few], asked(rows, DRUGS[24:])).any()
    enough = np.r_[few, 30 + LEAST_DRUGS - 1]
    assert responses_alike(rows.take(enough), values[enough], asked(rows, DRUGS[24:])).any()
    only = np.r_[1:54]  # the first drug is not given in x, so nothing is known of it beside y
    assert not responses_alike(rows.take(only), values[only], asked(rows, DRUGS[:1])).any()
    assert responses_alike(rows.take(only), values[only], asked(rows, DRUGS[1:2])).any()


def test_combinations_are_sums_and_contexts_of_no_size():
    rows, values, _ = turned()
    each = responses_alike(rows, values, asked(rows, DRUGS[24:26]))
    both = Rows(DRUGS, np.eye(30)[[24]] + np.eye(30)[[25]], np.array(["y"]))
    np.testing.assert_allclose(responses_alike(rows, values, both)[0], each.sum(0))
    louder = np.where((rows.contexts == "x")[:, None], 10 * values, values)
    np.testing.assert_allclose(responses_alike(rows, louder, asked(rows, DRUGS[24:26])), each)


def test_strength_of_the_ridge_is_by_leaving_rows_out():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(12, 2))
    kernel = np.exp(-((z[:, None] - z) ** 2).sum(2))
    y = np.c_[np.sin(z[:, 0]), z[:, 1]] + 0.4 * rng.normal(size=(12, 2))
    y -= y.mean(0)

    def by_hand(strength):
        missed = []
        for i in range(12):
            rest = np.delete(np.arange(12), i)
            a = np.linalg.solve(kernel[np.ix_(rest, rest)] + strength * np.eye(11), y[rest])
            missed.append(y[i] - kernel[i, rest] @ a)
        return np.mean(np.square(missed))

    best = min(STRENGTHS, key=by_hand)
    assert best not in (STRENGTHS[0], STRENGTHS[-1])
    np.testing.assert_allclose(
        _ridge(kernel, kernel, y), kernel @ np.linalg.solve(kernel + best * np.eye(12), y), atol=1e-8
    )


@pytest.fixture(scope="module")
def fitted():
    rows, values, truth = turned(noise=0.8)
    z = values[:30] + np.random.default_rng(3).normal(size=(30, 40))  # as x
    names = [*np.array(DRUGS)[rows.design.argmax(1)], *DRUGS]
    where = np.array([*rows.contexts, *["z"] * 30])
    table = ConditionTable(tuple((n,) for n in names), where, np.zeros((84, 40)), np.vstack([values, z]))
    alike = pd.DataFrame(np.random.default_rng(2).integers(0, 2, (31, 20)), index=[*DRUGS, "new"])
    return DrugEffect(features=alike).fit(table), truth


def test_the_anchor_believes_it_where_it_wins(fitted):
    model, truth = fitted
    pick = model.picks_["elsewhere"]
    assert pick["contexts"]["y"][ALIKE] > 0.3 and pick["plain"] != ALIKE
    query = ConditionTable(tuple((n,) for n in DRUGS[24:]), np.array(["y"] * 6), np.zeros(truth.shape))
    assert np.linalg.norm(model.effects(query) - truth) < 0.8 * np.linalg.norm(truth)


def test_it_is_no_candidate_for_new_molecules(fitted):
    model, _ = fitted
    assert ALIKE not in model.picks_["unseen"]["errors"]
    assert not model.screener("y").effects({"features": np.ones((1, 20))}).std() == 0


def test_every_context_has_weights_of_its_own(fitted):
    model, truth = fitted
    pick = model.picks_["elsewhere"]
    assert set(pick["contexts"]) == {"x", "y", "z"}
    assert pick["contexts"]["x"].get(ALIKE, 0) < pick["contexts"]["y"][ALIKE]
    query = ConditionTable(tuple((n,) for n in DRUGS[24:]), np.array(["y"] * 6), np.zeros(truth.shape))
    said = model._judge.experts().predict(model._questions(query))
    by_hand = sum(weight * said[name] for name, weight in pick["contexts"]["y"].items()) @ model._axes.T
    np.testing.assert_allclose(model.effects(query), by_hand, atol=1e-12)
    np.testing.assert_array_equal(DrugEffect.from_state(model.state()).effects(query), model.effects(query))
    left = model.left_out_effects("elsewhere")
    error = np.sqrt(((left - model.table_.effects) ** 2).mean(1))
    assert error.mean() == pytest.approx(pick["error"])
