"""Closed forms run on one thread of BLAS and give the session's number back, also after an error."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from scjepa.baselines import KernelEffect
from scjepa.baselines._threads import on_one_thread
from scjepa.data import ConditionTable


def blas() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_threads_are_given_back_after_an_error() -> None:
    @on_one_thread
    def fail() -> None:
        assert blas() == {1}
        raise KeyError("no")

    with threadpool_limits(2, user_api="blas"):
        before = blas()
        with pytest.raises(KeyError):
            fail()
        assert blas() == before


def test_numbers_do_not_depend_on_the_threads_of_the_session() -> None:
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(120)]
    actions = tuple((n,) for n in names) + tuple(tuple(sorted(rng.choice(names, 2, replace=False))) for _ in range(60))
    actions = tuple(dict.fromkeys(actions))
    control = np.abs(rng.normal(size=(len(actions), 50)))
    table = ConditionTable(
        actions, np.array(["all"] * len(actions), dtype=object), control, control + rng.normal(size=control.shape)
    )
    found = []
    for n in (1, 2):
        with threadpool_limits(n, user_api="blas"):
            model = KernelEffect().fit(table)
            found.append((model.effects(table.rows([0, 130])), model.left_out_effects()))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
