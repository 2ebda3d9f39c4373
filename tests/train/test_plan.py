"""The training plan: options, schedules, what the optimizer decays, and the message when a loss explodes."""

from __future__ import annotations

import math

import pytest
import torch
from tests.modules import jepa
from torch import nn

from scjepa.module import SETS, VIEWS
from scjepa.nn import GeneExpressionEncoder
from scjepa.train import JEPATrainingPlan, PlanConfig
from scjepa.train._plan import make_optimizer


def plan(config: PlanConfig, steps: int = 100, objective: str = VIEWS, **options) -> JEPATrainingPlan:
    return JEPATrainingPlan(jepa(8, n_latent=3, n_pcs=2, **options), objective, config, steps)


def rates(config: PlanConfig, steps: int = 100) -> list[float]:
    """Learning rate of every step."""
    made = plan(config, steps).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()  # once more than there are steps between: must not fail
    return out


# ---------------------------------------------------------------- options
def test_options_go_over_the_defaults() -> None:
    defaults = PlanConfig(lr=2e-3, schedule="onecycle")
    assert PlanConfig.from_kwargs(defaults, None) == defaults
    assert PlanConfig.from_kwargs(defaults, {}) == defaults
    got = PlanConfig.from_kwargs(defaults, {"weight_decay": 0.5, "betas": (0.8, 0.9)})
    assert got == PlanConfig(lr=2e-3, schedule="onecycle", weight_decay=0.5, betas=(0.8, 0.9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrr": 1.0}, "plan_kwargs has no option 'lrr'. Did you mean 'lr'.*Options: betas, eps, gradient_clip, lr,"),
        ({"schedule": "linear"}, "schedule='linear': expected 'cosine' or 'onecycle'"),
    ],
)
def test_option_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlanConfig.from_kwargs(PlanConfig(), options)


# ---------------------------------------------------------------- schedules
def test_cosine_after_warm_up() -> None:
    got = rates(PlanConfig(lr=0.1, warmup_steps=10))
    for step, lr in enumerate(got):
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / 100)) / 2
        assert lr == pytest.approx(0.1 * min(1, (step + 1) / 10) * cosine)
    assert got[0] == pytest.approx(0.01)
    assert max(got) <= 0.1
    assert got[-1] < 0.002  # falls to 1 %


def test_warm_up_is_at_most_a_quarter() -> None:
    got = rates(PlanConfig(lr=1.0, warmup_steps=50), steps=20)
    assert got.index(max(got)) <= 5


def test_onecycle() -> None:
    got = rates(PlanConfig(lr=0.1, schedule="onecycle"))
    assert got[0] == pytest.approx(0.1 / 25)
    peak = got.index(max(got))
    assert 25 <= peak <= 35 and got[peak] == pytest.approx(0.1, rel=1e-2)
    assert all(a < b for a, b in zip(got[:peak], got[1 : peak + 1], strict=True))
    assert all(a > b for a, b in zip(got[peak:-1], got[peak + 1 :], strict=True))
    assert got[-1] < 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_one_step(schedule: str) -> None:
    got = rates(PlanConfig(lr=0.1, schedule=schedule), steps=1)
    assert 0 < got[0] <= 0.1


# ---------------------------------------------------------------- optimizer
def test_the_skip_is_not_decayed() -> None:
    made = plan(PlanConfig(weight_decay=0.3, lr=0.1, betas=(0.7, 0.8), eps=1e-7))
    optimizer = made.configure_optimizers()["optimizer"]
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    skip = made.module.encoder.skip.weight
    assert decay.pop(id(skip)) == 0
    assert set(decay.values()) == {0.3}
    assert {id(p) for name, p in made.module.trained_by(VIEWS)} == {*decay, id(skip)}
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.7, 0.8), 1e-7)


def test_no_encoder_of_several_has_its_skip_decayed() -> None:
    parts = nn.ModuleDict(
        {"rna": GeneExpressionEncoder(8, 3, n_modules=2), "protein": GeneExpressionEncoder(5, 3, n_modules=2)}
    )
    named = [(f"encoders.{name}", p) for name, p in parts.named_parameters()]
    optimizer, _ = make_optimizer(named, PlanConfig(weight_decay=0.3), 10)
    free = [id(p) for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]]
    assert free == [id(parts[name].skip.weight) for name in ("rna", "protein")]


def test_stage_two_trains_predictors_only() -> None:
    made = plan(PlanConfig(), objective=SETS, actions=2)
    optimizer = made.configure_optimizers()["optimizer"]
    optimized = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert optimized == {id(p) for p in made.module.predictors.parameters()}


# ---------------------------------------------------------------- steps
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_says_what_to_do(value: float) -> None:
    made = plan(PlanConfig(lr=1e-3))
    batch = {"first": torch.full((4, 8), value), "second": torch.rand(4, 8)}
    with pytest.raises(FloatingPointError, match="the views loss became nan at step 0.*plan_kwargs={'lr': 0.0001}"):
        made.training_step(batch, 0)


def test_the_slow_target_follows_every_batch() -> None:
    made = plan(PlanConfig(), regularizer="ema")
    slow = made.module.target_encoder.module.skip.weight
    before = slow.clone()
    with torch.no_grad():
        made.module.encoder.skip.weight.add_(1.0)
    made.on_train_batch_end(None, None, 0)
    torch.testing.assert_close(slow, before + (1 - made.module.target_encoder.decay))
