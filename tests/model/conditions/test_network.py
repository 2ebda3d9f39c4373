"""What the network is told, without a model: vocabulary, coordinates, sets, and conditions that train and validate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.modules import jepa

from scjepa.data import CellGroups, EmbeddingCache, ExpressionMatrix, Split, condition_means, group_cells
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._network import (
    PREDICTOR_STEPS,
    SET_SIZE,
    STEPS_PER_EPOCH,
    Coordinates,
    Vocabulary,
    anchor_shifts,
    joint_stage,
    predictor_stage,
    set_batches,
    split_groups,
)
from scjepa.module import JOINT, SETS, JEPAModule
from scjepa.train import CollapseMonitor

GENES = 12
WORDS = Vocabulary(("B", "A", "C"), ("OE", "KO"))  # in no order but their own


def module(**options) -> JEPAModule:
    made = jepa(GENES, actions=3, **options).eval()
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(GENES, 5)))[0].T
    made.space.set_axes(torch.linspace(0, 1, GENES), torch.tensor(axes, dtype=torch.float32), 2.5)
    return made


def cells(n: int = 40) -> ExpressionMatrix:
    return ExpressionMatrix(np.random.default_rng(0).random((n, GENES)).astype(np.float32) + 0.5, "lognorm")


def groups(n: int = 40, **columns) -> CellGroups:
    """Controls, A, B and A+B in two contexts."""
    labels = np.array(["control", "control", "A", "B", "A+B"] * (n // 5))
    return group_cells(labels, contexts=np.repeat(["x", "y"], n // 2), **columns)


# ---------------------------------------------------------------- vocabulary
def test_actions_are_multi_hot_in_the_order_of_the_vocabulary() -> None:
    rows = WORDS.rows([("A",), ("A", "B"), (), ("A", "nobody")])
    assert rows.tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]] and rows.dtype == np.float32


def test_only_known_items_are_told() -> None:
    assert WORDS.rows([("A", "B"), ("C",)], frozenset({"A"})).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert WORDS.rows([("A",)], frozenset()).tolist() == [[0, 0, 0]]  # nothing known is not the same as all


def test_codes_of_kinds() -> None:
    assert WORDS.codes(np.array(["KO", "OE", "KO"], dtype=object)).tolist() == [1, 0, 1]
    assert WORDS.codes(None) is None


def test_a_question_is_told_with_what_it_has() -> None:
    device, known = torch.device("cpu"), frozenset("ABC")
    told = WORDS.tell(Question("A+B", ("A", "B"), "x", 2.0, "KO", 6.0), known, device)
    assert {name: value.tolist() for name, value in told.items()} == {
        "actions": [[1, 1, 0]], "dose": [2.0], "time": [6.0], "kind": [1],
    }  # fmt: skip
    assert list(WORDS.tell(Question("A", ("A",), "x"), known, device)) == ["actions"]
    assert WORDS.tell(Question("A+B", ("A", "B"), "x"), frozenset("B"), device)["actions"].tolist() == [[1, 0, 0]]


# ---------------------------------------------------------------- coordinates
def test_effects_are_projected_on_the_axes() -> None:
    space = Coordinates(module())
    effects = np.random.default_rng(1).normal(size=(4, GENES))
    found = space.effects(effects)
    np.testing.assert_allclose(found, effects @ space.loadings.T / 2.5, atol=1e-6)
    with torch.no_grad():
        there = module().space.project_shift(torch.tensor(effects, dtype=torch.float32))
    np.testing.assert_allclose(found, there, atol=1e-5)
    inside = found @ space.loadings * 2.5  # a second time nothing is lost
    np.testing.assert_allclose(space.effects(inside), found, atol=1e-5)


def test_variance_of_coordinates_is_that_of_projected_noise() -> None:
    space, variance = Coordinates(module()), np.linspace(0.1, 2, GENES)
    noise = np.random.default_rng(0).normal(size=(40_000, GENES)) * np.sqrt(variance)
    np.testing.assert_allclose(space.variance(variance), space.effects(noise).var(0), rtol=0.05)
    assert space.variance(None) is None


@pytest.mark.parametrize("reads", ["z", "h", "both"])
def test_the_cache_holds_what_the_predictor_reads(reads: str) -> None:
    made, matrix = module(reads=reads), cells()
    cache = Coordinates(made).cache(matrix, 1.0)
    x = torch.tensor(matrix.rows(slice(None)))
    np.testing.assert_allclose(cache.z, made.space.project(x), atol=1e-5)
    assert (cache.h is None) == (reads == "z")
    if cache.h is not None:
        np.testing.assert_allclose(cache.h, made.embed(x), atol=1e-5)


# ---------------------------------------------------------------- sets
def test_sets_tell_everything_that_the_columns_tell() -> None:
    control = np.tile([True, True, False, False, False], 8)
    columns = {
        "dose": np.where(control, 0, 3.0),
        "time": np.where(control, 0, 6.0),
        "kind": np.where(control, "-", np.where(np.arange(40) < 20, "KO", "OE")),
    }
    known = groups(**columns)
    cache = EmbeddingCache(np.random.default_rng(0).random((40, 5)).astype(np.float32))
    shift = np.arange(30.0).reshape(6, 5)
    batches = set_batches(cache, known, WORDS, shift, steps=20, seed=0)
    column = batches.per_condition
    assert set(column) >= {"actions", "dose", "kind", "time", "shift"}
    np.testing.assert_array_equal(column["actions"], WORDS.rows(known.actions))
    assert column["dose"].tolist() == [3.0] * 6 and column["time"].tolist() == [6.0] * 6
    assert [WORDS.kinds[int(k)] for k in column["kind"]] == known.kind.tolist()
    seen = set()
    for batch in batches:
        assert batch["source_z"].shape == (4, SET_SIZE, 5)
        for actions, moved in zip(batch["actions"], batch["shift"], strict=True):
            match = [i for i in range(6) if np.array_equal(moved, shift[i])]
            assert len(match) == 1 and np.array_equal(actions, column["actions"][match[0]])
            seen.add(match[0])
    assert seen == set(range(6))


def test_what_there_is_no_column_for_is_not_told() -> None:
    batches = set_batches(EmbeddingCache(np.zeros((40, 5), np.float32)), groups(), WORDS, None, steps=1, seed=0)
    assert set(next(iter(batches))) == {"source_z", "target_z", "actions"}


# ---------------------------------------------------------------- training and validation
def test_conditions_are_split_with_their_controls() -> None:
    whole = groups()
    split = Split(np.arange(0, 30), np.arange(30, 40), np.zeros(0, int))
    train, valid = split_groups(whole, split)
    assert len(train) == 6 and all((c < 30).all() for c in (*train.cells, *train.controls.values()))
    assert set(valid.contexts) == {"y"} and all((c >= 30).all() for c in (*valid.cells, valid.controls["y"]))


def test_validation_borrows_training_controls_where_it_has_none() -> None:
    whole = groups()
    validation = np.array([2, 7, 22, 20, 21])  # A in x and y; controls of y only
    split = Split(np.setdiff1d(np.arange(40), validation), validation, np.zeros(0, int))
    train, valid = split_groups(whole, split)
    assert {c: i.tolist() for c, i in valid.controls.items()} == {
        "x": [0, 1, 5, 6, 10, 11, 15, 16],  # those that train
        "y": [20, 21],  # its own
    }
    assert not set(validation) & set(np.concatenate([*train.cells, *train.controls.values()]))
    assert [c.tolist() for c in valid.cells] == [[2, 7], [22]]


def test_held_out_cells_are_in_neither() -> None:
    split = Split(np.arange(20), np.array([22, 23]), np.setdiff1d(np.arange(20, 40), [22, 23]))
    train, valid = split_groups(group_cells(np.array(["control", "control", "A", "B", "A+B"] * 8)), split)
    used = np.concatenate([*train.cells, *train.controls.values(), *valid.cells, *valid.controls.values()])
    assert not set(used) & set(split.test)


def test_nothing_validates_where_no_perturbed_cell_does() -> None:
    everything = np.arange(40)
    nothing = np.zeros(0, int)
    assert split_groups(groups(), Split(everything, nothing, nothing))[1] is None
    assert split_groups(groups(), Split(everything[1:], everything[:1], nothing))[1] is None  # a control


# ---------------------------------------------------------------- stages
@pytest.mark.parametrize("n_items", [2, 120])
def test_the_predictor_stage_shows_every_condition_once_an_epoch_at_least(n_items: int) -> None:
    labels = np.array(["control"] * 10 + [f"I{i}" for i in range(n_items)] * 2)
    known = group_cells(labels)
    words = Vocabulary(tuple(f"I{i}" for i in range(n_items)))
    cache = EmbeddingCache(np.zeros((len(labels), 5), np.float32))
    options = {"plan_kwargs": None, "seed": 0, "rows": None}
    stage = predictor_stage(cache, known, None, words, (None, None), max_epochs=None, **options)
    assert (stage.name, stage.objective) == ("predictor", SETS)
    assert len(stage.train) == max(STEPS_PER_EPOCH, n_items // 4)
    assert stage.max_epochs == int(np.ceil(PREDICTOR_STEPS / len(stage.train))) and stage.validation is None
    again = predictor_stage(cache, known, known, words, (None, None), max_epochs=2, **options)
    assert again.max_epochs == 2 and len(again.validation) == 10


def test_the_joint_stage_reads_raw_cells_at_depth() -> None:
    matrix = cells()
    monitor = CollapseMonitor(torch.zeros(2, GENES))
    stage = joint_stage(
        matrix, groups(), None, WORDS, monitor, unit=2.0, batch_size=128, max_epochs=1, plan_kwargs=None, seed=0,
        rows=None,
    )  # fmt: skip
    assert (stage.name, stage.objective, stage.callbacks) == ("joint", JOINT, [monitor])
    batch = next(iter(stage.train))
    assert batch["source_x"].shape == (2, SET_SIZE, GENES)  # 128 embeddings: two sets of 32 cells and their controls
    rows = {row.tobytes() for row in matrix.rows(slice(None), 2.0)}
    assert all(cell.numpy().tobytes() in rows for cell in batch["target_x"].reshape(-1, GENES))


# ---------------------------------------------------------------- the anchor's shifts
def test_shifts_are_the_anchors_effects_in_coordinates() -> None:
    made, matrix, whole = module(), cells(), groups()
    table = condition_means(matrix.values, whole)
    anchors = Anchors("mean").fit(table)
    chosen = np.array([4, 0])
    train, valid = anchor_shifts(made, anchors, chosen, matrix, whole, ())
    mean = Coordinates(made).effects(anchors.base.effects(table))
    np.testing.assert_allclose(train, mean[chosen], atol=1e-6)
    np.testing.assert_allclose(valid, mean, atol=1e-6)
    assert anchor_shifts(made, anchors, chosen, matrix, None, ())[1] is None
    assert anchor_shifts(made, Anchors(None).fit(table), chosen, matrix, whole, ()) == (None, None)


def test_what_the_anchor_cannot_predict_is_not_shifted() -> None:
    matrix, whole = cells(), groups()
    anchors = Anchors("additive").fit(condition_means(matrix.values, whole))
    train, _ = anchor_shifts(module(), anchors, np.arange(len(whole)), matrix, None, ())
    singles = np.array([len(a) == 1 for a in whole.actions])
    assert (train[singles] == 0).all() and (np.abs(train[~singles]).sum(1) > 0).all()
