"""What models of unpaired conditions share: anchors, network and gate, prediction, effects with intervals, query data."""

from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._design import Asked, Design, Words, check_setup, fields
from scjepa.model.conditions._gate import Gate
from scjepa.model.conditions._intervals import Intervals
from scjepa.model.conditions._known import Known
from scjepa.model.conditions._model import ConditionModel

__all__ = [
    "Anchors",
    "Asked",
    "ConditionModel",
    "Design",
    "Gate",
    "Intervals",
    "Known",
    "Words",
    "check_setup",
    "fields",
]
