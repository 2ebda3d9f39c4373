"""The anchor of drug responses: conditions as rows, a kernel among them, simple predictions, and who is believed where."""

from scjepa.baselines.drugs._effect import DrugEffect
from scjepa.baselines.drugs._remarks import INFORMATIVE, UNINFORMATIVE
from scjepa.baselines.drugs._screener import Screener
from scjepa.baselines.drugs._simple import MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge

__all__ = [
    "INFORMATIVE",
    "UNINFORMATIVE",
    "DrugEffect",
    "MeanPerContext",
    "MeanPerDrug",
    "NearestDose",
    "Screener",
    "TanimotoKNN",
    "TanimotoRidge",
]
