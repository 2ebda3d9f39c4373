"""Moves of cells from one time to the next, as a sparse transition matrix."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from scjepa._checks import require_member
from scjepa._types import FloatArray
from scjepa.dynamics._transport import transport_plan
from scjepa.dynamics._walk import NEIGHBORS, _coordinates, _rows_of_one, neighbor_graph, snapshots

MOVES = ("transport", "graph")
LAST = ("self", "graph")


def transition_matrix(
    z: FloatArray,
    times: FloatArray,
    *,
    method: Literal["transport", "graph"] = "transport",
    last: Literal["self", "graph"] = "self",
    n_neighbors: int = NEIGHBORS,
    epsilon: float = 0.05,
    growth: FloatArray | None = None,
    seed: int = 0,
) -> sp.csr_matrix:
    """Say for every cell which cells of the next time it becomes.

    Parameters
    ----------
    z
        ``(n, d)`` cells in coordinates of one scale.
    times
        ``(n,)``.
    method
        ``"transport"``: the rows of entropic transport plans between neighbouring times (soft: a matching of single noisy cells
        says little of fates). ``"graph"``: the nearest cells of the next time, weighed by a Gaussian as wide as the farthest of
        them is distant.
    last
        What cells of the last time do: ``"self"`` (stay where they are) or ``"graph"`` (walk among each other along
        :func:`neighbor_graph`), which :func:`terminal_states` needs.
    n_neighbors
        Of graphs.
    epsilon
        Of transport, times the mean cost: see :func:`transport_plan`.
    growth
        ``(n,)`` how many descendants a cell of each kind has, above 0: masses of the sources of plans.
    seed
        Of blocks of large snapshots.

    Returns
    -------
    ``(n, n)`` sparse, rows of sum one; a cell moves to cells of the next time only.

    Raises
    ------
    ValueError
        For shapes that don't fit and fewer than two times.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import transition_matrix
    >>> z = np.array([[0.0], [5.0], [0.1], [5.1]])
    >>> transition_matrix(z, np.array([0, 0, 1, 1]), method="graph", n_neighbors=1).toarray().tolist()
    [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    require_member(method, MOVES, "method", where="the methods")
    require_member(last, LAST, "last", where="what last cells may do")
    z, members = _coordinates(z), snapshots(times, len(z))
    mass = np.ones(len(z))
    if growth is not None:
        mass = np.asarray(growth, dtype=np.float64)
        if mass.shape != (len(z),) or not np.isfinite(mass).all() or (mass <= 0).any():
            raise ValueError(f"growth has shape {mass.shape}: expected ({len(z)},) numbers above 0.")
    rows, columns, values = [], [], []
    for first, second in zip(members[:-1], members[1:], strict=True):
        if method == "transport":
            s, t, m = transport_plan(
                z[first], z[second], source_mass=mass[first], method="entropic", epsilon=epsilon, seed=seed
            )
            empty = np.setdiff1d(np.arange(len(first)), s)
        else:
            s, t, m = np.zeros(0, int), np.zeros(0, int), np.zeros(0)
            empty = np.arange(len(first))
        near, weight = _weighted_nearest(z[first[empty]], z[second], n_neighbors)
        rows += [first[s], np.repeat(first[empty], near.shape[1])]
        columns += [second[t], second[near.ravel()]]
        values += [m, weight.ravel()]
    end = members[-1]
    if last == "self" or len(end) < 2:
        rows, columns, values = [*rows, end], [*columns, end], [*values, np.ones(len(end))]
    else:
        graph = neighbor_graph(z[end], n_neighbors=n_neighbors).tocoo()
        rows, columns, values = [*rows, end[graph.row]], [*columns, end[graph.col]], [*values, graph.data]
    triplets = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return _rows_of_one(sp.csr_matrix(triplets, shape=(len(z), len(z))))


def _weighted_nearest(cells: FloatArray, among: FloatArray, k: int) -> tuple[np.ndarray, FloatArray]:
    """Return the nearest cells and their weights, both ``(n, k)``."""
    k = max(1, min(k, len(among)))
    if not len(cells):
        return np.zeros((0, k), int), np.zeros((0, k))
    distance, near = NearestNeighbors(n_neighbors=k).fit(among).kneighbors(cells)
    width = np.maximum(distance[:, -1:], np.finfo(float).tiny)
    return near, np.exp(-0.5 * (distance / width) ** 2)
