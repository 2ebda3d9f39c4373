"""Responses of conditions that were measured, along a direction in which their noise is small."""

from __future__ import annotations

from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.model._drug_parts import Responses


def measured_responses(found: Responses, anchor: object, along: FloatArray, response: FloatArray) -> FloatArray:
    r"""Return responses with those of measured conditions drawn toward what was measured, ``(m,)``.

    Predicted effects are smooth in time, and over all genes one measured profile is mostly noise; along one direction it is
    not. With :math:`d` measured less predicted responses, of sampling variance :math:`\nu`, and
    :math:`\tau^2 = \max(0, \overline{d^2} - \bar\nu)`, a response moves by :math:`d\,\tau^2/(\tau^2 + \nu)`.

    Parameters
    ----------
    found
        Predicted effects of some questions.
    anchor
        With the table that it was fitted to; where that does not tell the noise, responses stay as they are.
    along
        ``(m, genes)`` directions, of any length; zeros where there is none.
    response
        ``(m,)`` predicted responses along them.
    """
    if not isinstance(anchor, SelfJudging):
        return response
    table = anchor.table_
    if table.variance is None or table.n_controls is None:
        return response
    doses: list[Any] = [*table.doses] or [None] * len(table)
    times: list[float | None] = [None] * len(table) if table.time is None else [float(t) for t in table.time]
    rows = zip(table.actions, table.contexts.astype(str), doses, times, strict=True)
    row = {key: i for i, key in enumerate(rows)}
    asked = [(tuple(q.action), str(q.context), q.dose, q.time) for q in found.questions]
    length = np.linalg.norm(along, axis=1)
    at = np.array([i for i, key in enumerate(asked) if key in row and length[i] > 0], dtype=int)
    if not len(at):
        return response
    mine = np.array([row[asked[i]] for i in at])
    unit = along[at] / length[at][:, None]
    off = (table.effects[mine] * unit).sum(1) - response[at]
    noise = (unit**2 @ table.variance) * (1 / table.n_cells[mine] + 1 / table.n_controls[mine])
    spread = max(float((off**2).mean() - noise.mean()), 0.0)
    out = response.copy()
    out[at] += off * spread / np.maximum(spread + noise, 1e-300)
    return out
