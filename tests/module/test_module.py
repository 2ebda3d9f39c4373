"""The module: what each objective trains, where prediction starts, what the predictor reads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.modules import jepa
from torch import nn

from scjepa.module import JOINT, SETS, VIEWS, JEPAModule, Regularizer, ViewAgreement
from scjepa.nn import ActionEncoder, GeneExpressionEncoder


def module(**options) -> JEPAModule:
    return jepa(12, **{"n_modules": 3, **options})


def rooms(made: JEPAModule, objective: str) -> set[str]:
    return {name.split(".")[0] for name, _ in made.trained_by(objective)}


def test_each_objective_trains_its_own_parameters() -> None:
    made = module(actions=2, regularizer="ema")
    assert rooms(made, VIEWS) == {"encoder", "decoder", "view_predictor"}
    assert rooms(made, SETS) == {"predictors"}
    joint = module(actions=2, target_encoder="ema", joint=True)
    assert rooms(joint, JOINT) == {"encoder", "decoder", "predictors", "inverse_dynamics"}
    for objective, names in ((VIEWS, made), (SETS, made), (JOINT, joint)):
        everything = dict(names.named_parameters())
        for name, parameter in names.trained_by(objective):
            assert everything[name] is parameter and parameter.requires_grad
    with pytest.raises(KeyError):
        next(made.trained_by("nothing"))


@pytest.mark.parametrize("spec", [3, lambda: ActionEncoder(3, n_kinds=2, dose_gate=True, dose_ref=2.0, time=4)])
def test_shift_is_zero_at_the_start(spec) -> None:
    made, told = module(actions=spec).eval(), {}
    if callable(spec):
        told = {"dose": torch.tensor([0.5, 4.0]), "kind": torch.tensor([0, 1]), "time": torch.tensor([0.0, 9.0])}
    got = made.shift(torch.randn(2, 7, 5), torch.eye(3)[:2], **told)
    assert got.shape == (2, 7, 5)
    assert not got.any()


def test_shift_is_the_mean_of_the_ensemble() -> None:
    made = module(actions=3, n_ensemble=3).eval()
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    state, actions = torch.randn(2, 7, 5), torch.eye(3)[:2]
    single = [f(state, actions).detach() for f in made.predictors]
    assert not torch.allclose(single[0], single[1])
    torch.testing.assert_close(made.shift(state, actions), sum(single) / 3)


def test_state() -> None:
    z, h = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    assert module(reads="z").state(z, h) is z
    assert module(reads="z").state(z) is z
    assert module(reads="h").state(z, h) is h
    assert torch.equal(module(reads="both").state(z, h), torch.cat([z, h], -1))
    with pytest.raises(ValueError, match="predictor_input='h' needs the JEPA embedding h of the cells"):
        module(reads="h").state(z)


def test_embedding_of_the_modules_encoder() -> None:
    made = module(kind="modules", d_token=6).eval()
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


def test_parts_that_are_not_handed_in_are_absent() -> None:
    encoder = GeneExpressionEncoder(12, 4, n_modules=3)
    made = JEPAModule(encoder, {VIEWS: ViewAgreement(Regularizer())})
    for name in ("decoder", "target_encoder", "view_predictor", "space", "inverse_dynamics"):
        assert getattr(made, name) is None
    assert made.encoder is encoder and not len(made.predictors)
    assert made.readout.weight.shape == (12, 4)
    batch = {"first": torch.rand(6, 12), "second": torch.rand(6, 12)}
    assert "reconstruction" not in made(batch, VIEWS).extra_metrics  # there is no decoder
    with pytest.raises(ValueError, match="reads='x': expected 'z', 'h' or 'both'"):
        JEPAModule(encoder, {}, reads="x")


def test_parameters_come_in_the_order_of_the_parts() -> None:
    """Optimizers number parameters: a checkpoint of an interrupted training goes by this order."""
    joint = module(actions=2, regularizer="ema", joint=True)
    names = list(dict.fromkeys(name.split(".")[0] for name, _ in joint.named_parameters()))
    order = ["encoder", "target_encoder", "view_predictor", "decoder", "predictors", "inverse_dynamics"]
    assert names == order
    assert [n for n in dict.fromkeys(n.split(".")[0] for n in joint.state_dict()) if n in ("readout", "space")] == [
        "readout",
        "space",
    ]


def test_loading_asks_the_model_for_its_module() -> None:
    made = module()
    model = SimpleNamespace(_build_module=lambda: "as before")
    made.on_load(model)
    assert model.module == "as before"
    model._loaded = lambda: setattr(model, "module", "as trained")
    made.on_load(model)
    assert model.module == "as trained"
