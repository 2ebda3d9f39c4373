"""Which cells are controls and which belong to which condition (perturbation x context), with controls matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scjepa._checks import require_member, some
from scjepa._labels import Action, parse_labels
from scjepa._types import FloatArray
from scjepa.data._doses import Dose, compact, dose_values

SINGLE_CONTEXT = "all"
"""The context of every cell when no ``context_key`` is given."""


@dataclass(frozen=True)
class CellGroups:
    """Which cells are controls and which belong to which condition.

    Attributes
    ----------
    actions, contexts, dose, kind, time
        One entry per condition (see :class:`ConditionTable`).
    cells
        Indices of the perturbed cells of each condition.
    controls
        Indices of all control cells of each context.
    batches
        ``(n,)`` batch codes of all cells, or None; controls are weighted to the batches of the perturbed cells.
    """

    actions: tuple[Action, ...]
    contexts: np.ndarray
    cells: tuple[np.ndarray, ...]
    controls: dict[str, np.ndarray]
    dose: FloatArray | None = None
    kind: np.ndarray | None = None
    batches: np.ndarray | None = None
    time: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def doses(self) -> list[Dose]:
        """The dose of each condition: a number, or a tuple of one for each item; empty without doses."""
        return [] if self.dose is None else dose_values(self.dose, self.actions)

    def rows(self, index: Sequence[int] | np.ndarray) -> CellGroups:
        """Return the conditions ``index`` as groups of their own."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(int)
        return replace(
            self,
            actions=tuple(self.actions[i] for i in index),
            contexts=self.contexts[index],
            cells=tuple(self.cells[i] for i in index),
            dose=None if self.dose is None else self.dose[index],
            kind=None if self.kind is None else self.kind[index],
            time=None if self.time is None else self.time[index],
        )

    def within(self, cells: np.ndarray, controls: np.ndarray | None = None) -> CellGroups:
        """Keep only some cells; conditions left without cells go.

        Parameters
        ----------
        cells
            ``(n,)`` boolean mask of the perturbed cells to keep.
        controls
            ``(n,)`` boolean mask of the control cells to keep, by default ``cells``.

        Raises
        ------
        ValueError
            If a context with perturbed cells loses all its controls.
        """
        controls = cells if controls is None else controls
        kept = {c: i[controls[i]] for c, i in self.controls.items()}
        members = [i[cells[i]] for i in self.cells]
        rows = np.flatnonzero([len(i) > 0 for i in members])
        left = self.rows(rows)
        lost = sorted({str(c) for c in left.contexts if not len(kept[str(c)])})
        if lost:
            raise ValueError(
                f"{len(lost)} contexts keep perturbed cells but no control cells after the split: {some(lost)}. "
                "Raise train_size or hold out other cells."
            )
        return replace(left, cells=tuple(members[i] for i in rows), controls={c: i for c, i in kept.items() if len(i)})

    @cached_property
    def control_strata(self) -> tuple[list[np.ndarray], list[tuple[np.ndarray, FloatArray]]]:
        """Controls cut by context and batch, and how much each piece counts for every condition.

        The first item holds the cells of each stratum. The second has for every condition the numbers of its strata
        and their weights (sum 1), which match the batch composition of its cells; batches of the condition without
        any control in its context are matched by all controls of the context. A screen has few strata but many
        pairs of a condition and a control, which are therefore never listed.
        """
        strata: list[np.ndarray] = []
        of_context: dict[str, tuple[np.ndarray, np.ndarray, FloatArray]] = {}
        for context in sorted({str(c) for c in self.contexts}):
            cells = self.controls[context]
            codes = np.zeros(len(cells), int) if self.batches is None else self.batches[cells]
            found, code, count = np.unique(codes, return_inverse=True, return_counts=True)
            numbers = len(strata) + np.arange(len(found))
            strata += np.split(cells[np.argsort(code, kind="stable")], np.cumsum(count)[:-1])
            of_context[context] = numbers, found, count / len(cells)
        weights = []
        for context, cells in zip(self.contexts, self.cells, strict=True):
            numbers, found, share = of_context[str(context)]
            wanted = np.zeros(len(found))
            if self.batches is not None:
                own, count = np.unique(self.batches[cells], return_counts=True)
                matched = np.isin(own, found)
                wanted[np.searchsorted(found, own[matched])] = count[matched] / len(cells)
            weights.append((numbers, wanted + (1 - wanted.sum()) * share))
        return strata, weights

    def control_weights(self, i: int) -> tuple[np.ndarray, FloatArray]:
        """Return the control cells of condition ``i`` and their weights (sum 1), see :attr:`control_strata`."""
        strata, weights = self.control_strata
        pieces = [strata[number] for number in weights[i][0]]
        per_cell = [np.full(len(p), w / len(p)) for p, w in zip(pieces, weights[i][1], strict=True)]
        return np.concatenate(pieces), np.concatenate(per_cell)


