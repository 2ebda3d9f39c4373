"""A drug screen with known truth: structures, targets, dose curves, times, combinations, patients, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from scjepa._checks import require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.datasets._counts import check_number, draw_counts, mean_profiles
from scjepa.datasets._molecules import FAMILIES, MOST_ACTIVE, MOST_NULL
from scjepa.datasets._pharmacology import (
    INTERACTION,
    draw_combinations,
    draw_drugs,
    draw_fading,
    draw_patients,
    occupancy,
    responder_table,
)
from scjepa.pharma import hill

CONTROL = "DMSO"
SILENT = -3.0
"""Log rate of the gene of a target that a patient does not express."""


def simulate_drug_screen(
    n_genes: int = 200,
    n_drugs: int = 24,
    n_targets: int = 6,
    *,
    doses: Sequence[float] = (0.0, 0.01, 0.1, 1.0, 10.0),
    times: Sequence[float] | None = None,
    contexts: Sequence[str] = ("line A", "line B", "line C"),
    n_patients: int = 0,
    n_combinations: int = 6,
    n_cells: int = 30,
    n_control: int = 120,
    null_fraction: float = 0.1,
    cliffs: float = 0.1,
    off_target: float = 0.3,
    fading_fraction: float = 0.25,
    responder_fraction: float = 0.5,
    effect_size: float = 0.7,
    context_effect: float = 0.4,
    readable: bool = True,
    state_effect: float = 0.2,
    depth: float = 3000.0,
    depth_sd: float = 0.3,
    dispersion: float = 0.1,
    seed: int = 0,
    sparse: bool = True,
) -> anndata.AnnData:
    r"""Simulate counts of a drug screen whose structures, dose curves, synergies and responders are known.

    The share of gene :math:`g` among the transcripts of a cell is
    :math:`\pi_g \propto \exp(\mu_{cg} + \text{state} + \Delta_{qcg})` with the log fold change

    .. math::
        \Delta_{qc} = (1 + \gamma_q \sqrt{h_a h_b}) \sum_t s_{ct} \Big(1 - \prod_{d \in q} (1 - w_{dt} E_d h_d f_d)\Big) P_t,
        \quad h_d = \frac{x^{n_d}}{x^{n_d} + \mathrm{EC50}_d^{n_d}}

    with :math:`P_t` the programme of target :math:`t`, :math:`s_{ct}` how strongly a context responds to it,
    :math:`w` the drug's weights on targets, :math:`E` its Emax, :math:`x` the dose, :math:`n` the slope, :math:`f` the
    time course, and :math:`\gamma` the interaction of a combination. So one drug alone has half of its effect on this
    scale at its EC50. Counts are negative binomial around :math:`\pi_g` times a log-normal library size.

    Molecules come in families: a real ring system with two substituents. A family shares a target, so similar
    structures have similar effects, except for activity cliffs. The first substituent and the family make most of a
    drug's potency, the second substituent a weaker second target.

    Parameters
    ----------
    n_genes, n_drugs, n_targets
        Numbers of genes, of drugs (combinations not counted) and of targets, at most 11. Each target has a gene of its
        name, the first genes, which no drug changes.
    doses
        Doses (µM) at which each drug is measured; 0 may be among them, it is the dose of controls.
    times
        Exposure times (h), each measured for all conditions and controls; None for one, when effects are complete.
    contexts
        Names of the contexts (cell lines).
    n_patients
        If positive, each context stands for several patients (dealt evenly), and conditions are measured in each.
    n_combinations
        Number of pairs, measured with both drugs at the same dose; a third each synergistic, antagonistic and
        independent. Pairs that share a target come first.
    n_cells, n_control
        Cells per condition (drug, dose, time, context or patient); controls per context or patient, spread over times.
    null_fraction
        Share of the drugs without any effect; they are a family of their own.
    cliffs
        Share of the active drugs that act on another target than their family.
    off_target
        Weight of second targets (0 for none); half of the substituents bring one.
    fading_fraction
        Share of the active drugs whose effect drops to a quarter from a measured time on, in some contexts
        (resistance). Takes two times or more.
    responder_fraction
        Share of the patients who express a target, drawn for each; the others don't respond through it at all.
    effect_size
        Standard deviation of a programme's log fold changes over the fifth of the genes that it changes.
    context_effect
        Standard deviation of the log of :math:`s_{ct}`.
    readable
        Whether the expression of a target's gene in controls tells how strongly the context responds to its drugs.
    state_effect, depth, depth_sd, dispersion, sparse
        As in :func:`simulate_perturbseq`.
    seed
        Seed; chemistry, biology and combinations do not depend on the numbers of cells.

    Returns
    -------
    AnnData with raw counts (float32) in random cell order; ``obs``: ``drug`` (``"D01"``, ``"D01+D02"``, ``"DMSO"``),
    ``dose`` (of each drug), ``time`` (only with ``times``), ``context``, ``patient`` (only with ``n_patients``),
    ``smiles`` (parts of a combination joined by a dot, empty for controls), ``n_counts``; ``var``: ``target``. The
    truth is in ``uns["jepa"]["simulation"]``:

    - ``drugs``: one row per drug: ``smiles``, ``family``, ``target``, ``second_target``, ``null``, ``cliff``,
      ``ec50``, ``slope``, ``emax``, ``onset`` (time constant, h);
    - ``targets``: drugs x targets, the weights; ``features``: drugs x bits, the same structures without SMILES;
    - ``combinations``: ``combination``, ``drug_a``, ``drug_b``, ``interaction``, ``sign`` (1, -1, 0);
    - ``fading`` (with several times): ``drug``, ``context``, ``time`` from which on the effect fades;
    - ``patients``: context, and a column per target: expressed?; ``responders``: ``patient``, ``context``, ``drug``,
      ``target``, ``responder`` (both only with patients);
    - ``sensitivity``: contexts or patients x targets; ``programmes``: targets x genes;
    - ``conditions``: one row per condition, in the order of ``effect`` and ``log_fold_change`` (both conditions x
      genes): true mean effect on the scale ``log1p(1e4 * share)``, and the log fold change above;
    - ``control``: contexts or patients x genes, true mean control profile; ``parameters``: the arguments.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    Examples
    --------
    >>> from scjepa.datasets import simulate_drug_screen, true_drug_effects
    >>> adata = simulate_drug_screen(60, 6, 2, doses=(0.1, 1, 10), contexts=("A549",), n_combinations=1, n_cells=5)
    >>> adata.shape, adata.obs["drug"].nunique()
    ((225, 60), 8)
    >>> true_drug_effects(adata).shape  # (drug, context, dose) x genes
    (21, 60)
    >>> list(adata.uns["jepa"]["simulation"]["drugs"].columns)[:4]
    ['smiles', 'family', 'target', 'second_target']
    """
    given = {name: value for name, value in locals().items() if value is not None}
    _check_arguments(given)
    lines = [str(c) for c in contexts]
    levels = np.array([d for d in doses if d > 0], dtype=np.float64)
    hours = None if times is None else np.sort(np.array(times, dtype=np.float64))

    # one stream for each part, so that for example more cells leave the chemistry as it is
    drug_rng, gene_rng, context_rng, fade_rng, pair_rng, patient_rng, cell_rng = np.random.default_rng(seed).spawn(7)
    targets, genes = _names(n_genes, n_targets)
    drugs, weights, features = draw_drugs(
        n_drugs, targets, levels, null_fraction=null_fraction, cliffs=cliffs, off_target=off_target, rng=drug_rng
    )
    pairs = draw_combinations(drugs, n_combinations, pair_rng)
    fading = draw_fading(drugs, lines, np.empty(0) if hours is None else hours, fading_fraction, fade_rng)
    programmes = (
        effect_size * gene_rng.normal(size=(n_targets, n_genes)) * (gene_rng.random((n_targets, n_genes)) < 0.2)
    )
    programmes[:, :n_targets] = 0.0
    base = gene_rng.normal(0.0, 1.0, n_genes)
    programme, amplitude = state_effect * gene_rng.normal(size=(2, n_genes))
    phase = gene_rng.uniform(0.0, 2 * np.pi, n_genes)

    # samples: contexts, or the patients of all contexts
    respond, hidden = context_effect * context_rng.normal(size=(2, len(lines), n_targets))
    shifted = context_rng.random((len(lines), n_genes)) < 0.3
    log_rate = base + np.where(shifted, context_rng.normal(0.0, 0.7, shifted.shape), 0.0)
    log_rate[:, :n_targets] = 1.0 + 2.0 * (respond if readable else hidden)
    sensitivity, samples, line_of = np.exp(respond), lines, np.arange(len(lines))
    patients = draw_patients(n_patients, lines, targets, responder_fraction, patient_rng)
    if n_patients:
        samples, line_of = list(patients.index), np.arange(n_patients) % len(lines)
        expressed = patients[targets].to_numpy(dtype=bool)
        sensitivity = np.where(expressed, sensitivity[line_of], 0.0)
        log_rate = log_rate[line_of] + 0.15 * patient_rng.normal(size=(n_patients, n_genes))
        log_rate[:, :n_targets] = np.where(expressed, log_rate[:, :n_targets], SILENT)

    # conditions: drug or combination (slowest), sample, time, dose (fastest)
    labels = np.array([*drugs.index, *pairs["combination"]], dtype=object)
    row = {name: i for i, name in enumerate(drugs.index)}
    first = np.array([*range(n_drugs), *(row[d] for d in pairs["drug_a"])])
    partner = np.array([-1] * n_drugs + [row[d] for d in pairs["drug_b"]])
    gamma = INTERACTION * np.array([0] * n_drugs + pairs["sign"].tolist())
    q, s, t, x = (
        i.ravel() for i in np.indices((len(labels), len(samples), 1 if hours is None else len(hours), len(levels)))
    )
    where, dose = np.array(lines, dtype=object)[line_of[s]], levels[x]
    time = None if hours is None else hours[t]
    parts = [occupancy(drugs, weights, fading, member[q], dose, time, where) for member in (first, partner)]
    both = np.ones(len(q))
    for member in (first[q], partner[q]):
        curve = drugs.iloc[np.maximum(member, 0)]
        both = both * hill(dose, ec50=curve["ec50"].to_numpy(), slope=curve["slope"].to_numpy())
    boost = np.where(partner[q] < 0, 1.0, 1.0 + gamma[q] * np.sqrt(np.nan_to_num(both)))
    change = boost[:, None] * ((sensitivity[s] * (1 - (1 - parts[0]) * (1 - parts[1]))) @ programmes)
    conditions = pd.DataFrame(
        {"drug": labels[q], "context": where, "dose": dose}, index=[str(i) for i in range(len(q))]
    )
    if time is not None:
        conditions["time"] = time
    if n_patients:
        conditions["patient"] = np.array(samples, dtype=object)[s]

    def states_shift(u: FloatArray, theta: FloatArray) -> FloatArray:
        return u[:, None] * programme + amplitude * np.cos(theta[:, None] - phase)

    control_mean, effect = mean_profiles(log_rate, change, s, states_shift)

    # cells: which condition (-1: control), sample and time each belongs to
    condition = np.concatenate([np.repeat(np.arange(len(q)), n_cells), np.full(len(samples) * n_control, -1)])
    sample = np.concatenate([np.repeat(s, n_cells), np.repeat(np.arange(len(samples)), n_control)])
    n_times = 1 if hours is None else len(hours)
    moment = np.concatenate([np.repeat(t, n_cells), np.tile(np.arange(n_control) % n_times, len(samples))])
    order = cell_rng.permutation(len(condition))
    condition, sample, moment = condition[order], sample[order], moment[order]
    counts = draw_counts(
        log_rate,
        np.vstack([change, np.zeros(n_genes)]),
        np.zeros((1, n_genes)),
        states_shift,
        condition,
        sample,
        np.zeros(len(condition), dtype=int),
        library=depth * np.exp(depth_sd * cell_rng.normal(size=len(condition)) - depth_sd**2 / 2),
        dispersion=dispersion,
        dropout=0.0,
        rng=cell_rng,
        sparse=sparse,
    )
    structure = {CONTROL: "", **drugs["smiles"]}
    structure |= {c: f"{structure[a]}.{structure[b]}" for c, a, b in pairs.iloc[:, :3].itertuples(index=False)}
    names = np.append(conditions["drug"], CONTROL)[condition]
    obs = pd.DataFrame(
        {
            "drug": pd.Categorical(names),
            "dose": np.append(dose, 0.0)[condition],
            "context": pd.Categorical(np.array(lines, dtype=object)[line_of[sample]]),
            "smiles": pd.Categorical([structure[name] for name in names]),
        },
        index=[f"cell{i:0{len(str(len(condition)))}d}" for i in range(len(condition))],
    )
    if hours is not None:
        obs["time"] = hours[moment]
    if n_patients:
        obs["patient"] = pd.Categorical(np.array(samples, dtype=object)[sample])
    obs["n_counts"] = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    truth: dict[str, Any] = {
        "drugs": drugs,
        "targets": weights,
        "features": features,
        "combinations": pairs,
        "sensitivity": pd.DataFrame(sensitivity, index=samples, columns=targets),
        "programmes": pd.DataFrame(programmes, index=targets, columns=genes),
        "conditions": conditions,
        "effect": effect,
        "log_fold_change": change,
        "control": pd.DataFrame(control_mean, index=samples, columns=genes),
        "parameters": given | {"contexts": np.array(lines, dtype=object), "doses": np.array(doses, dtype=np.float64)},
    }
    if hours is not None:
        truth["fading"] = fading.rename(index=str)
        truth["parameters"] |= {"times": hours}
    if n_patients:
        truth |= {"patients": patients, "responders": responder_table(patients, drugs).rename(index=str)}
    truth["combinations"] = pairs.rename(index=str)
    var = pd.DataFrame({"target": np.arange(n_genes) < n_targets}, index=genes)
    return anndata.AnnData(counts, obs=obs, var=var, uns={Keys.uns.root: {Keys.uns.simulation: truth}})


def true_drug_effects(adata: anndata.AnnData) -> pd.DataFrame:
    """Return the true mean effects of a simulated drug screen.

    Parameters
    ----------
    adata
        From :func:`simulate_drug_screen`, also after a round trip through a file or a selection of cells or genes.

    Returns
    -------
    Conditions x genes of ``adata``: treated minus control mean on the scale ``log1p(1e4 * share)``. The index has the
    levels drug, context and dose, and time and patient where the screen has them.

    Raises
    ------
    ValueError
        If ``adata`` was not simulated here.

    Examples
    --------
    >>> from scjepa.datasets import simulate_drug_screen, true_drug_effects
    >>> adata = simulate_drug_screen(50, 4, 2, n_combinations=0, null_fraction=0.25, contexts=("A549",), n_cells=2)
    >>> effects = true_drug_effects(adata)
    >>> drugs = adata.uns["jepa"]["simulation"]["drugs"]
    >>> bool((effects.loc[drugs.index[drugs["null"]]] == 0).all(axis=None))
    True
    """
    truth = adata.uns.get(Keys.uns.root, {}).get(Keys.uns.simulation, {})
    if "drugs" not in truth:
        raise ValueError(
            f"adata.uns[{Keys.uns.root!r}][{Keys.uns.simulation!r}] holds no drugs: only cells made by "
            "scjepa.datasets.simulate_drug_screen have known true effects of drugs."
        )
    conditions = truth["conditions"]
    levels = [name for name in ("drug", "context", "dose", "time", "patient") if name in conditions]
    text = [name for name in levels if name not in ("dose", "time")]
    index = pd.MultiIndex.from_frame(conditions[levels].astype(dict.fromkeys(text, str)))
    effects = pd.DataFrame(np.asarray(truth["effect"]), index=index, columns=list(truth["programmes"].columns))
    return effects[[g for g in adata.var_names if g in effects.columns]]


def _names(n_genes: int, n_targets: int) -> tuple[list[str], list[str]]:
    """Name the targets ``T01 ...``, and the genes: first those of the targets, then ``G001 ...``."""
    targets = [f"T{i + 1:02d}" for i in range(n_targets)]
    digits = max(3, len(str(n_genes)))
    return targets, targets + [f"G{i + 1:0{digits}d}" for i in range(n_genes - n_targets)]


def _check_arguments(given: dict[str, Any]) -> None:
    """Raise a :class:`ValueError` that names the first argument out of range."""
    for name, minimum in {"n_genes": 2, "n_drugs": 1, "n_targets": 1, "n_patients": 0, "n_combinations": 0,
                          "n_cells": 1, "n_control": 1, "seed": 0}.items():  # fmt: skip
        require_positive_int(given[name], name, minimum=minimum)
    for name in ("null_fraction", "cliffs", "off_target", "fading_fraction", "responder_fraction"):
        check_number(given[name], name, 0.0, 1.0)
    for name in ("effect_size", "context_effect", "state_effect", "depth_sd", "dispersion"):
        check_number(given[name], name, 0.0, np.inf)
    check_number(given["depth"], "depth", 1.0, np.inf)
    n_targets, n_drugs = given["n_targets"], given["n_drugs"]
    if n_targets > len(FAMILIES) - 1 or n_targets >= given["n_genes"]:
        raise ValueError(
            f"n_targets={n_targets}: expected at most {len(FAMILIES) - 1}, the number of families of molecules, and "
            f"fewer than n_genes={given['n_genes']}."
        )
    n_null = round(given["null_fraction"] * n_drugs)
    if n_null > MOST_NULL or n_drugs - n_null > MOST_ACTIVE:
        raise ValueError(
            f"n_drugs={n_drugs} with null_fraction={given['null_fraction']:g}: there are molecules for {MOST_ACTIVE} "
            f"drugs with and {MOST_NULL} without effect. Lower n_drugs or change null_fraction."
        )
    most = (n_drugs - n_null) * (n_drugs - n_null - 1) // 2
    if given["n_combinations"] > most:
        raise ValueError(
            f"n_combinations={given['n_combinations']}: only {most} pairs can be made of the {n_drugs - n_null} drugs "
            "with an effect. Raise n_drugs or lower n_combinations."
        )
    contexts = given["contexts"]
    if isinstance(contexts, str) or not len(contexts) or len({str(v) for v in contexts}) < len(contexts):
        raise ValueError(f"contexts={contexts!r}: expected a sequence of distinct names, at least one.")
    for name, low in {"doses": "non-negative numbers, one of them above 0", "times": "positive numbers"}.items():
        values = list(given.get(name, [1.0]))
        for value in values:
            check_number(value, name, 0.0, np.inf)
        positive = [v for v in values if v > 0]
        if not positive or len(set(values)) < len(values) or (name == "times" and len(positive) < len(values)):
            raise ValueError(f"{name}: expected distinct {low}, found {some(values) or 'none'}.")
