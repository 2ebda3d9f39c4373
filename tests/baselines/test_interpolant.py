"""The interpolant and the plain rows of cells at a time: motions that are known, copies, weights, order, errors."""

import numpy as np
import ot
import pytest

from scjepa.baselines.times import (
    PLAIN,
    Interpolant,
    NextCopy,
    PreviousCopy,
    TransportInterpolation,
    Union,
    systematic,
)
from scjepa.dynamics import wasserstein


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def moving(rng, times, n=40, speed=(3.0, 1.0)):
    """Cells that drift along a line, each snapshot new cells."""
    t = np.repeat(np.asarray(times, float), n)
    return rng.normal(0, 0.5, (len(t), 2)) + t[:, None] * speed, t


def mean(model, cloud):
    return cloud.mass @ (model.z_[cloud.cells] + cloud.shift)


# ------------------------------------------------------------------------------------------------------- interpolant
@pytest.mark.parametrize("times", [(0, 4), (0, 1, 4, 6, 9)])
def test_linear_motion_is_recovered(rng, times):
    z, t = moving(rng, times)
    model = Interpolant().fit(z, t)
    cloud = model.predict(3.0)
    np.testing.assert_allclose(mean(model, cloud), [9, 3], atol=0.5)
    truth = moving(rng, [3], n=200)[0]
    points = z[cloud.cells] + cloud.shift
    mine = wasserstein(points, truth, source_mass=cloud.mass)
    plain = []
    for make in (PreviousCopy, NextCopy, Union):
        other = make().fit(z, t).predict(3.0)
        plain.append(wasserstein(z[other.cells], truth, source_mass=other.mass))
    assert mine < 0.4 * min(plain)
    assert model.kind(3.0) == "between"


def test_spread_is_kept(rng):
    z, t = moving(rng, (0, 4), n=100)
    cloud = Interpolant().fit(z, t).predict(2.0)
    points = z[cloud.cells] + cloud.shift
    spread = np.sqrt(cloud.mass @ (points - cloud.mass @ points) ** 2)
    np.testing.assert_allclose(spread, 0.5, rtol=0.25)


def test_mixed_snapshots_are_pooled(rng):
    z, t = rng.normal(size=(200, 2)), np.repeat([0.0, 2.0], 100)
    cloud = Interpolant().fit(z, t).predict(1.0)
    assert cloud.mass[(cloud.shift == 0).all(1)].sum() > 0.8


def test_weights_sum_to_one_and_measured_times_are_themselves(rng):
    z, t = moving(rng, (0, 2, 3, 7))
    model = Interpolant(trend=True).fit(z, t)
    for asked in (-1, 0, 0.5, 2, 2.5, 5, 7, 9):
        cloud = model.predict(asked)
        assert cloud.mass.sum() == pytest.approx(1) and (cloud.mass >= 0).all()
    at = model.predict(2)
    assert at.cells.tolist() == np.flatnonzero(t == 2).tolist() and not at.shift.any() and model.kind(2) == "measured"


def test_beyond_the_last_time_is_a_copy_of_it(rng):
    z, t = moving(rng, (0, 1, 2, 3))
    model = Interpolant().fit(z, t)
    for asked, time in ((3.5, 3), (10, 3), (-2, 0)):
        cloud = model.predict(asked)
        assert set(t[cloud.cells]) == {time} and not cloud.shift.any() and model.kind(asked) == "copy"


def test_a_trend_is_taken_where_all_left_out_times_want_it_and_nowhere_else(rng):
    z, t = moving(rng, (0, 1, 2, 3, 4), speed=(5.0, 0.0))
    model = Interpolant(trend=True).fit(z, t)
    assert model.amplitude_ == pytest.approx(0.3) and model.kind(5) == "trend"
    np.testing.assert_allclose(mean(model, model.predict(5.0))[0], 21.5, atol=0.5)  # .3 of a step
    still = Interpolant(trend=True).fit(rng.normal(size=(200, 2)), t)
    assert still.amplitude_ == 0 and still.kind(5) == "copy"


def test_left_out_times_are_predicted_from_the_others(rng):
    z, t = moving(rng, (0, 1, 2, 3, 4))
    model = Interpolant().fit(z, t)
    for k in range(5):
        assert not np.isin(model.left_out(k).cells, np.flatnonzero(t == k)).any()
    alone = Interpolant().fit(z[t != 2], t[t != 2])
    np.testing.assert_allclose(mean(model, model.left_out(2)), mean(alone, alone.predict(2.0)), atol=1e-9)


