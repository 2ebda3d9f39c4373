"""The drug anchor on combinations whose drugs have doses of their own: sums, and what pairs do beyond them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scjepa.baselines import Additive, DrugEffect, KernelEffect
from scjepa.baselines.drugs._kernels import Frame
from scjepa.baselines.drugs._rows import Rows, Scale
from scjepa.baselines.drugs._structure import Structure
from scjepa.data import ConditionTable, as_matrix

GENES = 30
LEVELS = (0.1, 1.0, 10.0)
SPEC = {"contexts": "half", "ec50": 0.0, "dose width": 1.2, "structure": "", "share": 0.0, "local": 0.0}
SPEC |= {"time power": 0.0, "time width": 0.0}


def grid(sign: float, *, noise: float = 0.05, seed: int = 0) -> ConditionTable:
    """Six drugs alone at three doses, and three pairs on the grid of doses, in two contexts.

    A pair does its sum times ``1 + .8 sign sqrt(h_a h_b)``; the last pair does its sum.
    """
    rng = np.random.default_rng(seed)
    drugs = "ABCDEF"
    profile = {d: rng.normal(size=GENES) for d in drugs}
    hill = lambda x: x / (x + 1.0)
    actions, doses, where, effects = [], [], [], []
    for context in "xy":
        for d in drugs:
            for x in LEVELS:
                actions.append((d,)), doses.append(x), where.append(context), effects.append(hill(x) * profile[d])
        for a, b in (("A", "B"), ("C", "D"), ("E", "F")):
            for x in LEVELS:
                for y in LEVELS:
                    beyond = 0.0 if a == "E" else sign * 0.8 * np.sqrt(hill(x) * hill(y))
                    actions.append((a, b)), doses.append((x, y)), where.append(context)
                    effects.append((1 + beyond) * (hill(x) * profile[a] + hill(y) * profile[b]))
    effect = np.array(effects) + noise * rng.normal(size=(len(effects), GENES))
    return ConditionTable(tuple(actions), np.array(where), np.zeros_like(effect), effect, dose=as_matrix(doses))


def asked(table: ConditionTable, index) -> ConditionTable:
    return replace(table.rows(index), perturbed=None)


def test_a_dose_for_each_drug_is_the_sum_over_drugs() -> None:
    design = np.array([[1.0, 1, 0], [1, 0, 0], [0, 1, 1]])
    where, dose = np.array(["x", "x", "y"]), np.array([0.3, 0.3, -1.0])
    one = Rows(("A", "B", "C"), design, where, dose)
    each = replace(one, doses=np.where(design > 0, dose[:, None], 0.0))
    frame = Frame(("x", "y"), np.eye(3), Structure({}), Scale(), common=True)
    for pairs in (0.0, 2.0):
        spec = {**SPEC, "pairs": pairs}
        np.testing.assert_allclose(frame.kernel(spec, each, each), frame.kernel(spec, one, one), atol=1e-12)
        np.testing.assert_allclose(frame.kernel(spec, each, one), frame.kernel(spec, one, each).T, atol=1e-12)
    apart = replace(one, doses=np.array([[0.3, 1.3, 0], [0.3, 0, 0], [0, -1, -1]]))
    sums = frame.kernel({**SPEC, "pairs": 0.0}, apart, apart.take(np.array([1])))
    np.testing.assert_allclose(sums[1] * 1.0, frame.kernel({**SPEC, "pairs": 0.0}, one, one)[1, 1])
    assert sums[0] != pytest.approx(frame.kernel({**SPEC, "pairs": 0.0}, one, one)[0, 1])


def test_pairs_are_alike_only_to_themselves() -> None:
    design = np.array([[1.0, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]])
    rows = Rows(("A", "B", "C"), design, np.array(["x"] * 4), np.zeros(4))
    frame = Frame(("x",), np.ones((2, 2)), Structure({}), Scale(), common=False)
    spec = {**SPEC, "ec50": None}
    beyond = frame.kernel({**spec, "pairs": 1.0}, rows, rows) - frame.kernel({**spec, "pairs": 0.0}, rows, rows)
    np.testing.assert_allclose(beyond, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_a_pair_does_beyond_its_sum_is_carried_over(sign: float) -> None:
    table = grid(sign)
    is_pair = table.order == 2
    out = is_pair & (table.contexts == "y") & np.array([d == (1.0, 10.0) for d in table.doses])
    model = DrugEffect().fit(table.rows(~out))
    assert set(model.classes(asked(table, out))) == {"together"}
    assert any(spec["pairs"] > 0 for spec, _ in model.kernels_)
    predicted, true = model.effects(asked(table, out)), table.effects[out]
    for i, (a, b) in enumerate(table.rows(out).actions):
        sums = sum(
            table.effects[
                [
                    x == (d,) and w == "y" and z == v
                    for x, w, z in zip(table.actions, table.contexts, table.doses, strict=True)
                ]
            ][0]
            for d, v in ((a, 1.0), (b, 10.0))
        )
        beyond = predicted[i] @ sums / (sums @ sums) - 1
        assert np.linalg.norm(predicted[i] - true[i]) < 0.35 * np.linalg.norm(true[i])
        if a == "E":
            assert abs(beyond) < 0.15
        else:
            assert sign * beyond > 0.2, (a, beyond)


def test_a_pair_never_given_is_about_a_sum_and_says_so() -> None:
    table = grid(1.0)
    out = np.array([a == ("A", "B") for a in table.actions])
    model = DrugEffect().fit(table.rows(~out))
    query = asked(table, out)
    assert set(model.classes(query)) == {"combination"}
    # the sum of the drugs at their own doses is near; at the doses of each other it is not
    alone = Additive().fit(table.rows(table.order == 1)).effects(query)
    swapped = Additive().fit(table.rows(table.order == 1)).effects(replace(query, dose=query.dose[:, ::-1]))
    uneven = np.array([x != y for x, y in (d if isinstance(d, tuple) else (d, d) for d in query.doses)])
    size = lambda x: np.linalg.norm(x[uneven], axis=1)
    assert (size(model.effects(query) - alone) < size(model.effects(query) - swapped)).all()
    assert (model.distances(query) >= 0.25).all()


def test_additive_and_kernel_anchor_look_at_each_dose() -> None:
    table = grid(0.0, noise=0.0)
    out = np.array([a == ("A", "B") for a in table.actions])
    query, single = asked(table, out), table.rows(table.order == 1)
    np.testing.assert_allclose(Additive().fit(single).effects(query), table.effects[out], atol=1e-10)
    doses = KernelEffect().fit(table.rows(~out)).effects(query)
    assert np.isfinite(doses).all() and np.corrcoef(doses.ravel(), table.effects[out].ravel())[0, 1] > 0.8


def test_it_is_kept_as_plain_data() -> None:
    table = grid(1.0)
    model = DrugEffect().fit(table)
    again = DrugEffect.from_state(model.state())
    query = asked(table, np.flatnonzero(table.order == 2)[:5])
    np.testing.assert_allclose(again.effects(query), model.effects(query), atol=1e-10)
    shuffled = np.random.default_rng(1).permutation(len(table))
    np.testing.assert_allclose(DrugEffect().fit(table.rows(shuffled)).effects(query), model.effects(query), atol=1e-8)
