"""What is nearest to questions about drugs: the same as looking at one question after the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines.drugs._rows import SAME_LEVEL, Rows
from scjepa.baselines.drugs._structure import Structure
from scjepa.baselines.drugs._support import CROSSED, NEW, WIDTH, distances, support


def one(rows: Rows, query: Rows, i: int, structure: Structure) -> dict[str, object]:
    """Describe one question, and how far it is, by loops over its drugs."""
    known = [j for j in range(len(rows.drugs)) if rows.design[:, j].any()]
    likeness = lambda a, b: max([float(p.between([a], [b])[0, 0]) for p in structure.parts.values()] or [float(a == b)])
    out: dict[str, object] = {}
    least, nearest = 1.0, []
    for j in np.flatnonzero(query.design[i]):
        alike = [likeness(query.drugs[j], rows.drugs[k]) for k in known]
        nearest.append(known[int(np.argmax(alike))])
        least = min(least, max(alike))
    out["nearest_drug"], out["similarity"] = "+".join(rows.drugs[k] for k in nearest), least
    near = least
    for axis in query.axes:
        widest, inside = 0.0, True
        for k in nearest:
            levels, asked = rows.levels(axis, k), getattr(query, axis)[i]
            gap = min(asked - levels, key=abs)
            widest = gap if abs(gap) > abs(widest) else widest
            inside &= levels[0] - SAME_LEVEL <= asked <= levels[-1] + SAME_LEVEL
        out[f"{axis}_ratio"], out[f"inside_{axis}"] = 10**widest, bool(inside)
        near *= np.exp(-(widest**2) / (2 * WIDTH[axis] ** 2))
    here = rows.contexts == query.contexts[i]
    out["context_seen"], out["drug_seen_there"] = bool(here.any()), bool(rows.design[here][:, nearest].any())
    near *= 1.0 if out["drug_seen_there"] else 1 - CROSSED if out["context_seen"] else 1 - NEW
    if query.order[i] > 1 and not (rows.design == query.design[i, : len(rows.drugs)]).all(1).any():
        near *= 1 - CROSSED
    return {**out, "distance": 1 - near}


@pytest.mark.parametrize("structured", [False, True])
def test_equals_one_question_after_the_other(structured):
    rng = np.random.default_rng(3)
    d, n, m = 7, 40, 60
    names = tuple(f"D{i}" for i in range(d))
    design = np.eye(d)[rng.integers(0, d - 1, n)]  # the last drug has no row
    design[:6, 2] = 1
    rows = Rows(names, design, rng.choice(list("xyz"), n), rng.choice([-1.0, 0.0, 1.0], n), rng.choice([0.3, 1.4], n))
    asked = (rng.random((m, d + 2)) < 0.2).astype(float)
    asked[:, d - 1] = 0
    asked[~asked.any(1), 0] = 1
    asked[0] = 0
    asked[0, [2, int(np.flatnonzero(design[0])[0])]] = 1  # a combination that was given, or one drug of it
    query = Rows(
        (*names, "new", "other"), asked, rng.choice(list("xyzw"), m), rng.choice([-1.5, 0.0, 0.5, 2.0], m),
        rng.choice([0.0, 0.3, 1.0, 1.4], m),
    )  # fmt: skip
    bits = pd.DataFrame(rng.random((d + 2, 15)) < 0.4, index=query.drugs).astype(float)
    structure = Structure.of(None, bits if structured else None)
    expected = pd.DataFrame([one(rows, query, i, structure) for i in range(m)])
    found = support(rows, query, structure)
    pd.testing.assert_frame_equal(found.drop(columns="class"), expected.drop(columns="distance"))
    np.testing.assert_allclose(
        distances(rows, query, structure), np.clip(expected["distance"], 0, 1), rtol=0, atol=1e-12
    )
    assert (
        expected["nearest_drug"].str.contains("+", regex=False).sum() > 10
        and expected["drug_seen_there"].nunique() == 2
    )
    assert len(support(rows, query.take(np.zeros(0, int)), structure)) == 0
