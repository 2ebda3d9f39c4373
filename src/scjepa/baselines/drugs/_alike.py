"""Drugs that do alike in other contexts: what those of them that were given in a context tell of the others there."""

from __future__ import annotations

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.drugs._rows import Rows

LEAST_DRUGS = 8
"""With fewer drugs to learn from in a context its mean is what can be said."""
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of the ridge, in units of the kernel's diagonal."""


def responses_alike(rows: Rows, beyond: FloatArray, query: Rows) -> FloatArray:
    r"""Return what drugs do in the contexts of questions beyond the mean, from drugs with like responses elsewhere.

    A kernel ridge in each context, of its drugs' responses on how alike drugs are in *other* contexts: a Gaussian of the mean
    squared distance of two responses over the contexts that both were given in (each scaled), as wide as the median distance.
    Where the same drug in other contexts tells its response component by component, this also learns that what is one programme
    there is another one here. The strength is the one with the least leave-one-drug-out error (closed form).

    Parameters
    ----------
    rows
        Training conditions.
    beyond
        ``(n, columns)`` their effects less the mean in their place.
    query
        Questions; the training drugs come first.

    Returns
    -------
    ``(m, columns)``, sums over the drugs of a question; zeros for drugs that were given nowhere else, and in contexts where
    hardly any drug was given.

    Examples
    --------
    Twelve drugs of two kinds; the kinds do other things in y than in x.

    >>> import numpy as np
    >>> from scjepa.baselines.drugs._alike import responses_alike
    >>> from scjepa.baselines.drugs._rows import Rows
    >>> kind = np.tile([1.0, -1.0], 6)[:, None]
    >>> there, here = kind * [3.0, 0.0], kind * [0.0, 2.0]
    >>> names, design = tuple("ABCDEFGHIJKL"), np.vstack([np.eye(12), np.eye(12)[:10]])
    >>> rows = Rows(names, design, np.array(["x"] * 12 + ["y"] * 10))
    >>> asked = Rows(names, np.eye(12)[10:], np.array(["y", "y"]))
    >>> responses_alike(rows, np.vstack([there, here[:10]]), asked).round(1).tolist()
    [[0.0, 2.0], [0.0, -2.0]]
    """
    out = np.zeros((len(query), beyond.shape[1]))
    alone = rows.order == 1
    contexts, place = np.unique(rows.contexts[alone], return_inverse=True)
    asked = np.flatnonzero(np.isin(query.contexts, contexts) & query.design[:, : len(rows.drugs)].any(1))
    if len(contexts) < 2 or not len(asked):
        return out
    drug = rows.design[alone].argmax(1)
    effects = [_of_drugs(beyond[alone][place == c], drug[place == c], len(rows.drugs)) for c in range(len(contexts))]
    apart = [_distances(mean, seen) for mean, seen in effects]
    every, both = sum(square for square, _ in apart), sum(pair for _, pair in apart)
    for c in np.unique(query.contexts[asked]):
        k = int(np.searchsorted(contexts, c))
        mean, here = effects[k]
        pairs = both - apart[k][1]
        elsewhere = np.diagonal(pairs) > 0
        own = np.flatnonzero(here & elsewhere)
        if len(own) < LEAST_DRUGS:
            continue
        square = np.where(pairs > 0, (every - apart[k][0]) / np.maximum(pairs, 1), np.inf)
        among = square[np.ix_(own, own)]
        far = among[np.isfinite(among) & (among > 0)]
        width = float(np.median(far)) if len(far) else 1.0
        said = _ridge(np.exp(-among / width), np.exp(-square[:, own] / width), mean[own])
        said[~elsewhere] = 0.0
        mine = asked[query.contexts[asked] == c]
        out[mine] = query.design[mine][:, : len(said)] @ said
    return out


def _of_drugs(values: FloatArray, drug: np.ndarray, n: int) -> tuple[FloatArray, np.ndarray]:
    """Return the mean of each drug ``(n, columns)`` in one context, and which were given."""
    count = np.bincount(drug, minlength=n)
    mean = np.zeros((n, values.shape[1]))
    np.add.at(mean, drug, values)
    return mean / np.maximum(count, 1)[:, None], count > 0


def _distances(mean: FloatArray, seen: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return squared distances of drugs in one context, in units of their mean square, and which pairs were given."""
    both = np.outer(seen, seen).astype(float)
    product = mean @ mean.T
    size = product.diagonal()
    scale = max(float(size[seen].mean()), 1e-300) if seen.any() else 1.0
    return np.maximum(size[:, None] + size - 2 * product, 0) / scale * both, both


def _ridge(among: FloatArray, across: FloatArray, y: FloatArray) -> FloatArray:
    """Return kernel ridge on rows ``y`` with an intercept, its strength by the least leave-one-out error."""
    value, vector = np.linalg.eigh(among)
    value = np.maximum(value, 0)  # distances over different contexts need not be those of points
    middle = y.mean(0)
    turned = vector.T @ (y - middle)
    best: tuple[float, FloatArray] | None = None
    for strength in STRENGTHS:
        inverse = 1 / (value + strength)
        weight = vector @ (inverse[:, None] * turned)
        error = float(((weight / (vector**2 @ inverse)[:, None]) ** 2).mean())
        if best is None or error < best[0]:
            best = error, weight
    assert best is not None
    return np.asarray(middle + across @ best[1])
