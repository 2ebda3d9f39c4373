"""Doses of conditions: how they are read, written and grouped, one for all drugs or one for each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.data import (
    ConditionTable,
    as_matrix,
    dose_column,
    dose_matrix,
    dose_values,
    group_cells,
    is_text,
    joined_doses,
    no_dose,
    read_dose,
    write_dose,
)


@pytest.mark.parametrize(
    ("value", "label", "action", "dose"),
    [
        (2, "A", ("A",), 2.0),
        ("0.5", "B+A", ("A", "B"), 0.5),
        ("1+0.5", "B+A", ("A", "B"), (0.5, 1.0)),  # in the order of the label
        ({"A": 0.5, "B": 1}, "B+A", ("A", "B"), (0.5, 1.0)),
        ("1+1", "B+A", ("A", "B"), 1.0),
        ("1+0", "B+A", ("B",), 1.0),  # a drug at dose 0 is not given
        ("0+0", "B+A", ("A", "B"), 0.0),
        ("1+0.5+2", "C+A+B", ("A", "B", "C"), (0.5, 2.0, 1.0)),
        ("1e+1", "A", ("A",), 10.0),  # a number, not two
        ("1", "A+control", ("A",), 1.0),
        (0, "control", (), 0.0),
    ],
)
def test_doses_are_read_beside_their_label(value, label, action, dose) -> None:
    assert read_dose(value, label) == (action, dose)
    assert read_dose(write_dose(label, action, dose), label) == (action, dose)


@pytest.mark.parametrize(
    ("value", "label", "message"),
    [
        ("1+2", "A", r"dose='1\+2' has 2 numbers for the 1 parts of 'A'. Give one number for all"),
        ("1+x", "A+B", r"dose='1\+x' of 'A\+B': expected numbers of at least 0"),
        (-1, "A", "dose=-1 of 'A': expected numbers of at least 0"),
        (True, "A", "dose=True of 'A': expected numbers"),
        ({"A": 1}, "A+B", r"of 'A\+B': expected one for each part; missing 'B', not in the label none"),
        ({"A": 1, "C": 1}, "A", "missing none, not in the label 'C'"),
        ("1+2", "A+A", r"dose='1\+2' of 'A\+A': 'A' has two doses, 1 and 2"),
    ],
)
def test_doses_that_are_refused(value, label, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_dose(value, label)


OBS = pd.DataFrame(
    {"p": ["control", "B+A", "A", "A+B", "A+B", "B"], "uM": ["0", "1+0.5", "2", "0.5+1", "2+0", "3"]},
    index=list("abcdef"),
)


def test_a_column_of_numbers_is_numbers() -> None:
    obs = OBS.assign(uM=[0, 1, 2, 1, 2, 3])
    assert dose_column(obs, "uM", "p").tolist() == [0, 1, 2, 1, 2, 3]
    assert dose_column(obs.assign(uM=["0", "1", "2", "1", "2", "3"]), "uM", "p").ndim == 1
    assert not is_text(obs["uM"]) and is_text(OBS["uM"])
    same = obs.assign(uM=["0", "1+1", "2", "3+3", "2+2", "3"])  # text, but drugs of a row never differ
    assert dose_column(same, "uM", "p").tolist() == [0, 1, 2, 3, 2, 3]


def test_a_column_of_text_has_a_dose_for_each_drug() -> None:
    found = dose_column(OBS, "uM", "p")
    nan = np.nan
    np.testing.assert_array_equal(found, [[0, nan], [0.5, 1], [2, nan], [0.5, 1], [2, 0], [3, nan]])
    with pytest.raises(
        ValueError, match="dose_key='uM': 2 of 6 values are no doses of their labels; the first: dose='9"
    ):
        dose_column(OBS.assign(uM=["0", "9+9+9", "x", "1", "1", "1"]), "uM", "p")
    with pytest.raises(ValueError, match="dose_key='uM': 1 of 6 values are missing"):
        dose_column(OBS.assign(uM=[None, "1+2", "1", "1", "1", "1"]), "uM", "p")


def test_drugs_at_dose_zero_are_not_part_of_the_action() -> None:
    groups = group_cells(OBS["p"].to_numpy(), dose=dose_column(OBS, "uM", "p"))
    assert groups.actions == (("A",), ("A", "B"), ("B",)) and groups.doses == [2.0, (0.5, 1.0), 3.0]
    assert [cells.tolist() for cells in groups.cells] == [[2, 4], [1, 3], [5]] and groups.controls["all"].tolist() == [
        0
    ]
    alone = groups.rows([0, 2])
    assert alone.doses == [2.0, 3.0]
    flipped = group_cells(OBS["p"].to_numpy()[::-1], dose=dose_column(OBS[::-1], "uM", "p"))
    assert flipped.actions == groups.actions and flipped.doses == groups.doses


def test_doses_as_arrays_and_back() -> None:
    actions = [("A",), ("A", "B"), ("A", "B")]
    doses = as_matrix([1.0, (0.5, 2.0), 3.0])
    assert doses.shape == (3, 2) and dose_values(doses, actions) == [1.0, (0.5, 2.0), 3.0]
    assert as_matrix([1.0, 2.0]).tolist() == [1.0, 2.0] and as_matrix([]).shape == (0,)
    np.testing.assert_array_equal(dose_matrix(doses, actions, ["B", "C", "A"]), [[0, 0, 1], [2, 0, 0.5], [3, 0, 3]])
    assert no_dose(as_matrix([0.0, (0.5, 2.0), 0.0])).tolist() == [True, False, True]
    wide = joined_doses(np.array([1.0]), as_matrix([(1.0, 2.0, 3.0)]))
    assert dose_values(wide, [("A", "B"), ("A", "B", "C")]) == [1.0, (1.0, 2.0, 3.0)]
    assert joined_doses(np.ones(2), np.zeros(1)).tolist() == [1, 1, 0] and joined_doses(None, np.ones(1)) is None


def test_a_table_knows_what_was_done_at_which_dose() -> None:
    zeros = np.zeros((3, 2))
    table = ConditionTable(
        (("A",), ("A", "B"), ()), np.array(list("xxx")), zeros, dose=as_matrix([0.0, (1.0, 2.0), 1.0])
    )
    assert table.untreated.tolist() == [True, False, True] and table.rows([1]).doses == [(1.0, 2.0)]
    np.testing.assert_array_equal(table.dose_design(["B", "A"]), [[0, 0], [2, 1], [0, 0]])
