"""Torch only: the four parts of a JEPA composed, with no knowledge of AnnData."""

from scjepa.module._module import JOINT, SETS, VIEWS, ActionSpec, JEPAModule
from scjepa.module._objectives import JointPrediction, Regularizer, SetMatching, ViewAgreement
from scjepa.module._predictor import ActionPredictor
from scjepa.module._space import ExpressionSpace, LinearReadout

__all__ = [
    "JOINT",
    "SETS",
    "VIEWS",
    "ActionPredictor",
    "ActionSpec",
    "ExpressionSpace",
    "JEPAModule",
    "JointPrediction",
    "LinearReadout",
    "Regularizer",
    "SetMatching",
    "ViewAgreement",
]
