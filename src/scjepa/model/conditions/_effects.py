"""Mean effects as a tidy table: bounded, with intervals, how far from training, and whether to use them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scjepa._checks import closest, some
from scjepa._types import FloatArray
from scjepa.model.conditions._design import Design, Question
from scjepa.model.conditions._trust import Trust

COLUMNS = ("perturbation", "gene", "effect", "lower", "upper", "distance", "support", "abstain")


def check_level(level: float) -> float:
    """Return ``level``; raise unless it is a number between 0 and 1."""
    if isinstance(level, bool) or not (isinstance(level, (float, int, np.floating)) and 0 < level < 1):
        raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.9.")
    return float(level)


def gene_positions(genes: str | Sequence[str] | None, known: np.ndarray) -> np.ndarray:
    """Return the positions of the genes asked for among those of the model."""
    if genes is None:
        return np.arange(len(known))
    asked = [str(g) for g in np.atleast_1d(np.asarray(genes, dtype=object))]
    found = pd.Index(known).get_indexer(asked)
    missing = [g for g, at in zip(asked, found, strict=True) if at < 0]
    if missing or not asked:
        raise ValueError(
            f"genes: {some(missing) or 'none'} asked for, not among the {len(known)} genes of the model."
            f"{closest(missing[0], known) if missing else ''} Leave genes out for all of them."
        )
    return found


def check_free(design: Design, columns: Sequence[str]) -> None:
    """Raise when a column of the user's would be overwritten by one of a result with ``columns``."""
    for name, key in design.covariates.items():
        if key in columns:
            raise ValueError(
                f"{name}_key={key!r}: the result has a column of its own by this name. Rename yours in obs "
                "and set the model up again."
            )


def bounds(
    effect: FloatArray, half: FloatArray, control: FloatArray, most: FloatArray, count: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of intervals, ``(m, genes)`` each.

    Parameters
    ----------
    effect, half
        Predicted effects and half the widths.
    control
        Profiles that they start from.
    most
        Largest mean that training cells or controls show of a gene.
    count
        What one count is worth, log-normalised: a gene that no cell showed may be found yet.
    """
    lower = np.maximum(effect - half, -(1 + 1e-5) * control)  # no mean expression is below zero, but for rounding
    return lower, np.minimum(effect + half, (1 + 1e-5) * np.maximum(most, count) - control)


def effect_table(
    questions: Sequence[Question],
    design: Design,
    genes: np.ndarray,
    columns: np.ndarray,
    values: dict[str, FloatArray],
    trust: Trust,
) -> pd.DataFrame:
    """Write effects as a tidy table, one row per question and gene.

    Parameters
    ----------
    questions, design
        What was asked, and how columns are named.
    genes
        All genes of the model.
    columns
        Positions of those to report.
    values
        Name -> ``(m, genes)``.
    trust
        What is known of the answers.
    """
    m, g = len(questions), len(columns)
    out = pd.DataFrame({"perturbation": np.repeat([q.label for q in questions], g)})
    for name, key in design.covariates.items():
        out[key] = np.repeat(design.values(questions, name), g)
    out["gene"] = np.tile(np.asarray(genes, dtype=object)[columns], m)
    for name, matrix in values.items():
        out[name] = matrix[:, columns].ravel()
    for name in ("distance", "support", "abstain"):
        out[name] = np.repeat(getattr(trust, name), g)
    return out
