"""Intervals without a model: coverage of held-out effects, support, abstention, and what is kept."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.model.conditions.tables import screen, table

from scjepa.data import ConditionTable
from scjepa.model.conditions import _intervals
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._design import Words
from scjepa.model.conditions._intervals import Intervals, Judged
from scjepa.model.conditions._trust import Trust

WORDS = Words("perturbation_key", "perturbations", "genes", "gene", "perturbed", "no features", "Give features.")


def judged(intervals: Intervals, asked: ConditionTable, *, wanted: bool = True, network: float = 0.0) -> Trust:
    effect = intervals.anchors.effects(asked)[0]
    return intervals.judge(asked, effect, np.full(len(asked), network), WORDS, intervals=wanted)


def half(intervals: Intervals, asked: ConditionTable, level: float = 0.9) -> np.ndarray:
    effect = intervals.anchors.effects(asked)[0]
    return judged(intervals, asked).half_widths(effect, asked.control, level)


def of(found: ConditionTable, rows: np.ndarray) -> ConditionTable:
    return found.rows(np.asarray(rows))


@pytest.fixture(scope="module")
def intervals() -> Intervals:
    return Intervals(Anchors().fit(screen(doubles=14)))


@pytest.fixture(scope="module")
def asked() -> ConditionTable:
    """A single and doubles that were trained on, doubles that were not, and one of another context."""
    many = screen(doubles=25)
    trained = set(screen(doubles=14).actions)
    new = [i for i, a in enumerate(many.actions) if a not in trained][:3]
    return of(many, np.r_[0, new])


# ---------------------------------------------------------------- coverage
def test_held_out_effects_are_covered_as_often_as_was_wanted() -> None:
    """Doubles left out of seven screens whose noise is known; conditions, not genes, are independent."""
    inside: dict[float, list[float]] = {0.5: [], 0.9: []}
    for seed in range(7):
        whole = screen(seed, doubles=30, noise=0.15)
        held = np.flatnonzero(whole.order == 2)[::3]
        kept = np.setdiff1d(np.arange(len(whole)), held)
        made, question = Intervals(Anchors().fit(of(whole, kept))), of(whole, held)
        effect = made.anchors.effects(question)[0]
        trust = judged(made, question)
        assert (trust.support == "near").mean() >= 0.8 and set(trust.basis) == {"left out"}
        for level, rows in inside.items():
            wide = trust.half_widths(effect, question.control, level)
            rows += (np.abs(question.effects - effect) <= wide).mean(1).tolist()
    error = {level: np.std(rows) / np.sqrt(len(rows)) for level, rows in inside.items()}
    assert np.mean(inside[0.9]) == pytest.approx(0.9, abs=0.01 + 3 * error[0.9])
    assert np.mean(inside[0.5]) == pytest.approx(0.5, abs=0.02 + 3 * error[0.5])


def test_twice_the_noise_makes_intervals_twice_as_wide() -> None:
    """Where nothing but the sampling noise is left, half-widths are those of a normal distribution."""
    wide = {}
    for noise in (0.1, 0.2):
        whole = screen(doubles=20, noise=noise)
        question = of(whole, np.flatnonzero(whole.order == 2)[:4])
        kept = of(whole, np.setdiff1d(np.arange(len(whole)), np.flatnonzero(whole.order == 2)[:4]))
        wide[noise] = float(np.median(half(Intervals(Anchors().fit(kept)), question)))
    assert wide[0.2] / wide[0.1] == pytest.approx(2, rel=0.3)
    assert wide[0.2] == pytest.approx(1.645 * 0.2, rel=0.35)


def test_intervals_are_nested_in_level_and_answered_one_by_one(intervals: Intervals, asked: ConditionTable) -> None:
    steps = [half(intervals, asked, level) for level in (0.5, 0.8, 0.9, 0.99)]
    assert all((b >= a).all() and np.isfinite(b).all() for a, b in zip(steps, steps[1:], strict=False))
    for i in range(len(asked)):
        np.testing.assert_allclose(half(intervals, asked.rows([i]))[0], steps[2][i], rtol=1e-9)


# ---------------------------------------------------------------- support and abstention
def test_support_of_trained_near_and_far_questions(intervals: Intervals, asked: ConditionTable) -> None:
    trust = judged(intervals, asked)
    assert trust.support.tolist() == ["trained", "near", "near", "near"]
    assert not trust.abstain.any() and (0 <= trust.distance).all() and (trust.distance <= 1).all()
    elsewhere = table(["I0"], None, ["another"], control=asked.control[:1] + 0.3)
    trust = judged(intervals, elsewhere)
    # after one context no other could be left out: nothing judges the answer
    assert trust.support.tolist() == ["far"] and trust.basis.tolist() != ["left out"]


def test_a_context_is_near_where_contexts_were_left_out() -> None:
    contexts = ("a", "b", "c", "d", "e")
    whole = screen(contexts=contexts, items=6, doubles=0)
    kept = of(whole, whole.contexts != "e")
    made = Intervals(Anchors().fit(kept, n_contexts=4))
    trust = judged(made, of(whole, whole.contexts == "e"))
    assert set(trust.support) == {"near"} and set(trust.basis) == {"left out"} and not trust.abstain.any()


def test_null_effects_are_abstained_on_and_trained_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    whole = screen(contexts=("a", "b", "c", "d"), items=10, doubles=0)
    null = np.isin(np.array([a[0] for a in whole.actions]), [f"I{i}" for i in range(5)])
    effects = np.where(null[:, None], 0.1 * rng.normal(size=whole.effects.shape), whole.effects)
    flat = table(
        ["+".join(a) for a in whole.actions], effects, whole.contexts, control=whole.control,
        n_cells=whole.n_cells, variance=whole.variance, n_controls=whole.n_controls,
    )  # fmt: skip
    last = flat.contexts == "d"
    made = Intervals(Anchors().fit(of(flat, ~last), n_contexts=3))
    trust = judged(made, of(flat, last))
    assert trust.abstain[null[last]].mean() >= 0.8 and not trust.abstain[~null[last]].any()
    assert "The model abstains on" in trust.note
    assert not judged(made, of(flat, ~last)).abstain.any()


def test_conditions_of_two_cells_are_as_good_as_not_measured() -> None:
    whole = screen(doubles=12)
    whole.n_cells[3] = 2
    trust = judged(Intervals(Anchors().fit(whole)), of(whole, [2, 3]))
    assert trust.abstain.tolist() == [False, True] and set(trust.support) == {"trained"}
    assert "1 of 2 were trained on in fewer than 3 cells" in trust.note


def test_nothing_done_has_no_width_and_no_doubt(intervals: Intervals) -> None:
    made = Intervals(Anchors().fit(screen(doubles=12, known=True)))
    control = screen().control[:1]
    nothing = ConditionTable(((),), np.array(["all"], dtype=object), control)
    trust = made.judge(nothing, np.zeros((1, 30)), np.zeros(1), WORDS, intervals=True)
    assert (trust.half_widths(np.zeros((1, 30)), control, 0.9) == 0).all()
    assert not trust.abstain.any() and trust.distance.tolist() == [0]


def test_a_dose_of_zero_is_nothing_done() -> None:
    whole = screen(doubles=12)
    dosed = table(
        ["+".join(a) for a in whole.actions], whole.effects, control=whole.control, n_cells=whole.n_cells,
        variance=whole.variance, n_controls=whole.n_controls, dose=np.ones(len(whole)),
    )  # fmt: skip
    question = of(dosed, [0, 1])
    question.dose[0] = 0.0
    trust = judged(Intervals(Anchors().fit(dosed)), question)
    wide = trust.half_widths(np.zeros((2, 30)), question.control, 0.9)
    assert (wide[0] == 0).all() and (wide[1] > 0).all()


def test_one_condition_is_as_wrong_as_no_change_was() -> None:
    effect = np.full((1, 30), 0.5)
    made = Intervals(Anchors().fit(table(["A"], effect, control=np.full((1, 30), 3.0))))
    question = table(["A+A2"], None, control=np.full((1, 30), 3.0))
    trust = made.judge(
        table(["A"], None, ["new"], control=np.full((1, 30), 3.0)), effect, np.zeros(1), WORDS, intervals=True
    )
    wide = trust.half_widths(effect, question.control, 0.9)
    assert np.isfinite(wide).all() and np.median(wide) >= 0.5 and trust.abstain.all()


def test_an_anchor_that_answers_everything_is_not_trusted_with_what_was_never_met() -> None:
    """The mean has an answer for items that no distance can be told of: they are as far as can be."""
    whole = screen(doubles=6)
    made = Intervals(Anchors("mean").fit(whole))
    question = table(["nobody", "I0"], None, control=whole.control[:2])
    trust = judged(made, question)
    assert trust.support.tolist() == ["far", "trained"] and trust.abstain.tolist() == [True, False]
    assert trust.distance[0] == 1.0 and trust.basis.tolist() == ["none", "none"]
    wide = trust.half_widths(np.zeros((2, 30)), question.control, 0.9)
    assert np.isfinite(wide).all() and (wide > 0).all()


# ---------------------------------------------------------------- how it is done
@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how many times conditions are calibrated on."""
    calls, real = [], _intervals.calibrate

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(_intervals, "calibrate", counting)
    return calls


