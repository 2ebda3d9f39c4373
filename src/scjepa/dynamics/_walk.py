"""Walks over cells: a graph of neighbours, and the fates that a walk from a cell ends in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import splu
from sklearn.neighbors import NearestNeighbors

from scjepa._checks import require_positive_int, some
from scjepa._types import FloatArray

NEIGHBORS = 15
RESTART = 0.1
"""Probability that a walk starts again, at each step."""
SMALL = 1500
"""Cells up to which the walk is solved exactly, by one dense system."""
TOLERANCE = 1e-8
ROUNDS = 100_000


class Fates(NamedTuple):
    """Fate probabilities of cells."""

    names: tuple[str, ...]
    """Fates, sorted."""
    probabilities: FloatArray
    """``(n, fates)``, rows of sum one."""
    reached: np.ndarray
    """``(n,)`` whether any labelled cell can be reached; the others have equal probabilities, which say nothing."""


# ------------------------------------------------------------------------------------------------------------ graph
def neighbor_graph(z: FloatArray, *, n_neighbors: int = NEIGHBORS) -> sp.csr_matrix:
    """Connect every cell with its nearest ones, whatever their times.

    Parameters
    ----------
    z
        ``(n, d)`` cells in coordinates of one scale.
    n_neighbors
        Neighbours of each cell, not counting itself; all others where there are fewer.

    Returns
    -------
    ``(n, n)`` symmetric, 1 where either cell is a neighbour of the other, nothing on the diagonal. Memory is linear in cells.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, and fewer than two cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import neighbor_graph
    >>> neighbor_graph(np.array([[0.0], [1.0], [3.0]]), n_neighbors=1).toarray().astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    z = _coordinates(z)
    n = len(z)
    if n < 2:
        raise ValueError(f"z has {n} cell: a graph needs at least two.")
    k = min(require_positive_int(n_neighbors, "n_neighbors"), n - 1)
    # equal cells may push a cell out of its own list, so one more is asked for and the cell is struck off where it is
    near = NearestNeighbors(n_neighbors=k + 1).fit(z).kneighbors(z, return_distance=False)
    own = near == np.arange(n)[:, None]
    own[~own.any(1), -1] = True
    columns = near[~own].reshape(n, k)
    graph = sp.csr_matrix((np.ones(n * k), columns.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return sp.csr_matrix(graph.maximum(graph.T))


# ------------------------------------------------------------------------------------------------------------ fates
def fate_probabilities(
    z: FloatArray,
    fates: Sequence[Any] | np.ndarray | pd.Series,
    *,
    n_neighbors: int = NEIGHBORS,
    restart: float = RESTART,
    graph: sp.csr_matrix | None = None,
    tolerance: float = TOLERANCE,
) -> Fates:
    r"""Say where cells end, by a random walk with restart over the graph of all cells.

    Walks of geometric length (mean :math:`1/r - 1` steps) go out from a cell, and their last cells are counted by fate:
    :math:`R = (I - (1 - r) P)^{-1} Y`, with P the walk's steps over :func:`neighbor_graph` and Y one in the column of the fate
    of each labelled cell, divided by the number of cells with that fate, so that abundant fates don't draw more than their
    share. Rows of R are scaled to sum one. No time is needed: early cells reach late ones through cells of all times.

    Parameters
    ----------
    z
        ``(n, d)`` cells of all times in coordinates of one scale; 30 principal components are a good choice.
    fates
        ``(n,)`` fates of late cells; missing (None, NaN) or ``""`` for all other cells.
    n_neighbors
        Of the graph.
    restart
        r, from above 0 to below 1: small ones look far.
    graph
        A graph of the cells instead of that of ``z``, with weights of at least 0.
    tolerance
        Largest change of a probability at which power iteration stops, above 1,500 cells; fewer are solved exactly.

    Returns
    -------
    Names of fates and probabilities. Labelled cells have their own fate.

    Raises
    ------
    ValueError
        For shapes that don't fit, no labelled cell, and a restart that is no probability.

    Notes
    -----
    Haematopoiesis with clones as truth (LARRY): better than a classifier of late cells, nearest late cells and optimal
    transport, see ``benchmarks/trajectory_fate.py``.

    References
    ----------
    Random walk with restart: Tong, Faloutsos, Pan 2006, *ICDM*, doi:10.1109/ICDM.2006.70. Labels spread over a graph: Zhou et
    al. 2003, *NIPS* 16.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import fate_probabilities
    >>> z = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    >>> found = fate_probabilities(z, ["", "", "A", "", "B"], n_neighbors=1)
    >>> found.names, found.probabilities.tolist()
    (('A', 'B'), [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    """
    z = _coordinates(z)
    names, code = read_fates(fates, len(z))
    if isinstance(restart, bool) or not 0 < restart < 1:
        raise ValueError(f"restart={restart!r}: expected a number above 0 and below 1, for example 0.1.")
    steps = _rows_of_one(
        neighbor_graph(z, n_neighbors=n_neighbors) if graph is None else _square(graph, "graph", len(z))
    )
    start = _one_hot(code, len(names))
    start /= start.sum(0)
    mass = _walk(steps, start, 1 - restart, tolerance)
    return _finished(names, mass, code)


def _walk(steps: sp.csr_matrix, start: FloatArray, share: float, tolerance: float) -> FloatArray:
    """Solve ``(I - share * steps) x = start``."""
    n = len(start)
    if n <= SMALL:
        return np.asarray(np.linalg.solve(np.eye(n) - share * steps.toarray(), start))
    x, reached = start.copy(), -1
    for _ in range(ROUNDS):
        following = share * (steps @ x) + start
        change, size = np.abs(following - x).max(1), following.sum(1)
        x = following
        # what is still missing of a cell's mass is about this change times share / (1 - share)
        settled = change * share / (1 - share) <= tolerance * size
        if settled.all() and (size > 0).sum() == reached:
            break
        reached = int((size > 0).sum())  # a walk may need many steps to arrive at a far cell at all
    return x


def absorption_probabilities(transition: sp.csr_matrix, fates: Sequence[Any] | np.ndarray | pd.Series) -> Fates:
    r"""Say where cells end under a transition matrix: the probability that the chain is first absorbed by each fate.

    With Q the moves between cells without a fate and S those into cells with one, :math:`(I - Q) F = S Y`. Moves into cells that
    never reach a fate are left out and rows scaled to sum one.

    Parameters
    ----------
    transition
        ``(n, n)`` sparse, rows of sum one, for example of :func:`transition_matrix`.
    fates
        ``(n,)`` fates of late cells; missing (None, NaN) or ``""`` for all other cells.

    Returns
    -------
    Names of fates and probabilities. Labelled cells have their own fate.

    Raises
    ------
    ValueError
        For shapes that don't fit, rows that do not sum to one, and no labelled cell.

    References
    ----------
    Kemeny, Snell, *Finite Markov Chains*, 1960, chapter 3; for cells Lange et al. 2022, *Nat Methods* 19 (CellRank).

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from scjepa.dynamics import absorption_probabilities
    >>> chain = sp.csr_matrix([[0.0, 0.25, 0.75], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> absorption_probabilities(chain, ["", "A", "B"]).probabilities[0].tolist()
    [0.25, 0.75]
    """
    chain = _square(transition, "transition", None)
    _require_stochastic(chain)
    names, code = read_fates(fates, chain.shape[0])
    target = _one_hot(code, len(names))
    free = np.flatnonzero(code < 0)
    mass = target.copy()
    if len(free):
        within = chain[free][:, free]
        into = np.asarray(chain[free] @ target)
        # cells that can't reach a fate make the system singular: they are taken out
        reach = into.sum(1) > 0
        while True:
            more = reach | (np.asarray(within @ reach.astype(float)).ravel() > 0)
            if (more == reach).all():
                break
            reach = more
        kept = np.flatnonzero(reach)
        if len(kept):
            system = sp.csc_matrix(sp.identity(len(kept)) - within[kept][:, kept])
            solved = splu(system).solve(into[kept])
            mass[free[kept]] = np.maximum(solved, 0.0)
    return _finished(names, mass, code)


def potency(probabilities: FloatArray) -> FloatArray:
    r"""Return how open the fates of cells are: entropy of their fate probabilities over that of equal ones, from 0 to 1, ``(n,)``.

    Parameters
    ----------
    probabilities
        ``(n, fates)`` rows of sum one.

    Raises
    ------
    ValueError
        For rows that are no probabilities.

    References
    ----------
    Entropy of fates as potency: Setty et al. 2019, *Nat Biotechnol* 37 (Palantir).

    Examples
    --------
    >>> from scjepa.dynamics import potency
    >>> potency([[0.5, 0.5], [1.0, 0.0]]).tolist()
    [1.0, 0.0]
    """
    p = require_probabilities(probabilities, "probabilities")
    if p.shape[1] == 1:
        return np.zeros(len(p))
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(np.clip(-(p * logs).sum(1) / np.log(p.shape[1]), 0.0, 1.0))


# ------------------------------------------------------------------------------------------------------- shared checks
def snapshots(times: FloatArray, n: int) -> list[np.ndarray]:
    """Return the cells of each distinct time, earliest first; raise unless there are two times."""
    t = np.asarray(times, dtype=np.float64)
    if t.shape != (n,) or not np.isfinite(t).all():
        raise ValueError(f"times has shape {t.shape}: expected ({n},) finite numbers, one for each cell.")
    levels = np.unique(t)
    if len(levels) < 2:
        raise ValueError(f"all cells are of one time ({levels.tolist()}): moves need at least two.")
    return [np.flatnonzero(t == level) for level in levels]


def read_fates(fates: Any, n: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names of fates, sorted, and the fate of each cell as a number, -1 without one."""
    series = pd.Series(fates).reset_index(drop=True).astype(object)
    if len(series) != n:
        raise ValueError(f"fates has {len(series)} values: expected {n}, one for each cell (missing where unknown).")
    text = series.where(series.notna(), "").astype(str)
    names = tuple(sorted(set(text) - {""}))
    if not names:
        raise ValueError("no cell has a fate: label late cells, and leave all others missing or ''.")
    number = {name: i for i, name in enumerate(names)}
    return names, text.map(number).fillna(-1).to_numpy(dtype=int)


def require_probabilities(values: Any, name: str) -> FloatArray:
    """Return a matrix of probabilities; raise unless its rows are."""
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 2 or not p.size:
        raise ValueError(f"{name} has shape {p.shape}: expected (cells, fates).")
    wrong = ~np.isfinite(p).all(1) | (p < -1e-9).any(1) | (np.abs(p.sum(1) - 1) > 1e-4)
    if wrong.any():
        raise ValueError(
            f"{name}: {int(wrong.sum())} of {len(p)} rows are no probabilities (at least 0, of sum one), for example row "
            f"{some(np.flatnonzero(wrong).tolist(), 3)}. Divide each row by its sum."
        )
    return np.clip(p, 0.0, None)


def _coordinates(z: FloatArray) -> FloatArray:
    x = np.asarray(z, dtype=np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"z has shape {x.shape}: expected (cells, coordinates), at least one cell.")
    if not np.isfinite(x).all():
        raise ValueError(f"z has {int((~np.isfinite(x)).sum())} missing or infinite values: expected numbers.")
    return x


def _square(matrix: Any, name: str, n: int | None) -> sp.csr_matrix:
    out = sp.csr_matrix(matrix, dtype=np.float64)
    if out.shape[0] != out.shape[1] or (n is not None and out.shape[0] != n):
        size = "(cells, cells)" if n is None else f"({n}, {n})"
        raise ValueError(f"{name} has shape {out.shape}: expected {size}.")
    if not np.isfinite(out.data).all() or (out.data < 0).any():
        raise ValueError(f"{name} has values that are missing, infinite or below 0: expected weights of at least 0.")
    return out


def _require_stochastic(chain: sp.csr_matrix) -> None:
    off = np.abs(np.asarray(chain.sum(1)).ravel() - 1) > 1e-6
    if off.any():
        raise ValueError(
            f"transition: {int(off.sum())} of {len(off)} rows do not sum to one, for example row {int(off.argmax())}. Divide "
            "each row by its sum."
        )


def _rows_of_one(matrix: sp.csr_matrix) -> sp.csr_matrix:
    total = np.asarray(matrix.sum(1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(scale) @ matrix)


def _one_hot(code: np.ndarray, n_fates: int) -> FloatArray:
    out = np.zeros((len(code), n_fates))
    known = np.flatnonzero(code >= 0)
    out[known, code[known]] = 1.0
    return out


def _finished(names: tuple[str, ...], mass: FloatArray, code: np.ndarray) -> Fates:
    """Scale rows to one, keep labelled cells at their own fate, and say which cells reach any."""
    mass = np.maximum(mass, 0.0)
    total = mass.sum(1, keepdims=True)
    reached = total[:, 0] > 0
    probabilities = np.full_like(mass, 1 / len(names))
    probabilities[reached] = mass[reached] / total[reached]
    known = code >= 0
    probabilities[known] = _one_hot(code, len(names))[known]
    return Fates(names, probabilities, reached)
