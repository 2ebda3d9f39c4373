"""Cells in time: times and their units, transport plans, walks, fates, branch points, tipping points; arrays in, arrays out."""

from scjepa.dynamics._branching import BranchPoint, BranchPoints, branch_points
from scjepa.dynamics._critical import CriticalTransition, critical_transitions, thin_counts
from scjepa.dynamics._dip import dip, dip_pvalue
from scjepa.dynamics._drivers import driver_genes
from scjepa.dynamics._growth import growth_rates
from scjepa.dynamics._lineage import Lineage, lineage_relations
from scjepa.dynamics._moves import transition_matrix
from scjepa.dynamics._samples import CourseDistances, course_distances, embed_distances
from scjepa.dynamics._states import TerminalStates, terminal_states
from scjepa.dynamics._times import Times, read_times
from scjepa.dynamics._transport import Plan, displacements, nearest, overlap, transport_plan, wasserstein
from scjepa.dynamics._walk import (
    Fates,
    absorption_probabilities,
    fate_probabilities,
    neighbor_graph,
    potency,
)

__all__ = [
    "BranchPoint",
    "BranchPoints",
    "CourseDistances",
    "CriticalTransition",
    "Fates",
    "Lineage",
    "Plan",
    "TerminalStates",
    "Times",
    "absorption_probabilities",
    "branch_points",
    "course_distances",
    "critical_transitions",
    "dip",
    "dip_pvalue",
    "displacements",
    "driver_genes",
    "embed_distances",
    "fate_probabilities",
    "growth_rates",
    "lineage_relations",
    "nearest",
    "neighbor_graph",
    "overlap",
    "potency",
    "read_times",
    "terminal_states",
    "thin_counts",
    "transition_matrix",
    "transport_plan",
    "wasserstein",
]
