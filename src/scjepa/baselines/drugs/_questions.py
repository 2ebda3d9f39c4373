"""Classes of questions about drugs, and how training conditions are left out to judge each of them."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from scjepa.baselines._noise import Fold
from scjepa.baselines.drugs._rows import SAME_LEVEL, Rows, Scale, levels_of

CLASSES = (
    "single",
    "elsewhere",
    "together",
    "combination",
    "context",
    "dose",
    "dose above",
    "dose below",
    "time",
    "time beyond",
    "unseen",
    "unseen context",
)
"""Classes of questions; see :class:`scjepa.baselines.DrugEffect`."""
FEW_FOLDS, MANY_FOLDS, MANY_ROWS = 5, 10, 250
"""Training sets of up to ``MANY_ROWS`` rows are left out in more folds."""
NEW_CONTEXT = ("context", "unseen context")
"""Classes of questions about contexts without training rows."""


def classify(rows: Rows, query: Rows) -> np.ndarray:
    """Return the class of each question ``(m,)`` after training on ``rows``.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.drugs._questions import classify
    >>> from scjepa.baselines.drugs._rows import Rows
    >>> train = Rows(("A",), np.ones((2, 1)), np.array(["x", "x"]), dose=np.array([0.0, 2.0]))
    >>> asked = Rows(("A", "B"), np.eye(2)[[0, 0, 0, 1]], np.array([*"xxyx"]), dose=np.array([1.0, 3.0, 0.0, 0.0]))
    >>> classify(train, asked).tolist()
    ['dose', 'dose above', 'context', 'unseen']
    """
    out = np.full(len(query), "single", dtype=object)
    given: np.ndarray = np.asarray(rows.design.any(0))
    new = query.design[:, len(given) :].any(1) | (query.design[:, : len(given)] * ~given).any(1)
    for axis in reversed(query.axes):  # dose has the last word
        asked = getattr(query, axis)
        for j in np.flatnonzero(given & query.design[:, : len(given)].any(0)):
            mine = np.flatnonzero((query.design[:, j] > 0) & (query.order == 1))
            levels = rows.levels(axis, int(j))
            fresh = np.abs(asked[mine][:, None] - levels).min(1) > SAME_LEVEL
            below, above = fresh & (asked[mine] < levels[0]), fresh & (asked[mine] > levels[-1])
            if axis == "dose":
                out[mine[fresh]], out[mine[below]], out[mine[above]] = "dose", "dose below", "dose above"
            else:
                out[mine[fresh]], out[mine[below | above]] = "time", "time beyond"
    for j in np.flatnonzero(given):
        mine = np.flatnonzero(query.design[:, j] > 0)
        there = rows.contexts[rows.design[:, j] > 0]
        out[mine[~np.isin(query.contexts[mine], there)]] = "elsewhere"
    together = {row.tobytes() for row in rows.design[rows.order > 1]}
    for i in np.flatnonzero(query.order > 1):
        out[i] = "together" if query.design[i, : len(given)].tobytes() in together else "combination"
    elsewhere = ~np.isin(query.contexts, rows.contexts)
    out[elsewhere] = "context"
    out[new] = "unseen"
    out[new & elsewhere] = "unseen context"
    return out


def folds(rows: Rows, cls: str, described: Container[str] = ()) -> list[Fold]:
    """Return training rows and rows to judge by, for every part that is left out for a class of questions.

    Rows that are left out without being a question of the class are in neither. Drugs are left out as never given only if
    they are among those ``described`` by a structure, as drugs in such questions are.
    """
    found = []
    for left in _left_out(rows, cls, described):
        out, judged = left if isinstance(left, tuple) else (left, left)
        train = np.flatnonzero(~out)
        test = np.flatnonzero(judged)
        if not len(train) or not len(test):
            continue
        asked = classify(rows.take(train), rows.take(test))
        test = test[_fits(asked, cls)]
        if len(test):
            found.append((train, test))
    return found


def _fits(asked: np.ndarray, cls: str) -> np.ndarray:
    """Return which rows, left out, are questions of a class."""
    if cls == "single":  # a row left out may have been the only one at its dose, or of its drug there
        return ~np.isin(asked, ("together", "combination", "context", "unseen", "unseen context"))
    return asked == cls


def _left_out(rows: Rows, cls: str, described: Container[str]) -> list[np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Return masks of rows that are left out together, where they differ with masks of those to judge by."""
    n_folds = MANY_FOLDS if len(rows) <= MANY_ROWS else FEW_FOLDS
    single = rows.order == 1
    contexts = np.unique(rows.contexts)
    if cls == "single":
        return list(_dealt(np.arange(len(rows)), n_folds))
    if cls == "elsewhere":
        pair = rows.design.argmax(1) * len(contexts) + np.searchsorted(contexts, rows.contexts)
        return list(_dealt(np.where(single, pair, -1), n_folds))
    if cls == "together":
        return list(_dealt(np.where(single, -1, np.arange(len(rows))), n_folds))
    if cls == "combination":
        number = np.unique(rows.design, axis=0, return_inverse=True)[1].ravel()
        return [left & ~single for left in _dealt(np.where(single, -1, number), n_folds)]
    if cls == "context":
        return list(_dealt(np.searchsorted(contexts, rows.contexts), MANY_FOLDS)) if len(contexts) > 1 else []
    if cls in ("unseen", "unseen context"):
        drugs = _drug_folds(rows, n_folds, described)
        if cls == "unseen":
            return list(drugs)
        if len(contexts) < 2 or not drugs:
            return []
        where = list(_dealt(np.searchsorted(contexts, rows.contexts), n_folds))
        pairs = [(where[i % len(where)], drugs[i % len(drugs)]) for i in range(max(len(where), n_folds))]
        return [(here | those, here & those) for here, those in pairs]
    axis = "dose" if cls.startswith("dose") else "time"
    return _ends_or_inner(rows, axis, cls) if axis in rows.axes else []


