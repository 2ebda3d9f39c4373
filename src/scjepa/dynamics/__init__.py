"""Cells in time: times and their units, transport plans, walks, fates, branch points, tipping points; arrays in, arrays out."""

from scjepa.dynamics._branching import BranchPoint, BranchPoints, branch_points
from scjepa.dynamics._critical import CriticalTransition, critical_transitions, thin_counts
from scjepa.dynamics._dip import dip, dip_pvalue
from scjepa.dynamics._times import Times, read_times
from scjepa.dynamics._transport import Plan, displacements, nearest, overlap, transport_plan, wasserstein

__all__ = [
    "BranchPoint",
    "BranchPoints",
    "CriticalTransition",
    "Plan",
    "Times",
    "branch_points",
    "critical_transitions",
    "dip",
    "dip_pvalue",
    "displacements",
    "nearest",
    "overlap",
    "read_times",
    "thin_counts",
    "transport_plan",
    "wasserstein",
]
