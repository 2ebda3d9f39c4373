"""ConditionalPredictor and JEPAPredictor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scjepa.nn import ConditionalPredictor, JEPAPredictor


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(predictor, seed=0):
    torch.manual_seed(seed)
    for p in predictor.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return predictor


def test_exactly_zero_at_initialisation():
    predictor = ConditionalPredictor(7, n_out=3, n_cond=4)
    out = predictor(10 * rand(5, 7), 10 * rand(5, 4))
    assert out.shape == (5, 3) and (out == 0).all()
    assert ConditionalPredictor(7).n_out == 7


def test_agrees_with_the_adaln_zero_formula():
    predictor = trained(ConditionalPredictor(4, n_cond=3, n_hidden=5, n_layers=2))
    z, c = rand(6, 4), rand(6, 3, seed=1)
    h = z @ predictor.input.weight.T + predictor.input.bias
    for modulation, block in zip(predictor.modulation, predictor.blocks, strict=True):
        b, s, g = (c * torch.sigmoid(c) @ modulation.weight.T + modulation.bias).split(5, dim=-1)
        normed = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        inner = F.gelu((normed * (1 + s) + b) @ block[0].weight.T + block[0].bias)
        h = h + g * (inner @ block[2].weight.T + block[2].bias)
    torch.testing.assert_close(predictor(z, c), h @ predictor.output.weight.T + predictor.output.bias)


def test_condition_of_a_set_is_broadcast_over_its_cells():
    predictor = trained(ConditionalPredictor(4, n_cond=3))
    z, c = rand(2, 5, 4), rand(2, 3, seed=1)
    by_set = torch.stack([predictor(z[k], c[k].expand(5, 3)) for k in range(2)])
    torch.testing.assert_close(predictor(z, c), by_set)
    torch.testing.assert_close(predictor(z, c[:, None]), by_set)
    torch.testing.assert_close(predictor(z[0], c[0]), by_set[0])
    torch.testing.assert_close(predictor(z.flip(1), c), by_set.flip(1))  # order of cells is free
    assert (predictor(z, c.flip(0)) - by_set).abs().max() > 0.01


def test_can_learn_a_shift_that_depends_on_state_and_condition():
    torch.manual_seed(0)
    z, c = rand(256, 2), torch.eye(2)[torch.arange(256) % 2]
    truth = torch.where(c[:, :1] > 0, z.flip(1), torch.ones(2))
    predictor = ConditionalPredictor(2, n_cond=2, n_hidden=32)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        error = (predictor(z, c) - truth).square().mean()
        error.backward()
        optimizer.step()
    assert error.item() < 0.02


@pytest.mark.parametrize(
    ("z", "c", "message"),
    [
        ((5, 6), (5, 3), r"z has shape \(5, 6\): expected \(..., n_cells, 4\)"),
        ((5, 4), (5, 2), r"condition has shape \(5, 2\) for z of shape \(5, 4\): expected \(..., 3\)"),
        ((5, 4), (4, 3), "one condition for each cell or for each set of cells"),
        ((2, 5, 4), (5, 3), "one condition for each cell or for each set of cells"),
        ((5, 4), (1, 5, 3), "expected"),
    ],
)
def test_refuses_shapes_that_do_not_fit(z, c, message):
    with pytest.raises(ValueError, match=message):
        ConditionalPredictor(4, n_cond=3)(rand(*z), rand(*c))


def test_jepa_predictor_is_a_narrow_residual_network():
    predictor = JEPAPredictor(24, n_layers=1)
    assert predictor.n_hidden == 12
    z = rand(6, 24)
    h = predictor.input(z)
    norm, up, _, _, down, _ = predictor.blocks[0]
    h = h + down(F.gelu(up(norm(h))))
    torch.testing.assert_close(predictor(z), predictor.output(h))
    # all that it passes on lies in a space as wide as the bottleneck
    rank = torch.linalg.matrix_rank(predictor(rand(100, 24)) - predictor.output[1].bias, tol=1e-4)
    assert rank <= 12


@pytest.mark.parametrize("n_latent", [1, 2, 3, 5])
def test_default_jepa_predictor_of_few_dimensions_does_not_collapse(n_latent):
    def rank(predictor):
        out = predictor(rand(100, n_latent))
        return int(torch.linalg.matrix_rank(out - out.mean(0), tol=1e-3))

    torch.manual_seed(0)
    assert JEPAPredictor(n_latent).n_hidden == 8
    assert rank(JEPAPredictor(n_latent)) == n_latent
    assert (
        rank(JEPAPredictor(n_latent, n_hidden=1)) == 0
    )  # why there is a floor: the layer norm of one unit is constant
    assert rank(JEPAPredictor(n_latent, n_hidden=2)) == 1


def test_jepa_predictor_with_condition_and_tokens():
    predictor = trained(JEPAPredictor(6, n_cond=2, n_hidden=5))
    tokens, c = rand(3, 7, 6), rand(3, 2, seed=1)
    one_by_one = torch.stack([predictor(tokens[i], c[i].expand(7, 2)) for i in range(3)])
    torch.testing.assert_close(predictor(tokens, c), one_by_one)
    assert (predictor(tokens, -c) - one_by_one).abs().max() > 0.01


def test_jepa_predictor_dropout_only_in_training():
    predictor, z = JEPAPredictor(6, dropout=0.5), rand(10, 6)
    torch.manual_seed(0)
    assert not torch.equal(predictor(z), predictor(z))
    predictor.eval()
    assert torch.equal(predictor(z), predictor(z))


def test_jepa_predictor_refuses_bad_input():
    with pytest.raises(ValueError, match="condition is missing, but the predictor was made with n_cond=2"):
        JEPAPredictor(6, n_cond=2)(rand(3, 6))
    with pytest.raises(ValueError, match="condition is given, but the predictor was made with n_cond=0"):
        JEPAPredictor(6)(rand(3, 6), rand(3, 2))
    with pytest.raises(ValueError, match=r"z has shape \(3, 5\)"):
        JEPAPredictor(6)(rand(3, 5))
