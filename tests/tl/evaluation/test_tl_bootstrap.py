"""Intervals of means for few values, and Holm's step-down."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from scjepa.tl.evaluation._bootstrap import MeanBootstrap, excludes_zero, holm


def test_intervals_of_few_normal_values_are_t_intervals():
    values = np.random.default_rng(0).normal(0.5, 1, 8)
    half = t.isf(0.025, 7) * values.std(ddof=1) / np.sqrt(8)
    low, high = MeanBootstrap(values, 20_000, seed=0).interval(0.05)
    assert low == pytest.approx(values.mean() - half, abs=0.12 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.12 * half)
    plain = np.quantile(MeanBootstrap(values, 20_000, seed=0).means, [0.025, 0.975])
    assert high - low > 1.2 * (plain[1] - plain[0])  # percentiles alone are too narrow


def test_claims_about_nothing_are_rarely_proved():
    """Five claims on eight conditions: percentiles alone prove something in a fifth to a quarter of the cases."""
    rng = np.random.default_rng(0)
    ours = plain = 0
    for _ in range(200):
        resampled = [MeanBootstrap(sample, 1000, seed=0) for sample in rng.normal(size=(5, 8))]
        ours += any(excludes_zero(r.interval(0.05 / 5)) for r in resampled)
        plain += any(excludes_zero(tuple(np.quantile(r.means, [0.005, 0.995]))) for r in resampled)
    assert ours / 200 < 0.1 and 0.15 < plain / 200 < 0.35


@pytest.mark.parametrize("shift", [-0.9, -0.4, 0.1, 0.4])
def test_p_value_is_the_interval_that_touches_zero(shift):
    values = np.random.default_rng(1).normal(shift, 1, 12)
    sample = MeanBootstrap(values, 5000, seed=0)
    p = sample.p_value()
    assert excludes_zero(sample.interval(p * 1.001)) and not excludes_zero(sample.interval(p * 0.999))
    assert p == pytest.approx(ttest_1samp(values, 0).pvalue, rel=0.5, abs=0.02)


def test_p_values_at_the_ends():
    assert MeanBootstrap([1.0] * 6, 999, seed=0).p_value() == 1 / 1000  # no smaller than resamples can tell
    assert MeanBootstrap([0.0] * 6, 999, seed=0).p_value() == 1


def test_holm_by_hand():
    adjusted, steps = holm([0.01, 0.04, 0.03, 0.005], alpha=0.05)
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])  # 3 * .01, max(2 * .03, .04), 2 * .03, 4 * .005
    np.testing.assert_allclose(steps, [0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    all_hold = holm([0.001, 0.002], alpha=0.05)
    np.testing.assert_allclose(all_hold[1], [0.025, 0.05])
    none = holm([0.5, 0.9], alpha=0.05)
    np.testing.assert_allclose(none[0], [1, 1])
    np.testing.assert_allclose(none[1], [0.025, 0.025])
    assert [len(a) for a in holm([], alpha=0.05)] == [0, 0]