def group_cells(
    labels: Sequence[str] | np.ndarray,
    *,
    control: str = "control",
    separator: str = "+",
    contexts: np.ndarray | None = None,
    dose: FloatArray | None = None,
    kind: np.ndarray | None = None,
    time: FloatArray | None = None,
    batches: np.ndarray | None = None,
) -> CellGroups:
    """Group cells into conditions and controls.

    Parameters
    ----------
    labels
        ``(n,)`` perturbation labels; ``"B+A"`` and ``"A+B"`` are one condition.
    control, separator
        See :func:`scjepa._labels.parse_label`.
    contexts, dose, kind, time, batches
        ``(n,)`` values per cell, or None. Doses may be ``(n, k)``, one for each item of the sorted action (NaN beyond the
        last): items at dose 0 beside others were not given, ``"A+B"`` at 1 and 0 is ``"A"`` at 1.

    Returns
    -------
    The groups; conditions are sorted by action, context, dose, kind and time, so that cell order does not matter.

    Raises
    ------
    ValueError
        If no cell carries the control label, a context with perturbed cells has no controls, or lengths differ.
    """
    for name, column in {"contexts": contexts, "dose": dose, "kind": kind, "time": time, "batches": batches}.items():
        if column is not None and len(column) != len(labels):
            raise ValueError(f"{name} has {len(column)} values for {len(labels)} labels: give one for each cell.")
    names, name_of = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    require_member(control, [name.strip() for name in names], "control", where="the perturbation labels")
    parsed = parse_labels(names, control, separator)
    known = sorted(set(parsed.values()))
    number = {action: i for i, action in enumerate(known)}
    action_of = np.array([number[parsed[name]] for name in names], dtype=np.int64)[name_of]
    n = len(action_of)
    where = np.full(n, SINGLE_CONTEXT, dtype=object) if contexts is None else np.asarray(contexts).astype(str)
    if dose is not None and dose.ndim == 2:
        action_of, dose, known = _given(action_of, dose, known)
    is_control = np.array([not action for action in known], dtype=bool)[action_of]
    places, place_of = np.unique(where.astype(str), return_inverse=True)
    controls = {str(c): np.flatnonzero(is_control & (place_of == j)) for j, c in enumerate(places)}
    controls = {c: cells for c, cells in controls.items() if len(cells)}
    lost = sorted({str(c) for c in places[np.unique(place_of[~is_control])]} - set(controls))
    if lost:
        raise ValueError(
            f"{len(lost)} contexts have perturbed cells but no control cells (label {control!r}): {some(lost)}. "
            "Add controls of these contexts, merge contexts, or drop their cells."
        )
    doses, dose_of = np.unique(
        np.zeros(n) if dose is None else np.nan_to_num(dose, nan=-1.0), axis=0, return_inverse=True
    )
    doses, dose_of = np.where(doses < 0, np.nan, doses), dose_of.ravel()
    kinds, kind_of = np.unique(np.zeros(n, int) if kind is None else kind.astype(str), return_inverse=True)
    times, time_of = np.unique(np.zeros(n) if time is None else time, return_inverse=True)
    cells = np.flatnonzero(~is_control)
    shape = (len(known), len(places), len(doses), len(kinds), len(times))
    place = (action_of[cells], place_of[cells], dose_of[cells], kind_of[cells], time_of[cells])
    code, condition_of = np.unique(np.ravel_multi_index(place, shape), return_inverse=True)
    members = np.split(cells[np.argsort(condition_of, kind="stable")], np.cumsum(np.bincount(condition_of))[:-1])
    a, c, d, k, t = np.unravel_index(code, shape)
    return CellGroups(
        actions=tuple(known[i] for i in a),
        contexts=places[c].astype(object),
        cells=tuple(members) if len(code) else (),
        controls=controls,
        dose=None if dose is None else compact(doses[d]),
        kind=None if kind is None else kinds[k].astype(object),
        time=None if time is None else times[t],
        batches=batches,
    )


def _given(action_of: np.ndarray, dose: FloatArray, known: list[Action]) -> tuple[np.ndarray, FloatArray, list[Action]]:
    """Leave items at dose 0 out of the actions of cells where others were given; -1 stands beyond the last item."""
    pairs, pair_of = np.unique(np.column_stack([action_of, np.nan_to_num(dose, nan=-1.0)]), axis=0, return_inverse=True)
    actions: list[Action] = []
    doses = np.full((len(pairs), dose.shape[1]), -1.0)
    for i, (number, *each) in enumerate(pairs):
        action = known[int(number)]
        kept = [j for j in range(len(action)) if each[j] > 0] or list(range(len(action)))
        actions.append(tuple(action[j] for j in kept))
        doses[i, : max(len(kept), 1)] = [each[j] for j in kept] or [0.0]
    left = sorted(set(actions))
    number_of = {action: i for i, action in enumerate(left)}
    code = np.array([number_of[action] for action in actions], dtype=np.int64)
    return code[pair_of.ravel()], np.where(doses < 0, np.nan, doses)[pair_of.ravel()], left
