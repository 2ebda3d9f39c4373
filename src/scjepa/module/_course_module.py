"""Nothing but a predictor of elapsed time and the objective that trains it: what corrects a course."""

from __future__ import annotations

from scjepa.module._composed import ComposedModule
from scjepa.module._courses import COURSES, CourseMatching
from scjepa.nn import ElapsedPredictor


class CourseModule(ComposedModule):
    """A predictor of cells in coordinates that need no encoder.

    Parameters
    ----------
    predictor
        The network.
    objective
        By default :class:`CourseMatching`.

    Examples
    --------
    >>> from scjepa.module import CourseModule
    >>> from scjepa.nn import ElapsedPredictor
    >>> list(CourseModule(ElapsedPredictor(5)).objectives)
    ['courses']
    """

    def __init__(self, predictor: ElapsedPredictor, objective: CourseMatching | None = None) -> None:
        super().__init__()
        self._compose([predictor], {COURSES: CourseMatching() if objective is None else objective})
