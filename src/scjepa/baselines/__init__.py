"""Closed-form predictors of perturbation effects, one file each; the bar for every model, and its anchor."""

from scjepa.baselines._additive import Additive
from scjepa.baselines._base import Baseline, SelfJudging
from scjepa.baselines._context_transfer import ContextTransfer
from scjepa.baselines._kernel_effect import KernelEffect
from scjepa.baselines._knn import KNNEffect
from scjepa.baselines._linear import Linear
from scjepa.baselines._matching_mean import MatchingMean
from scjepa.baselines._mean import MeanEffect
from scjepa.baselines._no_change import NoChange
from scjepa.baselines._registry import ANCHORS, BASELINES, applicable
from scjepa.baselines._ridge import Ridge
from scjepa.baselines.drugs import DrugEffect, MeanPerContext, MeanPerDrug, NearestDose, TanimotoKNN, TanimotoRidge

__all__ = [
    "ANCHORS",
    "BASELINES",
    "Additive",
    "Baseline",
    "ContextTransfer",
    "DrugEffect",
    "KNNEffect",
    "KernelEffect",
    "Linear",
    "MatchingMean",
    "MeanEffect",
    "MeanPerContext",
    "MeanPerDrug",
    "NearestDose",
    "NoChange",
    "Ridge",
    "SelfJudging",
    "TanimotoKNN",
    "TanimotoRidge",
    "applicable",
]
