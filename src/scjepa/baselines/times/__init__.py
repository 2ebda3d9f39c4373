"""Cells at times that were not measured, in closed form: the interpolant, copies of neighbours, transport."""

from scjepa.baselines.times._interpolant import Interpolant
from scjepa.baselines.times._plain import NextCopy, PreviousCopy, TransportInterpolation, Union
from scjepa.baselines.times._snapshots import Cloud, systematic

PLAIN = (PreviousCopy, NextCopy, Union, TransportInterpolation)
"""The rows beside every prediction of cells at a time, simplest first."""

__all__ = [
    "PLAIN",
    "Cloud",
    "Interpolant",
    "NextCopy",
    "PreviousCopy",
    "TransportInterpolation",
    "Union",
    "systematic",
]
