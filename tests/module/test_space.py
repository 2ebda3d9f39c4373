"""The expression-faithful coordinates and the linear readout, against algebra and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from scjepa.data import fit_components
from scjepa.module import ExpressionSpace, LinearReadout


def space(x: np.ndarray, d: int, scale: float = 2.5) -> ExpressionSpace:
    axes = fit_components(x, d)
    made = ExpressionSpace(x.shape[1], d)
    made.set_axes(torch.from_numpy(axes.mean), torch.from_numpy(axes.loadings), scale)
    return made


def test_round_trip_inside_the_axes() -> None:
    """Data of rank 3 in 3 axes: nothing is lost, and distances are those of expression over the scale."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 3)) @ rng.normal(size=(3, 8)) + 4).astype(np.float32)
    made, t = space(x, 3), torch.from_numpy(x)
    z = made.project(t)
    torch.testing.assert_close(made.lift_shift(z) + made.mean, t, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cdist(z, z) * 2.5, torch.cdist(t, t), rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-4, rtol=0)


def test_shifts_round_trip_and_do_not_know_the_mean() -> None:
    x = np.random.default_rng(1).random((30, 10)).astype(np.float32)
    made, t = space(x, 4), torch.from_numpy(x)
    torch.testing.assert_close(made.project_shift(t[:5] - t[5:10]), made.project(t[:5]) - made.project(t[5:10]))
    z = torch.randn(2, 3, 4)
    torch.testing.assert_close(made.project_shift(made.lift_shift(z)), z, rtol=1e-4, atol=1e-5)


def test_axes_beyond_the_rank_are_silent() -> None:
    x = np.random.default_rng(1).random((3, 10)).astype(np.float32)  # rank 2 after centring
    z = space(x, 5).project(torch.from_numpy(x))
    assert z.shape == (3, 5)
    assert not z[:, 2:].any() and z[:, :2].any()


def test_nothing_is_trained() -> None:
    assert not list(ExpressionSpace(3, 2).parameters()) and not list(LinearReadout(2, 3).parameters())
    assert set(ExpressionSpace(3, 2).state_dict()) == {"mean", "loadings", "scale"}  # saved with the model


def data(n: int = 101) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, 4, generator=generator) + 3
    return h, h @ torch.randn(4, 6, generator=generator) + torch.randn(n, 6, generator=generator) + 7


@pytest.mark.parametrize("alpha", [1.0, 50.0])
def test_readout_equals_scikit_learn(alpha: float) -> None:
    h, x = data()
    readout = LinearReadout(4, 6)
    readout.fit([(h[:10], x[:10]), (h[10:11], x[10:11]), (h[11:], x[11:])], ridge=alpha)
    ridge = Ridge(alpha).fit(h.double().numpy(), x.double().numpy())
    np.testing.assert_allclose(readout.weight, ridge.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(readout.bias, ridge.intercept_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(readout(h[None])[0], ridge.predict(h.numpy()), atol=1e-3)


def test_default_is_alpha_one() -> None:
    h, x = data()
    default, one = LinearReadout(4, 6), LinearReadout(4, 6)
    default.fit([(h, x)])
    one.fit([(h, x)], ridge=1.0)
    torch.testing.assert_close(default.weight, one.weight, rtol=0, atol=0)


def test_readout_of_a_dead_dimension_is_finite() -> None:
    h, x = data()
    h[:, 1] = 0
    readout = LinearReadout(4, 6)
    readout.fit([(h, x)])
    assert torch.isfinite(readout.weight).all()
    np.testing.assert_allclose(readout.weight[:, 1], 0, atol=1e-6)
