"""The grammar of perturbation labels."""

from __future__ import annotations

import pytest

from scjepa._labels import parse_label, parse_labels


@pytest.mark.parametrize(
    ("label", "action"),
    [
        ("A", ("A",)),
        ("B+A", ("A", "B")),
        ("C+A+B", ("A", "B", "C")),
        ("A+ctrl", ("A",)),
        ("ctrl+A", ("A",)),
        ("A+control", ("A",)),
        (" A + B ", ("A", "B")),
        ("A+A", ("A",)),
        ("ctrl+ctrl", ()),
        ("control", ()),
        ("NKX2-1", ("NKX2-1",)),
        (7, ("7",)),
    ],
)
def test_parse(label: object, action: tuple[str, ...]) -> None:
    assert parse_label(label) == action


def test_own_control_and_separator() -> None:
    assert parse_label("DMSO", control="DMSO") == ()
    assert parse_label("A+DMSO", control="DMSO") == ("A",)
    assert parse_label("A_B", separator="_") == ("A", "B")
    assert parse_label("A+B", separator="_") == ("A+B",)
    assert parse_label("non+targeting", control="non+targeting") == ()  # the control may hold the separator


@pytest.mark.parametrize("label", ["A++B", "+A", "A+", "", " ", "+"])
def test_empty_part(label: str) -> None:
    with pytest.raises(ValueError, match=r"has an empty part around '\+'. Write combinations as 'A\+B'"):
        parse_label(label)


def test_labels_are_parsed_once_each_in_order() -> None:
    assert list(parse_labels(["B+A", "x", "B+A", "A+B"])) == ["B+A", "x", "A+B"]
    assert parse_labels([1, "1"]) == {"1": ("1",)}
