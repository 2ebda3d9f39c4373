"""What users hold: AnnData in, AnnData out."""

from scjepa.model._drug import DrugJEPA
from scjepa.model._expression import ExpressionJEPA
from scjepa.model._perturb import PerturbJEPA
from scjepa.model._trajectory import TrajectoryJEPA

__all__ = ["DrugJEPA", "ExpressionJEPA", "PerturbJEPA", "TrajectoryJEPA"]
