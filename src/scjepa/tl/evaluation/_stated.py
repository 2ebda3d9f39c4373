"""What a prediction says of itself: support, abstention, and what the size of its effects was judged by."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._labels import parse_label
from scjepa._score_rows import joint_name, same_predictions
from scjepa.data._groups import SINGLE_CONTEXT
from scjepa.tl.evaluation._contenders import Contenders
from scjepa.tl.evaluation._inputs import Condition, Labels
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, ERRORS
from scjepa.tl.evaluation._scores import STATED, flags, words

logger = logging.getLogger(__name__)

UNTESTED = ("sampling noise", "none")
"""What an effect's size may have been judged by other than left-out conditions: no proof of use on unseen ones."""

CAUTION = {
    "basis": ("", "left out", "sampling noise", "none"),
    "support": ("", "trained", "near", "dose beyond", "time beyond", "structure uninformative", "far"),
}
"""From what speaks for a prediction to what speaks against it."""


def read_stated(record: Mapping[str, Any], who: Contenders) -> pd.DataFrame | None:
    """Return what the record of a prediction says of every predicted condition, or None if it says nothing.

    Where the conditions of the record are finer than those that are scored (contexts taken together), the most
    cautious of its statements counts.

    Parameters
    ----------
    record
        ``uns["jepa"]["prediction"]``; its ``"conditions"`` is a table with the columns ``perturbation``, ``context``,
        ``basis``, ``support`` and ``abstain``.
    who
        Conditions and labels.

    Returns
    -------
    ``basis``, ``support`` (text) and ``abstain`` (bool), one row per predicted condition; empty where the record has no
    row of the condition.
    """
    table = record.get("conditions")
    if not isinstance(table, pd.DataFrame) or not {"perturbation", "context", *STATED} <= set(table.columns):
        return None
    said: dict[Condition, dict[str, Any]] = {}
    columns = [words(table[c]) for c in ("perturbation", "context", "basis", "support")]
    for name, context, basis, support, abstain in zip(*columns, flags(table["abstain"]), strict=True):
        action = parse_label(name, who.labels.control, who.labels.separator)
        place = (action, context if who.labels.context_key is not None else SINGLE_CONTEXT)
        before = said.get(place, {"basis": "", "support": "", "abstain": False})
        said[place] = {
            "basis": _more_cautious("basis", before["basis"], basis),
            "support": _more_cautious("support", before["support"], support),
            "abstain": before["abstain"] or abstain,
        }
    nothing = {"basis": "", "support": "", "abstain": False}
    return pd.DataFrame([said.get(c, nothing) for c in who.predicted.conditions], columns=list(STATED))


def _more_cautious(column: str, a: str, b: str) -> str:
    order = CAUTION[column]
    return max(a, b, key=lambda word: order.index(word) if word in order else len(order))


def add_stated(scores: pd.DataFrame, stated: pd.DataFrame, who: Contenders) -> pd.DataFrame:
    """Return ``scores`` with the columns of ``stated``, filled for the conditions of the prediction."""
    conditions = pd.MultiIndex.from_arrays([who.names, who.contexts])
    row = conditions.get_indexer(pd.MultiIndex.from_frame(scores[["perturbation", "context"]]))
    here = (scores["kind"] == "model").to_numpy() & (row >= 0)
    empty: dict[str, Any] = {"basis": "", "support": "", "abstain": False}
    filled = {c: np.where(here, stated[c].to_numpy()[row], empty[c]) for c in STATED}
    return scores.assign(**filled).astype({"abstain": bool})


def warn_stated(stated: pd.DataFrame, record: Mapping[str, Any], method: str) -> None:
    """Warn once of predictions whose size nothing tested, or that the model itself would not stand for."""
    if note := str(record.get("note", "") or ""):
        logger.info("%s said of this prediction: %s", method, note)
    count = {basis: int((stated["basis"] == basis).sum()) for basis in UNTESTED}
    abstains = int(stated["abstain"].sum())
    if not abstains and not any(count.values()):
        return
    by = {"sampling noise": "by sampling noise alone", "none": "by nothing"}
    judged = " and ".join(f"of {k} {by[basis]}" for basis, k in count.items() if k)
    parts = [f"judged the size of the effect {judged}"] if judged else []
    parts += [f"abstains on {abstains}"] if abstains else []
    sentence = f"Of {len(stated)} predicted conditions {method} {', and '.join(parts)}"
    if reliability := _reliability(record.get("reliability")):
        sentence += f"; reliability of the training conditions: {reliability}"
    warnings.warn(f"{sentence}.", UserWarning, stacklevel=3)


