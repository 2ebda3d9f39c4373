"""Where the drug anchor says that a prediction rests on little: one test a word, and silence where all is well."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import DrugEffect, MeanEffect
from scjepa.baselines.drugs._remarks import INFORMATIVE
from scjepa.data import ConditionTable

DOSES, TIMES = (1.0, 10.0), (2.0, 24.0)
ALIKE = pd.DataFrame(
    [[1, 0.5, 0.6, 0.3], [0.5, 1, 0.1, 0.1], [0.6, 0.1, 1, 0.1], [0.3, 0.1, 0.1, 1]],
    index=["A", "B", "near", "odd"],
    columns=["A", "B", "near", "odd"],
)


def question(drug: str, dose: float = 10.0, time: float = 2.0, context: str = "x") -> ConditionTable:
    action = tuple(drug.split("+"))
    return ConditionTable(
        (action,), np.array([context]), np.zeros((1, 8)), dose=np.array([dose]), time=np.array([time])
    )


@pytest.fixture(scope="module")
def anchor() -> DrugEffect:
    rows = [(d, x, dose, t) for d in "AB" for x in "xy" for dose in DOSES for t in TIMES]
    y = np.random.default_rng(0).normal(size=(len(rows), 8))
    drug, where, dose, time = zip(*rows, strict=True)
    table = ConditionTable(
        tuple((d,) for d in drug), np.array(where), np.zeros_like(y), y, dose=np.array(dose), time=np.array(time)
    )
    return DrugEffect(similarity=ALIKE).fit(table)


@pytest.mark.parametrize(
    ("asked", "word", "remark"),
    [
        (question("A"), "", ""),
        (question("A", dose=3.0, time=8.0), "", ""),  # between: confident
        (question("A", dose=30.0), "dose beyond", "dose 30 is above the highest measured, 10"),
        (question("A", dose=0.1), "dose beyond", "dose 0.1 is below the lowest measured, 1"),
        (question("B", time=72.0), "time beyond", "time 72 is above the highest measured, 24"),
        (question("A+B", time=1.0), "time beyond", "time 1 is below the lowest measured, 2"),
        (question("near"), "", ""),
        (question("near", dose=20.0), "dose beyond", "dose 20 is above the highest measured, 10"),
        (question("A", context="z"), "", ""),
        (
            question("odd"),
            "structure uninformative",
            f"mean response, structure uninformative (no training molecule is more alike than {INFORMATIVE})",
        ),
        (question("never heard of"), "", ""),  # has no prediction at all
        (question("A", dose=0.0), "", ""),  # nothing is done
    ],
)
def test_words(anchor: DrugEffect, asked: ConditionTable, word: str, remark: str) -> None:
    told = anchor.remarks(asked).iloc[0]
    assert (told["support"], told["remark"]) == (word, remark)


def test_the_nearest_molecule_and_the_class_stand_beside(anchor: DrugEffect) -> None:
    tables = [question("odd", context="z"), question("nobody"), question("B", dose=3.0)]
    told = pd.concat([anchor.remarks(t) for t in tables], ignore_index=True)
    assert told["class"].tolist() == ["unseen context", "", "dose"]
    assert told["nearest_drug"].tolist() == ["A", "", "B"]
    np.testing.assert_allclose(told["similarity"], [0.3, np.nan, 1.0])


def test_both_remarks_are_made_and_structure_has_the_word(anchor: DrugEffect) -> None:
    told = anchor.remarks(question("odd", dose=90.0)).iloc[0]
    assert told["support"] == "structure uninformative"
    assert told["remark"].endswith("; dose 90 is above the highest measured, 10")


def test_only_anchors_with_classes_of_their_own_remark_on_questions() -> None:
    assert DrugEffect.own_classes and not hasattr(MeanEffect, "remarks")
