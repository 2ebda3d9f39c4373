"""Branch points: where and when one population becomes several, from unpaired snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from scjepa._checks import require_positive_int, some
from scjepa._types import FloatArray
from scjepa.dynamics._splits import gap_pvalue, groups, within

RESTART = 0.1
APART = 0.05
"""p-value up to which branches that are apart at a time were so at the one before."""
AHEAD = 1
"""How many times before a time are asked too: branches that are apart there are apart at it."""
SPREAD = 0.7
"""Cells that are as far apart before a branch as this share of what they are after it were no single population."""
KEPT = 0.9
"""Share of the cells in each run that stability is judged by."""
AGREE = 0.5
"""Adjusted Rand index from which on two runs found the same fates."""
MOST = 10
"""Cells that are named for a branch point."""


class BranchPoint(NamedTuple):
    """One population becomes several."""

    between: tuple[float, float]
    """Times between which it happens: the last with one population, and the first with several."""
    step: int
    """Index of the second one among the distinct times."""
    fates: tuple[tuple[int, ...], ...]
    """Which fates lie on each branch."""
    shares: tuple[float, ...]
    """Share of each branch among the last snapshot's cells on them."""
    cells: np.ndarray
    """Indices of the cells nearest to the point: those before it whose future is the most open."""
    location: FloatArray
    """``(d,)`` their mean."""
    p: float
    """How often one population would look as much like several right after it."""
    stability: float
    """Share of runs on 90 % of the cells that find it within one step."""


@dataclass(frozen=True)
class BranchPoints:
    """What :func:`branch_points` found.

    Attributes
    ----------
    points
        Branch points, the first in time first.
    fates
        ``(n,)`` fate of each cell of the last snapshot, the largest first; -1 elsewhere.
    probabilities
        ``(n, fates)`` of reaching each of them.
    start
        How many populations there were from the first snapshot on.
    unstable
        Branch points that were found, but not often enough in parts of the cells.
    """

    points: tuple[BranchPoint, ...]
    fates: np.ndarray
    probabilities: FloatArray
    start: int
    unstable: tuple[BranchPoint, ...] = ()


class _Event(NamedTuple):
    step: int
    branches: tuple[tuple[int, ...], ...]
    p: float


class _Trace(NamedTuple):
    label: np.ndarray
    chances: list[FloatArray]
    events: list[_Event]
    start: int


def branch_points(
    z: FloatArray,
    times: FloatArray,
    *,
    alpha: float = 0.02,
    min_share: float = 0.05,
    min_stability: float = 0.6,
    n_runs: int = 20,
    n_neighbors: int = 15,
    max_cells: int = 400,
    seed: int = 0,
) -> BranchPoints:
    r"""Find where one population becomes several.

    Fates are the groups of the last snapshot that gaps separate (a dip test, each cell on an axis that the others chose, small
    groups at their own end of it). They are traced back: cells of each time inherit from the next one by a random walk with
    restart on their joint neighbour graph, and two branches are one population at a time if the cells have no gap along the
    axis that separates the branches at the next. A branch point lies between the last time with one population and
    the first with several. Populations that are separate from the first snapshot on, and cells that are as far apart along that
    axis before as after (a continuum that failed the test once) are none.

    Parameters
    ----------
    z
        ``(n, d)`` cells in coordinates of one scale, for example 10 principal components.
    times
        ``(n,)`` time of each cell; two distinct times or more.
    alpha
        p-value up to which populations are apart.
    min_share
        The smallest fate, as a share of the last snapshot (and never fewer than five cells).
    min_stability, n_runs
        A branch point is reported if at least this share of the runs, on 90 % of the cells, find the same within one step.
    n_neighbors
        Of the neighbour graph.
    max_cells
        Cells of each snapshot that are looked at; larger ones are sampled, other cells take after their neighbours.
    seed
        Of samples and runs.

    Returns
    -------
    Branch points with time, place, branches, p-value and stability; fates and how likely each cell is to reach them.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, one time only, and snapshots of fewer than ten cells.

    Notes
    -----
    A fate of 10 of 100 cells is found in 8 of 10 simulated systems, its time within one step in 5 (``trajectory_events.py``).
    Cells bent into more than half a circle at one time count as two populations. The walk back is private here; the dip test is by
    Hartigan & Hartigan 1985.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import branch_points
    >>> rng = np.random.default_rng(0)
    >>> times = np.repeat([0.0, 1.0, 2.0, 3.0], 100)
    >>> z = rng.normal(size=(400, 3))
    >>> z[:, 0] += 3 * times
    >>> z[:, 1] += np.where(times >= 2, 4, 0) * rng.choice([-1, 1], 400)
    >>> found = branch_points(z, times, n_runs=5)
    >>> [(point.between, point.fates) for point in found.points], found.start
    ([((1.0, 2.0), ((0,), (1,)))], 1)
    """
    cells, moments, levels = check_snapshots(z, times, least=10)
    for value, name in ((n_runs, "n_runs"), (n_neighbors, "n_neighbors"), (max_cells, "max_cells")):
        require_positive_int(value, name)
    for number, name in ((alpha, "alpha"), (min_share, "min_share"), (min_stability, "min_stability")):
        if not 0 < number < 1:
            raise ValueError(f"{name}={number!r}: expected a number between 0 and 1.")
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(moments == t))[:max_cells] for t in levels]
    shots = [cells[i] for i in rows]
    trace = partial(_trace, alpha=alpha, min_share=min_share, n_neighbors=n_neighbors)
    full = trace(shots)
    fates = np.full(len(cells), -1)
    probabilities = np.zeros((len(cells), full.label.max() + 1))
    for t, i, chance in zip(levels, rows, full.chances, strict=True):
        at = np.flatnonzero(moments == t)
        near = NearestNeighbors(n_neighbors=1 if len(at) == len(i) else min(5, len(i))).fit(cells[i])
        probabilities[at] = chance[near.kneighbors(cells[at], return_distance=False)].mean(1)
    last = moments == levels[-1]
    fates[last] = probabilities[last].argmax(1)

    runs: list[tuple[_Trace, np.ndarray]] = []
    if full.events:
        for _ in range(n_runs):
            part = [np.sort(rng.permutation(len(s))[: max(int(KEPT * len(s)), 5)]) for s in shots]
            runs.append((trace([s[i] for s, i in zip(shots, part, strict=True)]), part[-1]))
    points: list[BranchPoint] = []
    unstable: list[BranchPoint] = []
    for event in full.events:
        steps = [s for run, kept in runs if (s := _same(event, full.label[kept], run)) is not None]
        step = event.step  # that of all cells: parts of a small fate are seen later
        stability = sum(abs(s - step) <= 1 for s in steps) / max(len(runs), 1)
        before = rows[step - 1]
        sums = np.stack([full.chances[step - 1][:, list(b)].sum(1) for b in event.branches], 1)
        mine = sums.sum(1, keepdims=True)
        share = np.divide(sums, mine, out=np.full_like(sums, 1.0), where=mine > 0.5)
        nearest = np.argsort((share**2).sum(1), kind="stable")[:MOST]
        sizes = np.array([np.isin(full.label, b).sum() for b in event.branches])
        point = BranchPoint(
            (float(levels[step - 1]), float(levels[step])), step, event.branches, tuple((sizes / sizes.sum()).tolist()),
            before[nearest], cells[before[nearest]].mean(0), event.p, stability,
        )  # fmt: skip
        (points if stability >= min_stability else unstable).append(point)
    by_time = lambda found: tuple(sorted(found, key=lambda p: p.step))
    return BranchPoints(by_time(points), fates, probabilities, full.start, by_time(unstable))


