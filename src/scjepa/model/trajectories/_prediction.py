"""Predicted cells at times: what they were, how they are written down, and what is said of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.dynamics import Times
from scjepa.model.trajectories._courses import Courses
from scjepa.model.trajectories._residual import Residual

WORDS = {
    "copy": "a copy of the nearest snapshot, which nothing reliably beats; don't use it as a forecast",
    "trend": "the last snapshot, moved along the trend that left-out times bear out",
}
"""What predictions beyond the measured times are, by :meth:`scjepa.baselines.times.Interpolant.kind`."""


class Predicted(NamedTuple):
    """Cells predicted at one time."""

    x: FloatArray
    """``(n, genes)``."""
    source: np.ndarray
    """``(n,)`` names of the cells that they were."""
    condition: np.ndarray
    """``(n,)``."""
    kind: str
    """``"measured"``, ``"between"``, ``"copy"`` or ``"trend"``."""
    path: np.ndarray | None = None
    """``(n,)`` which of several paths of its source a cell is on."""


def start_times(times: Times, column: pd.Series) -> FloatArray:
    """Return the times of start cells in the unit of training, ``(n,)``; each distinct one is read once."""
    code, distinct = pd.factorize(column.astype(object))
    if (code < 0).any():
        raise ValueError(
            f"{int((code < 0).sum())} of {len(column)} start cells have no time. Drop them, or say when they are."
        )
    return times.read(list(distinct))[code]


def moved(
    courses: Courses,
    z: FloatArray,
    start: FloatArray,
    labels: np.ndarray,
    time: float,
    *,
    residual: Residual | None = None,
    neighbor: np.ndarray | None = None,
) -> tuple[FloatArray, str]:
    """Move cells from their own times to one time, each on the course of its condition.

    Parameters
    ----------
    courses
        Fitted.
    z
        ``(n, d)`` cells.
    start, labels
        ``(n,)`` times and conditions.
    time
        Where to.
    residual
        The network that corrects the courses.
    neighbor
        ``(intervals, n)``: see :meth:`scjepa.baselines.times.Interpolant.move`.

    Returns
    -------
    ``(n, d)`` how far they move, and what kind of a prediction it is: the least sure of any condition.
    """
    shift, kinds = np.zeros_like(z), set()
    for label in dict.fromkeys(labels):
        course = courses.of[courses.condition(str(label))]
        kinds.add(course.kind(time))
        for begin in np.unique(start[labels == label]):
            mine = (labels == label) & (start == begin)
            shift[mine] = course.move(
                z[mine],
                begin,
                time,
                neighbor=None if neighbor is None else neighbor[:, mine],
                correct=None if not residual else partial(residual.step, courses.condition(str(label))),
            )
    return shift, next((kind for kind in ("copy", "trend") if kind in kinds), "between")


def described(
    parts: Sequence[Predicted], asked: FloatArray, times: Times, time_key: str, condition_key: str | None
) -> pd.DataFrame:
    """Return ``obs`` of predicted cells; times stand as they do in the column: as numbers, or as text with their unit."""
    sizes = [len(part.x) for part in parts]
    written: Any = np.repeat(asked, sizes)
    if not all(map(_is_number, times.labels)):
        written = np.repeat(np.array([times.label(t) for t in asked], dtype=object), sizes)
    obs = pd.DataFrame({time_key: written, Keys.obs.source: np.concatenate([part.source for part in parts])})
    obs.index = pd.Index([f"prediction-{i}" for i in range(len(obs))])
    if parts[0].path is not None:
        obs[Keys.obs.path] = np.concatenate([part.path for part in parts if part.path is not None])
    if condition_key is not None:
        obs[condition_key] = pd.Categorical(np.concatenate([part.condition for part in parts]))
    obs[Keys.obs.kind] = pd.Categorical(["predicted"] * len(obs))
    return obs


def record(parts: Sequence[Predicted], asked: FloatArray, times: Times, model: str, time_key: str) -> dict[str, Any]:
    """Return what predictions carry in ``uns``, and warn once where they lie beyond the measured times."""
    kinds = [part.kind for part in parts]
    table = pd.DataFrame({
        "time": asked, "label": [times.label(t) for t in asked], "kind": kinds, "abstain": [kind in WORDS for kind in kinds],
    }).rename(index=str)  # fmt: skip
    beyond, note = table.loc[table["abstain"], "label"].tolist(), ""
    if beyond:
        first, last = (times.label(t) for t in times.levels[[0, -1]])
        word = WORDS["copy" if "copy" in kinds else "trend"]
        note = f"{some(beyond)} lie beyond the measured times ({first} to {last}): {word}."
        warnings.warn(note, UserWarning, stacklevel=3)
    return {"model": model, "time_key": time_key, "times": table, "note": note}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
