"""Times as people write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.dynamics import read_times


@pytest.mark.parametrize(
    ("column", "values", "unit", "labels"),
    [
        ([2, 4, 2.5], [2, 4, 2.5], "", ("2", "2.5", "4")),
        (["6h", "24h", "0h"], [6, 24, 0], "hour", ("0h", "6h", "24h")),
        (["6h", "2 days"], [6, 48], "hour", ("6h", "2 days")),
        (["day 10", "day 2"], [10, 2], "day", ("day 2", "day 10")),
        (["D2", "D14"], [2, 14], "day", ("D2", "D14")),
        (["E8.5", "E7.25"], [8.5, 7.25], "day", ("E7.25", "E8.5")),
        (["100-130", "130-170", "> 650", "< 100"], [115, 150, 650, 100], "", ("< 100", "100-130", "130-170", "> 650")),
        (["t1", "t10", "t2"], [1, 10, 2], "", ("t1", "t2", "t10")),
        (["week_3", "week_1"], [3, 1], "week", ("week_1", "week_3")),
        (["0", "6h"], [0, 6], "hour", ("0", "6h")),  # zero needs no unit
        (["1e1", "2"], [10, 2], "", ("2", "1e1")),
        (pd.Categorical(["b", "a"], ["b", "a"], ordered=True), [0, 1], "rank", ("b", "a")),
        (pd.Categorical(["4", "2"], ["2", "4", "6"]), [4, 2], "", ("2", "4")),  # unused categories do not count
    ],
)
def test_times_are_read(column, values, unit, labels) -> None:
    found = read_times(column)
    assert found.values.tolist() == values and found.unit == unit and found.labels == labels
    assert found.levels.tolist() == sorted(set(values))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, None, np.nan], "day: 2 of 3 times are missing. Drop these cells"),
        (["early", "late"], "day: 2 of 2 times have no number in them: 'early', 'late'. Give numbers, text such as"),
        (pd.Categorical(["b", "a"]), "have no number in them"),
        ([1.0, np.inf], "day: 'inf' are no finite times"),
        (["E8.5", "P1"], r"day: embryonic \(E\) and postnatal \(P\) days count from different zeros"),
        (["6h", "12"], r"day: '12' have no unit, others have \('hour'\)"),
        (["24h", "1 day"], "day: '24h' and '1 day' are the same time. Write them alike"),
        (["3 parsecs"], "day: 1 of 1 times have no number in them"),
    ],
)
def test_columns_that_are_refused(column, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_times(column, "day")


def test_what_is_asked_is_read_in_the_unit_of_the_column() -> None:
    days = read_times(["day 2", "day 4"])
    assert days.read("day 4").tolist() == [4.0] and days.read(3.5).tolist() == [3.5]
    assert days.read(["36 h", "1 week"]).tolist() == [1.5, 7.0]
    assert days.label(2.0) == "day 2" and days.label(3.5) == "3.5 days" and read_times([1, 2]).label(1.5) == "1.5"
    stages = read_times(pd.Categorical(["MDP", "CDP"], ["MDP", "CDP"], ordered=True))
    assert stages.read("CDP").tolist() == [1.0] and stages.read(0.5).tolist() == [0.5]
    for times, message in (
        ("soon", "time 'soon': expected a number, or one of 'day 2', 'day 4'"),
        ([], "no times were given"),
        (np.nan, "time nan: expected a number"),
    ):
        with pytest.raises(ValueError, match=message):
            days.read(times)
    with pytest.raises(ValueError, match="time '6 h' has the unit 'hour', but times of the data have none"):
        read_times([1, 2]).read("6 h")
