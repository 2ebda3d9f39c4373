"""Figures of what training and :mod:`scjepa.tl` wrote, and of predicted effects."""

from scjepa.pl._calibration import calibration
from scjepa.pl._effects import effect_intervals, effects
from scjepa.pl._history import history
from scjepa.pl._predicted_vs_true import predicted_vs_true
from scjepa.pl._scores import scores
from scjepa.pl._shift_magnitude import shift_magnitude

__all__ = [
    "calibration",
    "effect_intervals",
    "effects",
    "history",
    "predicted_vs_true",
    "scores",
    "shift_magnitude",
]
