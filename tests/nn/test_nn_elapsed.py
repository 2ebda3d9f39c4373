"""The predictor of elapsed time: nothing to begin with, nothing without time, told times and conditions apart."""

from __future__ import annotations

import pytest
import torch

from scjepa.nn import ElapsedPredictor


def trained(n_conditions=1):
    torch.manual_seed(0)
    predictor = ElapsedPredictor(3, n_conditions)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    predictor.set_clock(2.0, 8.0, 2.0)
    return predictor


def test_starts_at_zero_and_stays_there_without_time():
    z, t = torch.randn(2, 5, 3), torch.full((2, 5), 3.0)
    assert bool((ElapsedPredictor(3)(z, t, t) == 0).all())
    predictor = trained()
    size = lambda elapsed: float(predictor(z, t, elapsed).detach().abs().max())
    assert size(torch.zeros(2, 5)) == 0
    assert size(torch.full((2, 5), 1e-4)) < 1e-2 < size(t)


def test_cells_do_not_look_at_each_other_and_times_and_conditions_are_told_apart():
    predictor, z = trained(2), torch.randn(1, 6, 3)
    start, elapsed = torch.linspace(2, 8, 6)[None], torch.ones(1, 6)
    whole = predictor(z, start, elapsed)
    torch.testing.assert_close(predictor(z[:, 2:4], start[:, 2:4], elapsed[:, 2:4]), whole[:, 2:4])
    assert not torch.allclose(predictor(z, start + 1, elapsed), whole)
    assert not torch.allclose(predictor(z, start, -elapsed), -whole)
    assert not torch.allclose(predictor(z, start, elapsed, torch.ones(1, 6, dtype=torch.long)), whole)


def test_units_of_time_do_not_matter():
    hours, days = trained(), trained()
    hours.set_clock(48.0, 192.0, 48.0)
    z, t = torch.randn(1, 4, 3), torch.full((1, 4), 3.0)
    torch.testing.assert_close(hours(z, 24 * t, 24 * t), days(z, t, t))


def test_errors():
    z = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="one time for each cell"):
        ElapsedPredictor(3)(z, torch.zeros(2), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="positive lengths"):
        ElapsedPredictor(3).set_clock(0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="expected \\(..., n_cells, 3\\)"):
        ElapsedPredictor(3)(torch.zeros(2, 4, 2), torch.zeros(2, 4), torch.zeros(2, 4))
