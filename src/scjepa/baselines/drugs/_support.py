"""How far a question about a drug lies from what was measured."""

from __future__ import annotations

from typing import Any

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
    # pairs of a question and one of its drugs, in the order of questions
    which, drug = np.nonzero(query.design)
    nearest = alike.argmax(1)[drug]
    counted = np.bincount(which, minlength=len(query))
    least = np.ones(len(query))
    np.minimum.at(least, which, alike.max(1)[drug])
    called = names[nearest]
    first = np.concatenate([[0], np.cumsum(counted)])
    out: dict[str, Any] = {
        "nearest_drug": ["+".join(called[i:j]) for i, j in zip(first[:-1], first[1:], strict=True)],
        "similarity": least,
    }
    for axis in query.axes:
        own = query.doses if axis == "dose" else None
        asked = getattr(query, axis)[which] if own is None else own[which, drug]
        ratio, inside = np.zeros(len(query)), np.ones(len(query), bool)
        gap, within = np.zeros(len(which)), np.ones(len(which), bool)
        for j in np.unique(nearest):
            mine = np.flatnonzero(nearest == j)
            levels = rows.levels(axis, int(known[j]))
            apart = asked[mine][:, None] - levels
            gap[mine] = apart[np.arange(len(mine)), np.abs(apart).argmin(1)]
            within[mine] = (levels[0] - SAME_LEVEL <= asked[mine]) & (asked[mine] <= levels[-1] + SAME_LEVEL)
        farthest = np.lexsort(
            (-np.arange(len(which)), np.abs(gap), which)
        )  # of each question, the widest gap comes last
        ratio[which[farthest]] = gap[farthest]
        np.logical_and.at(inside, which, within)
        out |= {f"{axis}_ratio": 10**ratio, f"inside_{axis}": inside}
    places, place = np.unique(np.concatenate([rows.contexts, query.contexts]), return_inverse=True)
    of_rows, of_query = place[: len(rows)], place[len(rows) :]
    there = np.zeros((len(known), len(places)), bool)
    row, given_there = np.nonzero(rows.design[:, known])
    there[given_there, of_rows[row]] = True
    measured_here = np.bincount(which, there[nearest, of_query[which]], minlength=len(query)) > 0
    table = pd.DataFrame(out)
    table["context_seen"] = np.isin(query.contexts, rows.contexts)
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
    many = np.flatnonzero(query.order > 1)
    asked = query.design[many, : len(rows.drugs)] > 0
    same = (asked[:, None] == (np.unique(rows.design, axis=0) > 0)).all(2).any(1)
    together = np.ones(len(query))
    together[many] = np.where(same, 1.0, 1 - CROSSED)
    return np.asarray(np.clip(1 - near * where * together, 0.0, 1.0))


def _similarity(query: Rows, rows: Rows, structure: Structure) -> FloatArray:
    """Return the similarity of drugs of questions and of training, ``(drugs, drugs)``: the greatest of any description."""
    if not structure:
        return (np.array(query.drugs, dtype=object)[:, None] == np.array(rows.drugs, dtype=object)[None]).astype(float)
    return np.asarray(np.max([part.between(query.drugs, rows.drugs) for part in structure.parts.values()], axis=0))
