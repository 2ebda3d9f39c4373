"""Parts without a model: reached by the model's own names, written as plain data, and rebuilt."""

from __future__ import annotations

from typing import Any, Self

import pytest

from scjepa.model.core._parts import Through, rebuild, written


class Thermometer:
    """A part with one number."""

    def __init__(self, degrees: float = 0.0) -> None:
        self.degrees = degrees

    def state(self) -> dict[str, Any]:
        return {"degrees": self.degrees}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls(state["degrees"])


class House:
    """What a model is to its parts."""

    warmth_ = Through("inside_", "degrees")

    def __init__(self) -> None:
        self.inside_: Any = Thermometer(20.0)
        self.address = "here"


PARTS = {"inside_": Thermometer}


def test_through_reads_and_writes_the_part() -> None:
    house = House()
    assert house.warmth_ == 20.0
    house.warmth_ = 25.0
    assert house.inside_.degrees == 25.0
    assert "warmth_" not in vars(house)  # kept in one place only
    house.inside_ = Thermometer(5.0)
    assert house.warmth_ == 5.0  # follows a part that was exchanged


def test_through_of_a_class_is_itself_and_models_do_not_share_parts() -> None:
    assert isinstance(House.warmth_, Through) and (House.warmth_.part, House.warmth_.name) == ("inside_", "degrees")
    one, other = House(), House()
    one.warmth_ = 1.0
    assert other.warmth_ == 20.0


def test_through_a_part_that_is_not_there() -> None:
    house = House()
    del house.inside_
    with pytest.raises(AttributeError, match="inside_"):
        _ = house.warmth_


def test_parts_are_written_as_plain_data_and_everything_else_as_it_is() -> None:
    house = House()
    house.spare = Thermometer(3.0)  # not declared as a part
    out = written(vars(house), PARTS)
    assert out == {"inside_": {"degrees": 20.0}, "address": "here", "spare": house.spare}
    assert isinstance(house.inside_, Thermometer)  # the model keeps it


def test_only_objects_of_the_declared_class_are_written() -> None:
    assert written({"inside_": None}, PARTS) == {"inside_": None}
    assert written({"inside_": {"degrees": 1.0}}, PARTS) == {"inside_": {"degrees": 1.0}}


def test_what_was_written_is_rebuilt() -> None:
    house = House()
    vars(house).update(written(vars(house), PARTS))
    rebuild(house, PARTS)
    assert isinstance(house.inside_, Thermometer) and house.warmth_ == 20.0


def test_rebuilding_leaves_parts_and_what_is_absent_alone() -> None:
    house = House()
    held = house.inside_
    rebuild(house, {**PARTS, "cellar_": Thermometer})
    assert house.inside_ is held and not hasattr(house, "cellar_")
