"""The usual parts: which are made for which arguments."""

from __future__ import annotations

import pytest
import torch
from tests.modules import jepa

from scjepa.module import JOINT, SETS, VIEWS, JEPAModule, action_predictors, view_parts
from scjepa.nn import ActionEncoder, GeneExpressionEncoder


def module(**options) -> JEPAModule:
    return jepa(12, **options)


def test_objectives_follow_from_the_arguments() -> None:
    assert set(module().objectives) == {VIEWS}
    assert set(module(actions=1).objectives) == {VIEWS, SETS}
    assert set(module(actions=1, joint=True).objectives) == {VIEWS, SETS, JOINT}
    assert module().target_encoder is None and module().view_predictor is None
    assert module(regularizer="ema").target_encoder is not None
    assert len(module(actions=1, n_ensemble=3).predictors) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_encoder": "emma"}, "target_encoder='emma': expected 'shared' or 'ema'"),
        ({"n_ensemble": 0, "actions": 1}, "n_ensemble=0"),
        ({"reads": "zh", "actions": 1}, "reads='zh': expected 'z', 'h' or 'both'"),
        ({"regularizer": "none"}, "regularizer='none': expected one of"),
        ({"set_loss": "mse", "actions": 1}, "set_loss='mse': expected one of"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_each_predictor_has_an_action_encoder_of_its_own() -> None:
    torch.manual_seed(0)
    one, two = action_predictors(lambda: ActionEncoder(3, n_cond=6), 5, 4, n_hidden=16, n_layers=1)
    assert one.action_encoder is not two.action_encoder
    assert one.predictor.n_cond == 6 and (one.predictor.n_in, one.predictor.n_out) == (5, 4)
    assert len(one.predictor.blocks) == 1 and one.predictor.input.out_features == 16


def test_the_slow_encoder_starts_as_a_copy() -> None:
    encoder = GeneExpressionEncoder(12, 4, n_modules=3)
    parts = view_parts(encoder, target_encoder="ema")
    assert torch.equal(parts["target_encoder"].module.skip.weight, encoder.skip.weight)
    assert parts["target_encoder"].module is not encoder
