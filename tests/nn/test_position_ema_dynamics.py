"""SinusoidalPositionEmbeddings, EMATarget and InverseDynamicsHead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scjepa.nn import EMATarget, InverseDynamicsHead, SinusoidalPositionEmbeddings

# ---------- positions


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_position_formula(dim):
    t = np.array([0.0, 1.0, -2.5, 731.25])
    out = SinusoidalPositionEmbeddings(dim, max_period=100.0)(torch.from_numpy(t).float()).numpy()
    i = np.arange((dim + 1) // 2)
    angle = t[:, None] / 100.0 ** (2 * i / dim)
    expected = np.concatenate([np.sin(angle), np.cos(angle)[:, : dim // 2]], axis=1)
    assert out.shape == (4, dim)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_position_hand_computed():
    out = SinusoidalPositionEmbeddings(4)(torch.tensor([2.0]))[0].tolist()
    assert out == pytest.approx([np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)], abs=1e-6)


def test_position_distance_depends_on_elapsed_time_only():
    embed = SinusoidalPositionEmbeddings(16)
    a, b, c, d = embed(torch.tensor([1.0, 3.5, 41.0, 43.5]))
    torch.testing.assert_close(a @ b, c @ d, atol=1e-4, rtol=0)
    torch.testing.assert_close((a**2).sum(), torch.tensor(8.0))


def test_position_takes_whole_numbers_and_any_shape_and_has_no_state():
    embed = SinusoidalPositionEmbeddings(6)
    torch.testing.assert_close(embed(torch.arange(4)), embed(torch.arange(4.0)))
    torch.testing.assert_close(embed(torch.ones(2, 3)), embed(torch.ones(6)).view(2, 3, 6))
    assert embed.state_dict() == {} and not list(embed.parameters())


@pytest.mark.parametrize(("arguments", "message"), [((0,), "dim=0"), ((4, -1.0), "max_period=-1.0")])
def test_position_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SinusoidalPositionEmbeddings(*arguments)


# ---------- EMA target


def online():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_ema_follows_the_closed_form():
    module = online()
    target = EMATarget(module, decay=0.9)
    start = {k: v.clone() for k, v in module.named_parameters()}
    for p in module.parameters():
        p.data += 1
    for _ in range(3):
        target.update(module)
    for name, p in target.module.named_parameters():
        torch.testing.assert_close(p, start[name] + 1 - 0.9**3)
    target.decay = 0
    target.update(module)
    for (_, p), (_, q) in zip(target.module.named_parameters(), module.named_parameters(), strict=True):
        torch.testing.assert_close(p, q)
    target.decay = 1.0
    module[0].weight.data += 5
    before = target.module[0].weight.clone()
    target.update(module)
    assert torch.equal(target.module[0].weight, before)


def test_ema_copies_buffers_and_stays_apart():
    module = online()
    target = EMATarget(module)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    module(x)
    assert not torch.equal(target.module[1].running_mean, module[1].running_mean)
    target.update(module)
    assert torch.equal(target.module[1].running_mean, module[1].running_mean)
    assert target.module[1].num_batches_tracked == 1
    module[1].running_mean.add_(1)
    assert not torch.equal(target.module[1].running_mean, module[1].running_mean)


def test_ema_carries_no_gradient():
    module = online().eval()
    target = EMATarget(module).eval()
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = target(x)
    assert not out.requires_grad and all(not p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in module.parameters())
    torch.testing.assert_close(out, module(x).detach())
    (module(x) - out - 1).square().mean().backward()
    target.update(module)
    assert all(p.grad is None and not p.requires_grad for p in target.parameters())


def test_ema_travels_with_checkpoints():
    target, other = EMATarget(online()), EMATarget(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    other.load_state_dict(target.state_dict())
    x = torch.randn(8, 3)
    torch.testing.assert_close(other.eval()(x), target.eval()(x))


def test_ema_refuses_bad_input():
    with pytest.raises(ValueError, match="decay=1.5: expected a number from 0"):
        EMATarget(online(), decay=1.5)
    target = EMATarget(online())
    with pytest.raises(ValueError, match="decay=-0.1"):
        target.decay = -0.1
    with pytest.raises(ValueError, match=r"module differs from the target in '0.weight'"):
        target.update(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="module differs from the target in '2.bias'"):
        target.update(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False)))


# ---------- inverse dynamics


def test_inverse_dynamics_known_values():
    head = InverseDynamicsHead(2, 2)
    head.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    head.linear.bias.data = torch.tensor([0.0, 1.0])
    source = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    target = torch.tensor([[2.0, 1.0], [4.0, 1.0], [3.0, 1.0]])  # mean shift (2, 1)
    torch.testing.assert_close(head(source, target), torch.tensor([2.0, -1.0]))
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2  # -log sigmoid(2), -log(1 - sigmoid(-1))
    assert head.loss(source, target, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(head(source[None], target[None].expand(3, 3, 2))[2], head(source, target))


def test_inverse_dynamics_reads_actions_from_shifts_and_not_from_noise():
    torch.manual_seed(0)
    shift = torch.randn(4, 6)
    actions = (torch.rand(64, 4) < 0.4).float()
    source, target = torch.randn(64, 30, 6), torch.randn(64, 30, 6) + (actions @ shift)[:, None]
    losses = {}
    for name, end in (("moved", target), ("still", torch.randn(64, 30, 6))):
        head = InverseDynamicsHead(6, 4)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            loss = head.loss(source, end, actions)
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["moved"] < 0.2 and losses["still"] > 0.5


def test_inverse_dynamics_refuses_bad_input():
    head = InverseDynamicsHead(2, 3)
    with pytest.raises(ValueError, match=r"source has shape \(2,\): expected sets \(..., n_cells, 2\)"):
        head(torch.zeros(2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"target has shape \(0, 2\)"):
        head(torch.zeros(4, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"actions have shape \(2,\): expected \(3,\) multi-hot"):
        head.loss(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(2))
