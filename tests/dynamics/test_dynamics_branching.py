"""Branch points are found when and where they are, with minorities and several ways, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.dynamics import branch_points
from scjepa.dynamics._splits import best_split, gap_pvalue, groups, pair_pvalue

RUNS = {"n_runs": 4}


def system(shares, times=5, n=100, after=2, apart=5.0, seed=0, drift=1.0):
    """Cells that drift along one axis and, from a step on, part along others; and which branch each belongs to."""
    rng = np.random.default_rng(seed)
    t = np.repeat(np.arange(times), n)
    branch = np.concatenate([np.repeat(np.arange(len(shares)), np.round(np.array(shares) * n).astype(int))] * times)
    z = rng.normal(size=(times * n, 6))
    z[:, 0] += drift * t
    for j in range(len(shares)):
        z[:, 1 + j] += apart * ((branch == j) & (t >= after) & (shares[j] < 0.8))
    return z, t.astype(float), branch


@pytest.mark.parametrize("after", [1, 3])
def test_time_fates_and_place(after):
    z, t, branch = system((0.5, 0.5), after=after)
    found = branch_points(z, t, **RUNS)
    (point,) = found.points
    assert point.between == (after - 1, after) and point.step == after
    assert point.fates == ((0,), (1,)) and point.stability == 1.0 and point.p < 0.02
    assert point.shares == pytest.approx((0.5, 0.5), abs=0.03)
    assert (t[point.cells] == after - 1).all(), "the last cells before it"
    np.testing.assert_allclose(point.location, z[point.cells].mean(0))
    last = t == 4
    agree = (found.fates[last] == branch[last]).mean()
    assert max(agree, 1 - agree) > 0.97 and (found.fates[~last] == -1).all()
    assert found.start == 1 and found.unstable == ()


def test_fates_are_known_from_the_branch_on_and_open_before():
    z, t, branch = system((0.5, 0.5))
    found = branch_points(z, t, **RUNS)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    mine = found.fates[(t == 4) & (branch == 1)][0]
    sure = found.probabilities[(t == 2) & (branch == 1), mine]
    assert sure.mean() > 0.8 and found.probabilities[t == 1].max(1).mean() < sure.mean() - 0.1


def test_a_fate_of_one_in_ten():
    z, t, branch = system((0.9, 0.1), apart=7)
    found = branch_points(z, t, **RUNS)
    (point,) = found.points
    assert point.step == 2 and point.shares == pytest.approx((0.9, 0.1), abs=0.02)


def test_three_ways_at_once():
    z, t, _ = system((0.4, 0.3, 0.3), apart=5)
    (point,) = branch_points(z, t, **RUNS).points
    assert point.step == 2 and sorted(point.fates) == [(0,), (1,), (2,)]


def test_one_after_another():
    z, t, branch = system((0.4, 0.3, 0.3), after=9)
    z[:, 1] += 6 * ((branch == 0) & (t >= 1))
    z[:, 2] += 6 * ((branch == 1) & (t >= 3))
    found = branch_points(z, t, **RUNS)
    first, second = found.points
    assert (first.step, second.step) == (1, 3)
    leaves = found.fates[(t == 4) & (branch == 0)]
    alone = np.bincount(leaves).argmax()
    assert sorted(map(len, first.fates)) == [1, 2] and (alone,) in first.fates
    assert sorted(second.fates) == [(f,) for f in range(3) if f != alone]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one course", lambda z, t, rng: z),
        ("asynchronous", lambda z, t, rng: z + np.outer(rng.normal(size=len(z)) * 5, np.eye(6)[0])),
        ("a bent continuum", lambda z, t, rng: z * 0.3 + 6 * bent(rng, len(z))),
        ("snapshots shifted", lambda z, t, rng: z + rng.normal(0, 4, (5, 6))[t.astype(int)]),
        ("skewed", lambda z, t, rng: np.exp(z / 2 * (np.arange(6) == 1)) * 3 + z),
    ],
)
def test_nothing_is_found_where_nothing_branches(name, change):
    for seed in range(3):
        z, t, _ = system((1.0,), apart=0, seed=seed)
        found = branch_points(change(z, t, np.random.default_rng(seed)), t, **RUNS)
        assert found.points == (), name
        assert found.start == 1 or name == "a bent continuum"


def bent(rng, n):
    angle = rng.uniform(0, 1.5 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle), *np.zeros((4, n))], 1)


def test_populations_that_were_always_separate_are_no_branch():
    z, t, _ = system((0.6, 0.4), after=0)
    found = branch_points(z, t, **RUNS)
    assert found.points == () and found.start == 2 and found.fates.max() == 1


def test_large_snapshots_are_sampled_and_all_cells_have_fates():
    z, t, branch = system((0.5, 0.5), n=300)
    found = branch_points(z, t, max_cells=100, **RUNS)
    last = t == 4
    agree = (found.fates[last] == branch[last]).mean()
    assert max(agree, 1 - agree) > 0.97 and found.points[0].step == 2
    again = branch_points(z, t, max_cells=100, **RUNS)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)


def test_a_cell_does_not_vote_for_its_own_side():
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(30):
        cells = rng.normal(size=(60, 8))
        side = cells[:, 0] > 0
        ps.append(pair_pvalue(cells[side], cells[~side]))
    assert np.mean(np.array(ps) <= 0.05) <= 0.1


def test_small_groups_are_tested_at_their_end():
    rng = np.random.default_rng(0)
    along = np.concatenate([rng.normal(size=180), rng.normal(6, 0.5, 14)])
    from scjepa.dynamics import dip_pvalue

    assert gap_pvalue(along, 180, 14) < 0.01 < dip_pvalue(along)
    assert gap_pvalue(-along, 14, 180) == pytest.approx(gap_pvalue(along, 180, 14))


def test_groups_are_numbered_by_size():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(100, 3))
    cells[:20, 0] += 12
    cells[20:50, 1] += 12
    label, p = groups(cells, alpha=0.02, min_cells=5)
    assert [set(label[a:b]) for a, b in ((0, 20), (20, 50), (50, 100))] == [{2}, {1}, {0}] and p <= 0.02
    assert best_split(cells[:6], min_cells=5)[0] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.ones(20)}, r"shape \(20,\) and times \(40,\)"),
        ({"times": np.zeros(3)}, r"times \(3,\): expected"),
        ({"z": np.full((40, 2), np.nan)}, "80 missing or infinite"),
        ({"times": np.full(40, np.nan)}, "times has 40 missing"),
        ({"times": np.zeros(40)}, "1 distinct value"),
        ({"times": np.repeat([0.0, 1.0], [37, 3])}, r"'1 \(3 cells\)': expected 10 or more each"),
        ({"alpha": 2}, "alpha=2: expected a number between 0 and 1"),
        ({"n_runs": 0}, "n_runs=0"),
    ],
)
def test_refusals(change, message):
    given = {"z": np.ones((40, 2)), "times": np.repeat([0.0, 1.0], 20)} | change
    with pytest.raises(ValueError, match=message):
        branch_points(**given)
