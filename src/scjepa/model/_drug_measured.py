"""Responses of conditions that were measured, along a direction in which their noise is small."""

from __future__ import annotations

from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.baselines._noise import effect_noise
from scjepa.model._drug_parts import Responses
from scjepa.model.conditions._trust import NEAR_ZERO
from scjepa.pharma import FadingCourse, fading_course

LEAST_TIMES = 3
"""Fewer measured times don't show a response come and go."""
SURE = 2.3
"""Standard errors from zero of a response that is there: one in a hundred of those that are not look so."""
CLEAR = 0.3
"""Above this share of squared effects beyond noise, a drug does something whatever it does elsewhere."""


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


def rows_of(anchor: SelfJudging, action: tuple[str, ...], context: str | None = None) -> np.ndarray:
    """Return the training rows of drugs (in a context), boolean ``(n,)``."""
    table = anchor.table_
    mine = np.array([tuple(a) == tuple(action) for a in table.actions], dtype=bool)
    return mine if context is None else mine & (table.contexts.astype(str) == context)


def seen_elsewhere(anchor: SelfJudging, action: tuple[str, ...], context: str) -> tuple[FloatArray, float]:
    r"""Return the direction of drugs' response in the other contexts, of length one, and how surely they respond along it.

    A direction that was read off the cells whose response is asked for makes noise look like a response, and so does the noise
    of the controls that these share with others; cells of other contexts share none. Surely is in standard errors: the mean
    response in the context over its sampling error. That error is taken to be at least as large, relative to what the variance
    of genes tells, as misfits of the other drugs along the direction, as genes vary together.

    Returns
    -------
    ``(genes,)`` zeros, and NaN, where there are no such contexts, or noise is unknown.
    """
    table = anchor.table_
    here, there = rows_of(anchor, action, context), rows_of(anchor, action)
    there &= ~here
    none = np.zeros(table.effects.shape[1]), float("nan")
    if table.variance is None or table.n_controls is None or not there.any():
        return none
    fitted = np.nan_to_num(anchor.fitted_effects())
    along = fitted[there].sum(0)
    if not np.abs(along).max() > 0:
        return none
    along = along / np.linalg.norm(along)
    if not here.any():
        return along, float("nan")
    gene = float(along**2 @ table.variance)
    each = 1 / table.n_cells + 1 / table.n_controls
    others = ~(here | there)
    off = (table.effects[others] - fitted[others]) @ along
    wider = max(1.0, float((off**2 / (each[others] * gene)).mean())) if others.any() and gene > 0 else 1.0
    noise = gene * wider * (1 / table.n_cells[here].sum() + 1 / table.n_controls[here].mean())
    return along, float(table.effects[here].mean(0) @ along / np.sqrt(noise)) if noise > 0 else float("inf")


def beyond_noise(anchor: SelfJudging, action: tuple[str, ...], context: str) -> float:
    """Return the share of squared measured effects of drugs in a context that sampling does not explain; NaN if unknown."""
    table, mine = anchor.table_, rows_of(anchor, action, context)
    noise = effect_noise(table.variance, table.n_cells, table.n_controls)
    square = float((table.effects[mine] ** 2).sum())
    return float("nan") if noise is None or square <= 0 else 1 - float(noise[mine].sum()) / square


def is_noise(anchor: object, action: tuple[str, ...], context: str) -> bool:
    """Return whether what was measured of a drug in a context may all be the noise of having few cells.

    It is where squared effects are no larger than noise; where they are hardly larger, the drug's other contexts tell: along the
    direction that it has there, it must surely respond here. Without other contexts a tenth beyond noise is enough.

    Parameters
    ----------
    anchor
        With the table that it was fitted to; without noise in it nothing is known.
    action, context
        Drugs and context.
    """
    if not isinstance(anchor, SelfJudging):
        return False
    beyond = beyond_noise(anchor, action, context)
    if not beyond < CLEAR:  # NaN too
        return False
    sure = seen_elsewhere(anchor, action, context)[1]
    return beyond < NEAR_ZERO if np.isnan(sure) else beyond < 0 or sure < SURE


def measured_course(
    found: Responses, anchor: object, rows: np.ndarray, share: float, signature: FloatArray | None = None
) -> tuple[FloatArray, FadingCourse] | None:
    """Return at which times a response was measured, and its course over them; None where fewer than three or no noise is known.

    Parameters
    ----------
    found
        Predicted effects of some questions.
    anchor
        With the table that it was fitted to.
    rows
        Questions about one condition at several times.
    share
        Of the top, see :func:`scjepa.pharma.fading_course`.
    signature
        ``(genes,)`` direction of the response; by default that of the other contexts, or, without any, that of each row as it
        is predicted when left out.
    """
    if not isinstance(anchor, SelfJudging) or anchor.table_.time is None:
        return None
    table, asked = anchor.table_, [found.questions[i] for i in rows]
    if table.variance is None or table.n_controls is None:
        return None
    action, context = tuple(asked[0].action), str(asked[0].context)
    mine = rows_of(anchor, action, context)
    if table.doses:
        mine &= np.array([d == asked[0].dose for d in table.doses], dtype=bool)
    time = np.asarray(table.time, dtype=float)
    between = [float(q.time or 0.0) for q in asked]
    index = np.flatnonzero(mine & (time >= min(between)) & (time <= max(between)))
    index = index[np.argsort(time[index], kind="stable")]
    if len(index) < LEAST_TIMES or len(np.unique(time[index])) < len(index):
        return None
    one, sure = seen_elsewhere(anchor, action, context)
    there = sure >= SURE
    if signature is not None:
        along = np.tile(signature, (len(index), 1))
    elif one.any() and (there or beyond_noise(anchor, action, context) < CLEAR):
        along = np.tile(one, (len(index), 1))
    else:  # it was given nowhere else, or does something else there
        along = np.nan_to_num(anchor.left_out_effects())[index]
        there = not is_noise(anchor, action, context)
    length = np.linalg.norm(along, axis=1)
    if not (length > 0).all():
        return None
    unit = along / length[:, None]
    response = (table.effects[index] * unit).sum(1)
    noise = (unit**2 @ table.variance) * (1 / table.n_cells[index] + 1 / table.n_controls[index])
    if not (noise > 0).all():
        return None
    course = fading_course(response, noise, share=share)
    if course.fades and signature is None and not there:  # what is not there can't fade
        course = FadingCourse(False, np.full(len(index), max(float(response.mean()), 0.0)), course.surplus)
    return time[index], course
