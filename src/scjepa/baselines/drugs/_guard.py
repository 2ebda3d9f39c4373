"""Who is believed: predictions weighed by their left-out errors, never far from the best simple one without good reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize

from scjepa._types import FloatArray

ROUNDS = 30
LEAST_WEIGHT = 0.01
RISK = 1.5
"""Standard errors by which weights must win, in a part that was not looked at, before they leave the null prediction."""
PART = 0.25
"""Such a part is so many of the units that judge: a fifth of all units, as in five folds."""


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
    w, inverse = _stacked(products)
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
    return _verdict(w, products, names, best, width, follow)


def weigh_cautiously(
    products: FloatArray,
    names: Sequence[str],
    plain: Sequence[str],
    units: np.ndarray,
    width: int,
    null: Sequence[str],
    never: Sequence[str] = (),
) -> Verdict:
    r"""Weigh predictions so that they are no worse than a null prediction, also in a small part of what will be asked.

    Where little can be won, as for molecules never seen, weights that are best on average lose in many a fold of a small set.
    So these weights have the least upper bound of what units lose, :math:`d_u(w) = \bar e_u(w) - \bar e_u(p)` with
    :math:`p` the null prediction and :math:`\bar e` the mean root squared error over the rows of a unit,

    .. math:: \bar d(w) + r\, s(w) \sqrt{1/n + 1/m}

    where :math:`s^2 = 2 \sum_u \max(0, d_u - \bar d)^2 / (n - 1)` is the variance over the ``n`` units as their upper half
    shows it, and :math:`m = n/4`, a fifth of all: the bound is for the mean of so many units that were not looked at. Great
    gains of a few units are no risk, as the plain variance would have it. The bound is 0 at the null prediction, so that is
    what few units or an uncertain gain leave. (Portfolios by mean and semideviation: Markowitz 1959, *Portfolio Selection*.)

    Parameters
    ----------
    products, names, plain, units, width
        As in :func:`weigh`.
    null
        Names of null predictions; the first one that is there counts.
    never
        Names of predictions that get no weight, only their error is told.

    Returns
    -------
    ``plain`` is the null prediction, and ``follow`` the weight of all others.

    Examples
    --------
    The second prediction wins in every unit; the third one wins as much on average, but not in each.

    >>> import numpy as np
    >>> from scjepa.baselines.drugs._guard import weigh_cautiously
    >>> rng = np.random.default_rng(0)
    >>> errors = rng.normal(size=(12, 1, 300)) * [[1.0], [0.9], [1.0]]
    >>> errors[:, 2] *= np.where(np.arange(12) % 2, 0.4, 1.4)[:, None]
    >>> products = np.einsum("nkg,nlg->nkl", errors, errors)
    >>> weigh_cautiously(products, ["mean", "ridge", "odd"], ["mean"], np.arange(12), 300, ["mean"]).weights
    {'ridge': 1.0}
    """
    best = next((names.index(name) for name in null if name in names), names.index(plain[0]))
    start: FloatArray = np.zeros(len(names))
    start[best] = 1.0
    each = np.sqrt(np.maximum(products[:, best, best], 0))
    _, unit = np.unique(units, return_inverse=True)
    n = int(unit.max()) + 1
    if n < 2 or not each.mean() > 0:
        return _verdict(start, products, names, best, width, 0.0)
    scale = each.mean() * len(unit) / n
    unsure = RISK * np.sqrt(1 / n + 1 / max(PART * n, 1.0))

    def bound(w: FloatArray) -> tuple[float, FloatArray]:
        pull = products @ w
        size = np.sqrt(np.maximum(pull @ w, 1e-12 * scale**2))
        lost = np.bincount(unit, size - each) / scale
        slope = np.stack([np.bincount(unit, column) for column in (pull / size[:, None]).T], 1) / scale
        above = np.maximum(lost - lost.mean(), 0)
        spread = np.sqrt(2 * (above @ above) / (n - 1) + 1e-10)
        steeper = 2 * (above @ slope - above.sum() * slope.mean(0)) / (n - 1) / spread
        return float(lost.mean() + unsure * spread), slope.mean(0) + unsure * steeper

    able = np.flatnonzero([name not in never or i == best for i, name in enumerate(names)])
    stacked: FloatArray = np.zeros(len(names))
    stacked[able] = _stacked(products[np.ix_(np.arange(len(products)), able, able)])[0]
    first = min((start, (start + stacked) / 2, stacked), key=lambda w: bound(w)[0])
    found = scipy.optimize.minimize(
        bound,
        0.98 * first + 0.02 * start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, float(i in able)) for i in range(len(names))],
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(len(w))}],
        options={"maxiter": 100, "ftol": 1e-7},
    )
    w = np.clip(found.x, 0.0, 1.0)
    w = w / w.sum() if np.isfinite(w).all() and w.sum() > 0 else start
    if not bound(w)[0] < bound(start)[0]:
        w = start
    return _verdict(w, products, names, best, width, 1 - float(w[best]))


def _verdict(
    w: FloatArray, products: FloatArray, names: Sequence[str], best: int, width: int, follow: float
) -> Verdict:
    """Return weights without the smallest, and what they reach."""
    w = np.where(w < LEAST_WEIGHT, 0.0, w)
    w /= w.sum()
    errors = np.sqrt(np.maximum(np.einsum("nkk->nk", products), 0)).mean(0)
    size = np.sqrt(np.maximum(np.einsum("k,nkl,l->n", w, products, w), 0))
    scale = float(np.sqrt(max(width, 1)))
    return Verdict(
        {name: float(v) for name, v in zip(names, w, strict=True) if v > 0},
        float(size.mean()) / scale,
        names[best],
        {name: float(e) / scale for name, e in zip(names, errors, strict=True)},
        follow,
    )


def _stacked(products: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights with the least mean root squared error over rows, and the inverse error of each row under them."""
    errors = np.sqrt(np.maximum(np.einsum("nkk->nk", products), 0)).mean(0)
    floor = max(1e-6 * float(errors.max()), 1e-300)
    w: FloatArray = np.zeros(len(errors))
    w[int(np.argmin(errors))] = 1.0
    inverse = np.ones(len(products))
    for _ in range(ROUNDS):
        size = np.sqrt(np.maximum(np.einsum("k,nkl,l->n", w, products, w), 0))
        inverse = 1 / np.maximum(size, floor)
        new = _simplex(np.einsum("n,nkl->kl", inverse, products))
        if np.abs(new - w).max() < 1e-6:
            return new, inverse
        w = new
    return w, inverse


def _simplex(matrix: FloatArray) -> FloatArray:
    """Return the vector, not negative and of sum one, with the least ``w @ matrix @ w``."""
    size = max(float(np.trace(matrix)), 1e-300)
    value, vector = np.linalg.eigh(matrix / size)
    root = (vector * np.sqrt(np.maximum(value, 0) + 1e-12)) @ vector.T
    heavy = 1e3
    w, _ = scipy.optimize.nnls(np.vstack([root, np.full(len(root), heavy)]), np.append(np.zeros(len(root)), heavy))
    return np.asarray(w / max(w.sum(), 1e-300))