def _ends_or_inner(rows: Rows, axis: str, cls: str) -> list[np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Leave out levels of dose or time, for all drugs at once: inner ones each, or the ends."""
    level, top = level_numbers(rows, axis)
    out: list[np.ndarray | tuple[np.ndarray, np.ndarray]] = []
    if cls == axis:
        inner = np.where((level > 0) & (level < top), level, -1)
        return list(_dealt(inner, FEW_FOLDS))
    for number, last in ((level, False), (top - level, True)):
        if (cls.endswith("above") and not last) or (cls.endswith("below") and last):
            continue
        out.append((number == 0) & (top > 0))
        out.append(((number <= 1) & (top > 1), (number == 1) & (top > 1)))
    return out


def level_numbers(rows: Rows, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's level and that of the highest: of all drugs where they share levels, else its own."""
    values = getattr(rows, axis)
    if axis == "time" or Scale.of(rows).tops is None:
        levels = levels_of(values)
        return np.abs(values[:, None] - levels).argmin(1), np.full(len(rows), len(levels) - 1)
    level, top = np.zeros(len(rows), int), np.zeros(len(rows), int)
    first = rows.design.argmax(1)
    for j in np.unique(first):
        mine = np.flatnonzero(first == j)
        levels = levels_of(values[mine])
        level[mine], top[mine] = np.abs(values[mine][:, None] - levels).argmin(1), len(levels) - 1
    return level, top


def _drug_folds(rows: Rows, n_folds: int, described: Container[str]) -> list[np.ndarray]:
    """Leave described drugs out with all rows they are part of; folds have about as many rows."""
    given = np.flatnonzero(rows.design.any(0) & np.array([name in described for name in rows.drugs], dtype=bool))
    if len(given) < 3:
        return []
    k = min(n_folds, len(given))
    load, parts = np.zeros(k), [np.zeros(len(rows), bool) for _ in range(k)]
    for j in given[np.random.default_rng(0).permutation(len(given))]:
        fold = int(load.argmin())
        mine = rows.design[:, j] > 0
        parts[fold] |= mine
        load[fold] += mine.sum()
    return parts


def _dealt(number: np.ndarray, n_folds: int) -> list[np.ndarray]:
    """Deal numbered units (-1: never left out) into folds of masks, shuffled with seed 0 if there are more than folds."""
    units = np.unique(number[number >= 0])
    if len(units) > n_folds:
        units = units[np.random.default_rng(0).permutation(len(units))]
    return [np.isin(number, units[start::n_folds]) for start in range(min(n_folds, len(units)))]


def units(rows: Rows, cls: str, index: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return what varies together among judged rows, ``(len(index),)`` numbers: contexts, or else first drugs."""
    index = np.asarray(index)
    if cls == "context":
        return np.unique(rows.contexts[index], return_inverse=True)[1]
    return rows.design[index].argmax(1)


def left_with(rows: Rows, cls: str) -> np.ndarray:
    """Return boolean ``(n, n)``: row ``j`` is not to be looked at when row ``i`` is judged as a question of a class."""
    here = rows.contexts[:, None] == rows.contexts[None]
    shared = rows.design @ rows.design.T > 0
    if cls == "context":
        return here
    if cls == "unseen":
        return shared
    if cls == "unseen context":
        return shared | here
    if cls == "elsewhere":
        return shared & here
    same = (rows.design[:, None] == rows.design[None]).all(2)
    if cls == "combination":
        return same
    if cls in ("single", "together"):
        return np.eye(len(rows), dtype=bool)
    level, _ = level_numbers(rows, "dose" if cls.startswith("dose") else "time")
    return same & (level[:, None] == level)
