"""Growing without a model: known weights keep their place, and what is new stands behind them."""

from __future__ import annotations

import pytest
import torch

from scjepa.model.core._query import grown, names_in_order


def test_equal_shapes_take_the_old_weights_and_add_nothing() -> None:
    old = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.0)}
    weights, added = grown({name: torch.zeros_like(w) for name, w in old.items()}, old)
    assert all(torch.equal(weights[name], old[name]) for name in old)
    assert added == {}


def test_old_weights_are_the_leading_block() -> None:
    old, new = {"w": torch.ones(2, 2)}, {"w": torch.full((3, 4), 7.0)}
    weights, added = grown(new, old)
    expected = torch.full((3, 4), 7.0)
    expected[:2, :2] = 1
    assert torch.equal(weights["w"], expected)
    assert torch.equal(added["w"], expected == 7)
    assert torch.equal(new["w"], torch.full((3, 4), 7.0))  # what was given is left as it is


def test_new_batches_start_at_the_mean_of_the_known_ones() -> None:
    old = {"encoder.offset.weight": torch.tensor([[1.0, 0.0], [3.0, 4.0]])}
    weights, added = grown({"encoder.offset.weight": torch.zeros(4, 2)}, old)
    assert weights["encoder.offset.weight"].tolist() == [[1, 0], [3, 4], [2, 2], [2, 2]]
    assert added["encoder.offset.weight"].all(1).tolist() == [False, False, True, True]


def test_weights_are_copies() -> None:
    old = {"w": torch.zeros(2)}
    weights, _ = grown({"w": torch.zeros(2)}, old)
    weights["w"] += 1
    assert old["w"].tolist() == [0, 0]


def test_what_the_reference_lacks_is_named() -> None:
    with pytest.raises(KeyError, match="w"):
        grown({"w": torch.zeros(1)}, {})


def test_known_names_keep_their_order_and_new_ones_are_sorted_behind() -> None:
    assert names_in_order(["z", "a"], ["b", "a", "B", "b"]) == ("z", "a", "B", "b")
    assert names_in_order([], "cab") == ("a", "b", "c")
    assert names_in_order(iter("ba"), []) == ("b", "a")
    assert names_in_order("ab", "ba") == ("a", "b")
