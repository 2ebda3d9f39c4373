"""Data with known answers: a simulated Perturb-seq screen."""

from scjepa.datasets._perturbseq import simulate_perturbseq, true_effects

__all__ = ["simulate_perturbseq", "true_effects"]
