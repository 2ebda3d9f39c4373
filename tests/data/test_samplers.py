"""Batches: same seed same batches, nothing outside the allowed cells, controls matched, processes apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scjepa.data import ConditionSampler, EmbeddingCache, ExpressionMatrix, SetBatches, ViewBatches, group_cells
from scjepa.data import _samplers as samplers


def matrix(n: int = 50) -> ExpressionMatrix:
    """Averaged profiles (so that views are the cell itself) in which gene 0 tells the cell."""
    x = np.random.default_rng(0).random((n, 6))
    x[:, 0] = np.arange(1, n + 1) / 100
    cells = ExpressionMatrix(x, "lognorm")
    assert cells.unit is None
    return cells


def seen(batches: ViewBatches) -> list[np.ndarray]:
    """Cells of each batch of one epoch."""
    return [np.rint(batch["first"][:, 0].numpy() * 100).astype(int) - 1 for batch in batches]


def ranks(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(samplers, "process_rank", lambda: (rank, world))


# ---------------------------------------------------------------- views
def test_views_cover_each_allowed_cell_at_most_once_an_epoch() -> None:
    allowed = np.arange(0, 46, 2)  # 23 cells
    batches = ViewBatches(matrix(), allowed, 5, seed=1)
    epochs = [seen(batches) for _ in range(3)]
    for epoch in epochs:
        assert [len(b) for b in epoch] == [5] * 4 and len(batches) == 4
        cells = np.concatenate(epoch)
        assert len(set(cells)) == 20 and set(cells) <= set(allowed)
    assert not np.array_equal(epochs[0], epochs[1])
    assert set().union(*map(tuple, np.concatenate(epochs))) == set(allowed)  # nobody is left out for good


def test_views_repeat_with_their_seed() -> None:
    a, b, c = (ViewBatches(matrix(), np.arange(50), 10, seed=s) for s in (1, 1, 2))
    first = seen(a)
    np.testing.assert_array_equal(first, seen(b))
    np.testing.assert_array_equal(seen(a), seen(b))  # second epochs
    assert not np.array_equal(first, seen(c))


def test_fixed_views_repeat_every_epoch() -> None:
    cells = ExpressionMatrix(np.random.default_rng(0).poisson(3, (20, 6)) + 1, "counts")
    batches = ViewBatches(cells, np.arange(20), 8, fixed=True)
    for a, b in zip(list(batches), list(batches), strict=True):
        torch.testing.assert_close(a["first"], b["first"], rtol=0, atol=0)
    moving = ViewBatches(cells, np.arange(20), 20)
    first, second = (next(iter(moving))["first"] for _ in range(2))
    assert not torch.equal(first, second)  # all cells, same order, another split of the counts


def test_batch_codes_belong_to_the_cells() -> None:
    codes = np.arange(50)[::-1].astype(np.int32)
    batches = ViewBatches(matrix(), np.arange(50), 7, batch_codes=codes)
    for batch in batches:
        cells = np.rint(batch["first"][:, 0].numpy() * 100).astype(int) - 1
        assert batch["batch"].dtype == torch.int64
        assert batch["batch"].tolist() == codes[cells].tolist()


def test_reference_reaches_the_views() -> None:
    cells = ExpressionMatrix(np.random.default_rng(0).poisson(3, (10, 6)) + 1, "counts")
    plain, scaled = (next(iter(ViewBatches(cells, np.arange(10), 10, reference=r))) for r in (1.0, 50.0))
    torch.testing.assert_close(scaled["second"].expm1(), plain["second"].expm1() / 50, rtol=1e-4, atol=1e-5)


def test_short_data_is_one_batch_and_no_data_is_refused() -> None:
    assert [len(b) for b in seen(ViewBatches(matrix(), np.arange(3), 512))] == [3]
    with pytest.raises(ValueError, match="there are no cells to draw from"):
        ViewBatches(matrix(), np.arange(0), 4)


def test_two_processes_see_different_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []
    for rank in (0, 1):
        ranks(monkeypatch, rank, 2)
        batches = ViewBatches(matrix(), np.arange(50), 8, seed=3)
        assert len(batches) == 3
        epochs.append([np.concatenate(seen(batches)) for _ in range(2)])
    for mine, theirs in zip(*epochs, strict=True):
        assert len(mine) == len(theirs) == 24
        assert not set(mine) & set(theirs)


def test_processes_share_cells_when_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks(monkeypatch, 1, 2)
    batches = ViewBatches(matrix(), np.arange(5), 4)
    assert [len(b) for b in seen(batches)] == [4] and len(batches) == 1


def test_batches_have_no_index() -> None:
    with pytest.raises(TypeError, match="iterate over the batches"):
        ViewBatches(matrix(), np.arange(5), 4)[0]


# ---------------------------------------------------------------- sets
LABELS = np.array(["control"] * 40 + ["A"] * 30 + ["B"] * 3 + ["A+B"] * 7)
CONTEXTS = np.array((["x"] * 20 + ["y"] * 20) + ["x"] * 30 + ["y"] * 3 + ["x"] * 7)


def test_sets_hold_cells_of_the_condition_and_controls_of_its_context() -> None:
    groups = group_cells(LABELS, contexts=CONTEXTS)
    sampler = ConditionSampler(groups, n_sets=2, set_size=16)
    for chosen, source, target in sampler.draw(np.random.default_rng(0), 20):
        assert source.shape == target.shape == (2, 16)
        for c, s, t in zip(chosen, source, target, strict=True):
            assert set(t) <= set(groups.cells[c])
            assert set(s) <= set(groups.controls[groups.contexts[c]])


def test_sets_never_hold_cells_outside_the_split() -> None:
    mask = np.arange(80) % 3 > 0
    groups = group_cells(LABELS, contexts=CONTEXTS, batches=np.arange(80) % 4).within(mask)
    drawn = [np.concatenate([s, t]).ravel() for _, s, t in ConditionSampler(groups).draw(np.random.default_rng(0), 30)]
    assert set(np.concatenate(drawn)) <= set(np.flatnonzero(mask))
    assert set(np.concatenate(drawn)) >= set(np.flatnonzero(mask[40:]) + 40)  # all perturbed cells


@pytest.mark.parametrize(("conditions", "n_sets"), [(5, 2), (7, 4), (3, 4), (4, 4)])
def test_conditions_come_equally_often(conditions: int, n_sets: int) -> None:
    """Also when the number of conditions is no multiple of the sets in a batch, and whatever their sizes."""
    labels = ["control"] + [f"g{i}" for i in range(conditions) for _ in range(1 + 5 * i)]
    sampler = ConditionSampler(group_cells(labels), n_sets=n_sets, set_size=2)
    order = np.concatenate([c for c, _, _ in sampler.draw(np.random.default_rng(0), 5 * conditions)])
    times = np.bincount(order, minlength=conditions)
    assert len(order) == 5 * conditions * min(n_sets, conditions)
    assert times.min() == times.max()
    assert sorted(order[:conditions]) == list(range(conditions))  # all of them before any comes again


def test_controls_are_weighted_to_the_batches_of_the_condition() -> None:
    """A is 3/4 in batch 0, which has 10 of 100 controls: 3/4 of the drawn controls must come from these 10."""
    labels = np.array(["control"] * 100 + ["A"] * 40)
    batches = np.array([0] * 10 + [1] * 90 + [0] * 30 + [1] * 10)
    sampler = ConditionSampler(group_cells(labels, batches=batches), n_sets=1, set_size=200)
    source = np.concatenate([s.ravel() for _, s, _ in sampler.draw(np.random.default_rng(0), 20)])
    times = np.bincount(source, minlength=100)
    assert times[:10].sum() / times.sum() == pytest.approx(0.75, abs=0.03)  # standard error .007
    assert times[:10].min() > 0.8 * times[:10].mean()
    assert times[10:].min() > 0


def test_batches_without_controls_draw_from_all() -> None:
    labels = np.array(["control"] * 10 + ["A"] * 4)
    batches = np.array([0] * 5 + [1] * 5 + [2] * 4)
    sampler = ConditionSampler(group_cells(labels, batches=batches), set_size=300)
    _, source, _ = next(sampler.draw(np.random.default_rng(0), 1))
    times = np.bincount(source.ravel(), minlength=14)
    assert times[10:].sum() == 0
    assert times[:10].min() > 10


def test_no_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no conditions to draw from"):
        ConditionSampler(group_cells(["control"]))


def set_batches(cells=None, **options) -> SetBatches:
    groups = group_cells(LABELS, contexts=CONTEXTS)  # A in x, A+B in x, B in y
    if cells is None:
        number = np.arange(80, dtype=np.float32)[:, None]
        cells = EmbeddingCache(np.hstack([number, -number]), number / 2)
    return SetBatches(
        ConditionSampler(groups, n_sets=3, set_size=4),
        cells,
        np.array([[1, 0], [1, 1], [0, 1]]),
        shift=np.array([[0.0, 0], [1, 1], [2, 2]]),
        dose=np.array([1.0, 2.0, 3.0]),
        kind=np.array([0, 1, 0]),
        time=np.array([6.0, 12.0, 24.0]),
        steps=3,
        **options,
    )


def test_set_batches_keep_condition_and_cells_together() -> None:
    groups = set_batches().sampler.groups
    for batch in set_batches():
        assert batch["actions"].dtype == batch["shift"].dtype == batch["dose"].dtype == torch.float32
        assert batch["kind"].dtype == torch.int64 and batch["time"].dtype == torch.float32
        c = batch["dose"].long() - 1
        assert batch["actions"].tolist() == torch.tensor([[1, 0], [1, 1], [0, 1]])[c].tolist()
        assert batch["shift"][:, 0].tolist() == c.tolist()
        assert batch["kind"].tolist() == torch.tensor([0, 1, 0])[c].tolist()
        assert batch["time"].tolist() == torch.tensor([6.0, 12.0, 24.0])[c].tolist()
        for i, condition in enumerate(c.tolist()):
            target = batch["target_z"][i, :, 0].long().tolist()
            assert set(target) <= set(groups.cells[condition])
            assert batch["target_h"][i, :, 0].tolist() == [t / 2 for t in target]
            assert set(batch["source_z"][i, :, 0].long().tolist()) <= set(groups.controls[groups.contexts[condition]])


def test_set_batches_of_raw_cells() -> None:
    cells = ExpressionMatrix(np.tile(np.arange(1, 81)[:, None], (1, 3)), "counts", target_sum=9, library=np.full(80, 9))
    batch = next(iter(set_batches(cells, reference=2.0)))
    assert batch["source_x"].shape == (3, 4, 3)
    assert "source_z" not in batch
    counts = batch["target_x"].expm1()[..., 0] * 2 - 1  # back to the number of the cell
    groups = set_batches().sampler.groups
    for i, condition in enumerate((batch["dose"].long() - 1).tolist()):
        assert set(counts[i].round().long().tolist()) <= set(groups.cells[condition])


def same(a: list[dict], b: list[dict]) -> bool:
    return all(torch.equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def test_set_batches_repeat_with_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, again = set_batches(seed=4), set_batches(seed=4)
    first = list(batches)
    assert len(first) == len(batches) == 3
    assert same(first, list(again))
    assert not same(first, list(batches))  # the next epoch
    assert not same(first, list(set_batches(seed=5)))
    fixed = set_batches(seed=4, fixed=True)
    assert same(list(fixed), list(fixed))
    assert not same(first, list(fixed))  # validation does not repeat the draws of training
    ranks(monkeypatch, 1, 2)
    assert not same(first, list(set_batches(seed=4)))


def test_optional_parts_stay_out() -> None:
    groups = group_cells(LABELS)
    cache = EmbeddingCache(np.zeros((80, 2), np.float32))
    batch = next(iter(SetBatches(ConditionSampler(groups), cache, np.eye(3))))
    assert set(batch) == {"actions", "source_z", "target_z"}


def test_alone_there_is_one_process() -> None:
    assert samplers.process_rank() == (0, 1)
