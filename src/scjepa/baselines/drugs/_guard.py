"""Who is believed: predictions weighed by their left-out errors, never far from the best simple one without good reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize

from scjepa._types import FloatArray

ROUNDS = 30
LEAST_WEIGHT = 0.01


class Verdict(NamedTuple):
    """Weights of predictions for one class of questions.

    Attributes
    ----------
    weights
        ``name -> weight``; they sum to one.
    error
        Mean over judged rows of the root mean squared error, over genes, of the weighted prediction.
    plain
        The simple prediction with the least error.
    errors
        ``name -> error`` of each.
    follow
        How far the weights that do best are followed from ``plain``, 0 to 1.
    """

    weights: dict[str, float]
    error: float
    plain: str
    errors: dict[str, float]
    follow: float


def weigh(products: FloatArray, names: Sequence[str], plain: Sequence[str], units: np.ndarray, width: int) -> Verdict:
    r"""Weigh predictions by left-out rows.

    The weights :math:`w` (not negative, of sum one; stacking, Wolpert 1992, *Neural Networks* 5; Breiman 1996, *Machine
    Learning* 24) have the least mean root squared error over rows, :math:`\sum_i |\sum_k w_k e_{ik}|`. From the best simple
    prediction, :math:`p`, they are followed by the share

    .. math:: g\,\max(0, 1 - s^2 / g^2)

    where :math:`g` is the slope of what :math:`p` misses on what the weights would add to it, and :math:`s` its standard
    error over units that are left out together: as far as that is told from chance (James and Stein 1961).

    Parameters
    ----------
    products
        ``(n, k, k)`` inner products of the errors of k predictions in each judged row.
    names
        Of the predictions.
    plain
        Names of the simple ones, simplest first.
    units
        ``(n,)`` numbers.
    width
        Number of genes, for reporting.

    Examples
    --------
    The second prediction is right, as 40 units tell beyond chance.

    >>> import numpy as np
    >>> from scjepa.baselines.drugs._guard import weigh
    >>> errors = np.random.default_rng(0).normal(size=(40, 2, 30)) * [[1.0], [0.1]]
    >>> products = np.einsum("nkg,nlg->nkl", errors, errors)
    >>> found = weigh(products, ["mean", "process"], ["mean"], np.arange(40), 30)
    >>> round(found.weights["process"], 1), found.plain
    (1.0, 'mean')
    """
    each = np.sqrt(np.maximum(np.einsum("nkk->nk", products), 0))
    errors = each.mean(0)
    simple = [names.index(name) for name in plain]
    best = simple[int(np.argmin(errors[simple]))]
    floor = max(1e-6 * float(errors.max()), 1e-300)
    w: FloatArray = np.zeros(len(names))
    w[int(np.argmin(errors))] = 1.0
    inverse = np.ones(len(products))
    for _ in range(ROUNDS):
        size = np.sqrt(np.maximum(np.einsum("k,nkl,l->n", w, products, w), 0))
        inverse = 1 / np.maximum(size, floor)
        new = _simplex(np.einsum("n,nkl->kl", inverse, products))
        if np.abs(new - w).max() < 1e-6:
            w = new
            break
        w = new
    step = w.copy()
    step[best] -= 1.0
    missed = -np.einsum("nl,l->n", products[:, best], step) * inverse
    added = np.einsum("k,nkl,l->n", step, products, step) * inverse
    follow = 0.0
    total = float(added.sum())
    if total > 1e-12 * float((each[:, best] ** 2 * inverse).sum()):
        slope = float(missed.sum()) / total
        _, unit = np.unique(units, return_inverse=True)
        part = np.bincount(unit, missed - slope * added)
        n = len(part)
        if slope > 0 and n > 1:
            spread = float((part**2).sum()) * n / (n - 1) / total**2
            follow = float(np.clip(slope * (1 - spread / slope**2), 0, 1))
    w = follow * w
    w[best] += 1 - follow
    w[w < LEAST_WEIGHT] = 0
    w /= w.sum()
    size = np.sqrt(np.maximum(np.einsum("k,nkl,l->n", w, products, w), 0))
    scale = float(np.sqrt(max(width, 1)))
    return Verdict(
        {name: float(v) for name, v in zip(names, w, strict=True) if v > 0},
        float(size.mean()) / scale,
        names[best],
        {name: float(e) / scale for name, e in zip(names, errors, strict=True)},
        follow,
    )


def _simplex(matrix: FloatArray) -> FloatArray:
    """Return the vector, not negative and of sum one, with the least ``w @ matrix @ w``."""
    size = max(float(np.trace(matrix)), 1e-300)
    value, vector = np.linalg.eigh(matrix / size)
    root = (vector * np.sqrt(np.maximum(value, 0) + 1e-12)) @ vector.T
    heavy = 1e3
    w, _ = scipy.optimize.nnls(np.vstack([root, np.full(len(root), heavy)]), np.append(np.zeros(len(root)), heavy))
    return np.asarray(w / max(w.sum(), 1e-300))
