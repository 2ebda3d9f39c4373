"""Growth rates: who has more descendants, in which unit, and what can't be told."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.dynamics import growth_rates


def shares(before=0.5, after=0.8, n=200, seed=0):
    rng = np.random.default_rng(seed)
    right = np.concatenate([np.arange(n) < before * n, np.arange(n) < after * n])
    z = rng.normal(size=(2 * n, 3))
    z[:, 0] += 6.0 * right
    return z, np.repeat([0.0, 1.0], n), right


def test_a_population_whose_share_rises_grows():
    z, times, right = shares()
    rates = growth_rates(z, times)
    first = times == 0
    ratio = np.median(rates[first & right]) / np.median(rates[first & ~right])
    assert 1.7 < ratio < 4.5  # truth: (.8 / .5) / (.2 / .5) = 4; the penalty holds rates back
    assert np.isnan(rates[~first]).all()


def test_nothing_grows_where_shares_stay():
    z, times, right = shares(after=0.5)
    rates = growth_rates(z, times)
    first = times == 0
    assert abs(np.log(np.median(rates[first & right]) / np.median(rates[first & ~right]))) < 0.1


def test_rates_are_per_unit_of_time_and_a_stiff_penalty_holds_them():
    z, times, _ = shares()
    rates = growth_rates(z, times)
    first = times == 0
    np.testing.assert_allclose(growth_rates(z, 2 * times)[first], rates[first] ** 0.5)
    assert np.nanstd(growth_rates(z, times, marginal=50.0)) < 0.1 * np.nanstd(rates)


def test_errors():
    z, times, _ = shares(n=10)
    with pytest.raises(ValueError, match="marginal=0"):
        growth_rates(z, times, marginal=0)
    with pytest.raises(ValueError, match="two snapshots or more"):
        growth_rates(z, 0 * times)
