"""Objectives of JEPA training: regularisers against collapse, and distances between sets of cells. Plain tensors in."""

from scjepa.losses._energy_distance import energy_distance
from scjepa.losses._mean_distance import mean_distance
from scjepa.losses._mmd import mmd
from scjepa.losses._random_pair_mse import random_pair_mse
from scjepa.losses._sigreg import SIGRegLoss
from scjepa.losses._vicreg import VICRegLoss
from scjepa.losses._visreg import VISRegLoss

__all__ = [
    "SIGRegLoss",
    "VICRegLoss",
    "VISRegLoss",
    "energy_distance",
    "mean_distance",
    "mmd",
    "random_pair_mse",
]
