"""Figures of what training and :mod:`scjepa.tl` wrote, and of predicted effects."""

from scjepa.pl._calibration import calibration
from scjepa.pl._de_overlap import de_overlap
from scjepa.pl._effect_intervals import effect_intervals
from scjepa.pl._effects import effects
from scjepa.pl._history import history
from scjepa.pl._pathways import pathways
from scjepa.pl._predicted_vs_true import predicted_vs_true
from scjepa.pl._reliability import reliability
from scjepa.pl._scores import scores
from scjepa.pl._selective_risk import selective_risk
from scjepa.pl._shift_magnitude import shift_magnitude

__all__ = [
    "calibration",
    "de_overlap",
    "effect_intervals",
    "effects",
    "history",
    "pathways",
    "predicted_vs_true",
    "reliability",
    "scores",
    "selective_risk",
    "shift_magnitude",
]
