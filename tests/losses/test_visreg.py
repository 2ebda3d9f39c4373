"""VISRegLoss against hand-computed values and an independent numpy implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from scjepa.losses import VISRegLoss


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=1):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def test_hand_computed():
    # mean 5, std 2; standardised -1, 0, 1 against the quantiles of 1/6, 1/2, 5/6: -.9674, 0, .9674
    out = VISRegLoss()(torch.tensor([[3.0], [7.0], [5.0]], dtype=torch.float64))
    shape = 2 / 3 * (1 - norm.ppf(5 / 6)) ** 2
    expected = {"center": 25.0, "scale": 1.0, "shape": shape, "loss": 26.0 + shape}
    # the shape term divides by std + 1e-6
    assert {k: v.item() for k, v in out.items()} == pytest.approx(expected, rel=1e-4)
    assert all(v.ndim == 0 for v in out.values())


def test_agrees_with_numpy():
    z = normal(50, 4) * 1.5 + 0.3
    a = torch.randn(4, 64, generator=rng(), dtype=torch.float64).numpy()
    x = z.numpy()
    mu, sd = x.mean(0), x.std(0, ddof=1)
    p = np.sort((x - mu) / (sd + 1e-6) @ (a / np.linalg.norm(a, axis=0)), axis=0)
    q = norm.ppf((np.arange(50) + 0.5) / 50)[:, None]
    expected = {"center": (mu**2).mean(), "scale": ((sd - 1) ** 2).mean(), "shape": ((p - q) ** 2).mean()}
    out = VISRegLoss()(z, rng())
    assert {k: out[k].item() for k in expected} == pytest.approx(expected, rel=1e-9)
    assert out["loss"].item() == pytest.approx(sum(expected.values()), rel=1e-9)


def test_each_part_sees_its_own_defect():
    loss, z = VISRegLoss(), normal(2000, 6)
    z = (z - z.mean(0)) / z.std(0)
    part = lambda x: {k: v.item() for k, v in loss(x, rng()).items()}
    base, moved, shrunk, line = part(z), part(z + 2), part(z / 2), part(z[:, :1].repeat(1, 6))
    assert base["loss"] < 0.01
    assert moved["center"] == pytest.approx(4) and moved["shape"] == pytest.approx(base["shape"], abs=1e-6)
    assert shrunk["scale"] == pytest.approx(0.25) and shrunk["shape"] == pytest.approx(base["shape"], rel=1e-3)
    assert line["shape"] > 20 * base["shape"] and line["scale"] == pytest.approx(0, abs=1e-9)


def test_collapse_costs_center_and_scale():
    out = VISRegLoss()(torch.full((64, 3), 2.0))
    assert out["center"].item() == pytest.approx(4.0) and out["scale"].item() == pytest.approx(1.0)
    assert out["shape"].item() == pytest.approx(np.square(norm.ppf((np.arange(64) + 0.5) / 64)).mean(), rel=1e-4)


def test_order_of_cells_does_not_matter_and_seeds_do():
    loss, z = VISRegLoss(), normal(64, 5)
    torch.testing.assert_close(loss(z.flip(0), rng())["loss"], loss(z, rng())["loss"])
    assert loss(z, rng(0))["loss"] == loss(z, rng(0))["loss"] != loss(z, rng(3))["loss"]


def test_gradients():
    loss, z = VISRegLoss(n_slices=8), (normal(7, 3) * 0.3 + 1).requires_grad_()
    for part in ("center", "scale"):
        assert torch.autograd.gradcheck(lambda x, part=part: loss(x, rng())[part], z)
    # std is detached in the shape term: its gradient is that of (z - mean) / constant
    std = z.detach().std(0) + 1e-6
    a = torch.nn.functional.normalize(torch.randn(3, 8, generator=rng(), dtype=torch.float64), dim=0)
    q = torch.special.ndtri((torch.arange(7, dtype=torch.float64) + 0.5) / 7)[:, None]
    manual = ((((z - z.mean(0)) / std) @ a).sort(0).values - q).square().mean()
    torch.testing.assert_close(torch.autograd.grad(loss(z, rng())["shape"], z)[0], torch.autograd.grad(manual, z)[0])
    collapsed = torch.zeros(8, 3, requires_grad=True)
    loss(collapsed)["loss"].backward()
    assert torch.isfinite(collapsed.grad).all()


def test_descent_leads_to_the_standard_normal():
    z = (0.1 * torch.randn(256, 3, generator=rng()) + 2).requires_grad_()
    loss, optimizer = VISRegLoss(n_slices=32), torch.optim.Adam([z], lr=0.1)
    for i in range(100):
        optimizer.zero_grad()
        loss(z, rng(i))["loss"].backward()
        optimizer.step()
    assert z.detach().mean(0).abs().max() < 0.1
    torch.testing.assert_close(torch.cov(z.detach().T), torch.eye(3), atol=0.25, rtol=0)


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="needs at least 2 cells"):
        VISRegLoss()(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="n_slices=-1: expected a whole number"):
        VISRegLoss(n_slices=-1)
