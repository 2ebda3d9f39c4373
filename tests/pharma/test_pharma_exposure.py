"""Exposure: onsets, windows and doses by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.pharma import fade_time, optimal_dose, resistance_onset, treatment_window

TIMES = [0.0, 6.0, 24.0, 48.0, 72.0]


def test_fading_by_hand():
    found = fade_time(TIMES, [[0, 4, 3, 1, 0], [0, 1, 2, 3, 4], [0, 4, 1, 3, 1], [0, -1, -1, -1, -1]])
    np.testing.assert_allclose(found.onset, [36, np.nan, 60, np.nan])  # a dip that recovers is no fading
    np.testing.assert_allclose(found.before, [24, np.nan, 48, np.nan])
    np.testing.assert_allclose(found.after, [48, np.nan, 72, np.nan])
    assert found.peak_time.tolist() == [6, 72, 6, 0] and found.peak.tolist() == [4, 4, 4, 0]


def test_a_response_does_not_change_its_onset_with_its_size_or_the_unit_of_time():
    y = np.array([0, 4, 3, 1, 0.5])
    one = fade_time(TIMES, y, share=0.3)
    assert fade_time(TIMES, 100 * y, share=0.3).onset == pytest.approx(one.onset)
    assert fade_time(np.array(TIMES) / 24, y, share=0.3).onset == pytest.approx(one.onset / 24)
    assert one.onset == pytest.approx(24 + 24 * (3 - 1.2) / 2)


def test_onset_with_replicates_covers_the_truth():
    rng = np.random.default_rng(0)
    times = np.arange(0, 100, 8.0)
    truth = np.exp(-(((times - 20) / 30) ** 2))
    covered = 0
    for seed in range(20):
        found = resistance_onset(times, truth + rng.normal(0, 0.05, (8, len(times))), n_boot=200, seed=seed)
        assert abs(found.onset - (20 + 30 * np.sqrt(np.log(2)))) < 8, "within a time step"
        covered += found.lower <= 20 + 30 * np.sqrt(np.log(2)) <= found.upper
    assert covered >= 14 and found.probability == 1


def test_one_replicate_has_the_measured_times_as_interval():
    assert resistance_onset(TIMES, [[0, 4, 3, 1, 0]]) == (36, 24, 48, 1)
    assert resistance_onset(TIMES, [[0, 4, 4, 4, 4]])[3] == 0


def test_what_fades_in_some_resamples_has_no_upper_end_and_what_never_fades_none():
    mixed = resistance_onset(TIMES, [[0, 4, 4, 4, 1], [0, 4, 4, 4, 4]], n_boot=200)
    assert mixed.upper == np.inf and 0 < mixed.probability < 1
    never = resistance_onset(TIMES, [[0, 4, 4, 4, 4]] * 3)
    assert np.isnan([never.onset, never.lower, never.upper]).all() and never.probability == 0


def test_windows_by_hand():
    axis = [0.0, 1.0, 2.0, 3.0, 4.0]
    gain = [[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    harm = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 2]]
    table = treatment_window(axis, gain, harm, min_benefit=0.5, max_toxicity=1.0, scale="linear")
    assert table.to_numpy().tolist() == [[0, 0.5, 2.5], [0, 3.5, 4.0], [2, 0, 3.5]]


def test_windows_on_a_log_scale_and_at_single_points():
    table = treatment_window([0.1, 10, 1000], [0, 2, 0], [0, 0, 0], min_benefit=1, max_toxicity=0)
    np.testing.assert_allclose(table[["lower", "upper"]], [[1, 100]])
    point = treatment_window([1, 10, 100], [0, 1, 0], [0, 0, 0], min_benefit=1, max_toxicity=0)
    assert point[["lower", "upper"]].to_numpy().tolist() == [[10, 10]]
    assert not len(treatment_window([1, 10], [0, 0], [0, 0], min_benefit=1, max_toxicity=0))


def test_best_doses_by_hand():
    doses = [0.0, 1.0, 10.0, 100.0]
    assert optimal_dose(doses, [0, 1, 2, 2], [0, 0, 0.5, 3]) == (10, 2, 0.5)
    assert optimal_dose(doses, [0, 1, 2, 2], [0, 0, 0.5, 3], weight=3) == (1, 1, 0)
    found = optimal_dose(
        doses, [[0, 1, 2, 4], [0, -1, -1, -1], [1, 1, 1, 1]], [[0, 0, 1, 3]] * 3, max_toxicity=2, weight=0
    )
    np.testing.assert_allclose(found.dose, [np.sqrt(1000), 0, 0])
    np.testing.assert_allclose(found.benefit, [3, 0, 1])
    assert np.isnan(optimal_dose(doses, [0, 1, 2, 2], [1, 1, 1, 1], max_toxicity=0.5)).all()


@pytest.mark.parametrize("seed", range(3))
def test_best_dose_equals_a_fine_grid(seed):
    rng = np.random.default_rng(seed)
    doses, gain, harm = np.logspace(-2, 2, 6), rng.normal(size=6), rng.random(6)
    found = optimal_dose(doses, gain, harm, max_toxicity=0.6)
    x = np.linspace(-2, 2, 40001)
    b, t = (np.interp(x, np.log10(doses), v) for v in (gain, harm))
    best = np.where(t <= 0.6, b - t, -np.inf).max()
    assert found.benefit - found.toxicity == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fade_time([0, 2, 1], [0, 1, 2]), r"times is \[0.0, 2.0, 1.0\]: expected .* increasing"),
        (lambda: fade_time([0, 1], [0, 1, 2]), r"responses has shape \(3,\): expected \(2,\)"),
        (lambda: fade_time([0, 1], [0, np.nan]), "responses has 1 missing or infinite"),
        (lambda: fade_time([0, 1], [0, 1], share=1), "share=1: expected"),
        (lambda: resistance_onset([0, 1], [[0, 1]], level=2), "level has the levels '2'"),
        (lambda: resistance_onset([0, 1], [[0, 1]], n_boot=1), "n_boot=1"),
        (
            lambda: treatment_window([1], [1], [1], min_benefit=0, max_toxicity=1),
            r"axis is \[1.0\]: expected at least 2",
        ),
        (lambda: treatment_window([1, 2], [1, 2], [1, 2], min_benefit=0, max_toxicity=1, scale="lg"), "scale='lg'"),
        (lambda: optimal_dose([1, 2], [1, 2], [1]), r"benefit has shape \(2,\) and toxicity \(1,\)"),
        (lambda: optimal_dose([1, 2], [1, np.nan], [1, 2]), "benefit and toxicity have 1 missing"),
        (lambda: optimal_dose([-1, 2], [1, 2], [1, 2]), "doses has 1 negative doses"),
        (lambda: optimal_dose([1, 2], [1, 2], [1, 2], weight=-1), "weight=-1: expected"),
        (lambda: optimal_dose([1, 2], [1, 2], [1, 2], max_toxicity=np.nan), "max_toxicity is NaN"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
