"""Figures of what training and :mod:`scjepa.tl` wrote, of predicted effects, and of answers about drugs."""

from scjepa.pl._arrows import arrows
from scjepa.pl._branch_points import branch_points
from scjepa.pl._calibration import calibration
from scjepa.pl._critical_transitions import critical_transitions
from scjepa.pl._de_overlap import de_overlap
from scjepa.pl._dose_response import dose_response
from scjepa.pl._effect_intervals import effect_intervals
from scjepa.pl._effects import effects
from scjepa.pl._fates import fates
from scjepa.pl._history import history
from scjepa.pl._lineages import lineages
from scjepa.pl._pathways import pathways
from scjepa.pl._patients import patients
from scjepa.pl._predicted_vs_true import predicted_vs_true
from scjepa.pl._reliability import reliability
from scjepa.pl._resistance import resistance
from scjepa.pl._sample_courses import sample_courses
from scjepa.pl._scores import scores
from scjepa.pl._screen_ranking import screen_ranking
from scjepa.pl._selective_risk import selective_risk
from scjepa.pl._shift_magnitude import shift_magnitude
from scjepa.pl._synergy_surface import synergy_surface

__all__ = [
    "arrows",
    "branch_points",
    "calibration",
    "critical_transitions",
    "de_overlap",
    "dose_response",
    "effect_intervals",
    "effects",
    "fates",
    "history",
    "lineages",
    "pathways",
    "patients",
    "predicted_vs_true",
    "reliability",
    "resistance",
    "sample_courses",
    "scores",
    "screen_ranking",
    "selective_risk",
    "shift_magnitude",
    "synergy_surface",
]