def test_conditions_are_left_out_once_a_class(counted: list[int], asked: ConditionTable) -> None:
    made = Intervals(Anchors().fit(screen(doubles=14)))
    judged(made, asked.rows([1]))
    judged(made, asked.rows([2, 3]))
    assert len(counted) == 1
    judged(made, asked)
    assert len(counted) == 2  # the single


def test_without_intervals_trained_conditions_are_not_left_out(counted: list[int], asked: ConditionTable) -> None:
    trust = judged(Intervals(Anchors().fit(screen(doubles=14))), asked.rows([0]), wanted=False)
    assert counted == [] and trust.parts == [] and trust.support.tolist() == ["trained"]


def test_large_tables_calibrate_on_some(
    counted: list[int], asked: ConditionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_intervals, "MAX_CONDITIONS", 6)
    wide = [half(Intervals(Anchors().fit(screen(doubles=14))), asked.rows([1])) for _ in range(2)]
    assert counted == [6, 6]
    np.testing.assert_array_equal(*wide)


def test_what_the_network_predicts_is_judged_by_the_anchor_that_it_corrects() -> None:
    parts = [screen(seed, contexts=(c,), items=6, doubles=6) for seed, c in enumerate("abc")]  # effects of their own
    whole = table(
        ["+".join(a) for p in parts for a in p.actions], np.concatenate([p.effects for p in parts]),
        np.repeat(["a", "b", "c"], 12), control=np.concatenate([p.control for p in parts]),
        variance=parts[0].variance, n_controls=np.full(36, 1e3),
    )  # fmt: skip
    made = Intervals(Anchors().fit(whole, n_contexts=3))
    question = of(whole, [0])
    wide = [judged(made, question, network=share).parts[0][1].unit for share in (0.0, 0.4, 0.6, 1.0)]
    assert wide[0] == wide[1] != wide[2] == wide[3]


