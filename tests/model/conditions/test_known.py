"""What a model has seen, without a model: conditions, items, usual kinds, and what a reference saw before."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from tests.model.conditions.tables import table

from scjepa.data import group_cells
from scjepa.model.conditions._known import Known

LABELS = np.array(["control", "B+A", "A", "A", "control", "C", "A+B", "A"])
WHERE = np.array(["x", "x", "x", "x", "y", "y", "y", "y"])


def seen(separator: str = "+", **columns) -> Known:
    labels = np.char.replace(LABELS, "+", separator)
    return Known.of(group_cells(labels, contexts=WHERE, separator=separator, **columns), separator)


def test_conditions_and_items_of_a_training() -> None:
    known = seen()
    assert known.conditions.to_dict("list") == {
        "perturbation": ["A", "A", "A+B", "A+B", "C"],
        "context": ["x", "y", "x", "y", "y"],
        "n_cells": [2, 1, 1, 1, 1],
    }
    assert known.items == ("A", "B", "C") and known.contexts == {"x", "y"} and known.named == {"A", "B", "C"}
    assert known.usual_kind == {}


def test_what_was_trained_on_is_known_by_action_and_context() -> None:
    known = seen()
    assert known.has(("A", "B"), "x") and known.has(("C",), "y")
    assert not known.has(("C",), "x") and not known.has(("B",), "x")
    assert known.among(table(["B+A", "C", "C", "D"], None, ["y", "y", "x", "x"])) == [True, True, False, False]


def test_doses_and_kinds_do_not_split_what_is_known() -> None:
    known = seen(dose=np.array([0, 1, 1, 2, 0, 1, 1, 1.0]))
    assert known.among(table(["A"], None, ["x"], dose=np.array([77.0]))) == [True]


def test_contexts_may_be_numbers() -> None:
    known = Known.of(group_cells(np.array(["control", "A"]), contexts=np.array([3, 3])), "+")
    assert known.has(("A",), "3") and known.contexts == {"3"}


def test_another_separator() -> None:
    known = seen("_")
    assert known.has(("A", "B"), "x") and known.named == {"A", "B", "C"}
    assert known.conditions["perturbation"].tolist()[2] == "A_B"


def test_the_usual_kind_is_that_of_most_cells() -> None:
    kind = np.array(["-", "KO", "OE", "OE", "-", "KO", "KO", "KO"])
    known = seen(kind=kind)
    assert known.usual_kind == {("A",): "OE", ("A", "B"): "KO", ("C",): "KO", (): "KO"}


def test_the_order_of_cells_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(LABELS))
    kind = np.array(["-", "KO", "OE", "OE", "-", "KO", "KO", "KO"])
    again = Known.of(group_cells(LABELS[order], contexts=WHERE[order], kind=kind[order]), "+")
    there = seen(kind=kind)
    pd.testing.assert_frame_equal(again.conditions, there.conditions)
    assert (again.items, again.usual_kind) == (there.items, there.usual_kind)


def test_nothing() -> None:
    known = Known.nothing("_")
    assert (known.items, known.pairs, known.contexts, known.named, known.separator) == ((), set(), set(), set(), "_")
    assert known.among(table(["A"])) == [False] and len(known.conditions) == 0


def test_what_a_reference_knew_stays_known() -> None:
    before = Known(
        pd.DataFrame({"perturbation": ["D", "A"], "context": ["z", "z"], "n_cells": [5, 6]}),
        ("A", "D"),
        {("A",): "KO", (): "KO"},
    )
    both = seen(kind=np.array(["-"] + ["OE"] * 7)).after(before, {"C"})
    assert both.items == ("A", "C", "D")  # B was in the data, but the network did not learn it
    assert both.named == {"A", "B", "C", "D"} and both.contexts == {"x", "y", "z"}
    assert both.conditions["perturbation"].tolist()[:2] == ["D", "A"] and len(both.conditions) == 7
    assert both.usual_kind[("A",)] == "KO" and both.usual_kind[()] == "KO" and both.usual_kind[("C",)] == "OE"


def test_state_comes_back() -> None:
    known = seen("_", kind=np.array(["-", "KO", "OE", "OE", "-", "KO", "KO", "KO"]))
    state = known.state()
    frame = state.pop("conditions")
    again = Known.from_state({**json.loads(json.dumps(state)), "conditions": frame})
    pd.testing.assert_frame_equal(again.conditions, known.conditions)
    for name in ("items", "usual_kind", "separator", "pairs"):
        assert getattr(again, name) == getattr(known, name)
