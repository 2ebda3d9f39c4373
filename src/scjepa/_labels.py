"""The grammar of perturbation labels: ``"A"``, ``"A+B"``, ``"A+ctrl"`` and the control."""

from __future__ import annotations

from collections.abc import Iterable

CONTROL_TOKENS = frozenset({"ctrl", "control"})
"""Tokens that mean "no second perturbation" inside a combination, besides the control label itself."""

Action = tuple[str, ...]
"""Sorted names of what was perturbed; the empty tuple is the control."""


def parse_label(label: object, control: str = "control", separator: str = "+") -> Action:
    """Read one perturbation label as a sorted tuple of the perturbed genes.

    Parameters
    ----------
    label
        ``"A"``, ``"A+B"`` (any number, any order), ``"A+ctrl"`` (read as ``"A"``) or the control label.
    control
        The label of control cells.
    separator
        What stands between the parts of a combination.

    Returns
    -------
    The sorted genes; empty for the control.

    Raises
    ------
    ValueError
        If a part of the label is empty, as in ``"A++B"``, or ends within brackets, as those of ``"(+)-A"``.

    Examples
    --------
    >>> from scjepa._labels import parse_label
    >>> parse_label("KLF1+BAK1"), parse_label("KLF1+ctrl"), parse_label("control")
    (('BAK1', 'KLF1'), ('KLF1',), ())
    """
    text, control = str(label).strip(), str(control)
    if text == control:
        return ()
    parts = [part.strip() for part in text.split(separator)]
    if not all(parts):
        raise ValueError(
            f"perturbation label {text!r} has an empty part around {separator!r}. "
            f"Write combinations as 'A{separator}B'."
        )
    torn = [p for p in parts if p.count("(") != p.count(")") or p.count("[") != p.count("]")]
    if torn and len(parts) > 1:
        raise ValueError(
            f"perturbation label {text!r} would be read as a combination of {' and '.join(map(repr, parts))}. If it is one "
            f"name, rename it, or choose another separator= than {separator!r}."
        )
    return tuple(sorted({p for p in parts if p != control and p not in CONTROL_TOKENS}))


def parse_labels(labels: Iterable[object], control: str = "control", separator: str = "+") -> dict[str, Action]:
    """Map every distinct label to its :func:`parse_label` tuple.

    Examples
    --------
    >>> from scjepa._labels import parse_labels
    >>> parse_labels(["B+A", "control", "B+A"])
    {'B+A': ('A', 'B'), 'control': ()}
    """
    return {str(label): parse_label(label, control, separator) for label in dict.fromkeys(labels)}
