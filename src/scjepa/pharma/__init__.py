"""Pharmacology: arrays in, numbers out. Molecules, dose curves, synergy, connectivity, screens, hits, strata, exposure."""

from scjepa.pharma._connectivity import effect_size, reversal, signature_score, target_progress
from scjepa.pharma._curves import dose_auc, hill, hill_auc
from scjepa.pharma._features import DrugFeatures
from scjepa.pharma._hill_fit import fit_hill
from scjepa.pharma._molecules import descriptors, fingerprints, parse_smiles, scaffolds
from scjepa.pharma._similarity import Nearest, nearest, tanimoto
from scjepa.pharma._synergy import Synergy, synergy

__all__ = [
    "DrugFeatures",
    "Nearest",
    "Synergy",
    "descriptors",
    "dose_auc",
    "effect_size",
    "fingerprints",
    "fit_hill",
    "hill",
    "hill_auc",
    "nearest",
    "parse_smiles",
    "reversal",
    "scaffolds",
    "signature_score",
    "synergy",
    "tanimoto",
    "target_progress",
]
