"""Is a cloud of cells one population or several? Groups, found and tested without testing cells on what they chose."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from scjepa._types import FloatArray
from scjepa.dynamics._dip import dip_pvalue

LEVELS = (2, 3, 4, 6)
"""Numbers of clusters that are tried: few for equal groups, many so that a small one is a cluster of its own."""
SHRINK = 0.3
"""Share of the mean variance in a within-group covariance: groups may have fewer cells than coordinates."""
WINDOWS = (2.0, 3.0)
"""A small group is tested within so many times its cells at its end of the axis too: among all cells it would drown."""


def best_split(cells: FloatArray, *, min_cells: int, levels: tuple[int, ...] = LEVELS) -> tuple[float, np.ndarray]:
    """Return how sure it is that cells are two groups or more, and which of two groups each belongs to.

    Clusters of a Ward tree, at several levels; two of them are apart if the cells between their centres have a dip (see
    :func:`dip`). A split counts as its weakest pair of clusters, so that a bent or uneven continuum, whose pieces all touch
    others, is no split. The lowest p-value of the levels is returned.

    Parameters
    ----------
    cells
        ``(n, d)`` cells.
    min_cells
        The smallest group that counts.
    levels
        Numbers of clusters.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics._splits import best_split
    >>> rng = np.random.default_rng(0)
    >>> cells = rng.normal(size=(100, 4))
    >>> best_split(cells, min_cells=5)[0] > 0.05
    True
    >>> cells[:12, 0] += 8
    >>> p, side = best_split(cells, min_cells=5)
    >>> p < 0.01, np.flatnonzero(side == side[0]).tolist() == list(range(12))
    (True, True)
    """
    n = len(cells)
    best, sides = 1.0, np.zeros(n, dtype=int)
    if n < 2 * min_cells:
        return best, sides
    tree = linkage(cells, "ward")
    known: dict[tuple[bytes, bytes], float] = {}
    for level in levels:
        label = fcluster(tree, level, "maxclust") - 1
        sets = [np.flatnonzero(label == j) for j in range(label.max() + 1)]
        if len(sets) < 2:
            continue
        apart = []
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                key = (sets[a].tobytes(), sets[b].tobytes())
                if key not in known:
                    known[key] = pair_pvalue(cells[sets[a]], cells[sets[b]])
                apart.append(1 - known[key])
        # single linkage on 1 - p: the last two groups to join are as far apart as their nearest clusters
        joined = linkage(np.array(apart), "single")
        p = 1 - joined[-1, 2]
        side = fcluster(joined, 2, "maxclust")[label] - 1
        if p < best and side.any() and min(side.sum(), n - side.sum()) >= min_cells:
            best, sides = float(p), side
    return best, sides


def groups(cells: FloatArray, *, alpha: float, min_cells: int) -> tuple[np.ndarray, float]:
    """Split cells again and again while it is sure that they are several groups.

    Returns
    -------
    Labels ``(n,)``, the largest group first, and the least sure p-value of the splits (1.0 for one group).
    """
    label, worst, todo = np.zeros(len(cells), dtype=int), 0.0, [np.arange(len(cells))]
    while todo:
        at = todo.pop()
        p, side = best_split(cells[at], min_cells=min_cells)
        if p <= alpha:
            worst = max(worst, p)
            label[at[side == 1]] = label.max() + 1
            todo += [at[side == 0], at[side == 1]]
    order = np.argsort(-np.bincount(label), kind="stable")
    return np.argsort(order)[label], worst if label.any() else 1.0


def pair_pvalue(a: FloatArray, b: FloatArray) -> float:
    """Return the p-value of the gap between two clusters, each cell on the axis of the others.

    The axis is the difference of the two means over their within-group covariance. Each cell is left out of its own mean:
    otherwise its own noise pulls it toward its side, and any cloud would fall apart.
    """
    means, sizes = (a.mean(0), b.mean(0)), (len(a), len(b))
    cells = np.vstack([a, b])
    first = (np.arange(len(cells)) < len(a))[:, None]
    left = [(n * m - cells) / max(n - 1, 1) for m, n in zip(means, sizes, strict=True)]
    from_a, from_b = np.where(first, left[0], means[0]), np.where(first, means[1], left[1])
    direction = np.linalg.solve(within(a, b), (from_b - from_a).T).T
    length = np.maximum(((from_b - from_a) * direction).sum(1), 1e-12)
    return gap_pvalue(((cells - (from_a + from_b) / 2) * direction).sum(1) / length, *sizes)


def gap_pvalue(along: FloatArray, n_low: int, n_high: int) -> float:
    """Return the p-value of the dip along an axis, in all cells or at the end where the smaller group is.

    A piece of a distribution with one mode has one mode, so that the second test is as honest as the first.
    """
    values = np.sort(along if n_low <= n_high else -along)
    ends = [int(w * min(n_low, n_high)) for w in WINDOWS]
    return min(dip_pvalue(values[:end]) for end in [len(values), *(e for e in ends if 4 <= e < len(values))])


def within(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the shrunken within-group covariance of two groups."""
    rest = np.vstack([a - a.mean(0), b - b.mean(0)])
    covariance = rest.T @ rest / max(len(rest) - 2, 1)
    scale = np.trace(covariance) / len(covariance) or 1.0
    return (1 - SHRINK) * covariance + SHRINK * scale * np.eye(len(covariance))
