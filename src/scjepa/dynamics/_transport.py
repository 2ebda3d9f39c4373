"""Optimal transport between two snapshots: plans, smoothed displacements, and how far the snapshots overlap."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from scjepa._checks import require_member, require_positive_int
from scjepa._types import FloatArray

Method = Literal["exact", "entropic", "unbalanced"]
METHODS = ("exact", "entropic", "unbalanced")
BLOCK = 2000
"""Cells of a snapshot that are matched at a time: plans between larger snapshots are those of random blocks."""
NEIGHBORS = 5
LEAST_MASS = 1e-12
ROUNDS = 1_000_000


class Plan(NamedTuple):
    """A transport plan between snapshots of n and m cells, as triplets."""

    source: np.ndarray
    """``(e,)`` rows, cells of the first snapshot."""
    target: np.ndarray
    """``(e,)`` columns, cells of the second one."""
    mass: FloatArray
    """``(e,)`` masses above 0, of sum one."""


def transport_plan(
    source: FloatArray,
    target: FloatArray,
    *,
    source_mass: FloatArray | None = None,
    target_mass: FloatArray | None = None,
    method: Method = "exact",
    epsilon: float = 0.05,
    marginal: float = 1.0,
    block: int = BLOCK,
    seed: int = 0,
) -> Plan:
    r"""Match two snapshots at the least squared distance.

    Parameters
    ----------
    source, target
        ``(n, d)`` and ``(m, d)`` cells in coordinates of one scale.
    source_mass, target_mass
        ``(n,)`` and ``(m,)`` masses, by default equal; scaled to sum one.
    method
        ``"exact"`` (the network simplex), ``"entropic"`` (Sinkhorn, with ``epsilon`` times the mean cost) or
        ``"unbalanced"`` (entropic, marginals held by a Kullback-Leibler penalty of ``marginal`` times the mean cost: cells may
        die or divide).
    epsilon, marginal
        Of the entropic and the unbalanced plan.
    block
        Snapshots larger than this are cut into random blocks of about this size, matched block by block: memory is linear in
        cells.
    seed
        Of the blocks.

    Returns
    -------
    The plan; entries of an entropic plan below a thousandth of their row's largest are left out.

    Raises
    ------
    ValueError
        For shapes that don't fit, masses that are not positive in sum, and unknown methods.

    References
    ----------
    Through POT: Flamary et al. 2021, *JMLR* 22(78). Minibatch transport: Fatras et al. 2021, arXiv:2101.01792.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import transport_plan
    >>> plan = transport_plan(np.array([[0.0], [1.0]]), np.array([[1.1], [0.1]]))
    >>> sorted(zip(plan.source.tolist(), plan.target.tolist())), plan.mass.tolist()
    ([(0, 1), (1, 0)], [0.5, 0.5])
    """
    require_member(method, METHODS, "method", where="the methods")
    require_positive_int(block, "block", minimum=2)
    p, q = _cells(source, "source"), _cells(target, "target")
    if p.shape[1] != q.shape[1]:
        raise ValueError(f"source has {p.shape[1]} coordinates, target {q.shape[1]}: expected the same ones.")
    a, b = _mass(source_mass, len(p), "source_mass"), _mass(target_mass, len(q), "target_mass")
    n_blocks = max(1, int(np.ceil(max(len(p), len(q)) / block)))
    n_blocks = min(n_blocks, len(p), len(q))
    if n_blocks == 1:
        parts = [(np.arange(len(p)), np.arange(len(q)))]
    else:
        rng = np.random.default_rng(seed)
        rows, columns = rng.permutation(len(p)), rng.permutation(len(q))
        parts = list(zip(np.array_split(rows, n_blocks), np.array_split(columns, n_blocks), strict=True))
    found = []
    for i, j in parts:
        if a[i].sum() <= 0 or b[j].sum() <= 0:
            continue
        s, t, m = _solve(p[i], q[j], a[i] / a[i].sum(), b[j] / b[j].sum(), method, epsilon, marginal)
        found.append((i[s], j[t], m * a[i].sum()))
    s, t, m = (np.concatenate(x) for x in zip(*found, strict=True))
    return Plan(s, t, m / m.sum())


def _solve(
    p: FloatArray, q: FloatArray, a: FloatArray, b: FloatArray, method: str, epsilon: float, marginal: float
) -> tuple[np.ndarray, np.ndarray, FloatArray]:
    ot = _pot()

    cost = ot.dist(p, q)
    if method == "exact":
        matrix = ot.emd(a, b, cost, numItermax=ROUNDS)
    else:
        scale = float(cost.mean()) or 1.0
        if method == "entropic":
            matrix = ot.sinkhorn(a, b, cost / scale, epsilon, method="sinkhorn_log", numItermax=500, warn=False)
        else:
            matrix = ot.unbalanced.sinkhorn_unbalanced(a, b, cost / scale, epsilon, marginal, numItermax=500)
        matrix = np.where(matrix >= 1e-3 * matrix.max(1, keepdims=True), matrix, 0.0)
    s, t = np.nonzero(matrix > LEAST_MASS)
    return s, t, matrix[s, t]


def displacements(
    source: FloatArray, target: FloatArray, plan: Plan, *, n_neighbors: int = NEIGHBORS
) -> tuple[FloatArray, FloatArray]:
    """Return how far cells of either snapshot are from those they are matched with, averaged over neighbours.

    A matching of single noisy cells is mostly noise; averaged within each snapshot it is a field that moves cells and leaves
    each its own residual.

    Parameters
    ----------
    source, target
        ``(n, d)`` and ``(m, d)`` cells.
    plan
        See :func:`transport_plan`.
    n_neighbors
        How many cells, with itself, are averaged over.

    Returns
    -------
    ``(n, d)`` and ``(m, d)``: target minus source, for the cells of the first and of the second snapshot. Cells without any
    mass in the plan have the mean of their neighbours that have some.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import displacements, transport_plan
    >>> source = np.array([[0.0], [1.0], [2.0]])
    >>> plan = transport_plan(source, source + 3)
    >>> [x.ravel().tolist() for x in displacements(source, source + 3, plan, n_neighbors=2)]
    [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """
    p, q = _cells(source, "source"), _cells(target, "target")
    step = plan.mass[:, None] * (q[plan.target] - p[plan.source])
    out = []
    for cells, index in ((p, plan.source), (q, plan.target)):
        total, mass = np.zeros_like(cells), np.bincount(index, plan.mass, len(cells))
        np.add.at(total, index, step)
        near = nearest(cells, cells, n_neighbors)
        weight = np.where(mass > 0, 1.0, 0.0)[near]
        mean = np.divide(total, mass[:, None], out=np.zeros_like(total), where=mass[:, None] > 0)
        norm = weight.sum(1, keepdims=True)
        out.append((mean[near] * weight[:, :, None]).sum(1) / np.maximum(norm, 1.0))
    return out[0], out[1]


def nearest(cells: FloatArray, among: FloatArray, k: int) -> np.ndarray:
    """Return the ``k`` nearest of some cells to each cell ``(n, k)``, nearest first; all of them where there are fewer."""
    k = max(1, min(k, len(among)))
    return np.asarray(NearestNeighbors(n_neighbors=k).fit(among).kneighbors(cells, return_distance=False))


def overlap(source: FloatArray, target: FloatArray, *, n_neighbors: int = NEIGHBORS) -> float:
    """Return how far two snapshots mix: 0 disjoint, 1 not to be told apart.

    The share of other-snapshot cells among the nearest neighbours of each cell, over what it is for mixed snapshots of these
    sizes; averaged over both.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import overlap
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 3))
    >>> overlap(x, x + 100), overlap(x, rng.normal(size=(50, 3))) > 0.8
    (0.0, True)
    """
    p, q = _cells(source, "source"), _cells(target, "target")
    n, m = len(p), len(q)
    k = max(1, min(n_neighbors, n - 1, m - 1))
    both = np.vstack([p, q])
    near = NearestNeighbors(n_neighbors=min(k + 1, n + m)).fit(both).kneighbors(both, return_distance=False)
    own = near == np.arange(n + m)[:, None]
    other = (near >= n) != (np.arange(n + m) >= n)[:, None]
    share = (other & ~own).sum(1) / np.maximum((~own).sum(1), 1)
    total = n + m - 1
    return float(np.clip(0.5 * (share[:n].mean() * total / m + share[n:].mean() * total / n), 0.0, 1.0))


def _pot() -> Any:
    """Return POT, or raise an :class:`ImportError` that says how to get it."""
    try:
        import ot
    except ImportError as error:
        raise ImportError(
            "matching snapshots needs POT. Install it with: pip install 'scjepa[trajectories]'"
        ) from error
    return ot


def _cells(cells: FloatArray, name: str) -> FloatArray:
    x = np.asarray(cells, dtype=np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"{name} has shape {x.shape}: expected (cells, coordinates), at least one cell.")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {int((~np.isfinite(x)).sum())} missing or infinite values: expected numbers.")
    return x


def _mass(mass: FloatArray | None, n: int, name: str) -> FloatArray:
    if mass is None:
        return np.full(n, 1 / n)
    m = np.asarray(mass, dtype=np.float64)
    if m.shape != (n,) or not np.isfinite(m).all() or (m < 0).any() or not m.sum() > 0:
        raise ValueError(f"{name} has shape {m.shape}: expected ({n},) numbers of at least 0, not all 0.")
    return m / m.sum()


def wasserstein(
    source: FloatArray,
    target: FloatArray,
    *,
    source_mass: FloatArray | None = None,
    target_mass: FloatArray | None = None,
    order: Literal[1, 2] = 1,
) -> float:
    r"""Return the Wasserstein distance of two weighted clouds: mean distance (or root mean squared) of the best matching.

    Parameters
    ----------
    source, target
        ``(n, d)`` and ``(m, d)`` points.
    source_mass, target_mass
        Masses, by default equal.
    order
        1 (Euclidean cost) or 2 (its square, and the root of the sum).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import wasserstein
    >>> wasserstein(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]]))
    2.5
    """
    ot = _pot()

    p, q = _cells(source, "source"), _cells(target, "target")
    a, b = _mass(source_mass, len(p), "source_mass"), _mass(target_mass, len(q), "target_mass")
    cost = ot.dist(p, q, metric="euclidean" if order == 1 else "sqeuclidean")
    value = max(float(ot.emd2(a, b, cost, numItermax=ROUNDS)), 0.0)
    return value if order == 1 else float(np.sqrt(value))
