"""Torch only: the four parts of a JEPA put together, with no knowledge of AnnData. One file a kind of pairing."""

from scjepa.module._composed import ComposedModule
from scjepa.module._course_module import CourseModule
from scjepa.module._courses import COURSES, CourseMatching
from scjepa.module._joint import JOINT, JointPrediction
from scjepa.module._modalities import MODALITIES, ModalityAgreement
from scjepa.module._modality_module import ModalityModule
from scjepa.module._module import JEPAModule
from scjepa.module._objective import SET_LOSSES, Objective
from scjepa.module._parts import action_predictors, state_size, view_parts
from scjepa.module._predictor import ActionPredictor
from scjepa.module._regularizer import Regularizer
from scjepa.module._sets import SETS, SetMatching
from scjepa.module._space import ExpressionSpace, LinearReadout
from scjepa.module._views import VIEWS, ViewAgreement

__all__ = [
    "COURSES",
    "JOINT",
    "MODALITIES",
    "SETS",
    "SET_LOSSES",
    "VIEWS",
    "ActionPredictor",
    "ComposedModule",
    "CourseMatching",
    "CourseModule",
    "ExpressionSpace",
    "JEPAModule",
    "JointPrediction",
    "LinearReadout",
    "ModalityAgreement",
    "ModalityModule",
    "Objective",
    "Regularizer",
    "SetMatching",
    "ViewAgreement",
    "action_predictors",
    "state_size",
    "view_parts",
]
