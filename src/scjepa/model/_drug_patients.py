"""Which patients respond? Predicted responses with intervals, groups of patients, and what tells them apart untreated."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.model._drug_parts import Responses, least_sure
from scjepa.model._drug_widths import LEAST_UNITS, half_width
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._effects import check_level
from scjepa.pharma import biomarkers, effect_size, responder_groups, signature_score


def stratified(
    found: Responses,
    adata: AnnData,
    anchor: object,
    *,
    key: str,
    context_key: str | None,
    genes: np.ndarray,
    signature: FloatArray | None,
    max_groups: int,
    level: float,
    seed: int,
) -> pd.DataFrame:
    """Group patients by predicted mean effects; the body of :meth:`DrugJEPA.stratify_patients`.

    Parameters
    ----------
    found
        Effects of one drug, one row a context.
    adata
        The cells, with the columns of patients and contexts.
    anchor
        What left training conditions out.
    key, context_key
        Columns with patients and with contexts.
    genes
        Names of the genes.
    signature
        ``(genes,)`` direction of the response, by default the mean effect over patients.
    max_groups, level, seed
        As for the method.
    """
    level = check_level(level)
    contexts = np.array([q.context for q in found.questions], dtype=object)
    patients = contexts
    if key != context_key:
        pairs = adata.obs[[context_key, key]].astype(str).drop_duplicates()
        of = dict(zip(pairs.iloc[:, 0], pairs.iloc[:, 1], strict=True))
        patients = np.array([of[c] for c in contexts], dtype=object)
    names = list(dict.fromkeys(patients))
    if len(names) < 4:
        raise ValueError(f"{len(names)} patients with vehicle cells ({some(names)}): expected at least four to group.")
    mean = lambda x: np.stack([x[patients == name].mean(0) for name in names])
    effects, untreated = mean(found.effects), mean(found.control)
    along = effects.mean(0) if signature is None else signature
    response = signature_score(effects, along) if np.abs(along).max() > 0 else np.zeros(len(names))
    beyond = response.var(ddof=1) > noise_of(found, anchor, along, len(names))
    groups = responder_groups(response if beyond else np.zeros(len(names)), max_groups=max_groups, seed=seed)
    half = half_width(*left_out_errors(found, anchor, signature), level)
    out = pd.DataFrame(
        {
            "perturbation": found.questions[0].label,
            key: names,
            "response": response,
            "lower": response - half,
            "upper": response + half,
        }
    )
    out["size"] = effect_size(effects)
    out["group"], out["stability"] = groups.labels, groups.support
    out["support"] = [least_sure(found.words[patients == name]) for name in names]
    doubt = np.zeros(len(patients)) if found.trust is None else found.trust.abstain.astype(float)
    out["abstain"] = [bool(doubt[patients == name].mean() > 0.5) for name in names]
    out = out.sort_values("response", ascending=False, ignore_index=True)
    told = pd.DataFrame(untreated, columns=genes)
    out.attrs["biomarkers"] = biomarkers(told, groups.labels) if groups.n_groups > 1 else pd.DataFrame()
    out.attrs["stability"] = groups.table
    return out


def of_drug(anchor: SelfJudging, asked: Question) -> np.ndarray:
    """Return the training rows of a drug at the dose and time nearest to those asked for, boolean ``(n,)``."""
    table = anchor.table_
    mine = np.array([tuple(a) == tuple(asked.action) for a in table.actions], dtype=bool)
    each = lambda value: np.log1p(np.broadcast_to(np.asarray(value or 0.0, dtype=float), max(len(asked.action), 1)))
    for values, wanted in ((table.doses, asked.dose), ([] if table.time is None else list(table.time), asked.time)):
        if values and mine.any():
            gap = np.array(
                [np.abs(each(v) - each(wanted)).max() if own else np.inf for v, own in zip(values, mine, strict=True)]
            )
            mine = mine & (gap <= gap[mine].min() + 1e-9)
    return mine


def noise_of(found: Responses, anchor: object, along: FloatArray, n: int) -> float:
    """Return the variance between ``n`` responses that the sampling of cells makes in 95 of 100 cases; 0 if unknown."""
    if not isinstance(anchor, SelfJudging) or not np.abs(along).max() > 0:
        return 0.0
    table, mine = anchor.table_, of_drug(anchor, found.questions[0])
    if table.variance is None or table.n_controls is None or not mine.any():
        return 0.0
    gene = float((along**2 / (along**2).sum()) @ table.variance)
    each = gene * (1 / table.n_cells[mine] + 1 / table.n_controls[mine])
    return float(each.mean() * stats.chi2.ppf(0.95, n - 1) / (n - 1))


def left_out_errors(found: Responses, anchor: object, signature: FloatArray | None) -> tuple[FloatArray, np.ndarray]:
    """Return errors of responses in training conditions that were left out, and their contexts (or drugs).

    Conditions of the drug asked for, at the dose and time nearest to those asked for, in contexts left out, if there are
    two of them; else all that were left out as questions of the class, each along the effects of its own drug. The direction
    is that of the mean over patients with the one left out as it was predicted, as for a patient who was not measured.

    Parameters
    ----------
    found
        Effects of one drug.
    anchor
        What predicts; one that leaves nothing out gives no errors.
    signature
        Direction of the response, or None.
    """
    nothing = np.zeros(0), np.zeros(0, dtype=object)
    if not isinstance(anchor, SelfJudging):
        return nothing
    table, asked = anchor.table_, found.questions[0]
    true, contexts = table.effects, table.contexts.astype(str)
    actions = np.array(["+".join(a) for a in table.actions], dtype=object)
    mine = of_drug(anchor, asked)
    for cls in ("context", "elsewhere", "single", "unseen"):
        if cls not in anchor.picks_:
            continue
        left = anchor.left_out_effects(cls)
        judged = np.isfinite(left).all(1)
        own = mine & judged
        rows = own if len(set(contexts[own])) >= LEAST_UNITS else judged
        units = contexts if rows is own or cls == "context" else actions
        if len(set(units[rows])) < LEAST_UNITS:
            continue
        errors = np.zeros(len(table))
        for i in np.flatnonzero(rows):
            along = signature
            if along is None:
                others = (actions == actions[i]) & (contexts != contexts[i])
                along = left[i] + true[others].sum(0)
            if np.abs(along).max() > 0:
                errors[i] = (true[i] - left[i]) @ along / np.linalg.norm(along)
        return errors[rows], units[rows]
    return nothing
