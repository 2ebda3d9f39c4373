"""The biology of the simulator: a regulatory network, what perturbing it does, and where two effects interact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from scjepa._types import FloatArray, IntArray

OWN_LOG_FOLD_CHANGE = {"KD": float(np.log(0.2)), "OE": float(np.log(4.0))}
"""Log fold change of the perturbed gene itself: a knock-down leaves 20 % of its expression, an activation makes 4x."""

INTERACTIONS = ("none", "synergistic", "buffering")


def draw_network(n_regulators: int, n_genes: int, rng: np.random.Generator, *, share: float = 0.1) -> FloatArray:
    """Draw signed regulatory weights, ``(n_regulators, n_genes)``; the first genes are the regulators themselves.

    ``weights[r, g]`` is the log fold change of gene ``g`` per log fold change of regulator ``r``. Each regulator acts
    on ``share`` of the genes (at least one, if there are any). A regulator acts only on regulators after it, so the
    network has no loops and a knocked-down gene is never brought back by its own targets.
    """
    allowed = np.ones((n_regulators, n_genes), dtype=bool)
    allowed[:, :n_regulators] = np.triu(np.ones((n_regulators, n_regulators), dtype=bool), k=1)
    draw = np.where(allowed, rng.random(allowed.shape), np.inf)
    n_targets = min(max(round(share * n_genes), 1), n_genes)
    cutoff = np.sort(draw, axis=1)[:, n_targets - 1]
    edges = allowed & (draw <= cutoff[:, None])
    strength = rng.uniform(0.2, 0.8, allowed.shape) * rng.choice([-1.0, 1.0], allowed.shape)
    return np.where(edges, strength, 0.0)


def propagate(weights: FloatArray, direct: FloatArray, n_steps: int) -> FloatArray:
    """Spread log fold changes of regulators through the network.

    Parameters
    ----------
    weights
        ``(n_regulators, n_genes)`` of :func:`draw_network`.
    direct
        ``(conditions, n_regulators)`` log fold changes imposed on the regulators.
    n_steps
        1: targets only; 2: also the targets of targeted regulators.

    Returns
    -------
    ``(conditions, n_genes)``: ``d + dW + dW_R W + ...`` with ``W_R`` the regulator columns of ``W``. Linear in
    ``direct``, so effects without interaction add up.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.datasets._network import propagate
    >>> weights = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, -1.0]])  # regulators 0 and 1, one more gene
    >>> propagate(weights, np.array([[-2.0, 0.0]]), 1).tolist()
    [[-2.0, -1.0, 0.0]]
    >>> propagate(weights, np.array([[-2.0, 0.0]]), 2).tolist()
    [[-2.0, -1.0, 1.0]]
    """
    n_regulators = weights.shape[0]
    total = np.zeros((direct.shape[0], weights.shape[1]))
    total[:, :n_regulators] = direct
    wave = direct
    for _ in range(n_steps):
        shift = wave @ weights
        total += shift
        wave = shift[:, :n_regulators]
    return total


def draw_design(
    n_regulators: int, n_single: int, n_double: int, kinds: Sequence[str], rng: np.random.Generator
) -> tuple[list[tuple[int, ...]], list[str]]:
    """Choose which regulators, and which pairs of them, are perturbed, and how.

    Each perturbed regulator gets one kind; a pair joins two regulators of the same kind, as in one screen. Returns the
    regulator indices and the kind of every perturbation, singles first.
    """
    chosen = np.sort(rng.choice(n_regulators, n_single, replace=False)).tolist()
    kind_of = dict(zip(chosen, rng.permutation(np.resize(np.array(kinds), n_single)).tolist(), strict=True))
    pairs = [pair for pair in combinations(chosen, 2) if kind_of[pair[0]] == kind_of[pair[1]]]
    if n_double > len(pairs):
        raise ValueError(
            f"n_double={n_double}: only {len(pairs)} pairs of one kind can be made from n_single={n_single} perturbed "
            f"genes and {len(kinds)} kinds. Raise n_single or lower n_double."
        )
    doubles = [pairs[i] for i in np.sort(rng.choice(len(pairs), n_double, replace=False))] if n_double else []
    singles: list[tuple[int, ...]] = [(r,) for r in chosen]
    return [*singles, *doubles], [kind_of[p[0]] for p in [*singles, *doubles]]


def draw_epistasis(
    additive: FloatArray, perturbed: Sequence[tuple[int, ...]], share: float, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Choose interacting pairs and by how much of the additive effect each gene departs from it.

    Parameters
    ----------
    additive
        ``(perturbations, n_genes)`` log fold changes without interaction; tells which genes respond.
    perturbed
        Perturbed regulators of each row.
    share
        Share of the pairs that interact; half of these are synergistic, half buffering.
    rng
        Source of randomness.

    Returns
    -------
    ``(perturbations, n_genes)`` factors: the log fold change is ``(1 + factor) * additive``; positive for synergy,
    negative for buffering, zero for singles, for the perturbed genes themselves and for 70 % of the responding genes.
    ``(perturbations,)`` index into :data:`INTERACTIONS`.
    """
    factor = np.zeros_like(additive)
    mode = np.zeros(len(perturbed), dtype=int)
    doubles = np.array([i for i, p in enumerate(perturbed) if len(p) == 2], dtype=int)
    interacting = rng.permutation(doubles)[: round(share * len(doubles))]
    mode[interacting] = 1 + np.arange(len(interacting)) % 2
    for i in interacting:
        genes = np.setdiff1d(np.flatnonzero(additive[i]), perturbed[i])
        if len(genes):
            hit = rng.choice(genes, max(1, round(0.3 * len(genes))), replace=False)
            factor[i, hit] = rng.uniform(0.4, 0.8, len(hit)) * (1 if mode[i] == 1 else -1)
    return factor, mode
