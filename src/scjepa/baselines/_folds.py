"""What the kernel anchor leaves out for each class of question, and which rows that can judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse as sp

from scjepa.baselines._noise import Fold
from scjepa.data import ConditionTable

MAX_FOLDS, MANY_UNITS, FEW_FOLDS = 32, 320, 10
"""At most 32 folds; 10 when there are more than 320 things to leave out (each fold is a set of decompositions)."""


def condition_folds(table: ConditionTable) -> list[Fold]:
    """Leave every condition out once: a single row by row, a combination with all its contexts, doses and kinds.

    A question about a single is about a gene that was seen (elsewhere, or in combinations); one about a combination is
    mostly about one that was not seen anywhere.
    """
    units: dict[object, list[int]] = {}
    for i, action in enumerate(table.actions):
        units.setdefault(action if len(action) > 1 else i, []).append(i)
    rows = list(units.values())
    strata = [min(len(table.actions[unit[0]]), 2) for unit in rows]
    return _folds(len(table), [sum((rows[u] for u in fold), []) for fold in unit_folds(rows, strata, _number(rows))])


def context_folds(table: ConditionTable) -> list[Fold]:
    """Leave every context out once; none when there is only one."""
    labels = table.contexts.astype(str)
    units = [np.flatnonzero(labels == c).tolist() for c in np.unique(labels)]
    folds = unit_folds(units, [0] * len(units), _number(units))
    return _folds(len(table), [sum((units[u] for u in fold), []) for fold in folds])


def gene_folds(table: ConditionTable) -> list[Fold]:
    """Leave every perturbed gene out once, with all rows it is part of."""
    has = incidence(table).tocsc()
    genes = range(has.shape[1])
    folds = unit_folds([[j] for j in genes], [0] * len(genes), _number(genes))
    return _folds(len(table), [np.unique(has[:, fold].indices).tolist() for fold in folds])


def folds_of(way: str, table: ConditionTable) -> list[Fold]:
    """Return what is left out for a class of questions: ``"context"``, ``"unseen"`` genes, for all others conditions."""
    return {"context": context_folds, "unseen": gene_folds}.get(way, condition_folds)(table)


def _number(units: Sequence[object]) -> int:
    """Return how many folds to deal ``units`` into."""
    return MAX_FOLDS if len(units) <= MANY_UNITS else FEW_FOLDS


def _folds(n: int, left_out: Iterable[Sequence[int]]) -> list[Fold]:
    """Turn lists of left-out rows into folds; a fold that leaves nothing to train on is dropped."""
    out = []
    for rows in left_out:
        test = np.zeros(n, bool)
        test[list(rows)] = True
        if 0 < test.sum() < n:
            out.append((np.flatnonzero(~test), np.flatnonzero(test)))
    return out


def supported_rows(table: ConditionTable, folds: Sequence[Fold], *, alone: bool = False) -> np.ndarray:
    """Return a boolean ``(n,)``: rows that are left out and whose genes all remain in the training part.

    With ``alone=True`` the genes of a combination must remain as singles: a gene that is left in one other combination
    only gets that combination's effect, which says little about choices for combinations of measured singles.
    """
    has = incidence(table)
    single = sp.diags_array((table.order == 1).astype(float)) @ has
    total, total_alone = has.sum(0), single.sum(0)
    out = np.zeros(len(table), bool)
    for _, test in folds:
        asked = has[test]
        lost = total == asked.sum(0)  # nothing of it remains
        out[test] = asked @ lost.astype(int) == 0
        if alone:
            lost = total_alone == single[test].sum(0)
            out[test] &= (asked @ lost.astype(int) == 0) | (table.order[test] == 1)
    return out


def incidence(table: ConditionTable) -> sp.csr_array:
    """Return ``(n, vocabulary)``: 1 where a row perturbs a gene, without the zeros."""
    column = {name: j for j, name in enumerate(table.vocabulary())}
    places = [(i, column[name]) for i, action in enumerate(table.actions) for name in set(action)]
    rows, columns = np.array(places, dtype=int).reshape(-1, 2).T
    return sp.csr_array((np.ones(len(rows), int), (rows, columns)), shape=(len(table), len(column)))


def unit_folds(units: Sequence[Sequence[int]], strata: Sequence[int], n_folds: int) -> list[list[int]]:
    """Deal units (groups of rows that are left out together) into at most ``n_folds`` folds of unit numbers.

    Up to ``n_folds`` units are left out one by one. More are shuffled within their stratum (seed 0) and dealt round
    robin, so every fold has its share of each stratum.

    Examples
    --------
    >>> from scjepa.baselines._folds import unit_folds
    >>> unit_folds([[0], [1, 2], [3]], [0, 0, 0], n_folds=32)
    [[0], [1], [2]]
    >>> sorted(map(len, unit_folds([[i] for i in range(5)], [0] * 5, n_folds=2)))
    [2, 3]
    """
    if len(units) <= n_folds:
        return [[u] for u in range(len(units))]
    shuffled = np.random.default_rng(0).permutation(len(units))
    dealt = shuffled[np.argsort(np.asarray(strata)[shuffled], kind="stable")]
    return [sorted(dealt[start::n_folds].tolist()) for start in range(n_folds)]
