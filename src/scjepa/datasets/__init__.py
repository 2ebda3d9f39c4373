"""Data: a simulated Perturb-seq screen with known answers, and public screens (downloaded on demand)."""

from scjepa.datasets._perturbseq import simulate_perturbseq, true_effects
from scjepa.datasets._screens import adamson2016, kang2018, load_perturbseq_data, norman2019, replogle2022

__all__ = [
    "adamson2016",
    "kang2018",
    "load_perturbseq_data",
    "norman2019",
    "replogle2022",
    "simulate_perturbseq",
    "true_effects",
]
