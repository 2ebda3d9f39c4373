"""What TrajectoryJEPA holds and is made of: courses in closed form, held-out times, and how predictions are written down."""

from scjepa.model.trajectories._courses import ONLY, Courses, Drawn
from scjepa.model.trajectories._holdout import note_confounding, split_course, split_times
from scjepa.model.trajectories._prediction import Predicted, described, moved, record, start_times
from scjepa.model.trajectories._residual import Residual, Snapshots

__all__ = [
    "ONLY",
    "Courses",
    "Drawn",
    "Predicted",
    "Residual",
    "Snapshots",
    "described",
    "moved",
    "note_confounding",
    "record",
    "split_course",
    "split_times",
    "start_times",
]
