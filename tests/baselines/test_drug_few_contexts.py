"""A drug in few contexts is carried over at the size that transfer shows, and no drug's effect is made of noise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs._few import FewContexts, as_large, gene_weights, reproduced
from scjepa.data import ConditionTable

GENES = 200


def patients(
    n: int, *, own: float, shared: float = 1.0, seed: int = 0, drugs: tuple[str, ...] = ("A",)
) -> ConditionTable:
    """Make profiles of drugs in patients: a programme in common and one of each patient's own, on a third of the genes."""
    rng = np.random.default_rng(seed)
    some = lambda *shape: rng.normal(size=(*shape, GENES)) * (rng.random((*shape, GENES)) < 0.3)
    programme = some(len(drugs))
    rows = [
        shared * programme[d] + own * some() + 0.05 * rng.normal(size=GENES)
        for d in range(len(drugs))
        for _ in range(n)
    ]
    control = np.tile(3 + 0.5 * rng.normal(size=(n, GENES)), (len(drugs), 1))
    actions = tuple((d,) for d in drugs for _ in range(n))
    return ConditionTable(
        actions, np.array([f"P{i}" for i in range(n)] * len(drugs)), control, control + np.array(rows)
    )


def left_out(table: ConditionTable) -> tuple[np.ndarray, np.ndarray]:
    """Return what the anchor, and the mean over other contexts, say of each context left out."""
    anchor, mean = [], []
    for i in range(len(table)):
        rest = table.rows(np.arange(len(table)) != i)
        anchor.append(DrugEffect().fit(rest).effects(replace(table.rows([i]), perturbed=None))[0])
        mean.append(rest.effects.mean(0))
    return np.array(anchor), np.array(mean)


def agreement(p: np.ndarray, t: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, t, strict=True)]))


@pytest.mark.parametrize(("n", "own"), [(5, 0.3), (5, 1.2), (4, 1.2)])
def test_effects_keep_the_size_of_transfer_and_are_nearer(n: int, own: float) -> None:
    table = patients(n, own=own)
    anchor, mean = left_out(table)
    length = lambda rows: np.linalg.norm(rows, axis=1)
    # as large as transfer, or as measured where that is smaller
    assert length(anchor).mean() > 0.93 * min(length(mean).mean(), length(table.effects).mean())
    assert length(anchor - table.effects).mean() <= length(mean - table.effects).mean()
    assert agreement(anchor, table.effects) >= agreement(mean, table.effects) + (0.02 if own > 1 else 0.0)


def test_a_drug_without_an_effect_in_common_has_none() -> None:
    table = patients(5, own=1.0, shared=0.0)
    anchor, mean = left_out(table)
    assert np.linalg.norm(anchor) < 0.5 * np.linalg.norm(mean)
    two = patients(5, own=0.3, drugs=("A", "B"), seed=1)
    noise = 0.3 * np.random.default_rng(0).normal(size=(5, GENES))
    table = replace(two, perturbed=np.vstack([two.perturbed[:5], two.control[5:] + noise]))
    asked = ConditionTable((("A",), ("B",)), np.array(["new", "new"]), two.control[[0, 0]])
    size = np.linalg.norm(DrugEffect().fit(table).effects(asked), axis=1)
    assert size[0] > 0.9 * np.linalg.norm(two.effects[:5].mean(0)) and size[1] < 0.5 * np.linalg.norm(noise.mean(0))


def test_control_profiles_are_looked_at_where_they_tell() -> None:
    """Effects are fold changes: what a patient does not express can't fall."""
    rng = np.random.default_rng(0)
    rate, change = np.exp(rng.normal(size=(5, GENES))), np.exp(0.8 * rng.normal(size=GENES))
    control = np.log1p(rate)
    table = ConditionTable((("A",),) * 5, np.array([*"abcde"]), control, np.log1p(rate * change))
    assert FewContexts.of(table).choice["looks"]
    anchor, mean = left_out(table)
    assert np.linalg.norm(anchor - table.effects) < 0.7 * np.linalg.norm(mean - table.effects)


def test_where_it_does_not_apply() -> None:
    assert FewContexts.of(patients(2, own=0.3)) is None and FewContexts.of(patients(9, own=0.3)) is None
    many = patients(4, own=0.3, drugs=tuple("ABCD"))
    assert FewContexts.of(many) is None and "few" not in DrugEffect().fit(many).picks_["context"]
    three = patients(4, own=0.3)
    assert FewContexts.of(replace(three, time=np.array([1.0, 1.0, 2.0, 2.0]))) is None
    assert FewContexts.of(replace(three, perturbed=three.control)) is None


def test_a_dose_that_no_other_context_shows_is_left_to_the_other_rules() -> None:
    table = patients(4, own=0.3)
    dosed = replace(table, dose=np.array([1.0, 1.0, 1.0, 10.0]))
    model = DrugEffect().fit(dosed)
    asked = ConditionTable((("A",), ("A",)), np.array(["new"] * 2), table.control[:2], dose=np.array([1.0, 3.0]))
    assert np.isnan(model._few.effects(asked)).all(1).tolist() == [False, True]
    assert np.isfinite(model.effects(asked)).all()


def test_what_was_chosen_is_kept() -> None:
    table = patients(5, own=0.6)
    model = DrugEffect().fit(table)
    again = DrugEffect.from_state(model.state())
    asked = ConditionTable((("A",),), np.array(["new"]), table.control[:1])
    assert np.array_equal(again.effects(asked), model.effects(asked))
    assert np.array_equal(again.left_out_effects("context"), model.left_out_effects("context"))
    json.dumps(model.picks_["context"]["few"]["choice"])
    left = model.left_out_effects("context")
    assert np.sqrt(((left - table.effects) ** 2).mean(1)).mean() == pytest.approx(model.picks_["context"]["error"])
    fewer = model.again(table.rows([0, 1, 2]))
    assert fewer._few.choice == model._few.choice and np.isfinite(fewer.effects(asked)).all()
    # a context that is left out does not know itself
    changed = table.perturbed.copy()
    changed[0] += 10.0
    other = model.again(replace(table, perturbed=changed))
    assert np.allclose(other.left_out_effects("context")[0], left[0])


def test_parts() -> None:
    effects = np.array([[3.0, 1.0], [3.0, -1.0], [3.0, 0.0]])
    believed = gene_weights(effects)
    assert believed[0] > 0.95 and believed[0] > believed[1] and gene_weights(effects[:1]).tolist() == [1.0, 1.0]
    assert as_large(np.array([[3.0, 4.0], [0.0, 0.0]]), np.ones((2, 2))).round(3).tolist() == [
        [0.849, 1.131],
        [0.0, 0.0],
    ]
    # m^2 = 1 and v = 2: slope 1 / (1 + 2 / 4) = 2/3, share of the mean of all five 1 / (1 + 2 / 5)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=20000) + np.sqrt(2) * rng.normal(size=(5, 20000))
    slope, share = reproduced(rows, (rows.sum(0) - rows) / 4, 5)
    assert slope == pytest.approx(2 / 3, abs=0.02) and share == pytest.approx(1 / 1.4, abs=0.02)
