"""Pharmacology: arrays in, numbers out. Molecules, dose curves, synergy, connectivity, screens, hits, strata, exposure."""

from scjepa.pharma._features import DrugFeatures
from scjepa.pharma._molecules import descriptors, fingerprints, parse_smiles, scaffolds
from scjepa.pharma._similarity import Nearest, nearest, tanimoto

__all__ = [
    "DrugFeatures",
    "Nearest",
    "descriptors",
    "fingerprints",
    "nearest",
    "parse_smiles",
    "scaffolds",
    "tanimoto",
]
