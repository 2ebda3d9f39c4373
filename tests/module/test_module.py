"""The module: what each objective trains, where prediction starts, what the predictor reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scjepa.module import JOINT, SETS, VIEWS, ActionPredictor, ActionSpec, JEPAModule


def module(**options) -> JEPAModule:
    torch.manual_seed(0)
    small = {"n_latent": 4, "n_hidden": 8, "n_layers": 1, "n_modules": 3, "n_pcs": 5, "predictor_hidden": 8}
    return JEPAModule(12, **{**small, **options})


def rooms(made: JEPAModule, objective: str) -> set[str]:
    return {name.split(".")[0] for name, _ in made.trained_by(objective)}


def test_each_objective_trains_its_own_parameters() -> None:
    made = module(actions=ActionSpec(2), regularizer="ema")
    assert rooms(made, VIEWS) == {"encoder", "decoder", "view_predictor"}
    assert rooms(made, SETS) == {"predictors"}
    joint = module(actions=ActionSpec(2), target_encoder="ema", joint=True)
    assert rooms(joint, JOINT) == {"encoder", "decoder", "predictors", "inverse_dynamics"}
    for objective, names in ((VIEWS, made), (SETS, made), (JOINT, joint)):
        everything = dict(names.named_parameters())
        for name, parameter in names.trained_by(objective):
            assert everything[name] is parameter and parameter.requires_grad
    with pytest.raises(KeyError):
        next(made.trained_by("nothing"))


def test_objectives_follow_from_the_arguments() -> None:
    assert set(module().objectives) == {VIEWS}
    assert set(module(actions=ActionSpec(1)).objectives) == {VIEWS, SETS}
    assert set(module(actions=ActionSpec(1), joint=True).objectives) == {VIEWS, SETS, JOINT}
    assert module().target_encoder is None and module().view_predictor is None
    assert module(regularizer="ema").target_encoder is not None
    assert len(module(actions=ActionSpec(1), n_ensemble=3).predictors) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_encoder": "emma"}, "target_encoder='emma': expected 'shared' or 'ema'"),
        ({"predictor_input": "zh"}, "predictor_input='zh': expected 'z', 'h' or 'both'"),
        ({"regularizer": "none"}, "regularizer='none': expected one of"),
        ({"set_loss": "mse", "actions": ActionSpec(1)}, "set_loss='mse': expected one of"),
        ({"encoder": "cnn"}, "kind='cnn' is not among"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


@pytest.mark.parametrize("spec", [ActionSpec(3), ActionSpec(3, n_kinds=2, dose_gate=True, dose_ref=2.0)])
def test_shift_is_zero_at_the_start(spec: ActionSpec) -> None:
    made = module(actions=spec).eval()
    dose, kind = (torch.tensor([0.5, 4.0]), torch.tensor([0, 1])) if spec.n_kinds else (None, None)
    got = made.shift(torch.randn(2, 7, 5), torch.eye(3)[:2], dose, kind)
    assert got.shape == (2, 7, 5)
    assert not got.any()


def test_shift_is_the_mean_of_the_ensemble() -> None:
    made = module(actions=ActionSpec(3), n_ensemble=3).eval()
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    state, actions = torch.randn(2, 7, 5), torch.eye(3)[:2]
    single = [f(state, actions).detach() for f in made.predictors]
    assert not torch.allclose(single[0], single[1])
    torch.testing.assert_close(made.shift(state, actions), sum(single) / 3)


def test_a_set_is_moved_cell_by_cell_under_its_own_action() -> None:
    torch.manual_seed(0)
    f = ActionPredictor(4, 2, n_actions=2, n_hidden=8)
    nn.init.normal_(f.predictor.output.weight)
    for layer in f.predictor.modulation:
        nn.init.normal_(layer.weight)
    z, actions = torch.randn(2, 6, 4), torch.eye(2)
    got = f(z, actions)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(f(z[:, order], actions), got[:, order])
    torch.testing.assert_close(f(z[1:], actions[1:]), got[1:])
    assert not torch.allclose(f(z, actions.flip(0)), got)


def test_state() -> None:
    z, h = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    assert module(predictor_input="z").state(z, h) is z
    assert module(predictor_input="z").state(z) is z
    assert module(predictor_input="h").state(z, h) is h
    assert torch.equal(module(predictor_input="both").state(z, h), torch.cat([z, h], -1))
    with pytest.raises(ValueError, match="predictor_input='h' needs the JEPA embedding h of the cells"):
        module(predictor_input="h").state(z)


def test_embedding_of_the_modules_encoder() -> None:
    made = module(encoder="modules", d_token=6).eval()
    x = torch.rand(3, 12)
    assert made.embed(x).shape == (3, 4)
    tokens = made.embed(x, give_tokens=True)
    assert tokens.shape == (3, 3, 6)
    assert not made.embed(x).requires_grad
    torch.testing.assert_close(made.embed(x[:1]), made.embed(x)[:1])  # one cell does not need company


def test_update_without_a_slow_target_does_nothing() -> None:
    made = module()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.update_target()
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])
