"""Anchors without a model: which closed form predicts, which one the network corrects, and what is kept of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from tests.model.conditions.tables import screen, table

from scjepa.baselines import BASELINES, Additive, Baseline, KernelEffect, MeanEffect
from scjepa.data import ConditionTable
from scjepa.model.conditions._anchors import Anchors


class Twice(Baseline):
    """A baseline of the user's own: effects twice as large as the mean."""

    name: ClassVar[str] = "twice"

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def fit(self, table: ConditionTable) -> Twice:
        self._remember(table)
        return self

    def effects(self, query: ConditionTable) -> np.ndarray:
        return np.repeat(self.factor * self._trained(query).effects.mean(0)[None], len(query), axis=0)


def plain(value: Any) -> bool:
    """Whether a value is arrays and JSON, all the way down."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype != object
    json.dumps(value)  # raises for what JSON does not have
    return True


# ---------------------------------------------------------------- fitting
@pytest.mark.parametrize("contexts", [["x"], ["x", "y"]])
def test_the_network_corrects_an_anchor_blind_to_contexts_only_where_there_are_several(contexts: list[str]) -> None:
    several = len(contexts) > 1
    anchors = Anchors().fit(screen(contexts=contexts, doubles=3), n_contexts=len(contexts))
    assert (anchors.base is not anchors.full) == several
    assert anchors.full.context_kernel and anchors.base.context_kernel == (not several)


def test_contexts_of_the_models_own_cells_count() -> None:
    """Conditions of a reference may be from other contexts; the network is trained in one."""
    anchors = Anchors().fit(screen(contexts=("x", "y"), doubles=3), n_contexts=1)
    assert anchors.base is anchors.full


def test_an_anchor_that_is_blind_already_needs_no_twin() -> None:
    anchors = Anchors(KernelEffect(context_kernel=False)).fit(screen(contexts=("x", "y"), doubles=3), n_contexts=2)
    question = screen(contexts=("x",), doubles=3)
    full, base = anchors.effects(question)
    np.testing.assert_array_equal(full, base)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {KernelEffect.name}))
def test_other_baselines_are_their_own_base(name: str) -> None:
    anchors = Anchors(name).fit(screen(contexts=("x", "y"), doubles=3), n_contexts=2)
    assert type(anchors.full) is BASELINES[name] and anchors.base is anchors.full


def test_both_names_of_the_kernel() -> None:
    question = screen(1, doubles=3)
    one, other = (Anchors(name).fit(screen(doubles=3)).effects(question)[0] for name in ("kernel", KernelEffect.name))
    np.testing.assert_array_equal(one, other)


def test_fresh_anchors_have_the_arguments_of_the_one_given() -> None:
    given = KernelEffect(links=(None,), n_components=3, features=pd.DataFrame([[1.0]], index=["A"]))
    anchors = Anchors(given).fit(screen(contexts=("x", "y"), doubles=3), n_contexts=2)
    for made in (anchors.full, anchors.base, anchors.fresh()):
        assert made is not given and made.links == (None,) and made.n_components == 3
        assert made.features.to_numpy().tolist() == [[1.0]]
    assert not hasattr(given, "picks_")  # the user's is not fitted
    assert (anchors.base.context_kernel, anchors.fresh(context_kernel=False).context_kernel) == (False, False)


def test_no_anchor() -> None:
    anchors = Anchors(None)
    assert not anchors and anchors.fresh() is None and anchors.table is None
    anchors.fit(screen(doubles=2))
    assert not anchors and anchors.base is None
    assert not Anchors.from_state(anchors.state())


def test_fitting_anew_forgets() -> None:
    anchors = Anchors("mean").fit(table(["A"], [[1.0, 0.0]]))
    anchors.unseen = KernelEffect()
    anchors.fit(table(["A"], [[3.0, 0.0]]))
    assert anchors.unseen is None and anchors.effects(table(["A"], n_genes=2))[0].tolist() == [[3, 0]]


@pytest.mark.parametrize("contexts", [["x"], ["x", "y"]])
def test_the_log_says_where_noise_is_unknown(contexts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Anchors("mean").fit(screen(contexts=contexts, doubles=2))
        assert not caplog.records
        Anchors("mean").fit(screen(contexts=contexts, doubles=2, known=False))
    assert ("all conditions are believed alike" in caplog.text) == (len(contexts) == 1)


def test_wrong_names() -> None:
    with pytest.raises(
        ValueError, match=r"anchor='kernle': expected 'kernel', None, a baseline, or one of \['additive'"
    ):
        Anchors("kernle")


# ---------------------------------------------------------------- effects
def test_effects_are_those_of_both_anchors() -> None:
    anchors = Anchors().fit(screen(contexts=("x", "y"), doubles=5), n_contexts=2)
    question = screen(2, contexts=("x", "y", "z"), doubles=5)
    full, base = anchors.effects(question)
    np.testing.assert_array_equal(full, anchors.full.effects(question))
    np.testing.assert_array_equal(base, anchors.base.effects(question))


def test_additive_knows_the_singles_that_it_was_trained_on() -> None:
    trained = table(["A", "B", "A"], [[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]], ["x", "x", "y"])
    anchors = Anchors("additive").fit(trained)
    full, _ = anchors.effects(table(["A+B", "A", "C", "B", "A"], None, ["x", "x", "x", "y", "y"], n_genes=2))
    np.testing.assert_array_equal(full, [[1, 2], [1, 0], [np.nan] * 2, [np.nan] * 2, [5, 5]])
    assert np.isnan(Additive().fit(trained).effects(trained)).all()  # which it says nothing of itself


def test_what_was_trained_on_is_known_at_its_own_dose_only() -> None:
    trained = table(["A", "A"], [[1.0, 0.0], [3.0, 0.0]], dose=np.array([1.0, 2.0]))
    full, _ = Anchors("additive").fit(trained).effects(table(["A"] * 3, dose=np.array([2.0, 1.0, 1.5]), n_genes=2))
    np.testing.assert_array_equal(full, [[3, 0], [1, 0], [np.nan] * 2])


def test_the_order_of_questions_and_conditions_does_not_matter() -> None:
    trained, question = screen(doubles=6), screen(1, doubles=6)
    order, asked = (
        np.random.default_rng(0).permutation(len(trained)),
        np.random.default_rng(1).permutation(len(question)),
    )
    there = Anchors().fit(trained).effects(question)[0]
    again = Anchors().fit(trained.rows(order)).effects(question.rows(asked))[0]
    np.testing.assert_allclose(again, there[asked], atol=1e-6)


def test_unseen_items_are_known_by_their_features() -> None:
    """Effects linear in features: those of an item never trained on come out, up to shrinking; features are read once."""
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(21, 2)), index=[f"I{i}" for i in range(21)])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    effects = features.to_numpy() @ rng.normal(size=(2, 30))
    trained = table(list(features.index[:20]), effects[:20], control=np.full((20, 30), 5.0))
    question = table(["I20"], None, control=np.full((1, 30), 5.0))
    anchors = Anchors().fit(trained)
    assert np.isnan(anchors.effects(question)[0]).all()
    asked: list[int] = []

    def read() -> pd.DataFrame:
        asked.append(1)
        return features

    found = [anchors.unseen_effects(question, read)[0] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert asked == [1] and anchors.unseen.table_ is trained
    assert np.linalg.norm(found[0] - effects[20]) < 0.3 * np.linalg.norm(effects[20])
    assert np.isnan(anchors.effects(question)[0]).all()  # features change nothing elsewhere


# ---------------------------------------------------------------- leaving out
def test_without_keeps_the_choice_of_candidates() -> None:
    whole = screen(contexts=("x", "y"), doubles=8)
    few = whole.rows(np.arange(len(whole)) % 3 > 0)
    anchors = Anchors().fit(whole, n_contexts=2)
    left = anchors.without(few)
    for name in ("full", "base"):
        here, there = getattr(left, name), getattr(anchors, name)
        assert here.picks_ == there.picks_ and here.context_kernel == there.context_kernel
        assert len(here.table_) == len(few)
    chosen = Anchors().fit(few, n_contexts=2)
    assert chosen.full.picks_ != anchors.full.picks_  # which fitting anew would not have made
    assert len(anchors.table) == len(whole)


def test_without_fits_other_baselines_anew() -> None:
    whole = table(["A", "B"], [[1.0, 0.0], [3.0, 0.0]])
    left = Anchors("mean").fit(whole).without(whole.rows([1]))
    assert left.effects(table(["A"], n_genes=2))[0].tolist() == [[3, 0]]


# ---------------------------------------------------------------- kept
@pytest.mark.parametrize("name", sorted(BASELINES))
def test_state_is_plain_and_comes_back_to_the_last_bit(name: str) -> None:
    anchors = Anchors(name).fit(screen(contexts=("x", "y"), doubles=8), n_contexts=2)
    state = anchors.state()
    assert plain(state)
    again = Anchors.from_state(state)
    assert (again.base is again.full) == (anchors.base is anchors.full) and again.wanted == name
    question = screen(3, contexts=("x", "z"), doubles=8)
    for here, there in zip(again.effects(question), anchors.effects(question), strict=True):
        np.testing.assert_array_equal(here, there)
    left = screen(contexts=("x",), doubles=4)
    for here, there in zip(again.without(left).effects(question), anchors.without(left).effects(question), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("make", [lambda: KernelEffect(links=(None,), cautious=True), MeanEffect])
def test_a_baseline_given_as_an_object_is_plain_too(make: Callable[[], Baseline]) -> None:
    anchors = Anchors(make()).fit(screen(contexts=("x", "y"), doubles=3), n_contexts=2)
    assert plain(anchors.state())
    again = Anchors.from_state(anchors.state())
    assert type(again.wanted) is type(anchors.wanted) and again.fresh().state() == anchors.fresh().state()


def test_a_class_of_the_users_own_stays_an_object() -> None:
    given = Twice(3.0)
    anchors = Anchors(given).fit(table(["A"], [[1.0, 0.0]]))
    state = anchors.state()
    assert state["wanted"] is given and state["full"] is anchors.full and state["base"] == "full"
    again = Anchors.from_state(state)
    assert again.effects(table(["Z"], n_genes=2))[0].tolist() == [[3, 0]]
    assert again.fresh().factor == 3.0 and not hasattr(given, "table_")


def test_what_is_not_fitted_is_kept_as_that() -> None:
    again = Anchors.from_state(Anchors("mean").state())
    assert not again and again.wanted == "mean" and again.base is None
