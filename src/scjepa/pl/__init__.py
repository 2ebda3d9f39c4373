"""Figures of what training and :mod:`scjepa.tl` wrote."""

from scjepa.pl._history import history
from scjepa.pl._predicted_vs_true import predicted_vs_true
from scjepa.pl._scores import scores

__all__ = ["history", "predicted_vs_true", "scores"]
