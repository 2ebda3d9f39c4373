"""scjepa: joint-embedding predictive architectures for single-cell biology."""

from importlib.metadata import version

from scjepa import baselines, data, datasets, losses, metrics, model, module, nn, pharma, pl, tl, train
from scjepa.model import ExpressionJEPA, PerturbJEPA

__version__ = version("scjepa")

__all__ = [
    "ExpressionJEPA",
    "PerturbJEPA",
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
