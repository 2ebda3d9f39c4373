"""Samples (donors, animals) as courses: how far apart they are, time by time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from scjepa._checks import require_positive_int, some
from scjepa._types import FloatArray


class CourseDistances(NamedTuple):
    """Result of :func:`course_distances`."""

    names: np.ndarray
    """``(samples,)``, ascending."""
    distances: FloatArray
    """``(samples, samples)`` mean energy distances; unbiased, so that like samples may be slightly below 0."""
    shared: np.ndarray
    """``(samples, samples)`` at how many times two samples were compared."""


def course_distances(
    z: FloatArray, times: FloatArray, samples: np.ndarray, *, max_cells: int = 200, seed: int = 0
) -> CourseDistances:
    r"""Compare the courses of samples: the energy distance of their cells at each time, averaged over times that both have.

    .. math:: E(x, y) = 2 \overline{|x - y|} - \overline{|x - x'|} - \overline{|y - y'|}

    with means over pairs of different cells: unbiased, whatever the numbers of cells.

    Parameters
    ----------
    z
        ``(n, d)`` cells in coordinates of one scale.
    times, samples
        ``(n,)`` time and sample of each cell.
    max_cells
        Cells of a sample and time beyond which they are sampled.
    seed
        Of samples.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, one sample only, and samples that share no time with two cells each.

    References
    ----------
    Szekely & Rizzo 2013, *Journal of Statistical Planning and Inference* 143(8).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import course_distances
    >>> z = np.random.default_rng(0).normal(size=(300, 2))
    >>> samples, times = np.repeat(["a", "b", "c"], 100), np.tile([0.0, 1.0], 150)
    >>> z[(samples == "c") & (times == 1)] += 3
    >>> found = course_distances(z, times, samples)
    >>> bool(found.distances[0, 1] < 0.1), bool(found.distances[0, 2] > 1)
    (True, True)
    """
    cells, moments, labels = np.asarray(z, dtype=np.float64), np.asarray(times, dtype=np.float64), np.asarray(samples)
    if cells.ndim != 2 or moments.shape != cells.shape[:1] or labels.shape != moments.shape:
        raise ValueError(
            f"z has shape {cells.shape}, times {moments.shape} and samples {labels.shape}: expected (cells, coordinates), and a time "
            "and a sample for each cell."
        )
    if not np.isfinite(cells).all() or not np.isfinite(moments).all():
        raise ValueError("z or times have missing or infinite values: expected numbers.")
    require_positive_int(max_cells, "max_cells", minimum=2)
    names, code = np.unique(labels.astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"samples has {len(names)} sample(s): a comparison needs two or more.")
    rng = np.random.default_rng(seed)
    total, shared = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)), dtype=np.int64)
    for t in np.unique(moments):
        sets = [rng.permutation(np.flatnonzero((moments == t) & (code == k)))[:max_cells] for k in range(len(names))]
        here = np.flatnonzero([len(s) > 1 for s in sets])
        if len(here) < 2:
            continue
        between = _mean_distances([cells[sets[k]] for k in here])
        own = np.diag(between)
        total[np.ix_(here, here)] += 2 * between - own[:, None] - own
        shared[np.ix_(here, here)] += 1
    alone = [f"{names[i]} and {names[j]}" for i, j in np.argwhere(shared == 0) if i < j]
    if alone:
        raise ValueError(
            f"{len(alone)} pairs of samples have no time at which both have two cells ({some(alone, 3)}): they can't be compared."
        )
    distances = total / shared
    np.fill_diagonal(distances, 0.0)
    return CourseDistances(names, distances, shared)


def embed_distances(distances: FloatArray) -> FloatArray:
    """Return places whose squared distances are these, as far as there are such places (classical scaling).

    Parameters
    ----------
    distances
        ``(n, n)`` symmetric; energy distances are squared distances in a Hilbert space.

    Returns
    -------
    ``(n, k)``, the direction of largest variance first; directions of negative variance, which are noise, are left out.

    References
    ----------
    Torgerson 1952, *Psychometrika* 17(4).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import embed_distances
    >>> places = np.array([[0.0], [1.0], [4.0]])
    >>> np.abs(np.diff(embed_distances((places - places.T) ** 2)[:, 0])).round(6).tolist()
    [1.0, 3.0]
    """
    centred = distances - distances.mean(0) - distances.mean(1, keepdims=True) + distances.mean()
    value, vector = np.linalg.eigh(-0.5 * centred)
    kept = value > 1e-9 * max(float(value.max()), 1e-300)
    return np.asarray((vector[:, kept] * np.sqrt(value[kept]))[:, ::-1])


def _mean_distances(sets: list[FloatArray]) -> FloatArray:
    """Return mean distances between cells of each two sets; within a set over pairs of different cells."""
    stacked = np.concatenate(sets)
    starts = np.cumsum([0, *(len(s) for s in sets)])[:-1]
    sizes = np.array([len(s) for s in sets])
    out = np.empty((len(sets), len(sets)))
    for k, cells in enumerate(sets):  # a strip at a time: memory of one sample against all
        sums = np.add.reduceat(cdist(cells, stacked).sum(0), starts)
        count = len(cells) * sizes
        count[k] -= len(cells)
        out[k] = sums / count
    return (out + out.T) / 2