def check_snapshots(z: FloatArray, times: FloatArray, *, least: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return cells, times and distinct times; raise where they don't fit, or snapshots are too small."""
    cells, moments = np.asarray(z, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if cells.ndim != 2 or moments.shape != cells.shape[:1]:
        raise ValueError(
            f"The cells have shape {cells.shape} and times {moments.shape}: expected (cells, coordinates) and a time for each cell."
        )
    for values, name in ((cells, "The cells have"), (moments, "times has")):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} {int((~np.isfinite(values)).sum())} missing or infinite values: expected numbers."
            )
    levels, sizes = np.unique(moments, return_counts=True)
    if len(levels) < 2:
        raise ValueError(
            f"times has {len(levels)} distinct value(s): what happens over time needs two snapshots or more."
        )
    if sizes.min() < least:
        small = [f"{t:g} ({n} cells)" for t, n in zip(levels, sizes, strict=True) if n < least]
        raise ValueError(
            f"Too few cells at the times {some(small)}: expected {least} or more each. Merge or drop these times."
        )
    return cells, moments, levels


def _trace(shots: list[FloatArray], *, alpha: float, min_share: float, n_neighbors: int) -> _Trace:
    """Find the fates of the last snapshot and follow them back until they are one population."""
    last = shots[-1]
    label, p = groups(last, alpha=alpha, min_cells=max(5, int(np.ceil(min_share * len(last)))))
    chance = np.eye(int(label.max()) + 1)[label]
    chances = [chance]
    for k in range(len(shots) - 2, -1, -1):
        chances.insert(0, _walk_back(shots[k], shots[k + 1], chances[0], n_neighbors))
    branches: list[tuple[int, ...]] = [(f,) for f in range(chance.shape[1])]
    events = []
    for k in range(len(shots) - 2, -1, -1):
        sets, here = [{i} for i in range(len(branches))], 0.0
        while len(sets) > 1:
            # the two most alike join first, and are tested as one against the others
            joined = [tuple(sorted(f for i in group for f in branches[i])) for group in sets]
            apart = {(a, b): _apart(shots, chances, k, joined, a, b) for a, b in combinations(range(len(sets)), 2)}
            mine = np.stack([chances[k][:, list(b)].sum(1) for b in joined], 1)
            # of branches that are equally little apart, above all those without cells of their own, the ones that share cells
            shared = np.sqrt(mine).T @ np.sqrt(mine)
            a, b = max(apart, key=lambda pair: (apart[pair], shared[pair]))
            here = apart[a, b]
            if here <= APART:
                break
            sets[a] |= sets.pop(b)
        merged = [tuple(sorted(f for i in group for f in branches[i])) for group in sets]
        for group in sets:
            which = sorted(group)
            if len(which) > 1 and _was_one(shots[k], _members(chances[k], branches), last, label, branches, which):
                events.append(_Event(k + 1, tuple(branches[i] for i in which), p))
        if len(merged) == len(branches) > 1:
            p = max(here, 1e-12)
        branches = merged
    return _merged(label, chances, events, branches)


