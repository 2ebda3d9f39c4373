"""What TrajectoryJEPA holds and is made of: courses in closed form."""

from scjepa.model.trajectories._courses import ONLY, WORDS, Courses, Drawn

__all__ = ["ONLY", "WORDS", "Courses", "Drawn"]
