"""Losses between sets of cells: known values, numpy references, invariances, gradients, and what random pairing does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from scjepa.losses import energy_distance, mean_distance, mmd, random_pair_mse

SET_LOSSES = [energy_distance, mmd, mean_distance]


def sets(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy_energy(x, y):
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def numpy_mmd(x, y, bandwidths=(0.5, 1, 2, 4)):
    k = lambda a, b: sum(np.exp(-cdist(a, b, "sqeuclidean") / a.shape[1] / (2 * w)) for w in bandwidths)
    return 8 * (k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean())


def numpy_mean(x, y):
    return ((x.mean(0) - y.mean(0)) ** 2).sum()


def test_hand_computed():
    x, y = torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.tensor([[3.0, 0.0]])
    # between: mean(3, 5) = 4; within x: mean(0, 4, 4, 0) = 2; within y: 0
    assert energy_distance(x, y).item() == pytest.approx(2 * 4 - 2)
    assert mean_distance(x, y).item() == pytest.approx(9 + 4)
    # squared distances / 2 dims: within x 0 and 8, between 4.5 and 12.5; one bandwidth of 1
    expected = 8 * ((1 + np.exp(-4)) / 2 + 1 - np.exp(-2.25) - np.exp(-6.25))
    assert mmd(x, y, bandwidths=(1.0,)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "reference"), [(energy_distance, numpy_energy), (mmd, numpy_mmd), (mean_distance, numpy_mean)]
)
@pytest.mark.parametrize(("m", "n"), [(6, 6), (40, 9), (1, 3)])
def test_agrees_with_numpy_batched_and_for_unequal_sizes(loss, reference, m, n):
    x, y = sets(2, 3, m, 5), sets(2, 3, n, 5, seed=1) + 0.5
    out = loss(x, y)
    assert out.shape == (2, 3)
    expected = [[reference(x[i, j].numpy(), y[i, j].numpy()) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-9)


def test_mmd_is_the_formula_of_the_recipe():
    x, y = sets(4, 32, 50).float(), sets(4, 32, 50, seed=1).float() + 0.3
    joint = torch.cat([x, y], 1)
    n2 = (joint * joint).sum(-1)
    d = (n2[:, :, None] + n2[:, None] - 2 * joint @ joint.transpose(1, 2)).clamp_min(0) / 50
    k = sum(torch.exp(-d / (2 * b)) for b in (0.5, 1, 2, 4))
    recipe = 8 * (k[:, :32, :32].mean((1, 2)) + k[:, 32:, 32:].mean((1, 2)) - 2 * k[:, :32, 32:].mean((1, 2)))
    torch.testing.assert_close(mmd(x, y), recipe, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_metric_properties(loss):
    x, y = sets(30, 4), sets(20, 4, seed=1) + 1
    torch.testing.assert_close(loss(x, y), loss(y, x))
    torch.testing.assert_close(loss(x.flip(0), y.roll(7, 0)), loss(x, y))
    torch.testing.assert_close(loss(x + 7, y + 7), loss(x, y))
    assert loss(x, x).abs() < 1e-12
    torch.testing.assert_close(loss(x.repeat(2, 1), y), loss(x, y))  # means, not sums
    assert loss(x, y + 1) > loss(x, y) > 0


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_far_from_the_origin_in_single_precision(loss):
    x, y = sets(64, 50), sets(64, 50, seed=1) + 0.3
    torch.testing.assert_close(loss(x.float() + 1000, y.float() + 1000).double(), loss(x, y), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("loss", [energy_distance, mmd])
def test_sees_a_lost_spread_that_the_mean_does_not(loss):
    x = sets(100, 4)
    collapsed = x.mean(0, keepdim=True).expand_as(x)
    assert mean_distance(x, collapsed) < 1e-12
    assert loss(x, collapsed) > 5 * loss(x[::2], x[1::2])


@pytest.mark.parametrize("loss", [*SET_LOSSES, lambda x, y: random_pair_mse(x, y, torch.Generator().manual_seed(0))])
def test_gradients(loss):
    x, y = sets(2, 4, 3).requires_grad_(), (sets(2, 5, 3, seed=1) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(loss, (x, y))
    assert torch.autograd.gradcheck(lambda a: loss(a, y.detach()), x)


@pytest.mark.parametrize("loss", SET_LOSSES)
@pytest.mark.parametrize("m", [5, 60])  # torch.cdist takes another way above 25 rows
def test_gradients_at_zero_distance(loss, m):
    x = sets(m, 3).float()
    x[1] = x[0]
    y = x.clone()
    x.requires_grad_()
    loss(x, y).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() < 1e-4  # equal sets are a minimum
    point = torch.zeros(m, 3, requires_grad=True)
    loss(point, torch.ones(m, 3)).backward()
    assert torch.isfinite(point.grad).all() and (point.grad < 0).all()


def test_leading_dimensions_broadcast():
    x, y = sets(6, 3), sets(4, 5, 3, seed=1)
    torch.testing.assert_close(energy_distance(x, y), torch.stack([energy_distance(x, s) for s in y]))
    torch.testing.assert_close(mmd(x, y), torch.stack([mmd(x, s) for s in y]))


def test_random_pairs_known_values():
    rng = lambda seed=0: torch.Generator().manual_seed(seed)
    x, point = sets(7, 3), torch.ones(4, 3, dtype=torch.float64)
    torch.testing.assert_close(random_pair_mse(x, point), (x - 1).square().mean())
    # equal sizes: every target once, so with all x = 0 the pairing drops out
    y = sets(7, 3, seed=1)
    torch.testing.assert_close(random_pair_mse(torch.zeros_like(y), y), y.square().mean())
    mean = torch.stack([random_pair_mse(x, y, rng(i)) for i in range(2000)]).mean()
    expected = cdist(x.numpy(), y.numpy(), "sqeuclidean").mean() / 3
    assert mean.item() == pytest.approx(expected, rel=0.02)
    assert random_pair_mse(x, y, rng()) == random_pair_mse(x, y, rng()) != random_pair_mse(x, y, rng(1))
    assert random_pair_mse(sets(2, 9, 3), sets(2, 4, 3, seed=1)).shape == (2,)


def test_random_pairing_loses_the_spread_and_the_energy_distance_keeps_it():
    target = 2 * sets(64, 2) + 1
    kept = {}
    for loss in (energy_distance, random_pair_mse):
        torch.manual_seed(0)
        x = (sets(64, 2, seed=1)).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.1)
        for i in range(150):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - i / 150)
            optimizer.zero_grad()
            loss(x, target).backward()
            optimizer.step()
        torch.testing.assert_close(x.detach().mean(0), target.mean(0), atol=0.4, rtol=0)
        kept[loss] = (x.detach().var(0).sum() / target.var(0).sum()).item()
    assert kept[energy_distance] > 0.8
    assert kept[random_pair_mse] < 0.2


@pytest.mark.parametrize("loss", [*SET_LOSSES, random_pair_mse])
def test_refuses_bad_sets(loss):
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), y has shape \(4, 2\): expected sets .* the same d"):
        loss(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="expected sets of cells"):
        loss(torch.zeros(3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="an empty set has no distance"):
        loss(torch.zeros(0, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="the leading dimensions don't match. Give as many sets in x as in y"):
        loss(torch.zeros(2, 4, 3), torch.zeros(3, 4, 3))


@pytest.mark.parametrize("bandwidths", [(), (1.0, 0.0)])
def test_refuses_bad_bandwidths(bandwidths):
    with pytest.raises(ValueError, match="expected one or more positive numbers"):
        mmd(torch.zeros(2, 3), torch.zeros(2, 3), bandwidths=bandwidths)
