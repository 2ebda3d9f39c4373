"""The dip is what its definition says, and its null has the published quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from scjepa.dynamics import dip, dip_pvalue
from scjepa.dynamics._dip import _null


def by_definition(x: np.ndarray) -> float:
    """Search all functions with one mode by linear programming, mode by mode: slow, and nothing like the algorithm."""
    points, counts = np.unique(x, return_counts=True)
    n, upper = len(points), np.cumsum(counts) / len(x)
    lower, best = upper - counts / len(x), 1.0
    for mode in range(n):
        # variables: the function at all points before its mode and at it, at it and all points after, and the distance
        left, right = np.arange(mode + 1), np.arange(mode + 1, n + 1)
        rows, bounds = [], []

        def add(terms, bound, rows=rows, bounds=bounds):
            row = np.zeros(n + 2)
            for column, weight in terms:
                row[column] += weight
            rows.append(row)
            bounds.append(bound)

        for columns, at in ((left, points[: mode + 1]), (right, points[mode:])):
            sign = 1 if columns is left else -1
            for i in range(len(at) - 1):
                add([(columns[i], 1), (columns[i + 1], -1)], 0)
            for i in range(1, len(at) - 1):
                a, b = 1 / (at[i] - at[i - 1]), 1 / (at[i + 1] - at[i])
                add([(columns[i], sign * (a + b)), (columns[i - 1], -sign * a), (columns[i + 1], -sign * b)], 0)
        add([(mode, 1), (mode + 1, -1)], 0)
        for i in range(n + 1):
            # every value must be near the distribution from both sides; at the mode it may jump from one to the other
            over = lower[i] if i <= mode else upper[i - 1] if i == mode + 1 else lower[i - 1]
            under = lower[i] if i == mode else upper[i] if i < mode else upper[i - 1]
            add([(i, 1), (n + 1, -1)], over)
            add([(i, -1), (n + 1, -1)], -under)
        cost = np.zeros(n + 2)
        cost[-1] = 1
        best = min(best, linprog(cost, A_ub=np.array(rows), b_ub=bounds).fun)
    return max(best, 1 / (2 * len(x)))


@pytest.mark.parametrize("seed", range(6))
def test_dip_is_the_distance_to_the_nearest_function_with_one_mode(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 25))
    x = np.concatenate([rng.normal(size=n), rng.normal(seed, 0.5, n // 2)])
    assert dip(x) == pytest.approx(by_definition(x), abs=1e-7)
    tied = np.round(x)
    assert dip(tied) == pytest.approx(by_definition(tied), abs=1e-7)


def test_known_values():
    assert dip(np.arange(50)) == pytest.approx(1 / 100)
    assert dip(np.array([0.0, 1.0])) == pytest.approx(0.25)
    assert dip(np.repeat([0.0, 1.0], [10, 30])) == pytest.approx(1 / 8), "half of the smaller share"
    assert dip(np.array([3.0])) == 0.5 and dip(np.full(5, 2.0)) == pytest.approx(0.1)
    x = np.random.default_rng(0).normal(size=80)
    assert dip(-7 * x + 3) == pytest.approx(dip(x))


@pytest.mark.parametrize(("n", "published"), [(10, 0.1396), (500, 0.02373)])
def test_null_has_the_published_quantile(n, published):
    """95 % of uniform samples have a smaller dip (Hartigan & Hartigan 1985, table 1, later extended)."""
    assert np.quantile(_null(n, 500), 0.95) / np.sqrt(n) == pytest.approx(published, rel=0.05)


def test_p_values():
    rng = np.random.default_rng(1)
    uniform = [dip_pvalue(rng.random(70), draws=400) for _ in range(300)]
    assert np.mean(np.array(uniform) <= 0.1) == pytest.approx(0.1, abs=0.05), "a size between two simulated ones"
    assert np.median(uniform) == pytest.approx(0.5, abs=0.12)
    assert np.mean([dip_pvalue(rng.normal(size=70), draws=400) <= 0.05 for _ in range(50)]) == 0
    two = np.concatenate([rng.normal(size=60), rng.normal(8, 1, 20)])
    assert dip_pvalue(two, draws=400) < 0.05, "one cell in four"
    assert dip_pvalue(np.array([0.0, 0.0, 9.0])) == 1.0, "too few to say anything"


@pytest.mark.parametrize(
    ("x", "message"),
    [(np.ones((2, 2)), r"shape \(2, 2\)"), (np.empty(0), "shape"), (np.array([1, np.nan]), "1 missing")],
)
def test_refusals(x, message):
    with pytest.raises(ValueError, match=message):
        dip(x)
