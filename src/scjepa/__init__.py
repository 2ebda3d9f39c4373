"""scjepa: joint-embedding predictive architectures for single-cell biology."""

from importlib.metadata import version

from scjepa import baselines, data, datasets, losses, metrics, model, module, nn, pharma, pl, tl, train
from scjepa.model import DrugJEPA, ExpressionJEPA, PerturbJEPA, TrajectoryJEPA

__version__ = version("scjepa")

__all__ = [
    "DrugJEPA",
    "ExpressionJEPA",
    "PerturbJEPA",
    "TrajectoryJEPA",
    "baselines",
    "data",
    "datasets",
    "losses",
    "metrics",
    "model",
    "module",
    "nn",
    "pharma",
    "pl",
    "tl",
    "train",
]
