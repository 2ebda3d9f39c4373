"""Whether a noisy response fades."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.pharma import fade_time, fading_course

TIMES = [2.0, 8.0, 24.0, 48.0, 72.0]


def test_a_course_rises_and_falls_to_one_level() -> None:
    fades, course, surplus = fading_course([1.0, 4.0, 5.0, 1.0, 2.0], [1, 1, 1, 1, 3])
    assert fades and course.tolist() == pytest.approx([1, 4, 5, 1.25, 1.25])
    # rising only, the last four are one level: (4 + 5 + 1 + 2 / 3) / (3 + 1 / 3) = 3.2
    rising = 0.8**2 + 1.8**2 + 2.2**2 + 1.2**2 / 3
    assert surplus == pytest.approx(rising - (0.25**2 + 0.75**2 / 3))
    assert fade_time(TIMES, course).onset == pytest.approx(24 + 24 * 2.5 / 3.75)


def test_a_fall_that_is_noise_is_none() -> None:
    assert not fading_course([1.0, 4.0, 5.0, 1.0, 2.0], 4.0).fades
    assert fading_course([4.0, 4.0, 4.0, 4.0], 0.1).course.tolist() == [4.0] * 4
    rng = np.random.default_rng(0)
    of_noise = [fading_course(rng.normal(size=5), 1.0).fades for _ in range(200)]
    of_constant = [fading_course(5 + rng.normal(size=5), 1.0).fades for _ in range(200)]
    of_fading = [fading_course([8, 8, 8, 2, 2] + rng.normal(size=5), 1.0).fades for _ in range(200)]
    assert np.mean(of_constant) < 0.04 and np.mean(of_fading) > 0.97
    assert np.mean(of_noise) < 0.1


def test_a_fall_must_go_below_the_share_of_the_top() -> None:
    less = [4.0, 4.0, 2.8, 2.8]
    kept = fading_course(less, 0.01)
    assert not kept.fades and kept.course.tolist() == pytest.approx(less)
    assert fading_course(less, 0.01, share=0.8).fades
    border = fading_course([4.0, 4.0, 1.0, 4.0], [1, 1, 0.1, 10], share=0.5)  # its level of 1.03 is below 2
    assert border.fades and border.course.tolist() == pytest.approx([4, 4, *[(10 + 0.4) / 10.1] * 2])
    fewer = fading_course([2.0, 6.0, 4.0, 2.9, 2.9], 0.01)  # one level, of 3.27, fits better than 3 and 2.9 after
    assert not fewer.fades and fewer.course.tolist() == pytest.approx([2, 6, *[9.8 / 3] * 3])
    assert fading_course([-1.0, -2.0, -1.0], 1.0).course.tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: fading_course([1.0], 1.0), r"responses has shape \(1,\) and variance \(\): expected \(times,\)"),
        (lambda: fading_course([1.0, np.nan], 1.0), "expected finite responses, and variances above 0"),
        (lambda: fading_course([1.0, 2.0], 0.0), "expected finite responses, and variances above 0"),
        (lambda: fading_course([1.0, 2.0], 1.0, share=1.0), "share=1.0: expected a number between 0 and 1"),
    ],
)
def test_errors_say_what_is_expected(ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()
