"""Are predicted sets as wide, and predicted effects as large, as true ones? And what did the network win?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.baselines import Baseline, SelfJudging
from scjepa.data import CellGroups
from scjepa.model.conditions._gate import Gate
from scjepa.model.conditions._known import Known
from scjepa.model.core import Diagnostic


def trained_conditions(groups: CellGroups, known: Known, rng: np.random.Generator) -> list[int]:
    """Draw up to ten conditions with more than one cell that were trained on."""
    able = [i for i, seen in enumerate(known.among(groups)) if seen and len(groups.cells[i]) > 1]
    return [int(i) for i in rng.choice(able, min(10, len(able)), replace=False)] if able else []


def condition_diagnostics(
    pairs: Sequence[tuple[AnnData, FloatArray]], axes: FloatArray, gate: Gate, anchor: Baseline | None
) -> list[Diagnostic]:
    """Judge predictions of training conditions, the network and the contexts.

    Parameters
    ----------
    pairs
        Predicted cells with their controls, and the real cells ``(n, genes)``.
    axes
        ``(genes, d)`` coordinates in which widths are compared.
    gate, anchor
        Of the model.

    Returns
    -------
    Ratios of variances and of shifts (predicted over true); what the network won on left-out conditions, where it is
    asked; and whether control profiles tell how contexts differ.
    """
    spread, size = [], []
    for predicted, real in pairs:
        control = (predicted.obs[Keys.obs.kind] == "control").to_numpy()
        start = predicted.X[control].mean(0)
        width = float((real @ axes).var(0).sum())
        spread.append(float((predicted.X[~control] @ axes).var(0).sum()) / max(width, 1e-12))
        length = float(np.linalg.norm(real.mean(0) - start))
        size.append(float(np.linalg.norm(predicted.X[~control].mean(0) - start)) / max(length, 1e-12))
    rows = []
    for name, values in (("variance ratio", spread), ("shift ratio", size)):
        value = float(np.mean(values)) if values else float("nan")
        verdict = "ok" if 0.7 < value < 1.3 else "check"
        rows.append(Diagnostic(name, value, "0.7 to 1.3 on training conditions, predicted over true", verdict))
    won = "above 0: share of the anchor's left-out error that the network takes off"
    rows += [Diagnostic(f"network gain, {cls}", gain, won, "ok") for cls, gain in gate.gains.items()]
    report = anchor.context_report() if isinstance(anchor, SelfJudging) else None
    if report is not None:
        expected = f"1: control profiles tell how contexts differ; 0: they don't (+- {report.error:.2f})"
        rows.append(Diagnostic("context slope", report.slope, expected, "check" if report.note else "ok"))
    return rows
