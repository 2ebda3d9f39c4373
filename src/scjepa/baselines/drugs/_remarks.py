"""What is to be said of a question about a drug: structure that tells nothing, doses and times beyond what was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa.baselines.drugs._rows import AXES, SAME_LEVEL, Rows

INFORMATIVE = 0.35
"""Structures less alike than this to all of training tell next to nothing: on OP3 they take .2 % off the error of the mean
response, those from .35 to .4 half a per cent, those above .4 one and a half (benchmarks/README.md)."""
UNINFORMATIVE, BEYOND = "structure uninformative", "beyond"
"""Words of ``support``: the first, or ``"dose beyond"`` and ``"time beyond"``."""


def remarks(rows: Rows, query: Rows, found: pd.DataFrame) -> pd.DataFrame:
    """Say in words where predictions rest on little.

    Parameters
    ----------
    rows, query
        Training conditions and questions.
    found
        :func:`scjepa.baselines.drugs._support.support` of the questions.

    Returns
    -------
    A row a question: ``class``, ``nearest_drug``, ``similarity``, ``support`` (a word, or ``""`` where there is nothing
    to be said) and ``remark`` (sentences joined by ``"; "``).
    """
    out = found[["class", "nearest_drug", "similarity"]].reset_index(drop=True)
    words = np.full(len(out), "", dtype=object)
    said: list[list[str]] = [[] for _ in range(len(out))]
    for axis in query.axes:
        for i, drugs in enumerate(_ranges(rows, query, axis)):
            for j, (low, high) in drugs.items():
                asked = query.level(axis, i, j)
                below = asked < low - SAME_LEVEL
                if below or asked > high + SAME_LEVEL:
                    words[i] = words[i] or f"{axis} {BEYOND}"
                    end, place = (low, "below the lowest") if below else (high, "above the highest")
                    told = f"{axis} {10**asked:.4g} is {place} measured, {10**end:.4g}"
                    if told not in said[i]:
                        said[i].append(told)
    new = out["class"].str.startswith("unseen").to_numpy(dtype=bool)
    for i in map(int, np.flatnonzero(new & (out["similarity"].to_numpy(dtype=float) < INFORMATIVE))):
        words[i] = UNINFORMATIVE
        said[i].insert(
            0, f"mean response, structure uninformative (no training molecule is more alike than {INFORMATIVE})"
        )
    out["support"], out["remark"] = words, ["; ".join(parts) for parts in said]
    return out


def silent(n: int) -> pd.DataFrame:
    """Return :func:`remarks` of questions of which nothing is known."""
    text = np.full(n, "", dtype=object)
    return pd.DataFrame(
        {"class": text, "nearest_drug": text, "similarity": np.full(n, np.nan), "support": text, "remark": text}
    )


def _ranges(rows: Rows, query: Rows, axis: str) -> list[dict[int, tuple[float, float]]]:
    """Return, for each drug of each question, the range of levels in which it was measured; of new drugs that of all drugs."""
    assert axis in AXES
    given = np.flatnonzero(rows.design.any(0))
    each = {int(j): (float(v[0]), float(v[-1])) for j in given if len(v := rows.levels(axis, int(j)))}
    whole = (min(low for low, _ in each.values()), max(high for _, high in each.values()))
    return [{int(j): each.get(int(j), whole) for j in np.flatnonzero(row)} for row in query.design]
