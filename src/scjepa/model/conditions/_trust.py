"""What a prediction rests on: how its size was judged, how far it is from training, and whether to use it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines import Baseline, SelfJudging
from scjepa.baselines._noise import effect_noise, reliability
from scjepa.data import ConditionTable
from scjepa.model.conditions._conformal import Calibration
from scjepa.model.conditions._design import Words

FEW_CELLS = 3
"""A condition measured in fewer cells is as good as not measured."""
AXES = ("dose", "dose above", "dose below", "time", "time beyond")
"""Classes of questions about doses and times."""
MOST_REMARKS = 5
"""So many remarks stand in a note; all of them in the record."""
NEAR_ZERO = 0.1
"""A measured effect of which less than this share is not noise."""


@dataclass(frozen=True)
class Trust:
    """What is known of the answers to some questions; arrays run over these.

    Attributes
    ----------
    basis
        What judged the size of the effect: ``"left out"``, ``"sampling noise"`` or ``"none"``.
    support
        ``"trained"``, ``"near"`` or ``"far"``, or a word of the anchor's own (:meth:`scjepa.baselines.SelfJudging.remarks`).
    abstain
        Whether the effect had better not be used.
    distance
        Share of predictive variance that training leaves.
    parts
        Rows that share a calibration, and that.
    note
        A sentence to warn with, or an empty string.
    told
        Further columns on each question, of anchors that have any to say, or None.
    """

    basis: np.ndarray
    support: np.ndarray
    abstain: np.ndarray
    distance: FloatArray
    parts: list[tuple[np.ndarray, Calibration]]
    note: str
    told: pd.DataFrame | None = None

    def half_widths(self, effect: FloatArray, control: FloatArray, level: float) -> FloatArray:
        """Return half the widths of the intervals ``(m, genes)`` of predicted effects, given the control profiles."""
        out = np.zeros_like(effect)
        for rows, calibration in self.parts:
            out[rows] = calibration.half_widths(effect[rows], control[rows], self.distance[rows], level)
        return out

    def warn(self, stacklevel: int = 2) -> None:
        """Say what the reader of a prediction should know, at the line that called the caller of this."""
        if self.note:
            warnings.warn(self.note, UserWarning, stacklevel=stacklevel + 1)


def expected_gain(effect: FloatArray, slope: float, error: float) -> FloatArray:
    r"""Return which share of the squared error of "no change" predictions are expected to take off, ``(m,)``.

    If measured effects are :math:`b\,\hat\delta` plus an error of squared length :math:`e`, the prediction takes
    :math:`(2b - 1)|\hat\delta|^2` off :math:`(2b - 1)|\hat\delta|^2 + e`.

    Parameters
    ----------
    effect
        ``(m, genes)`` predicted effects.
    slope, error
        Of left-out conditions: slope of measured on predicted effects, mean squared length of the error.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model.conditions._trust import expected_gain
    >>> expected_gain(np.array([[1.0, 1.0], [0.1, 0.0]]), 1.0, 2.0).round(3).tolist()
    [0.5, 0.005]
    >>> expected_gain(np.array([[1.0, 1.0]]), 0.4, 2.0).tolist()
    [0.0]
    """
    gain = np.maximum((2 * slope - 1) * (np.asarray(effect) ** 2).sum(1), 0)
    return np.asarray(np.divide(gain, gain + error, out=np.zeros_like(gain), where=gain > 0))


def reliability_of(table: ConditionTable) -> dict[str, float | int]:
    """Return how much of the measured effects is not noise: median, number near zero, number of conditions."""
    noise = effect_noise(table.variance, table.n_cells, table.n_controls)
    if noise is None:
        return {}
    share = reliability((table.effects**2).sum(1), noise)
    return {"median": float(np.median(share)), "near_zero": int((share < NEAR_ZERO).sum()), "n": len(share)}


def note_of(
    anchor: Baseline,
    words: Words,
    *,
    classes: np.ndarray,
    basis: np.ndarray,
    abstain: np.ndarray,
    trained: np.ndarray,
    few: int,
    remarks: Sequence[tuple[str, str]] = (),
) -> str:
    """Write down, with numbers, what the reader of predictions should know before using them.

    Parameters
    ----------
    anchor
        What predicted them.
    words
        How the model speaks.
    classes, basis, abstain, trained
        ``(m,)`` of the questions; see :class:`Trust`.
    few
        How many were trained on in too few cells.
    remarks
        Label of a question and sentences on it, joined by ``"; "``.
    """
    said, m = [], len(classes)
    unjudged = (basis != "left out") & ~trained & (classes != "")
    if unjudged.any() and not isinstance(anchor, SelfJudging):
        name = getattr(anchor, "name", "anchor")
        said.append(f"the anchor {name!r} does not judge by left-out conditions how large effects should be")
    elif unjudged.any():
        n, items, done = len(set(anchor.table_.contexts.astype(str))), words.items, words.done
        why = {
            "context": f"of a context never trained on, after training in {n} context{'s' * (n > 1)}",
            "combination": f"fewer than three combinations were measured whose {items} were measured alone too",
            "single": f"no {words.item} was measured twice",
            "together": f"combinations {done} at other doses or in other contexts, of which too few were",
            "unseen": f"{items} never {done}, after training on fewer than three",
            "unseen context": f"{items} never {done}, of a context never trained on",
            "elsewhere": f"{items} {done} in other contexts only, of which too few were",
            **{
                name: f"at {name.split()[0]}s that were not measured, of which too few can be left out" for name in AXES
            },
        }
        reasons = "; ".join(why.get(c, f"of the class {c!r}") for c in dict.fromkeys(classes[unjudged]))
        noise = basis[unjudged] == "sampling noise"
        fixed = ~noise | (classes[unjudged] == "combination")
        how = "a fixed rule" if fixed.any() else "sampling noise alone"
        if fixed.any() and noise.any():
            how += " and sampling noise"
        said.append(
            f"no training condition could be left out that is like {int(unjudged.sum())} of {m} predicted conditions "
            f"({reasons}): their effects are shrunken by {how}"
        )
    doubtful = abstain & ~trained
    if doubtful.any():
        said.append(f"the model abstains on {int(doubtful.sum())} of {m} (no better than no change can be expected)")
    of: dict[str, list[str]] = {}
    for label, text in remarks:
        for part in filter(None, text.split("; ")):
            of.setdefault(part, []).append(label)
    lines = [f"{text} ({some(list(dict.fromkeys(labels)), 3)})" for text, labels in of.items()]
    said += lines[:MOST_REMARKS]
    if len(lines) > MOST_REMARKS:
        said.append(f"and {len(lines) - MOST_REMARKS} more such remarks, see the column 'remark'")
    if few:
        said.append(f"{few} of {m} were trained on in fewer than {FEW_CELLS} cells and are as good as not measured")
    if (classes == "context").any() and isinstance(anchor, SelfJudging):
        report = anchor.context_report()
        if report is not None and report.note:
            said.append(report.note + "; anchor=scjepa.baselines.KernelEffect(cautious=True) trusts them less")
    if not said:
        return ""
    known = reliability_of(anchor.table_)
    if known:
        said.append(
            f"reliability of the {known['n']} training conditions: median {known['median']:.2f}, {known['near_zero']} "
            f"below {NEAR_ZERO}"
        )
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def stated(
    labels: list[str],
    table: ConditionTable,
    trust: Trust | None,
    known: dict[str, Any],
    dose: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return what predictions carry of this in ``uns``; nothing for models that have no anchor.

    Parameters
    ----------
    labels
        Of the questions, as they were asked.
    table
        The questions.
    trust
        What is known of the answers.
    known
        :func:`reliability_of` the training conditions.
    dose
        ``(m,)`` doses as they are written into columns, or None.
    """
    if trust is None:
        return {}
    if trust.told is not None:
        extra = {name: column.to_numpy() for name, column in trust.told.items() if name != "support"}
    else:
        extra = {}
    conditions = pd.DataFrame(
        {
            "perturbation": labels,
            "context": table.contexts.astype(str),
            "basis": trust.basis.astype(str),
            "support": trust.support.astype(str),
            "abstain": trust.abstain,
            **extra,
        }
    )
    if dose is not None:
        conditions["dose"] = dose
    if table.time is not None:
        conditions["time"] = np.asarray(table.time, dtype=float)
    if table.kind is not None:
        conditions["kind"] = table.kind.astype(str)
    told: dict[str, Any] = {"conditions": conditions.rename(index=str), "note": trust.note}
    return {**told, "reliability": known} if known else told
