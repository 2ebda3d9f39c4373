"""A predictor moves each cell of a set by itself, under what the set is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scjepa.module import ActionPredictor
from scjepa.nn import ActionEncoder, ConditionalPredictor


def predictor(encoder: ActionEncoder) -> ActionPredictor:
    f = ActionPredictor(encoder, ConditionalPredictor(4, 2, n_cond=encoder.n_cond, n_hidden=8))
    nn.init.normal_(f.predictor.output.weight)
    for layer in f.predictor.modulation:
        nn.init.normal_(layer.weight)
    return f


def test_a_set_is_moved_cell_by_cell_under_its_own_action() -> None:
    torch.manual_seed(0)
    f = predictor(ActionEncoder(2))
    z, actions = torch.randn(2, 6, 4), torch.eye(2)
    got = f(z, actions)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(f(z[:, order], actions), got[:, order])
    torch.testing.assert_close(f(z[1:], actions[1:]), got[1:])
    assert not torch.allclose(f(z, actions.flip(0)), got)


def test_elapsed_time_alone_is_an_action() -> None:
    torch.manual_seed(0)
    f = predictor(ActionEncoder(0, time=8, time_ref=10.0))
    z = torch.randn(1, 6, 4)
    still, later = (f(z, time=torch.tensor([t])) for t in (0.0, 5.0))
    assert not torch.allclose(still, later)
    torch.testing.assert_close(f(z.expand(2, 6, 4), time=torch.tensor([0.0, 5.0])), torch.cat([still, later]))


def test_only_what_is_told_reaches_the_action_encoder() -> None:
    class Counts(nn.Module):
        def forward(self, actions: torch.Tensor) -> torch.Tensor:
            return actions.sum(-1, keepdim=True)

    f = ActionPredictor(Counts(), ConditionalPredictor(4, 2, n_cond=1))
    assert f(torch.randn(3, 5, 4), torch.ones(3, 2)).shape == (3, 5, 2)
    with pytest.raises(TypeError, match="dose"):
        f(torch.randn(3, 5, 4), torch.ones(3, 2), dose=torch.ones(3))