def test_a_class_that_cannot_be_left_out_borrows_the_widest(caplog: pytest.LogCaptureFixture) -> None:
    whole = screen(items=8, doubles=0)
    made = Intervals(Anchors().fit(whole))
    question = table(["I0+I1"], None, control=whole.control[:1])
    with caplog.at_level(logging.INFO):
        trust = judged(made, question)
    assert "intervals of questions of class 'combination' are borrowed from 'single'" in caplog.text
    assert trust.support.tolist() == ["far"]
    np.testing.assert_array_equal(trust.parts[0][1].gene, judged(made, of(whole, [0])).parts[0][1].gene)


# ---------------------------------------------------------------- kept
def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiubU"
    json.dumps(value)
    return True


def test_what_was_left_out_is_kept(asked: ConditionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = Intervals(Anchors().fit(screen(doubles=14)))
    asked, single = asked.rows([1, 2, 3]), asked.rows([0])
    wide, trust = half(intervals, asked), judged(intervals, asked)
    state = intervals.state()
    assert plain(state)
    anchors = Anchors.from_state(intervals.anchors.state())
    again = Intervals.from_state(state)
    again.anchors = anchors  # as a model puts them in

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("conditions are left out again")

    monkeypatch.setattr(_intervals, "calibrate", fail)
    np.testing.assert_array_equal(half(again, asked), wide)
    for name in ("support", "abstain", "distance", "basis", "note"):
        np.testing.assert_array_equal(getattr(judged(again, asked), name), getattr(trust, name))
    with pytest.raises(AssertionError, match="left out again"):  # what was not asked before is found when it is
        judged(again, single)


def test_classes_without_conditions_to_leave_out_are_kept_as_such() -> None:
    made = Intervals(Anchors().fit(screen(items=8, doubles=0)))
    question = table(["I0+I1"], None, control=screen(items=8, doubles=0).control[:1])
    wide = half(made, question)
    again = Intervals.from_state(made.state(), made.anchors)
    assert again._judged.keys() == made._judged.keys()
    np.testing.assert_array_equal(half(again, question), wide)


def test_judged_comes_back(intervals: Intervals, asked: ConditionTable) -> None:
    half(intervals, asked)
    found = next(v for v in intervals._judged.values() if v is not None)
    again = Judged.from_state(found.state())
    assert (again.slope, again.error) == (found.slope, found.error)
    control = np.full((2, 30), 3.0)
    there = found.calibration.half_widths(np.zeros((2, 30)), control, np.array([0.1, 0.9]), 0.9)
    np.testing.assert_array_equal(
        again.calibration.half_widths(np.zeros((2, 30)), control, np.array([0.1, 0.9]), 0.9), there
    )


def test_unseen_items_are_judged_by_left_out_items() -> None:
    rng = np.random.default_rng(0)
    names = [f"I{i}" for i in range(24)]
    features = pd.DataFrame(rng.normal(size=(24, 2)), index=names)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    effects = features.to_numpy() @ rng.normal(size=(2, 30)) + 0.05 * rng.normal(size=(24, 30))
    control = np.full((24, 30), 5.0)
    whole = table(names, effects, control=control, variance=np.full(30, 20 * 0.05**2), n_controls=np.full(24, 1e3))
    anchors = Anchors().fit(whole.rows(np.arange(20)))
    question = whole.rows(np.arange(20, 24))
    effect = anchors.unseen_effects(question, lambda: features)
    trust = Intervals(anchors).judge(question, effect, np.zeros(4), WORDS, intervals=True)
    assert set(trust.support) == {"near"} and set(trust.basis) == {"left out"} and not trust.abstain.any()
    inside = np.abs(question.effects - effect) <= trust.half_widths(effect, question.control, 0.9)
    assert inside.mean() > 0.75
