"""VICRegLoss against hand-computed values and an independent numpy implementation of the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scjepa.losses import VICRegLoss


def numpy_vicreg(x, y, sim=25.0, std=25.0, cov=1.0, gamma=1.0, eps=1e-4):
    invariance = ((x - y) ** 2).mean()
    variance = sum(np.maximum(0, gamma - np.sqrt(z.var(0, ddof=1) + eps)).mean() / 2 for z in (x, y))
    covariance = 0.0
    for z in (x, y):
        c = np.atleast_2d(np.cov(z, rowvar=False))
        covariance += (c**2).sum() / z.shape[1] - (np.diag(c) ** 2).sum() / z.shape[1]
    return {
        "loss": sim * invariance + std * variance + cov * covariance,
        "invariance": invariance,
        "variance": variance,
        "covariance": covariance,
    }


def pair(n=40, d=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(scale=0.4, size=(d, d))
    return x, x + 0.3 * rng.normal(size=(n, d))


def test_hand_computed():
    x = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    y = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    # mse: two of four entries differ by 1.  std: sqrt(2) > 1, except y's first column sqrt(1e-4) = .01, so .99 / 2 / 2.
    # cov(x) = 2 off the diagonal twice: 8 / 2; cov(y) = 0.
    out = VICRegLoss()(x, y)
    expected = {"invariance": 0.5, "variance": 0.2475, "covariance": 4.0, "loss": 12.5 + 6.1875 + 4.0}
    assert {k: v.item() for k, v in out.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [{}, {"sim": 1.0, "std": 16.0, "cov": 8.0, "gamma": 2.0, "eps": 1e-3}])
def test_agrees_with_numpy(weights):
    x, y = pair()
    out = VICRegLoss(**weights)(torch.from_numpy(x), torch.from_numpy(y))
    assert {k: v.item() for k, v in out.items()} == pytest.approx(numpy_vicreg(x, y, **weights), rel=1e-10)
    assert all(v.ndim == 0 for v in out.values())


def test_branches_add_up():
    x, y = (torch.from_numpy(z) for z in pair())
    loss = VICRegLoss()
    whole, left, right = loss(x, y), loss.regularize(x), loss.regularize(y)
    torch.testing.assert_close(whole["loss"], 25 * (x - y).square().mean() + left["loss"] + right["loss"])
    torch.testing.assert_close(left["loss"], 25 * left["variance"] + left["covariance"])
    assert set(left) == {"loss", "variance", "covariance"}


def test_order_of_cells_and_location_do_not_matter():
    x, y = (torch.from_numpy(z) for z in pair())
    loss, order = VICRegLoss(), torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(x[order], y[order])["loss"], loss(x, y)["loss"])
    torch.testing.assert_close(loss(x + 3, y + 3)["loss"], loss(x, y)["loss"])
    torch.testing.assert_close(loss(y, x)["loss"], loss(x, y)["loss"])
    assert loss(x[order], y)["invariance"] > 2 * loss(x, y)["invariance"]


def test_detects_collapse_and_redundancy():
    z = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    loss = VICRegLoss()
    point, line = torch.ones(256, 4), z[:, :1].repeat(1, 4)
    assert loss.regularize(point)["variance"].item() == pytest.approx(0.99 / 2, rel=1e-5)
    assert loss.regularize(point)["covariance"].item() == 0
    assert loss.regularize(z)["variance"] < 0.05
    assert loss.regularize(line)["covariance"] > 20 * loss.regularize(z)["covariance"]


def test_gradients():
    x, y = (torch.from_numpy(z[:6, :3]).requires_grad_() for z in pair())
    loss = VICRegLoss()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b)["loss"], (x, y))
    collapsed = torch.zeros(8, 3, requires_grad=True)
    loss.regularize(collapsed)["loss"].backward()
    assert torch.isfinite(collapsed.grad).all()
    small = (0.01 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss.regularize(small)["loss"].backward()
    assert (small.grad * small).sum() < 0  # descent spreads a nearly collapsed batch


def test_half_precision_is_raised():
    x, y = (torch.from_numpy(z).to(torch.bfloat16) for z in pair())
    out = VICRegLoss()(x, y)
    assert out["loss"].dtype == torch.float32
    assert out["loss"].item() == pytest.approx(numpy_vicreg(x.double().numpy(), y.double().numpy())["loss"], rel=1e-5)


def test_refuses_bad_batches():
    loss = VICRegLoss()
    with pytest.raises(ValueError, match=r"1 row\(s\): the spread of a batch needs at least 2 cells.*batch_size"):
        loss.regularize(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"x has 0 row"):
        loss(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), y has shape \(5, 3\): expected the same cells"):
        loss(torch.zeros(4, 3), torch.zeros(5, 3))
    with pytest.raises(
        ValueError, match=r"z has shape \(2, 4, 3\): expected embeddings of shape \(n_cells, n_latent\)"
    ):
        loss.regularize(torch.zeros(2, 4, 3))
