"""How far a question lies from training, and which left-out conditions say how well it will be answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from scjepa._types import FloatArray
from scjepa.baselines._folds import condition_folds, folds_of, incidence, supported_rows
from scjepa.baselines._kernels import ACTION_KERNELS, AMPLITUDE, single_components
from scjepa.baselines._noise import amplitudes
from scjepa.baselines._selection import CONTEXT, Rows, joint_kernels
from scjepa.data import ConditionTable

if TYPE_CHECKING:
    from scjepa.baselines._base import Baseline


def own_values(
    train: Rows,
    query: Rows,
    gram: FloatArray,
    n_components: int,
    use_context: bool,
    extra: FloatArray | float,
    noise: FloatArray,
) -> dict[str, FloatArray]:
    """Return the value of every candidate kernel of each query row with itself, ``k(q, q)``, by the kernel's name.

    Parameters
    ----------
    train, query
        Kernel inputs.
    gram, n_components, use_context, noise
        As in :func:`scjepa.baselines._selection.joint_kernels`, whose blocks hold everything but these values.
    extra
        ``(m,)`` (or one number) squared length of what the design leaves out: genes that were never perturbed in training.
    """
    additive = (query.design**2).sum(1) + extra
    out, weight = {"additive": additive}, {"additive": 1.0}
    many = train.design.shape[1] > 1
    if many:
        axes = single_components(train.design, gram, n_components)
        linear, both = ((query.design @ axes) ** 2).sum(1), 1 + 2.0 * (query.order >= 2)
        for name in ("additive+rbf", "components"):
            weight[name], of_linear, of_near = ACTION_KERNELS[name]
            out[name] = weight[name] * additive + both + of_linear * linear + of_near
    if train.features is not None and query.features is not None:
        similar = 2 + (query.features**2).sum(1)
        out |= {"constant": np.ones(len(additive)), "features": similar, "additive+features": similar + additive}
        weight["additive+features"] = 1.0
    if many:
        change = query.design**2 @ (amplitudes(train.design, gram, noise)[0] - 1)
        out |= {name + AMPLITUDE: out[name] + of_action * change for name, of_action in weight.items()}
    if use_context and len(set(train.contexts)) > 1:
        center = train.place.mean(0)
        scale = float(((train.place - center) ** 2).sum(1).mean())
        where = 1 + ((query.place - center) ** 2).sum(1) / scale if scale >= 1e-9 else 1.0
        out |= {name + CONTEXT: value * where for name, value in out.items()}
    return out


def unexplained(
    train: Rows,
    query: Rows,
    gram: FloatArray,
    mixture: list[list],
    n_components: int,
    use_context: bool,
    extra: FloatArray | float,
    noise: FloatArray,
    covariance: FloatArray | None,
) -> FloatArray:
    r"""Return the share of predictive variance that training leaves, ``(m,)``, averaged over a mixture's candidates.

    .. math:: d(q) = 1 - \frac{k_q (K + \lambda S)^{-1} k_q^\top}{k(q, q) + \lambda}

    the predictive variance of a Gaussian process with the candidate's kernel and noise :math:`\lambda S`, over the same
    before training (Rasmussen and Williams 2006, *Gaussian Processes for Machine Learning*, eq. 2.26). 1: training says
    nothing about the question; near 0: the question itself was measured.

    Parameters
    ----------
    train, query
        Kernel inputs.
    gram
        ``(n, n)`` inner products of the training effects.
    mixture
        Candidates ``[link, kernel, lambda, weight, by gene]``, weights sum to one.
    n_components, use_context, extra, noise
        See :func:`own_values`.
    covariance
        ``(n, n)`` of the noise of training rows, :math:`S`; None is the identity.
    """
    kernels = dict(joint_kernels(train, query, gram, n_components, use_context, noise))
    own = own_values(train, query, gram, n_components, use_context, extra, noise)
    shared = np.eye(len(gram)) if covariance is None else covariance
    weights: dict[tuple[str, float], float] = {}
    for _, kernel, strength, weight, _ in mixture:  # links share a kernel
        kernel = kernel if kernel in kernels else kernel.removesuffix(CONTEXT)
        weights[kernel, strength] = weights.get((kernel, strength), 0.0) + weight
    out = np.zeros(len(query.order))
    for (kernel, strength), weight in weights.items():
        among, across = kernels[kernel]
        solved = scipy.linalg.solve(among + strength * shared, across.T, assume_a="pos")
        explained = np.einsum("mn,nm->m", across, solved)
        out += weight * (1 - explained / (own[kernel] + strength))
    return np.clip(out, 0.0, 1.0)


def left_together(table: ConditionTable, cls: str) -> np.ndarray:
    """Return boolean ``(n, n)``: row ``j`` is left out when row ``i`` is predicted as a question of a class.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._support import left_together
    >>> from scjepa.data import ConditionTable
    >>> table = ConditionTable((("A",), ("A", "B"), ("C",)), np.array(["x", "x", "y"]), np.zeros((3, 1)))
    >>> left_together(table, "unseen").astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    >>> left_together(table, "single").astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    if cls == "context":
        unit = table.contexts.astype(str)
    elif cls == "unseen":
        has = incidence(table)
        return (has @ has.T).astype(bool).toarray()
    else:  # as in condition_folds: a single row by row, a combination with all its contexts
        unit = np.array(["+".join(a) if len(a) > 1 else f" {i}" for i, a in enumerate(table.actions)])
    return unit[:, None] == unit[None]


def rows_like(table: ConditionTable, cls: str, *, combinations: bool, usable: np.ndarray) -> np.ndarray:
    """Return the rows whose left-out predictions are most like questions of a class, as a boolean ``(n,)``.

    The first set with three usable rows counts, else the last one. Combinations: those whose genes are all measured
    alone in the rest, those whose genes are seen in the rest, all combinations. Singles: those whose gene is seen in the
    rest, all singles. Unseen genes and contexts: rows with as many genes as asked (one, or several), all rows.

    Parameters
    ----------
    table
        Training conditions.
    cls
        Class of the questions, see :class:`scjepa.baselines.KernelEffect`.
    combinations
        Whether the questions perturb several genes.
    usable
        ``(n,)`` rows that have a left-out prediction.
    """
    many = table.order >= 2
    if cls in ("combination", "single"):
        own, folds = many if cls == "combination" else table.order == 1, condition_folds(table)
        seen = supported_rows(table, folds)
        tried = [own & supported_rows(table, folds, alone=True), own & seen, own] if cls == "combination" else []
        tried = tried or [own & seen, own]
    else:
        tried = [many if combinations else table.order == 1, table.order > 0]
    return next((mask & usable for mask in tried if (mask & usable).sum() >= 3), tried[-1] & usable)


def left_out_predictions(fresh: Callable[[], Baseline], table: ConditionTable, cls: str) -> FloatArray:
    """Return left-out predictions of any baseline by fitting it again, ``(n, genes)``; NaN where it has none.

    Parameters
    ----------
    fresh
        Makes an unfitted baseline.
    table
        Training conditions.
    cls
        Class of the questions: contexts are left out for ``"context"``, genes for ``"unseen"``, else conditions.
    """
    out = np.full(table.control.shape, np.nan)
    for train, test in folds_of(cls, table):
        question = replace(table.rows(test), perturbed=None)
        out[test] = fresh().fit(table.rows(train)).effects(question)
    return out
