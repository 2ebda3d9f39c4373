"""The loop without a trainer: copies learn what their batches say, repeat themselves, and leave the module alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.modules import jepa

from scjepa.data import ConditionSampler, EmbeddingCache, SetBatches, group_cells
from scjepa.module import SETS, JEPAModule
from scjepa.nn import ActionEncoder
from scjepa.train import PlanConfig, seeded, train_side_by_side


def batches(effect: float, steps: int = 10) -> SetBatches:
    """Control cells around zero; A moves them by ``effect`` in every coordinate, B does nothing."""
    labels = np.repeat(["control", "A", "B"], 40)
    z = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    z[40:80] += effect
    groups = group_cells(labels, control="control", separator="+")
    actions = np.array([[name in action for name in "AB"] for action in groups.actions], dtype=np.float32)
    return SetBatches(ConditionSampler(groups, n_sets=2, set_size=16), EmbeddingCache(z), actions, steps=steps)


def module() -> JEPAModule:
    with seeded(0):
        return jepa(6, actions=2, n_latent=3, n_pcs=4, n_ensemble=1, n_hidden=256, n_layers=2, predictor_hidden=128)


def shifts(effects: list[float], config: PlanConfig, epochs: int = 15) -> list[torch.Tensor]:
    start = module()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    with seeded(1):
        trained = train_side_by_side(start, SETS, config, [batches(e) for e in effects], epochs)
    assert all(torch.equal(v, before[k]) for k, v in start.state_dict().items())
    assert not start.training
    out = []
    for weights in trained:
        assert {name.split(".")[0] for name in weights} == {"predictors"}
        start.load_state_dict(weights, strict=False)
        out.append(start.shift(torch.zeros(2, 20, 4), torch.eye(2)).mean(1))
    return out


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_each_copy_learns_from_its_own_batches(clip: float) -> None:
    config = PlanConfig(lr=5e-3, gradient_clip=clip)
    for effect, shift in zip((3.0, -2.0), shifts([3.0, -2.0], config), strict=True):
        assert float((shift[0] - effect).abs().max()) < 0.8
        assert float(shift[1].abs().max()) < 0.8


def test_same_seed_same_numbers() -> None:
    one, other = (shifts([3.0, -2.0], PlanConfig(lr=5e-3), epochs=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_noise_company_changes_nothing() -> None:
    """A copy learns the same alone as beside others, apart from the random numbers it is given."""
    start = module()
    start.objectives[SETS].noise = 0.0
    alone = train_side_by_side(start, SETS, PlanConfig(), [batches(3.0)], 2)
    both = train_side_by_side(start, SETS, PlanConfig(), [batches(3.0), batches(-2.0)], 2)
    for name, values in alone[0].items():
        torch.testing.assert_close(values, both[0][name], atol=1e-5, rtol=1e-4)


def test_streams_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"epochs of \[5, 10\] batches: expected"):
        train_side_by_side(module(), SETS, PlanConfig(), [batches(1.0), batches(1.0, steps=5)], 1)


def test_doses_kinds_and_times_are_told_and_looked_at_again_afterwards() -> None:
    """Values can't be looked at while many copies train at once; the module's own checks come back."""
    told = lambda: ActionEncoder(2, n_kinds=2, dose_gate=True, time=4)
    start = jepa(6, actions=told, n_latent=3, n_pcs=4, n_ensemble=1)
    stream = batches(3.0)
    stream.per_condition |= {"dose": torch.ones(2), "kind": torch.tensor([0, 1]), "time": torch.tensor([6.0, 24.0])}
    trained = train_side_by_side(start, SETS, PlanConfig(), [stream, stream], 1)
    assert all(torch.isfinite(values).all() for weights in trained for values in weights.values())
    with pytest.raises(ValueError, match="doses are negative"):
        start.shift(
            torch.zeros(2, 5, 4), torch.eye(2), dose=-torch.ones(2), kind=torch.tensor([0, 1]), time=torch.ones(2)
        )
