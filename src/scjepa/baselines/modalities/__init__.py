"""One modality of cells from another, in closed form: mean, ridge, nearest cells, kernels, and their stack."""

from scjepa.baselines.modalities._base import MeanModality, Modality
from scjepa.baselines.modalities._regressions import KernelAnchor, KernelModality, NearestModality, RidgeModality
from scjepa.baselines.modalities._stack import Stack, default_members

PLAIN = (MeanModality, RidgeModality, NearestModality, KernelModality)
"""The rows beside every prediction of a modality, simplest first."""

__all__ = [
    "PLAIN",
    "KernelAnchor",
    "KernelModality",
    "MeanModality",
    "Modality",
    "NearestModality",
    "RidgeModality",
    "Stack",
    "default_members",
]