def test_order_of_cells_does_not_matter(rng):
    z, t = moving(rng, (0, 1, 3, 4), n=25)
    order = rng.permutation(len(z))
    a, b = Interpolant().fit(z, t), Interpolant().fit(z[order], t[order])
    for asked in (0.5, 2.0, 9.0):
        one, other = a.predict(asked), b.predict(asked)
        sides = [np.c_[m.z_[c.cells] + c.shift, c.mass] for m, c in ((a, one), (b, other))]
        sides = [s[np.lexsort(s.round(7).T)] for s in sides]
        np.testing.assert_allclose(*sides, atol=1e-6)
    assert a.shift_ == pytest.approx(b.shift_) and a.power_ == pytest.approx(b.power_)


def test_unit_of_time_and_scale_of_cells_do_not_matter(rng):
    z, t = moving(rng, (0, 1, 3, 4), n=25)
    a, b = Interpolant().fit(z, t), Interpolant().fit(7 * z + 3, 24 * t)
    np.testing.assert_allclose(7 * mean(a, a.predict(2.0)) + 3, mean(b, b.predict(48.0)), rtol=1e-6)


# -------------------------------------------------------------------------------------------------------- plain rows
def test_plain_rows_are_what_their_names_say(rng):
    z, t = moving(rng, (0, 1, 4), n=20)
    of = lambda make, asked: set(t[make().fit(z, t).predict(asked).cells])
    assert of(PreviousCopy, 2) == {1} and of(NextCopy, 2) == {4} and of(Union, 2) == {1, 4}
    for make in PLAIN:
        assert of(make, 9) == {4} and of(make, -1) == {0} and of(make, 1) == {1}
        assert make().fit(z, t).predict(2).mass.sum() == pytest.approx(1)


def test_union_pools_cells_as_they_were_sampled():
    cloud = Union().fit(np.zeros((4, 1)), np.array([0, 0, 0, 2])).predict(1)
    assert cloud.mass.tolist() == [0.25] * 4


def test_transport_interpolation_is_the_plan_of_pot(rng):
    z, t = moving(rng, (0, 2), n=15)
    cloud = TransportInterpolation().fit(z, t).predict(0.5)
    plan = ot.emd(ot.unif(15), ot.unif(15), ot.dist(z[:15], z[15:]))
    i, j = np.nonzero(plan)
    expected = 0.75 * z[i] + 0.25 * z[15 + j]
    points = z[cloud.cells] + cloud.shift
    np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)], atol=1e-12)


def test_systematic_samples_have_shares_to_one_point(rng):
    mass = rng.dirichlet(np.ones(9))
    counts = np.bincount(systematic(mass, 200), minlength=9)
    assert (np.abs(counts - 200 * mass) < 1).all()


# ------------------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize("make", [Interpolant, *PLAIN])
@pytest.mark.parametrize(
    ("z", "times", "message"),
    [
        (np.zeros((4, 2)), np.zeros(3), r"z has shape \(4, 2\) and times \(3,\)"),
        (np.zeros(4), np.zeros(4), r"z has shape \(4,\)"),
        (np.full((4, 2), np.nan), np.arange(4.0), "missing or infinite"),
        (np.zeros((2, 2)), np.array([0, np.inf]), "missing or infinite"),
    ],
)
def test_errors_say_what_was_found(make, z, times, message):
    with pytest.raises(ValueError, match=message):
        make().fit(z, times)


def test_one_time_is_no_course():
    with pytest.raises(ValueError, match=r"all cells are of one time \(\[1.0\]\)"):
        Interpolant().fit(np.zeros((3, 2)), np.ones(3))


def test_hundreds_of_times_with_few_cells_each_are_fitted_by_thirty_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    times = np.repeat(np.cumsum(rng.uniform(0.2, 1.8, 200)), 4)  # unequal steps
    z = rng.normal(scale=0.2, size=(800, 2))
    z[:, 0] += times
    left_out, between = [], Interpolant._between
    monkeypatch.setattr(Interpolant, "_between", lambda self, t, *rest: left_out.append(t) or between(self, t, *rest))
    course = Interpolant().fit(z, times)
    assert len(set(left_out)) == 30 and min(left_out) == course.times_[1] and max(left_out) == course.times_[-2]
    for i in (0, 90, 198):
        middle = (course.times_[i] + course.times_[i + 1]) / 2
        cloud = course.predict(middle)
        assert abs(cloud.mass @ (z[cloud.cells] + cloud.shift)[:, 0] - middle) < 0.5
