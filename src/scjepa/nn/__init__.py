"""Networks: encoders of cells and of actions, predictors, target encoder. Plain tensors in, plain tensors out."""

from scjepa.nn._action import ActionEncoder, PerturbationEncoder
from scjepa.nn._elapsed import ElapsedPredictor
from scjepa.nn._ema import EMATarget
from scjepa.nn._encoder import GeneExpressionEncoder
from scjepa.nn._gene_modules import gene_set_modules, kmeans_modules
from scjepa.nn._inverse_dynamics import InverseDynamicsHead
from scjepa.nn._position import SinusoidalPositionEmbeddings
from scjepa.nn._predictors import ConditionalPredictor, JEPAPredictor

__all__ = [
    "ActionEncoder",
    "ConditionalPredictor",
    "ElapsedPredictor",
    "EMATarget",
    "GeneExpressionEncoder",
    "InverseDynamicsHead",
    "JEPAPredictor",
    "PerturbationEncoder",
    "SinusoidalPositionEmbeddings",
    "gene_set_modules",
    "kmeans_modules",
]
