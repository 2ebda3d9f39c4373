"""What a model of trajectories holds: the course of each condition in closed form, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from scjepa._checks import require_member, some
from scjepa._types import FloatArray
from scjepa.baselines.times import Cloud, Interpolant, systematic

ONLY = "all"
"""The condition of every cell when no ``condition_key`` is given."""


class Drawn(NamedTuple):
    """Predicted cells as cells that moved."""

    cells: np.ndarray
    """``(n,)`` which cell each was."""
    shift: FloatArray
    """``(n, d)`` how far it moved, in the anchor's coordinates."""


class Courses:
    """One interpolant a condition.

    Parameters
    ----------
    trend, seed
        See :class:`scjepa.baselines.times.Interpolant`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model.trajectories import Courses
    >>> z, times = np.random.default_rng(0).normal(size=(40, 2)), np.repeat([0.0, 1.0], 20)
    >>> courses = Courses().fit(z, times, np.repeat(["all"], 40), np.arange(40) + 100)
    >>> bool(courses.draw("all", 0.5, 10).cells.min() >= 100), courses.kind("all", 2.0)
    (True, 'copy')
    """

    def __init__(self, *, trend: bool = False, seed: int = 0) -> None:
        self.trend, self.seed = trend, seed
        self.of: dict[str, Interpolant] = {}
        self.cells: dict[str, np.ndarray] = {}

    def __bool__(self) -> bool:
        return bool(self.of)

    def fit(
        self,
        z: FloatArray,
        times: FloatArray,
        conditions: np.ndarray,
        cells: np.ndarray,
        growth: FloatArray | None = None,
    ) -> Self:
        """Fit the course of each condition that has two times or more.

        Parameters
        ----------
        z
            ``(n, d)`` training cells in coordinates of one scale.
        times, conditions
            ``(n,)``.
        cells
            ``(n,)`` their positions in the AnnData.
        growth
            See :meth:`scjepa.baselines.times.Interpolant.fit`.

        Raises
        ------
        ValueError
            When no condition has two times.
        """
        labels = np.asarray(conditions).astype(str)
        for label in np.unique(labels):
            mine = np.flatnonzero(labels == label)
            if len(np.unique(times[mine])) < 2:
                continue
            course = Interpolant(trend=self.trend, seed=self.seed)
            self.of[str(label)] = course.fit(z[mine], times[mine], None if growth is None else growth[mine])
            self.cells[str(label)] = np.asarray(cells)[mine]
        if not self.of:
            raise ValueError(
                f"no condition has training cells of two times ({some(sorted(set(labels)))}): a course needs at least two."
            )
        return self

    def condition(self, asked: str | None) -> str:
        """Return the condition that is asked for; raise when it is unknown, or one of several has to be named."""
        if asked is None:
            if len(self.of) > 1:
                raise ValueError(
                    f"there are courses of {len(self.of)} conditions ({some(sorted(self.of))}): name one, condition='...'."
                )
            return next(iter(self.of))
        require_member(str(asked), self.of, "condition", where="the conditions with two times or more")
        return str(asked)

    def kind(self, condition: str, time: float) -> str:
        """Return what a prediction at a time is, see :meth:`scjepa.baselines.times.Interpolant.kind`."""
        return self.of[condition].kind(time)

    def draw(
        self,
        condition: str,
        time: float,
        n: int,
        *,
        start: float = 0.5,
        correct: Callable[[Interpolant, str, Cloud, float], Cloud] | None = None,
    ) -> Drawn:
        """Return ``n`` predicted cells at a time: a systematic sample of the weighted cloud, perhaps corrected."""
        cloud = self.of[condition].predict(time)
        if correct is not None:
            cloud = correct(self.of[condition], condition, cloud, time)
        index = systematic(cloud.mass, n, start=start)
        return Drawn(self.cells[condition][cloud.cells[index]], cloud.shift[index])

    def size(self, condition: str, time: float) -> int:
        """Return how many cells there are in the snapshots around a time."""
        return len(np.unique(self.of[condition].predict(time).cells))

    def levels(self, condition: str) -> FloatArray:
        """Return the training times of a condition, ascending."""
        return self.of[condition].times_

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "trend": self.trend,
            "seed": self.seed,
            "of": {name: course.state() for name, course in self.of.items()},
            "cells": dict(self.cells),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        new = cls(trend=bool(state["trend"]), seed=int(state["seed"]))
        new.of = {name: Interpolant.from_state(course) for name, course in state["of"].items()}
        new.cells = {name: np.asarray(cells) for name, cells in state["cells"].items()}
        return new
