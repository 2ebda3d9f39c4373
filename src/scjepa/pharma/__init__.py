"""Pharmacology: arrays in, numbers out. Molecules, dose curves, synergy, connectivity, screens, hits, strata, exposure."""

from scjepa.pharma._connectivity import effect_size, reversal, signature_score, target_progress
from scjepa.pharma._curves import dose_auc, hill, hill_auc
from scjepa.pharma._exposure import (
    Fading,
    OptimalDose,
    ResistanceOnset,
    fade_time,
    optimal_dose,
    resistance_onset,
    treatment_window,
)
from scjepa.pharma._fading import FadingCourse, fading_course
from scjepa.pharma._features import DrugFeatures
from scjepa.pharma._hill_fit import fit_hill
from scjepa.pharma._hits import bedroc, enrichment_factor, hit_rate, roc_auc
from scjepa.pharma._molecules import descriptors, fingerprints, parse_smiles, scaffolds
from scjepa.pharma._screen import Block, TopK, library_blocks, screen
from scjepa.pharma._similarity import Nearest, nearest, tanimoto
from scjepa.pharma._strata import ResponderGroups, biomarkers, responder_groups
from scjepa.pharma._synergy import Synergy, synergy

__all__ = [
    "Block",
    "DrugFeatures",
    "Fading",
    "FadingCourse",
    "Nearest",
    "OptimalDose",
    "ResistanceOnset",
    "ResponderGroups",
    "Synergy",
    "TopK",
    "bedroc",
    "biomarkers",
    "descriptors",
    "dose_auc",
    "effect_size",
    "enrichment_factor",
    "fade_time",
    "fading_course",
    "fingerprints",
    "fit_hill",
    "hill",
    "hill_auc",
    "hit_rate",
    "library_blocks",
    "nearest",
    "optimal_dose",
    "parse_smiles",
    "resistance_onset",
    "responder_groups",
    "reversal",
    "roc_auc",
    "scaffolds",
    "screen",
    "signature_score",
    "synergy",
    "tanimoto",
    "target_progress",
    "treatment_window",
]
