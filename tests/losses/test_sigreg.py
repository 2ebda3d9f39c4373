"""SIGRegLoss against the closed form of the Epps-Pulley integral and an independent numpy implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scjepa.losses import SIGRegLoss


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=1):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def test_one_dimension_is_the_epps_pulley_integral():
    # int exp(-t^2/2) |phi_n(t) - exp(-t^2/2)|^2 dt in closed form; with d = 1 every slice is +z or -z: the same value
    z = normal(50, 1).square() - 0.5
    x = z[:, 0].numpy()
    pairs = np.exp(-((x[:, None] - x[None]) ** 2) / 2).mean()
    expected = np.sqrt(2 * np.pi) * pairs - 2 * np.sqrt(np.pi) * np.exp(-(x**2) / 4).mean() + np.sqrt(2 * np.pi / 3)
    value = SIGRegLoss(n_slices=4, n_knots=401, t_max=8.0)(z)["loss"].item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_agrees_with_numpy_at_the_defaults():
    z = normal(30, 4) * 1.5 + 0.2
    a = torch.randn(4, 256, generator=rng(), dtype=torch.float64).numpy()
    p = z.numpy() @ (a / np.linalg.norm(a, axis=0))
    t = np.linspace(0, 3, 17)
    phi = np.exp(-(t**2) / 2)
    deviation = np.abs(np.exp(1j * p[..., None] * t).mean(0) - phi) ** 2
    expected = 2 * np.trapezoid(deviation * phi, t, axis=-1).mean()
    assert SIGRegLoss()(z, rng())["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_full_collapse_has_a_known_value():
    t = np.linspace(0, 3, 17)
    expected = 2 * np.trapezoid(np.exp(-(t**2) / 2) * (1 - np.exp(-(t**2) / 2)) ** 2, t)
    assert 0.4 < expected < 0.42
    assert SIGRegLoss()(torch.zeros(100, 8))["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_gaussian_scores_lowest():
    loss, z = SIGRegLoss(n_slices=64), normal(1000, 6)
    value = lambda x: loss(x, rng())["loss"].item()
    line = z[:, :1].repeat(1, 6)
    for worse in (z * 0.3, z * 2, z + 1, line, torch.ones_like(z), z.sign()):
        assert value(worse) > 3 * value(z)


def test_expected_value_under_the_standard_normal():
    t = np.linspace(0, 3, 17)
    expected = 2 * np.trapezoid(np.exp(-(t**2) / 2) * (1 - np.exp(-(t**2))), t)  # times 1 / n
    assert expected == pytest.approx(1.05, abs=0.01)
    loss = SIGRegLoss(n_slices=16)
    scores = [loss(normal(50, 3, seed=i), rng(i))["loss"].item() for i in range(300)]
    assert 50 * np.mean(scores) == pytest.approx(expected, rel=0.1)


def test_weight_does_not_depend_on_batch_size():
    loss, z = SIGRegLoss(), normal(64, 5) * 0.5
    torch.testing.assert_close(loss(z.repeat(4, 1), rng())["loss"], loss(z, rng())["loss"])


def test_order_of_cells_does_not_matter_and_seeds_do():
    loss, z = SIGRegLoss(), normal(64, 5)
    torch.testing.assert_close(loss(z.flip(0), rng())["loss"], loss(z, rng())["loss"])
    assert loss(z, rng(0))["loss"] == loss(z, rng(0))["loss"] != loss(z, rng(3))["loss"]
    torch.manual_seed(0)
    assert loss(z)["loss"] != loss(z)["loss"]


def test_gradients():
    loss, z = SIGRegLoss(n_slices=8), (normal(6, 3) * 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, rng())["loss"], z)
    loss(z, rng())["loss"].backward()
    assert (z.grad * (z - z.mean(0))).sum() < 0  # descent spreads a shrunken batch
    collapsed = torch.zeros(8, 3, requires_grad=True)
    loss(collapsed)["loss"].backward()
    assert torch.isfinite(collapsed.grad).all()


def test_descent_leads_to_the_standard_normal():
    z = (0.1 * torch.randn(256, 3, generator=rng()) + 1).requires_grad_()
    loss, optimizer = SIGRegLoss(n_slices=32), torch.optim.Adam([z], lr=0.1)
    for i in range(250):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - i / 250)
        optimizer.zero_grad()
        loss(z, rng(i))["loss"].backward()
        optimizer.step()
    covariance = torch.cov(z.detach().T)
    assert z.detach().mean(0).abs().max() < 0.15
    torch.testing.assert_close(covariance, torch.eye(3), atol=0.25, rtol=0)


def test_constants_stay_out_of_checkpoints():
    assert SIGRegLoss().state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_slices": 0}, "n_slices=0: expected a whole number of at least 1"),
        ({"n_knots": 1}, "n_knots=1: expected a whole number of at least 2"),
        ({"t_max": 0.0}, "t_max=0.0: expected a positive number"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SIGRegLoss(**arguments)


def test_refuses_one_cell():
    with pytest.raises(ValueError, match="needs at least 2 cells"):
        SIGRegLoss()(torch.zeros(1, 3))
