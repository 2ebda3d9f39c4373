"""Messages at the door: what was found, what was expected, how to mend it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scjepa._checks import (
    closest,
    require_column,
    require_labels,
    require_levels,
    require_member,
    require_numbers,
    require_positive_int,
    some,
)

OBS = pd.DataFrame(
    {
        "label": ["a", "b", "a"],
        "holes": ["a", None, "a"],
        "empty": [None, None, None],
        "number": ["0.5", "2", "1e1"],
        "words": ["0.5", "high", "inf"],
        "below": [0.0, -1.5, -0.5],
    }
)


def test_closest_ignores_case_and_keeps_spelling() -> None:
    assert closest("klf1", ["KLF1", "BAK1"]) == " Did you mean 'KLF1'?"
    assert closest("zzz", ["KLF1"]) == ""
    assert closest("ab1", ["ab2", "ab3"], n=2) in (" Did you mean 'ab2' or 'ab3'?", " Did you mean 'ab3' or 'ab2'?")


def test_some_counts_the_rest() -> None:
    assert some(["a", "b"]) == "'a', 'b'"
    assert some(list("abcdefg"), 2) == "'a', 'b' and 5 more"
    assert some([]) == ""


def test_column() -> None:
    assert require_column(OBS, "label", "key").tolist() == ["a", "b", "a"]
    with pytest.raises(KeyError, match="key='lable' is not a column of adata.obs. Did you mean 'label'.*'holes'"):
        require_column(OBS, "lable", "key")
    with pytest.raises(KeyError, match="Columns found: none"):
        require_column(pd.DataFrame(index=range(3)), "x", "key")


def test_labels() -> None:
    assert require_labels(pd.DataFrame({"c": pd.Categorical([1, 2])}), "c", "key").tolist() == ["1", "2"]
    with pytest.raises(ValueError, match=r"key='holes': 1 of 3 cells have a missing value.*\.notna\(\)\]\.copy\(\)"):
        require_labels(OBS, "holes", "key")
    with pytest.raises(ValueError, match="key='empty': all 3 values are missing"):
        require_labels(OBS, "empty", "key")


def test_member() -> None:
    require_member(1, ["1", "2"], "key")
    with pytest.raises(ValueError, match=re.escape("key='contrl' is not among the labels. Did you mean 'control'?")):
        require_member("contrl", ["A", "control"], "key", where="the labels")
    with pytest.raises(ValueError, match="is not among the known values. Found: none"):
        require_member("x", [], "key")


def test_numbers() -> None:
    values = require_numbers(OBS, "number", "dose_key", minimum=0)
    assert values.dtype == np.float64
    assert values.tolist() == [0.5, 2.0, 10.0]
    assert require_numbers(pd.DataFrame({"d": pd.Categorical(["3", "1"])}), "d", "key").tolist() == [3.0, 1.0]
    with pytest.raises(ValueError, match="2 of 3 values are missing or not finite numbers .*'high', 'inf'"):
        require_numbers(OBS, "words", "dose_key")
    with pytest.raises(ValueError, match="2 values are below 0; the smallest is -1.5"):
        require_numbers(OBS, "below", "dose_key", minimum=0)


def test_positive_int() -> None:
    assert require_positive_int(np.int32(3), "n") == 3
    assert type(require_positive_int(np.int32(3), "n")) is int
    assert require_positive_int(0, "n", minimum=0) == 0
    for bad in (0, -1, 2.0, "3", True, None):
        with pytest.raises(ValueError, match=re.escape(f"n={bad!r}: expected a whole number of at least 1")):
            require_positive_int(bad, "n")


def test_levels() -> None:
    require_levels([0.5, np.float32(0.9)], "effects")
    for bad in (0, 1.0, True, "0.9", float("nan")):
        with pytest.raises(ValueError, match=f"effects has the levels '{bad}': expected numbers between 0 and 1"):
            require_levels([0.5, bad], "effects")