def warn_pooled(record: Mapping[str, Any], pred: AnnData, real: AnnData, labels: Labels) -> None:
    """Warn once where a predicted condition has cells of several doses or times: a condition is a label in a context."""
    where = [labels.perturbation_key, *([labels.context_key] if labels.context_key else [])]
    found = []
    for name in ("dose", "time"):
        key = str(record.get(f"{name}_key", "") or "")
        if not key or not all({key, *where} <= set(adata.obs) for adata in (pred, real)):
            continue
        both = pd.concat([adata.obs[[*where, key]].astype(str) for adata in (pred, real)])
        asked = pd.MultiIndex.from_frame(pred.obs[where].astype(str)).unique()
        both = both[pd.MultiIndex.from_frame(both[where]).isin(asked)]
        both = both[both[labels.perturbation_key] != labels.control]
        number = pd.to_numeric(both[key], errors="coerce")
        both[key] = number.astype(str).where(number.notna(), both[key])
        several = both.groupby(where)[key].nunique()
        if (several > 1).any():
            example = several.idxmax()
            text = example if isinstance(example, str) else " in ".join(example)
            found.append((name, key, int((several > 1).sum()), text))
    for name, key, n, example in found[:1]:
        warnings.warn(
            f"{n} predicted conditions have cells of several {name}s in obs[{key!r}] of pred and real (for example {example}), "
            f"which are scored as one. Score one {name} at a time (pred and real of that {name}, and controls), or put the "
            f"{name} into the labels.",
            UserWarning,
            stacklevel=3,
        )


def _reliability(record: Any) -> str:
    """Write the numbers that are known."""
    if not isinstance(record, Mapping):
        return ""
    number = {key: float(record.get(key, np.nan)) for key in ("median", "near_zero", "n")}
    parts = []
    if np.isfinite(number["median"]):
        parts.append(f"median {number['median']:.2f}")
    if np.isfinite(number["near_zero"]) and np.isfinite(number["n"]):
        parts.append(f"{number['near_zero']:.0f} of {number['n']:.0f} below 0.1")
    return ", ".join(parts)


def stated_lines(scores: pd.DataFrame, claims: pd.DataFrame) -> list[str]:
    """Return what models say of their own predictions, as lines below the verdicts.

    The second line of a model is its selective risk: whether it abstains where it is wrong.

    Parameters
    ----------
    scores
        Checked score table.
    claims
        Table of :func:`scjepa.tl.verdict` for it, which knows the best baselines.
    """
    if not set(STATED) <= set(scores.columns):
        return []
    each = scores[(scores["kind"] == "model") & (scores["perturbation"] != ALL_CONDITIONS)]
    condition = ["perturbation", "context"]
    lines = []
    for model, rows in each.groupby("method", sort=False):
        stated = rows.sort_values("abstain", kind="stable").drop_duplicates(condition, keep="last").set_index(condition)
        stated = stated[(stated["basis"] != "") | (stated["support"] != "") | stated["abstain"]]
        if not len(stated):
            continue
        out = stated[stated["abstain"]]
        plural = "s" if len(stated) != 1 else ""
        line = f"{model} abstains on {len(out) or 'none'} of {len(stated)} condition{plural}"
        if far := int((out["support"] == "far").sum()):
            line += f" (support far: {far})"
        known = [b for b in CAUTION["basis"] if b] + sorted(set(stated["basis"]) - set(CAUTION["basis"]))
        by = [f"{basis} {k}" for basis in known if (k := int((stated["basis"] == basis).sum()))]
        lines.append(line + (f"; judged by: {', '.join(by)}" if by else "") + ".")
        lines += _selective_risk(scores, claims[claims["method"] == model], stated["abstain"])
    return lines


def _selective_risk(scores: pd.DataFrame, claims: pd.DataFrame, abstain: pd.Series) -> list[str]:
    """Return the errors of a model and a baseline where the model abstains, and elsewhere; none if it is all or none."""
    best = claims[claims["metric"].isin(ERRORS) & (claims["baseline"] != "")]
    if not len(best) or abstain.all() or not abstain.any():
        return []
    model, error, baseline = best.iloc[0][["method", "metric", "baseline"]]
    wide = scores[scores["metric"] == error].pivot_table(
        index=["perturbation", "context"], columns="method", values="value", aggfunc="mean"
    )
    both = wide[[model, baseline]].reindex(abstain.index).dropna()
    left_out = abstain.loc[both.index]
    if left_out.all() or not left_out.any():
        return []
    (a, b), (c, d) = both[left_out].mean(), both[~left_out].mean()
    name = joint_name(same_predictions(scores)[baseline])
    return [
        f"{error.replace('_', ' ')} of {model} and best baseline ({name}): {a:.3f} and {b:.3f} where it abstains, "
        f"{c:.3f} and {d:.3f} on the {int((~left_out).sum())} other{'s' if (~left_out).sum() != 1 else ''}."
    ]
