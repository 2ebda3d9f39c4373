"""A Perturb-seq screen with known truth: network, knock-downs and activations, epistasis, batches, states, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from scjepa._checks import require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.datasets._counts import check_number, draw_counts, mean_profiles
from scjepa.datasets._network import (
    INTERACTIONS,
    OWN_LOG_FOLD_CHANGE,
    draw_design,
    draw_epistasis,
    draw_network,
    propagate,
)

CONTROL = "control"


def simulate_perturbseq(
    n_genes: int = 300,
    n_regulators: int = 20,
    n_single: int = 12,
    n_double: int = 8,
    *,
    n_cells: int = 60,
    n_control: int = 200,
    contexts: Sequence[str] = ("state A", "state B"),
    kinds: Sequence[str] = ("KD", "OE"),
    doses: Sequence[float] | None = None,
    n_batches: int = 2,
    n_steps: int = 2,
    epistasis: float = 0.5,
    context_effect: float = 0.3,
    state_effect: float = 0.3,
    batch_effect: float = 0.1,
    depth: float = 3000.0,
    depth_sd: float = 0.3,
    dispersion: float = 0.1,
    dropout: float = 0.0,
    seed: int = 0,
    sparse: bool = True,
) -> anndata.AnnData:
    r"""Simulate counts of a Perturb-seq screen whose true effects are known.

    The share of gene :math:`g` among the transcripts of a cell is

    .. math:: \pi_g \propto \exp(\mu_{cg} + u\,p_g + a_g \cos(\theta - \varphi_g) + \Delta_{qcg} + b_g)

    with :math:`\mu_c` the context, :math:`u` a continuous programme and :math:`\theta` a cycle (the states of a cell),
    :math:`\Delta_{qc}` the log fold change by perturbation :math:`q` in context :math:`c`, and :math:`b` the batch.
    Perturbing a regulator changes its own expression and spreads through a sparse, signed network to its targets;
    effects of a pair add up on this scale except where the pair interacts. Counts are negative binomial around
    :math:`\pi_g` times a log-normal library size.

    Parameters
    ----------
    n_genes, n_regulators
        Number of genes, and how many of them (the first) regulate others.
    n_single, n_double
        Number of perturbed regulators, and of pairs of them (of the same kind) that are perturbed together.
    n_cells, n_control
        Cells per perturbation, context and dose; control cells per context.
    contexts
        Names of the contexts (cell types or lines).
    kinds
        ``"KD"`` (knock-down to 20 %), ``"OE"`` (activation to 4x) or both, shared out over the perturbed genes.
    doses
        Factors on the direct log fold change, each measured for every perturbation; None for full strength only.
    n_batches
        Number of batches; every condition is spread evenly over them.
    n_steps
        1: targets of the perturbed gene respond; 2: their targets respond too.
    epistasis
        Share of the pairs that interact: on 30 % of the responding genes the additive log fold change grows
        (synergistic) or shrinks (buffering) by 40-80 %.
    context_effect
        Standard deviation of the relative change of each regulatory weight from context to context.
    state_effect
        Standard deviation over genes of the programme's loadings and of the cycle's amplitudes (log scale).
    batch_effect
        Standard deviation over genes of the batch effects (log scale).
    depth, depth_sd
        Mean counts per cell; standard deviation of the log library size.
    dispersion
        :math:`\phi` of the negative binomial, variance :math:`m + \phi m^2`; 0 for Poisson counts.
    dropout
        Probability that a count is lost (set to zero).
    seed
        Seed; the network, the design and the interactions do not depend on the numbers of cells, nor on batches or noise.
    sparse
        Return counts as CSR (or as a dense array).

    Returns
    -------
    AnnData with raw counts (float32) in random cell order; ``obs``: ``perturbation`` (``"A"``, ``"A+B"``,
    ``"control"``), ``context``, ``batch``, ``kind``, ``dose`` (only with ``doses``), ``total_counts``; ``var``:
    ``regulator``. The truth is in ``uns["jepa"]["simulation"]``:

    - ``conditions``: table of perturbation, context, kind, dose and interaction, one row per condition;
    - ``effect``: ``(conditions, genes)`` true mean effect, ``mean(log1p(1e4 * share))`` of perturbed minus control
      cells, averaged over cell states, without batch effects and count noise;
    - ``log_fold_change``: ``(conditions, genes)`` :math:`\Delta`, of which ``epistasis`` is the non-additive part;
    - ``control``: ``(contexts, genes)`` true mean control profile on the scale of ``effect``;
    - ``weights``: ``(contexts, regulators, genes)`` regulatory weights; ``contexts``, ``regulators``: their names;
    - ``parameters``: the arguments.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    Notes
    -----
    The mean of log-normalised *counts* comes near ``effect`` for deep counts only: at low depth the logarithm of noisy
    counts is biased toward zero, in simulated as in real cells.

    Examples
    --------
    >>> from scjepa.datasets import simulate_perturbseq, true_effects
    >>> adata = simulate_perturbseq(n_genes=50, n_regulators=5, n_single=3, n_double=1, kinds=("KD",), n_cells=10)
    >>> adata.shape, adata.obs["perturbation"].nunique()
    ((480, 50), 5)
    >>> effects = true_effects(adata)  # (perturbation, context) x genes
    >>> effects.shape
    (8, 50)
    """
    parameters = {name: value for name, value in locals().items() if value is not None}
    _check_arguments(parameters)
    names = tuple(str(c) for c in contexts)
    parameters["contexts"] = np.array(names, dtype=object)
    parameters["kinds"] = np.array([str(k) for k in kinds], dtype=object)
    levels = np.array([1.0] if doses is None else doses, dtype=np.float64)
    parameters |= {} if doses is None else {"doses": levels}

    # one stream for each part, so that for example more cells leave the network as it is
    net_rng, context_rng, design_rng, epistasis_rng, batch_rng, cell_rng = np.random.default_rng(seed).spawn(6)
    genes = _gene_names(n_genes, n_regulators)
    baseline = net_rng.normal(0.0, 1.0, n_genes)
    baseline[:n_regulators] = net_rng.normal(0.5, 0.3, n_regulators)  # a knock-down must be visible in the counts
    weights = draw_network(n_regulators, n_genes, net_rng)
    programme = state_effect * net_rng.normal(0.0, 1.0, n_genes)
    cycling = net_rng.random(n_genes) < 0.2
    amplitude = state_effect * np.where(cycling, net_rng.normal(0.0, 1.0, n_genes), 0.0)
    phase = net_rng.uniform(0.0, 2 * np.pi, n_genes)

    shifted = context_rng.random((len(names), n_genes)) < 0.3
    log_rate = baseline + np.where(shifted, context_rng.normal(0.0, 0.7, shifted.shape), 0.0)
    weights_in = weights * (1.0 + context_effect * context_rng.normal(0.0, 1.0, (len(names), *weights.shape)))

    perturbed, kind_of = draw_design(n_regulators, n_single, n_double, list(map(str, kinds)), design_rng)
    direct = np.zeros((len(perturbed), n_regulators))
    for row, (members, kind) in enumerate(zip(perturbed, kind_of, strict=True)):
        direct[row, list(members)] = OWN_LOG_FOLD_CHANGE[kind]
    factor, mode = draw_epistasis(propagate(weights, direct, n_steps), perturbed, epistasis, epistasis_rng)

    # conditions: perturbation (slowest), context, dose (fastest)
    q, c, d = (i.ravel() for i in np.indices((len(perturbed), len(names), len(levels))))
    additive = np.zeros((len(q), n_genes))
    for j, w in enumerate(weights_in):
        here = c == j
        additive[here] = propagate(w, direct[q[here]] * levels[d[here], None], n_steps)
    change = additive * (1.0 + factor[q])
    labels = np.array(["+".join(sorted(genes[r] for r in members)) for members in perturbed], dtype=object)
    conditions = pd.DataFrame(
        {
            "perturbation": labels[q],
            "context": np.array(names, dtype=object)[c],
            "kind": np.array(kind_of, dtype=object)[q],
            "dose": levels[d],
            "interaction": np.array(INTERACTIONS, dtype=object)[mode[q]],
        },
        index=[str(i) for i in range(len(q))],
    )

    def states_shift(u: FloatArray, theta: FloatArray) -> FloatArray:
        return u[:, None] * programme + amplitude * np.cos(theta[:, None] - phase)

    control_mean, effect = mean_profiles(log_rate, change, c, states_shift)

    # cells: which condition (-1: control), context and batch each belongs to
    condition = np.concatenate([np.repeat(np.arange(len(q)), n_cells), np.full(len(names) * n_control, -1)])
    context = np.concatenate([np.repeat(c, n_cells), np.repeat(np.arange(len(names)), n_control)])
    batch = np.concatenate(
        [np.tile(np.arange(n_cells) % n_batches, len(q)), np.tile(np.arange(n_control) % n_batches, len(names))]
    )
    order = cell_rng.permutation(len(condition))
    condition, context, batch = condition[order], context[order], batch[order]
    batch_shift = batch_effect * batch_rng.normal(0.0, 1.0, (n_batches, n_genes))
    counts = draw_counts(
        log_rate,
        np.vstack([change, np.zeros(n_genes)]),
        batch_shift,
        states_shift,
        condition,
        context,
        batch,
        library=depth * np.exp(depth_sd * cell_rng.normal(0.0, 1.0, len(condition)) - depth_sd**2 / 2),
        dispersion=dispersion,
        dropout=dropout,
        rng=cell_rng,
        sparse=sparse,
    )

    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.append(conditions["perturbation"], CONTROL)[condition]),
            "context": pd.Categorical(np.array(names, dtype=object)[context]),
            "batch": pd.Categorical(np.array([f"batch {i + 1}" for i in range(n_batches)], dtype=object)[batch]),
            "kind": pd.Categorical(np.append(conditions["kind"], CONTROL)[condition]),
        },
        index=[f"cell{i:0{len(str(len(condition)))}d}" for i in range(len(condition))],
    )
    if doses is not None:
        obs["dose"] = np.append(conditions["dose"], 0.0)[condition].astype(np.float64)
    obs["total_counts"] = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    var = pd.DataFrame({"regulator": np.arange(n_genes) < n_regulators}, index=genes)
    truth: dict[str, Any] = {
        "conditions": conditions,
        "effect": effect,
        "log_fold_change": change,
        "epistasis": change - additive,
        "control": control_mean,
        "weights": weights_in,
        "contexts": np.array(names, dtype=object),
        "regulators": np.array(genes[:n_regulators], dtype=object),
        "parameters": parameters,
    }
    return anndata.AnnData(counts, obs=obs, var=var, uns={Keys.uns.root: {Keys.uns.simulation: truth}})


def true_effects(adata: anndata.AnnData) -> pd.DataFrame:
    """Return the true mean effects of a simulated screen.

    Parameters
    ----------
    adata
        From :func:`simulate_perturbseq`, also after a round trip through a file or a selection of cells or genes.

    Returns
    -------
    Conditions x genes of ``adata``: perturbed minus control mean on the scale ``log1p(1e4 * share)``. The index has the
    levels perturbation and context, and dose if there are several doses.

    Raises
    ------
    ValueError
        If ``adata`` was not simulated here.

    Examples
    --------
    >>> from scjepa.datasets import simulate_perturbseq, true_effects
    >>> adata = simulate_perturbseq(50, 5, 2, 0, kinds=("KD",), contexts=("K562",), n_cells=5, n_control=5)
    >>> effects = true_effects(adata)
    >>> gene, context = effects.index[0]
    >>> bool(effects.loc[(gene, context), gene] < 0)  # a knock-down lowers its own gene
    True
    """
    truth = adata.uns.get(Keys.uns.root, {}).get(Keys.uns.simulation, {})
    if "regulators" not in truth:
        raise ValueError(
            f"adata.uns[{Keys.uns.root!r}][{Keys.uns.simulation!r}] holds no perturbed regulators: only cells made by "
            "scjepa.datasets.simulate_perturbseq have known true effects."
        )
    conditions = truth["conditions"]
    levels = ["perturbation", "context"] + (["dose"] if conditions["dose"].nunique() > 1 else [])
    index = pd.MultiIndex.from_frame(conditions[levels].astype({"perturbation": str, "context": str}))
    names = _gene_names(int(truth["parameters"]["n_genes"]), int(truth["parameters"]["n_regulators"]))
    effects = pd.DataFrame(np.asarray(truth["effect"]), index=index, columns=names)
    return effects[[g for g in adata.var_names if g in effects.columns]]


def _gene_names(n_genes: int, n_regulators: int) -> list[str]:
    """Name the regulators ``R01 ...`` and the other genes ``G001 ...``."""
    digits = max(3, len(str(n_genes)))
    return [f"R{i + 1:02d}" for i in range(n_regulators)] + [
        f"G{i + 1:0{digits}d}" for i in range(n_genes - n_regulators)
    ]


def _check_arguments(given: dict[str, Any]) -> None:
    """Raise a :class:`ValueError` that names the first argument out of range."""
    for name, minimum in {"n_genes": 2, "n_regulators": 1, "n_single": 0, "n_double": 0, "n_cells": 1,
                          "n_control": 1, "n_batches": 1, "n_steps": 1, "seed": 0}.items():  # fmt: skip
        require_positive_int(given[name], name, minimum=minimum)
    if given["n_regulators"] > given["n_genes"]:
        raise ValueError(
            f"n_regulators={given['n_regulators']}: regulators are genes, of which there are "
            f"n_genes={given['n_genes']}. Raise n_genes or lower n_regulators."
        )
    if given["n_single"] > given["n_regulators"]:
        raise ValueError(
            f"n_single={given['n_single']}: only the n_regulators={given['n_regulators']} regulators can "
            "be perturbed. Raise n_regulators or lower n_single."
        )
    if given["n_steps"] > 2:
        raise ValueError(f"n_steps={given['n_steps']}: expected 1 (targets) or 2 (also their targets).")
    for name, high in {"epistasis": 1.0, "dropout": 1.0}.items():
        check_number(given[name], name, 0.0, high)
    for name in ("context_effect", "state_effect", "batch_effect", "depth_sd", "dispersion"):
        check_number(given[name], name, 0.0, np.inf)
    check_number(given["depth"], "depth", 1.0, np.inf)
    for name in ("contexts", "kinds"):
        values = given[name]
        if isinstance(values, str) or not len(values) or len({str(v) for v in values}) < len(values):
            raise ValueError(f"{name}={values!r}: expected a sequence of distinct names, at least one.")
    for kind in given["kinds"]:
        require_member(kind, OWN_LOG_FOLD_CHANGE, "kinds", where="the kinds that can be simulated")
    if "doses" in given:
        doses = list(given["doses"])
        for dose in doses:
            check_number(dose, "doses", 0.0, np.inf)
        if not doses or 0.0 in doses or len(set(doses)) < len(doses):
            raise ValueError(f"doses: expected distinct positive numbers, found {some(doses) or 'none'}.")
