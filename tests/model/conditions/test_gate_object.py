"""The gate without a model: one share for all, shares of evidence, and which share a question gets."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tests.model.conditions.tables import table

from scjepa._checks import check_gate
from scjepa.baselines import KernelEffect
from scjepa.model.conditions._gate import CLASSES, FEW, MOST_GATE, Evidence, Gate, contexts_matter
from scjepa.model.conditions._known import Known

SHARED = {"combination": False, "single": False}
OWN = {"combination": True, "single": True}


def evidence(share: float, n: int, cls: str) -> list[Evidence]:
    added = np.random.default_rng(0).normal(size=(n, 20))
    return [Evidence(cls, str(i), share * row, row) for i, row in enumerate(added)]


def known(*conditions: tuple[str, str]) -> Known:
    rows = [(label, context, 10) for label, context in conditions]
    return Known(pd.DataFrame(rows, columns=["perturbation", "context", "n_cells"]))


# ---------------------------------------------------------------- making
def test_a_fixed_gate_is_the_same_for_all_questions() -> None:
    gate = Gate.fixed(1)
    assert gate.shares == dict.fromkeys(("combination", "single", "context"), 1.0) and gate.gains == {}
    assert all(isinstance(share, float) for share in gate.shares.values())


def test_each_class_is_weighed_by_its_own_evidence() -> None:
    rows = evidence(0.3, 8, "combination") + evidence(0.5, 8, "single") + evidence(0.0, 8, "context")
    gate = Gate.fit(rows, SHARED)
    assert [gate.shares[c] for c in CLASSES] == pytest.approx([0.3, 0.5, 0.0], abs=1e-3)
    assert gate.gains == pytest.approx({"combination": 1.0, "single": 1.0}, abs=1e-3)  # nothing of the error is left
    assert {gate.shares[f"trained {c}"] for c in ("combination", "single")} == {1.0}


def test_shares_are_not_believed_beyond_the_most_and_the_order_is_none() -> None:
    rows = evidence(2.0, 6, "context") + evidence(0.4, 6, "single")
    assert Gate.fit(rows, SHARED).shares["context"] == MOST_GATE
    one, other = Gate.fit(rows, SHARED), Gate.fit(rows[::-1], SHARED)
    assert one.shares == pytest.approx(other.shares) and one.gains == pytest.approx(other.gains)


def test_without_evidence_the_anchor_stands_alone() -> None:
    gate = Gate.fit([], SHARED)
    assert [gate.shares[c] for c in CLASSES] == [0, 0, 0] and gate.gains == {}


def test_where_effects_are_a_contexts_own_few_left_out_conditions_close_the_gate() -> None:
    for n, open_ in ((FEW - 1, False), (FEW, True)):
        rows = evidence(0.5, n, "single") + evidence(0.5, n, "context")
        gate = Gate.fit(rows, OWN)
        assert (gate.shares["single"] > 0) == open_ and ("single" in gate.gains) == open_
        assert gate.shares["context"] > 0  # a new context is another question
        assert gate.shares["trained single"] == gate.shares["trained combination"] == 0.0
        assert Gate.fit(rows, SHARED).shares["single"] > 0


# ---------------------------------------------------------------- asking
QUESTIONS = table(["A", "A+B", "B", "A+C", "A", "D", "A+D"], None, ["x", "x", "x", "x", "new", "x", "new"])
TRAINED = known(("A", "x"), ("A+B", "x"), ("B", "y"), ("C", "x"))


def test_a_question_gets_the_share_of_its_class() -> None:
    shares = {"combination": 0.1, "single": 0.2, "context": 0.3, "trained single": 0.6, "trained combination": 0.7}
    # A in x and A+B in x were trained on; D was not, in whatever context
    assert Gate(shares).share(QUESTIONS, TRAINED).tolist() == [0.6, 0.7, 0.2, 0.1, 0.3, 0, 0]


def test_what_was_trained_on_gets_all_of_the_network_unless_said() -> None:
    assert Gate.fixed(0.5).share(QUESTIONS, TRAINED).tolist() == [1, 1, 0.5, 0.5, 0.5, 0, 0]
    assert Gate().share(QUESTIONS, TRAINED).tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_questions_are_answered_one_by_one() -> None:
    order = np.random.default_rng(0).permutation(len(QUESTIONS))
    gate = Gate({"single": 0.2, "context": 0.4})
    whole = gate.share(QUESTIONS, TRAINED)
    np.testing.assert_array_equal(gate.share(QUESTIONS.rows(order), TRAINED), whole[order])
    assert len(gate.share(QUESTIONS.rows([]), TRAINED)) == 0


# ---------------------------------------------------------------- kept
def test_state_is_plain_and_comes_back() -> None:
    gate = Gate.fit(evidence(0.4, 8, "single"), SHARED)
    again = Gate.from_state(json.loads(json.dumps(gate.state())))
    assert (again.shares, again.gains) == (gate.shares, gate.gains)
    again.shares["single"] = 1.0
    assert gate.shares["single"] != 1.0  # a copy


# ---------------------------------------------------------------- whose effects
def kernel(**errors: float) -> KernelEffect:
    anchor = KernelEffect()
    anchor.picks_ = {cls: {"error": error} for cls, error in errors.items()}
    return anchor


@pytest.mark.parametrize(
    ("own", "shared", "matter"),
    [
        ({"combination": 0.9, "single": 1.0}, {"combination": 1.0, "single": 1.0}, True),
        ({"combination": 0.96, "single": 0.1}, {"combination": 1.0, "single": 1.0}, False),
        ({"combination": np.nan, "single": 0.5}, {"combination": 1.0, "single": 1.0}, True),  # singles tell
        ({"combination": 0.5, "single": 1.0}, {"combination": np.nan, "single": 1.0}, False),
        ({"combination": np.nan, "single": np.nan}, {"combination": np.nan, "single": 1.0}, False),  # nothing does
    ],
)
def test_contexts_matter_where_the_anchor_that_sees_them_errs_less(own: dict, shared: dict, matter: bool) -> None:
    anchors = SimpleNamespace(full=kernel(**own), base=kernel(**shared))
    assert contexts_matter(anchors, "combination") is matter


def test_one_anchor_has_nothing_to_compare() -> None:
    anchor = kernel(single=1.0)
    assert contexts_matter(SimpleNamespace(full=anchor, base=anchor), "single") is False
    assert contexts_matter(SimpleNamespace(full=None, base=None), "single") is False


@pytest.mark.parametrize("gate", ["auto", 0, 1, 0.5])
def test_gates_that_are_taken(gate: float | str) -> None:
    check_gate(gate)


@pytest.mark.parametrize("gate", [np.nan, "0.5", -1])
def test_gates_that_are_refused(gate: object) -> None:
    with pytest.raises(ValueError, match="expected 'auto' or a number from 0"):
        check_gate(gate)
