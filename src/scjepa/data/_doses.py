"""Doses of conditions: one number for all items of a condition, or one for each item of a combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scjepa._checks import require_column, require_numbers, some
from scjepa._labels import CONTROL_TOKENS, Action
from scjepa._types import FloatArray

Dose = float | tuple[float, ...]
"""One number for all items of an action, or one for each, in the order of the (sorted) action."""


def read_dose(value: Any, label: str, *, control: str = "control", separator: str = "+") -> tuple[Action, Dose]:
    """Read what stands in a dose column, or was asked for, beside a label.

    Parameters
    ----------
    value
        A number for all parts; text with a number for each part in the order of the label (``"1+0.5"``); or a mapping
        from part to number.
    label
        ``"A"``, ``"B+A"``, or the control.
    control, separator
        See :func:`scjepa._labels.parse_label`.

    Returns
    -------
    The action, without parts of dose 0 (unless all are), and its dose: a number where all parts have the same.

    Raises
    ------
    ValueError
        For values that are no number of at least 0 for each part.

    Examples
    --------
    >>> from scjepa.data._doses import read_dose
    >>> read_dose("1+0.5", "B+A"), read_dose("1+0", "B+A"), read_dose({"A": 2, "B": 2}, "A+B")
    ((('A', 'B'), (0.5, 1.0)), (('B',), 1.0), (('A', 'B'), 2.0))
    """
    parts = parts_of(label, control, separator)
    numbers = _numbers(value, parts, label, separator)
    if not parts:
        return (), numbers[0]
    of: dict[str, float] = {}
    for part, number in zip(parts, numbers, strict=True):
        if of.get(part, number) != number:
            raise ValueError(f"dose={value!r} of {label!r}: {part!r} has two doses, {of[part]:g} and {number:g}.")
        of[part] = number
    action = tuple(sorted(of))
    given = tuple(name for name in action if of[name] > 0) or action
    doses = tuple(of[name] for name in given)
    return given, doses[0] if len(set(doses)) == 1 else doses


def write_dose(
    label: str, action: Action, dose: Dose, *, control: str = "control", separator: str = "+"
) -> float | str:
    """Return what is written into a dose column beside a label: a number, or ``"1+0.5"`` in the order of the label.

    Examples
    --------
    >>> from scjepa.data._doses import write_dose
    >>> write_dose("B+A", ("A", "B"), (0.5, 1.0)), write_dose("B+A", ("B",), 1.0), write_dose("A+B", ("A", "B"), 2.0)
    ('1+0.5', '1+0', 2.0)
    """
    parts = parts_of(label, control, separator)
    of = dict(zip(action, dose if isinstance(dose, tuple) else (dose,) * len(action), strict=True))
    numbers = [of.get(part, 0.0) for part in parts]
    if len(set(numbers)) <= 1:
        return float(numbers[0]) if numbers else float(np.max(dose))
    return separator.join(f"{number:.12g}" for number in numbers)


def parts_of(label: str, control: str, separator: str) -> list[str]:
    """Return the parts of a label in its own order, without controls."""
    text = str(label).strip()
    if text == control:
        return []
    return [part for part in map(str.strip, text.split(separator)) if part != control and part not in CONTROL_TOKENS]


def _numbers(value: Any, parts: Sequence[str], label: str, separator: str) -> list[float]:
    if isinstance(value, Mapping):
        given = {str(name): number for name, number in value.items()}
        lost, more = sorted(set(parts) - set(given)), sorted(set(given) - set(parts))
        if lost or more:
            raise ValueError(
                f"dose={dict(value)!r} of {label!r}: expected one for each part; missing {some(lost) or 'none'}, not in "
                f"the label {some(more) or 'none'}."
            )
        raw = [given[part] for part in parts]
    elif isinstance(value, str) and separator in value and not _is_number(value):
        raw = value.split(separator)
        if len(raw) != len(parts):
            raise ValueError(
                f"dose={value!r} has {len(raw)} numbers for the {len(parts)} parts of {label!r}. Give one number for all "
                f"parts, or one for each, in the order of the label: '1{separator}0.5'."
            )
    else:
        raw = [value] * max(len(parts), 1)
    out = []
    for number in raw:
        if isinstance(number, bool) or not _is_number(number) or not 0 <= float(number) < np.inf:
            raise ValueError(
                f"dose={value!r} of {label!r}: expected numbers of at least 0, one for all parts or one for each "
                f"('1{separator}0.5')."
            )
        out.append(float(number))
    return out


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def is_text(column: pd.Series) -> bool:
    """Return whether a dose column holds text that is not all plain numbers: doses of each part of combinations."""
    return bool(pd.to_numeric(column.astype(object), errors="coerce")[column.notna().to_numpy()].isna().any())


def dose_column(
    obs: pd.DataFrame, dose_key: str, label_key: str, *, control: str = "control", separator: str = "+"
) -> FloatArray:
    """Read the column of doses.

    Parameters
    ----------
    obs
        Table of cells.
    dose_key, label_key
        Columns of doses (numbers, or text as in :func:`read_dose`) and of labels.
    control, separator
        See :func:`scjepa._labels.parse_label`.

    Returns
    -------
    ``(n,)`` numbers; or ``(n, k)`` where any combination has a dose for each part: one for each item of the label in
    sorted order, zeros where an item was not given, NaN beyond the last.

    Raises
    ------
    KeyError, ValueError
        For an absent column, missing values, and what is no number of at least 0 for each part.
    """
    column = require_column(obs, dose_key, "dose_key")
    if not is_text(column):
        return require_numbers(obs, dose_key, "dose_key", minimum=0.0)
    if column.isna().any():
        raise ValueError(
            f"dose_key={dose_key!r}: {int(column.isna().sum())} of {len(column)} values are missing. Fill them in; controls "
            "have 0."
        )
    pairs = pd.MultiIndex.from_arrays([obs[label_key].astype(str), column.astype(str)])
    code, distinct = pairs.factorize()
    read: list[list[float]] = []
    wrong: dict[int, str] = {}
    for i, (label, text) in enumerate(distinct):
        parts = sorted(set(parts_of(label, control, separator)))
        try:
            action, dose = read_dose(text, label, control=control, separator=separator)
        except ValueError as error:
            wrong[i] = str(error)
            continue
        of = dict(zip(action, dose if isinstance(dose, tuple) else (dose,) * len(action), strict=True))
        read.append([of.get(part, 0.0) for part in parts] or [0.0])
    if wrong:
        raise ValueError(
            f"dose_key={dose_key!r}: {int(np.isin(code, list(wrong)).sum())} of {len(column)} values are no doses of their "
            f"labels; the first: {next(iter(wrong.values()))}"
        )
    width = max(map(len, read))
    table = np.array([[*row, *[np.nan] * (width - len(row))] for row in read])
    return compact(table)[code]


def compact(dose: FloatArray) -> FloatArray:
    """Return doses ``(m, k)`` as ``(m,)`` if all items of each row have the same."""
    if dose.ndim == 1:
        return dose
    if dose.shape[1] == 0:
        return np.zeros(len(dose))
    same = (np.isnan(dose) | (dose == dose[:, :1])).all()
    return dose[:, 0] if same else dose


def as_matrix(doses: Sequence[Dose]) -> FloatArray:
    """Return doses of conditions as numbers, ``(m,)``, or ``(m, k)`` with NaN beyond the last item.

    A number stands in all columns of its row, so that it holds for however many items.
    """
    width = max((len(dose) for dose in doses if isinstance(dose, tuple)), default=1)
    rows = [[*dose, *[np.nan] * (width - len(dose))] if isinstance(dose, tuple) else [dose] * width for dose in doses]
    return compact(np.array(rows, dtype=float).reshape(len(rows), width))


def dose_values(dose: npt.ArrayLike, actions: Sequence[Action]) -> list[Dose]:
    """Return the dose of each condition as something hashable.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data._doses import dose_values
    >>> dose_values(np.array([[1.0, 2.0], [3.0, np.nan]]), [("A", "B"), ("A",)])
    [(1.0, 2.0), 3.0]
    """
    dose = np.asarray(dose, dtype=float)
    if dose.ndim == 1:
        return dose.tolist()
    out: list[Dose] = []
    for row, action in zip(dose, actions, strict=True):
        each = tuple(float(d) for d in row[: max(len(action), 1)])
        out.append(each[0] if len(set(each)) == 1 else each)
    return out


def dose_matrix(dose: npt.ArrayLike, actions: Sequence[Action], names: Sequence[str]) -> FloatArray:
    """Return ``(m, names)`` the dose of each item of each condition, 0 for those not given.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data._doses import dose_matrix
    >>> dose_matrix(np.array([[1.0, 2.0], [3.0, np.nan]]), [("A", "B"), ("B",)], ["B", "A"]).tolist()
    [[2.0, 1.0], [3.0, 0.0]]
    """
    column = {name: j for j, name in enumerate(names)}
    out = np.zeros((len(actions), len(names)))
    for i, (value, action) in enumerate(zip(dose_values(dose, actions), actions, strict=True)):
        each = value if isinstance(value, tuple) else (value,) * len(action)
        for name, number in zip(action, each, strict=True):
            if name in column:
                out[i, column[name]] = number
    return out


def no_dose(dose: npt.ArrayLike) -> np.ndarray:
    """Return a boolean ``(m,)``: conditions at dose zero."""
    dose = np.asarray(dose, dtype=float)
    return np.asarray(dose == 0 if dose.ndim == 1 else ~(dose > 0).any(1))


def joined_doses(a: FloatArray | None, b: FloatArray | None) -> FloatArray | None:
    """Return doses of some conditions and then of others; None if either has none."""
    if a is None or b is None:
        return None
    if a.ndim == b.ndim == 1:
        return np.concatenate([a, b])
    width = max(x.shape[1] for x in (a, b) if x.ndim == 2)
    wide = lambda x: (
        np.repeat(x[:, None], width, 1)
        if x.ndim == 1
        else np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=np.nan)
    )
    return np.vstack([wide(a), wide(b)])