def _merged(label: np.ndarray, chances: list[FloatArray], events: list[_Event], start: list[tuple[int, ...]]) -> _Trace:
    """Join fates that no event separates and that are one at the start: pieces of a continuum, which look apart once."""
    place = lambda f, branches: next((i for i, b in enumerate(branches) if f in b), -1)
    keys = [(place(f, start), *(place(f, e.branches) for e in events)) for f in range(int(label.max()) + 1)]
    names = list(dict.fromkeys(keys))
    to = np.array([names.index(key) for key in keys])
    order = np.argsort(-np.bincount(to[label], minlength=len(names)), kind="stable")  # the largest first
    to = np.argsort(order)[to]
    join = np.eye(len(names))[to]
    told = [
        event._replace(branches=tuple(tuple(sorted({int(to[f]) for f in b})) for b in event.branches))
        for event in events
    ]
    return _Trace(to[label], [chance @ join for chance in chances], told, len(start))


def _apart(
    shots: list[FloatArray], chances: list[FloatArray], k: int, branches: list[tuple[int, ...]], a: int, b: int
) -> float:
    """Return the p-value of two branches being one at a time; the time before may know it better."""
    tests = []
    for at in range(k, max(k - 1 - AHEAD, -1), -1):
        now, after = _members(chances[at], branches), _members(chances[at + 1], branches)
        tests.append(_gap(shots[at], now, shots[at + 1], after, a, b))
    return min(tests)


def _members(chance: FloatArray, branches: list[tuple[int, ...]]) -> np.ndarray:
    return np.stack([chance[:, list(b)].sum(1) for b in branches], 1).argmax(1)


def _gap(cells: FloatArray, now: np.ndarray, later: FloatArray, after: np.ndarray, a: int, b: int) -> float:
    """Return the p-value of a gap between two branches, along the axis that separates them at the next time."""
    x, y = later[after == a], later[after == b]
    low, high = int((now == a).sum()), int((now == b).sum())
    if min(low, high, len(x), len(y)) < 4:
        return 1.0
    axis = np.linalg.solve(within(x, y), y.mean(0) - x.mean(0))
    return gap_pvalue(cells[(now == a) | (now == b)] @ axis, low, high)


def _was_one(
    cells: FloatArray,
    now: np.ndarray,
    last: FloatArray,
    label: np.ndarray,
    branches: list[tuple[int, ...]],
    which: list[int],
) -> bool:
    """Tell whether cells were nearer to each other, along the axes between their fates, than those are."""
    here = cells[np.isin(now, which)]
    for a, b in combinations(which, 2):
        x, y = (last[np.isin(label, branches[i])] for i in (a, b))
        axis = np.linalg.solve(within(x, y), y.mean(0) - x.mean(0))
        inside = (len(x) * (x @ axis).var() + len(y) * (y @ axis).var()) / (len(x) + len(y))
        # as if both fates were equally large: a small one hardly widens the whole
        whole = np.sqrt(inside + ((y @ axis).mean() - (x @ axis).mean()) ** 2 / 4)
        if len(here) and (here @ axis).std() > SPREAD * whole:
            return False
    return True


def _walk_back(cells: FloatArray, later: FloatArray, chance: FloatArray, n_neighbors: int) -> FloatArray:
    """Return how likely cells are to have each fate of the next snapshot's cells: a walk with restart, by fate size."""
    both, n = np.vstack([cells, later]), len(cells)
    graph = NearestNeighbors(n_neighbors=min(n_neighbors, len(both) - 1)).fit(both).kneighbors_graph().toarray()
    graph = np.maximum(graph, graph.T)
    ends = np.vstack([np.zeros((n, chance.shape[1])), chance / np.maximum(chance.sum(0), 1e-12)])
    step = (1 - RESTART) * graph / graph.sum(1, keepdims=True)
    reached = np.linalg.solve(np.eye(len(both)) - step, ends)[:n]
    total = reached.sum(1, keepdims=True)
    return np.divide(reached, total, out=np.full_like(reached, 1 / chance.shape[1]), where=total > 0)


def _same(event: _Event, label: np.ndarray, run: _Trace) -> int | None:
    """Return when a run saw the same fates part, or None."""
    side = np.full(len(label), -1)
    for i, branch in enumerate(event.branches):
        side[np.isin(label, branch)] = i
    best: tuple[float, int] | None = None
    for other in run.events:
        theirs = np.full(len(label), -1)
        for i, branch in enumerate(other.branches):
            theirs[np.isin(run.label, branch)] = i
        score = adjusted_rand_score(side, theirs)
        if score >= AGREE and (best is None or score > best[0]):
            best = score, other.step
    return None if best is None else best[1]
