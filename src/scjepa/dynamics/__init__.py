"""Cells in time: times and their units, transport plans, walks, fates, branch points, tipping points; arrays in, arrays out."""

from scjepa.dynamics._dip import dip, dip_pvalue
from scjepa.dynamics._times import Times, read_times
from scjepa.dynamics._transport import Plan, displacements, nearest, overlap, transport_plan, wasserstein

__all__ = [
    "Plan",
    "Times",
    "dip",
    "dip_pvalue",
    "displacements",
    "nearest",
    "overlap",
    "read_times",
    "transport_plan",
    "wasserstein",
]
