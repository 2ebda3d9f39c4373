"""How far a question about a drug lies from what was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._types import FloatArray
from scjepa.baselines.drugs._questions import classify
from scjepa.baselines.drugs._rows import SAME_LEVEL, Rows
from scjepa.baselines.drugs._structure import Structure

WIDTH = {"dose": 1.2, "time": 0.6}
"""Length scales in decades: over such a gap between doses or times, distance grows to .39."""
NEW, CROSSED = 0.5, 0.25
"""What a context never seen, and one seen without the drug (or a combination never given), add to the distance at most."""


def support(rows: Rows, query: Rows, structure: Structure) -> pd.DataFrame:
    """Describe the training conditions that are nearest to each question.

    Parameters
    ----------
    rows, query
        Training conditions and questions.
    structure
        What is known of drugs.

    Returns
    -------
    A row a question; see :meth:`scjepa.baselines.DrugEffect.support`.
    """
    given = rows.design.any(0)
    known = np.flatnonzero(given)
    names = np.array([rows.drugs[j] for j in known], dtype=object)
    alike = _similarity(query, rows, structure)[:, known]
    out: dict[str, list] = {"nearest_drug": [], "similarity": []}
    for axis in query.axes:
        out |= {f"{axis}_ratio": [], f"inside_{axis}": []}
    measured_here = []
    seen = set(rows.contexts)
    for i in range(len(query)):
        drugs = np.flatnonzero(query.design[i])
        nearest = [int(alike[j].argmax()) for j in drugs]
        out["nearest_drug"].append("+".join(names[j] for j in nearest))
        out["similarity"].append(min((float(alike[j].max()) for j in drugs), default=1.0))
        mine = rows.design[:, known[nearest]].any(1) if len(drugs) else np.zeros(len(rows), bool)
        measured_here.append(bool((mine & (rows.contexts == query.contexts[i])).any()))
        for axis in query.axes:
            asked = getattr(query, axis)[i]
            ratio, inside = [], True
            for j in nearest:
                levels = rows.levels(axis, int(known[j]))
                gap = asked - levels
                ratio.append(float(gap[np.abs(gap).argmin()]))
                inside &= bool(levels[0] - SAME_LEVEL <= asked <= levels[-1] + SAME_LEVEL)
            out[f"{axis}_ratio"].append(10 ** max(ratio, key=abs, default=0.0))
            out[f"inside_{axis}"].append(inside)
    table = pd.DataFrame(out)
    table["context_seen"] = np.isin(query.contexts, sorted(seen))
    table["drug_seen_there"] = measured_here
    table.insert(0, "class", classify(rows, query) if len(query) else [])
    return table


def distances(rows: Rows, query: Rows, structure: Structure) -> FloatArray:
    """Return how far questions are from training conditions, ``(m,)`` from 0 (measured) to 1 (nothing alike).

    One less the product of: the similarity of the nearest drug (for combinations of the least alike one), a Gaussian of the
    gap in decades to its nearest dose and to its nearest time, and a share for contexts where it was not measured.
    """
    found = support(rows, query, structure)
    near = found["similarity"].to_numpy(dtype=float)
    for axis in query.axes:
        gap = np.log10(found[f"{axis}_ratio"].to_numpy(dtype=float))
        near = near * np.exp(-(gap**2) / (2 * WIDTH[axis] ** 2))
    where = np.where(found["drug_seen_there"], 1.0, np.where(found["context_seen"], 1 - CROSSED, 1 - NEW))
    together = np.ones(len(query))
    given = {row.tobytes() for row in rows.design}
    for i in np.flatnonzero(query.order > 1):
        together[i] = 1.0 if query.design[i, : len(rows.drugs)].tobytes() in given else 1 - CROSSED
    return np.asarray(np.clip(1 - near * where * together, 0.0, 1.0))


def _similarity(query: Rows, rows: Rows, structure: Structure) -> FloatArray:
    """Return the similarity of drugs of questions and of training, ``(drugs, drugs)``: the greatest of any description."""
    if not structure:
        return (np.array(query.drugs, dtype=object)[:, None] == np.array(rows.drugs, dtype=object)[None]).astype(float)
    return np.asarray(np.max([part.between(query.drugs, rows.drugs) for part in structure.parts.values()], axis=0))
