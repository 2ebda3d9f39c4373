"""Connectivity: which drugs reverse a signature, lead to a target state, or act at all. Higher is always better."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from scjepa._checks import require_member, require_positive_int
from scjepa._types import FloatArray, IntArray

Method = Literal["cosine", "extreme", "ks", "weighted"]
METHODS = ("cosine", "extreme", "ks", "weighted")

BLOCK = 4096
"""Profiles of the library that are sorted at a time."""


def reversal(
    signature: npt.ArrayLike, library: npt.ArrayLike, method: Method = "cosine", *, n_genes: int | None = None
) -> FloatArray:
    r"""Score how well each profile of a library reverses a signature. Higher reverses better, below 0 is mimicry.

    - ``"cosine"``: minus the cosine of the angle between signature and profile.
    - ``"extreme"``: the same, with all but the ``n_genes`` highest and lowest genes of the profile set to 0.
    - ``"ks"``: minus the connectivity score of the first Connectivity Map. The up-tags are the ``n_genes`` highest genes
      of the signature, V their ranks from the top of the profile of n genes:
      :math:`a = \max_j (j/t - V_j/n)`, :math:`b = \max_j (V_j/n - (j-1)/t)`, ks = a if a > b else -b; likewise for the
      down-tags. The score is :math:`ks_{up} - ks_{down}`, 0 if both have one sign, between -2 and 2.
    - ``"weighted"``: minus the weighted connectivity score of the second one: the enrichment of up- and down-tags by
      GSEA's running sum weighted by the profile's values, :math:`(ES_{up} - ES_{down}) / 2`, 0 if both have one sign.

    On measured signatures the cosine does as well as any; it uses all genes and their sizes.

    Parameters
    ----------
    signature
        ``(genes,)`` or ``(queries, genes)``: what is to be reversed, for example disease minus healthy.
    library
        ``(n, genes)`` effects of drugs, on the same genes in the same order.
    method
        The score.
    n_genes
        Genes on each side, of all methods but the cosine; None for a tenth of the genes, at most 150.

    Returns
    -------
    ``(n,)`` or ``(queries, n)`` scores; 0 for a profile without effect. Tied genes share a rank, so their order does not
    matter.

    Raises
    ------
    ValueError
        If genes differ, a value is missing, a signature is all 0, or ``n_genes`` is more than half of the genes.

    References
    ----------
    Lamb et al., *Science* 313, 1929-1935 (2006), for ``"ks"``; Subramanian et al., *Cell* 171, 1437-1452 (2017), for
    ``"weighted"``; Cheng et al., *Genome Medicine* 6, 95 (2014), for ``"extreme"``.

    Examples
    --------
    >>> from scjepa.pharma import reversal
    >>> reversal([1.0, -1.0, 0.0, 0.0], [[-2.0, 2.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    array([ 1., -1.,  0.])
    """
    require_member(method, METHODS, "method", where="the connectivity scores")
    query, effects, single = _signatures(signature, library)
    genes = query.shape[1]
    n = min(max(genes // 10, 1), 150) if n_genes is None else require_positive_int(n_genes, "n_genes")
    if method != "cosine" and 2 * n > genes:
        raise ValueError(f"n_genes={n} on each side of {genes} genes: expected at most {genes // 2}.")
    if method in ("cosine", "extreme"):
        kept = effects if method == "cosine" else np.concatenate([_extremes(e, n) for e in _blocks(effects)])
        scores = -(_unit(query) @ _unit(kept).T)
    else:
        connect = _ks_scores if method == "ks" else _weighted_scores
        order = np.argsort(-query, axis=1, kind="stable")
        up, down = order[:, :n], order[:, -n:]
        scores = -np.concatenate([connect(e, up, down) for e in _blocks(effects)], axis=1)
    scores = scores + 0.0  # no negative zeros
    return scores[0] if single else scores


def signature_score(effects: npt.ArrayLike, signature: npt.ArrayLike) -> Any:
    r"""Size of an effect along a signature, :math:`\delta \cdot s / \|s\|`: of toxicity, of a pathway, of a response.

    Parameters
    ----------
    effects
        ``(genes,)`` or ``(n, genes)`` effects.
    signature
        ``(genes,)`` weights; its length does not matter.

    Returns
    -------
    Scores on the scale of the effects, one each; negative when an effect goes the other way.

    Raises
    ------
    ValueError
        If genes differ, a value is missing, or the signature is all 0.

    Examples
    --------
    >>> from scjepa.pharma import signature_score
    >>> signature_score([[3.0, 4.0], [-3.0, 4.0]], [10.0, 0.0])
    array([ 3., -3.])
    """
    query, found, _ = _signatures(signature, effects)
    if len(query) > 1:
        raise ValueError(f"signature has shape {np.shape(signature)}: expected (genes,), one signature.")
    scores = found @ _unit(query)[0]
    return float(scores[0]) if np.ndim(effects) == 1 else scores


def target_progress(predicted: npt.ArrayLike, target: npt.ArrayLike, source: npt.ArrayLike) -> Any:
    r"""Share of the way from source to target that a drug covers, :math:`1 - \|\hat x - t\| / \|s - t\|`.

    Parameters
    ----------
    predicted
        ``(features,)`` or ``(n, features)`` mean states under the drugs, as embeddings or expression.
    target, source
        ``(features,)`` mean states of the cells to be reached, and of the untreated cells.

    Returns
    -------
    1 at the target, 0 as far from it as untreated cells, below 0 farther away; one per drug.

    Raises
    ------
    ValueError
        If features differ, a value is missing, or source and target are the same.

    Examples
    --------
    >>> from scjepa.pharma import target_progress
    >>> target_progress([[4.0, 0.0], [1.0, 0.0], [-4.0, 0.0]], target=[4.0, 0.0], source=[0.0, 0.0])
    array([ 1.  ,  0.25, -1.  ])
    """
    x, t, s = (_finite(v, name) for v, name in ((predicted, "predicted"), (target, "target"), (source, "source")))
    if t.ndim != 1 or t.shape != s.shape or x.shape[-1:] != t.shape or x.ndim > 2:
        raise ValueError(
            f"predicted has shape {x.shape}, target {t.shape} and source {s.shape}: expected (n, features), (features,) "
            "and (features,), the same features."
        )
    way = float(np.linalg.norm(s - t))
    if not way > 0:
        raise ValueError("source and target are the same: expected two states. There is nothing to reach.")
    progress = 1 - np.linalg.norm(x - t, axis=-1) / way
    return float(progress) if x.ndim == 1 else progress


def effect_size(effects: npt.ArrayLike, noise: npt.ArrayLike | None = None) -> Any:
    r"""Size of effects, :math:`\sqrt{\sum_g (\delta_g / \sigma_g)^2}`.

    Parameters
    ----------
    effects
        ``(genes,)`` or ``(n, genes)`` effects.
    noise
        ``(genes,)`` standard deviation :math:`\sigma_g` of each gene, above 0; None for 1.

    Returns
    -------
    Sizes, one each.

    Raises
    ------
    ValueError
        If genes differ, a value is missing, or the noise of a gene is not above 0.

    Examples
    --------
    >>> from scjepa.pharma import effect_size
    >>> effect_size([[3.0, 4.0], [0.0, 0.0]])
    array([5., 0.])
    >>> effect_size([3.0, 4.0], noise=[3.0, 4.0]) ** 2
    2.0
    """
    x = _finite(effects, "effects")
    if noise is not None:
        sigma = _finite(noise, "noise")
        if sigma.shape != x.shape[-1:] or (sigma <= 0).any():
            raise ValueError(
                f"noise has shape {sigma.shape} and a smallest value of {sigma.min():g}: expected {x.shape[-1:]}, one "
                "standard deviation per gene, above 0."
            )
        x = x / sigma
    size = np.linalg.norm(x, axis=-1)
    return float(size) if x.ndim == 1 else size


def _finite(a: npt.ArrayLike, name: str) -> FloatArray:
    x = np.asarray(a, dtype=np.float64)
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"{name} has shape {x.shape}: expected (genes,) or (n, genes), with at least one of each.")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {int((~np.isfinite(x)).sum())} missing or infinite values: expected numbers.")
    return x


def _signatures(signature: npt.ArrayLike, library: npt.ArrayLike) -> tuple[FloatArray, FloatArray, bool]:
    """Return ``(queries, genes)``, ``(n, genes)`` and whether one query was given, or raise."""
    query, effects = _finite(signature, "signature"), _finite(library, "library")
    single = query.ndim == 1
    query, effects = np.atleast_2d(query), np.atleast_2d(effects)
    if query.shape[1] != effects.shape[1]:
        raise ValueError(
            f"signature has {query.shape[1]} genes and library has {effects.shape[1]}: expected the same genes, in the "
            "same order. Restrict both to the genes they share."
        )
    empty = int((~query.any(1)).sum())
    if empty:
        raise ValueError(f"{empty} of {len(query)} signatures are all 0: there is nothing to compare with.")
    return query, effects, single


def _blocks(x: FloatArray) -> list[FloatArray]:
    return [x[i : i + BLOCK] for i in range(0, len(x), BLOCK)]


def _unit(x: FloatArray) -> FloatArray:
    """Return rows of length 1; rows of zeros stay."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def _extremes(effects: FloatArray, n: int) -> FloatArray:
    """Keep the n highest and n lowest values of each row; those tied with the last kept are kept too."""
    ranked = np.partition(effects, (n - 1, effects.shape[1] - n), axis=1)
    low, high = ranked[:, [n - 1]], ranked[:, [effects.shape[1] - n]]
    return np.where((effects <= low) | (effects >= high), effects, 0.0)


def _combined(up: FloatArray, down: FloatArray) -> FloatArray:
    return np.where(np.sign(up) == np.sign(down), 0.0, up - down)


def _ks_scores(effects: FloatArray, up: IntArray, down: IntArray) -> FloatArray:
    ranks = rankdata(-effects, axis=1)
    n, flat = effects.shape[1], effects.min(1) == effects.max(1)
    scores = np.stack([_combined(_ks(ranks[:, u], n), _ks(ranks[:, d], n)) for u, d in zip(up, down, strict=True)])
    return np.where(flat, 0.0, scores)


def _ks(ranks: FloatArray, n: int) -> FloatArray:
    v, t = np.sort(ranks, axis=1) / n, ranks.shape[1]
    j = np.arange(1, t + 1) / t
    a, b = (j - v).max(1), (v - (j - 1 / t)).max(1)
    return np.where(a > b, a, -b)


def _weighted_scores(effects: FloatArray, up: IntArray, down: IntArray) -> FloatArray:
    order = np.argsort(-effects, axis=1, kind="stable")
    values = np.take_along_axis(effects, order, axis=1)
    last = np.column_stack([values[:, 1:] != values[:, :-1], np.ones(len(values), dtype=bool)])  # of a run of ties
    scores = [
        _combined(_enrichment(u, order, values, last), _enrichment(d, order, values, last)) / 2
        for u, d in zip(up, down, strict=True)
    ]
    return np.stack(scores)


def _enrichment(tags: IntArray, order: IntArray, values: FloatArray, last: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the running sum's largest deviation from 0, read where a run of ties ends; 0 when no tag has a value."""
    genes = values.shape[1]
    member = np.zeros(genes, dtype=bool)
    member[tags] = True
    hit = member[order]
    weight = np.where(hit, np.abs(values), 0.0)
    total = weight.sum(1, keepdims=True)
    steps = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0) - ~hit / (genes - len(tags))
    running = np.where(last, np.cumsum(steps, axis=1), 0.0)
    top, bottom = running.max(1), running.min(1)
    return np.where(total[:, 0] > 0, np.where(top >= -bottom, top, bottom), 0.0)
