"""Descent between clusters: how many of a cluster's cells come from which cluster of the time before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scjepa._types import FloatArray
from scjepa.dynamics._walk import _one_hot, _require_stochastic, _square, read_fates, snapshots

FLOWS = ("time", "next_time", "source", "target", "flow", "descent", "ancestry")
PARENTS = ("time", "cluster", "cells", "parent", "share", "second", "second_share")


class Lineage(NamedTuple):
    """Descent of clusters."""

    flows: pd.DataFrame
    """The graph, one row an edge: ``time``, ``next_time``, ``source``, ``target`` (clusters at these times), ``flow`` (share of all
    cells of ``time`` that take it), ``descent`` (of the source's cells) and ``ancestry`` (of what arrives at the target)."""
    parents: pd.DataFrame
    """The tree, one row a cluster and time, each with the cluster before that most of it comes from: ``time``, ``cluster``, ``cells``,
    ``parent`` (``""`` at the first time and where nothing arrives), ``share``, ``second`` and ``second_share``: a second parent of a
    like share says that a tree tells only half of it."""


def lineage_relations(
    clusters: Sequence[Any] | np.ndarray | pd.Series,
    times: FloatArray,
    transition: sp.csr_matrix,
    *,
    least: float = 0.05,
) -> Lineage:
    r"""Count descent between clusters of neighbouring times.

    Parameters
    ----------
    clusters
        ``(n,)`` labels of cells, of all times.
    times
        ``(n,)``.
    transition
        ``(n, n)`` sparse, rows of sum one: see :func:`transition_matrix`.
    least
        Edges that are below this share both of what leaves the source and of what arrives at the target are left out.

    Returns
    -------
    The graph of flows, and the tree of main parents.

    Raises
    ------
    ValueError
        For shapes that don't fit, cells without a cluster, fewer than two times.

    References
    ----------
    Ancestors and descendants of sets of cells by transport: Schiebinger et al. 2019, *Cell* 176.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from scjepa.dynamics import lineage_relations
    >>> chain = sp.csr_matrix([[0, 0.25, 0.75], [0, 1, 0], [0, 0, 1]])
    >>> found = lineage_relations(["stem", "left", "right"], np.array([0, 1, 1]), chain)
    >>> found.flows[["source", "target", "descent"]].values.tolist()
    [['stem', 'left', 0.25], ['stem', 'right', 0.75]]
    """
    chain = _square(transition, "transition", None)
    _require_stochastic(chain)
    n = chain.shape[0]
    names, code = read_fates(clusters, n)
    if (code < 0).any():
        raise ValueError(f"clusters: {int((code < 0).sum())} of {n} cells have none. Label these cells or drop them.")
    if isinstance(least, bool) or not 0 <= least <= 1:
        raise ValueError(f"least={least!r}: expected a share from 0 to 1.")
    members = snapshots(times, n)
    levels = np.unique(np.asarray(times, dtype=np.float64))
    indicator = _one_hot(code, len(names))
    flows, parents = [], []
    for k, cells in enumerate(members):
        count = indicator[cells].sum(0)
        present = np.flatnonzero(count)
        if k == 0:
            parents += [(levels[0], names[c], int(count[c]), "", np.nan, "", np.nan) for c in present]
            continue
        before = members[k - 1]
        flow = indicator[before].T @ np.asarray(chain[before][:, cells] @ indicator[cells]) / len(before)
        leaves, arrives = flow.sum(1, keepdims=True), flow.sum(0, keepdims=True)
        descent = np.divide(flow, leaves, out=np.zeros_like(flow), where=leaves > 0)
        ancestry = np.divide(flow, arrives, out=np.zeros_like(flow), where=arrives > 0)
        kept = (flow > 0) & ((descent >= least) | (ancestry >= least))
        flows += [
            (levels[k - 1], levels[k], names[i], names[j], flow[i, j], descent[i, j], ancestry[i, j])
            for i, j in zip(*np.nonzero(kept), strict=True)
        ]
        for c in present:
            order = np.argsort(-ancestry[:, c], kind="stable")
            share = ancestry[order, c]
            first = names[order[0]] if share[0] > 0 else ""
            other = len(order) > 1 and share[1] > 0
            parents.append(
                (levels[k], names[c], int(count[c]), first, share[0] if first else np.nan,
                 names[order[1]] if other else "", share[1] if other else 0.0)
            )  # fmt: skip
    return Lineage(pd.DataFrame(flows, columns=list(FLOWS)), pd.DataFrame(parents, columns=list(PARENTS)))
