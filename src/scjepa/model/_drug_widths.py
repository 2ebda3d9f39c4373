"""How far a measured response may lie from a predicted one: errors, along a direction, of conditions left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.data import ConditionTable

LEAST_UNITS = 2
"""Fewer contexts (or drugs) left out tell nothing of the width of an interval."""
EXACT = 3
"""A quantile of errors is read off where so many are beyond it, else Student's t says how large they get."""


def response_widths(anchor: object, table: ConditionTable, signature: FloatArray | None, level: float) -> FloatArray:
    """Return half the widths of intervals of responses, ``(m,)``; NaN where too little could be left out.

    Training conditions are left out as questions of the class of each row are asked. Their errors are taken along the
    signature, or each along its own predicted effect, as the response to a drug is along that of the drug.

    Parameters
    ----------
    anchor
        What predicts; one that leaves nothing out tells no width.
    table
        The questions.
    signature
        ``(genes,)`` direction of the response, or None for each drug's own.
    level
        Wanted coverage.
    """
    out = np.full(len(table), np.nan)
    if not isinstance(anchor, SelfJudging):
        return out
    seen, classes, many = anchor.table_, anchor.classes(table), table.order >= 2
    for cls in dict.fromkeys(classes):
        if cls not in anchor.picks_:
            continue
        left = anchor.left_out_effects(cls)
        along = left if signature is None else np.broadcast_to(signature, left.shape)
        length = np.sqrt(np.nan_to_num(along**2).sum(1))
        usable = np.isfinite(left).all(1) & (length > 0)
        names = seen.contexts if anchor.new_context(cls) else ["+".join(action) for action in seen.actions]
        units = np.array(list(map(str, names)), dtype=object)
        for combined in (False, True):
            mine = (classes == cls) & (many == combined)
            if not mine.any():
                continue
            like = np.flatnonzero(anchor.rows_like(cls, combinations=combined, usable=usable))
            if len(set(units[like])) >= LEAST_UNITS:
                errors = ((seen.effects[like] - left[like]) * along[like]).sum(1) / length[like]
                out[mine] = half_width(errors, units[like], level)
    out[table.untreated] = 0.0
    return out


def half_width(errors: FloatArray, units: Sequence[object] | np.ndarray, level: float) -> float:
    r"""Return half the width of an interval that covers a new unit's response, NaN where nothing was left out.

    With :math:`k` units of root mean square errors :math:`r_i` the conformal quantile, the :math:`\lceil (k + 1)\ell\rceil`-th
    smallest of them; where fewer than three units lie beyond it, :math:`t_k(\ell)\sqrt{(1 + 1/k)\sum r_i^2/k}`, that of
    Student's t.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model._drug_widths import half_width
    >>> round(half_width(np.ones(5), np.arange(5), 0.9), 2), half_width(np.arange(100.0), np.arange(100), 0.9)
    (2.21, 90.0)
    """
    if not len(errors):
        return float("nan")
    _, unit = np.unique(np.asarray(units).astype(str), return_inverse=True)
    root = np.sqrt(np.bincount(unit, np.asarray(errors, dtype=float) ** 2) / np.bincount(unit))
    k = len(root)
    if level <= 1 - EXACT / (k + 1):
        return float(np.sort(root)[int(np.ceil((k + 1) * level - 1e-9)) - 1])
    return float(stats.t.ppf((1 + level) / 2, k) * np.sqrt((1 + 1 / k) * (root**2).mean()))
