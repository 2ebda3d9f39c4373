"""Data: simulated Perturb-seq and drug screens and trajectories with known answers, and public screens (downloaded on demand)."""

from scjepa.datasets._drugs import op3, sciplex3, tahoe_subset
from scjepa.datasets._drugscreen import simulate_drug_screen, true_drug_effects
from scjepa.datasets._multiomics import simulate_multiomics
from scjepa.datasets._perturbseq import simulate_perturbseq, true_effects
from scjepa.datasets._screens import adamson2016, kang2018, load_perturbseq_data, norman2019, replogle2022
from scjepa.datasets._trajectory import simulate_trajectory, true_trajectory

__all__ = [
    "adamson2016",
    "kang2018",
    "load_perturbseq_data",
    "norman2019",
    "op3",
    "replogle2022",
    "sciplex3",
    "simulate_drug_screen",
    "simulate_multiomics",
    "simulate_perturbseq",
    "simulate_trajectory",
    "tahoe_subset",
    "true_drug_effects",
    "true_effects",
    "true_trajectory",
]
