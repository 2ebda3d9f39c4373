"""Metrics of mean profiles and mean effects, one vector over genes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa.metrics._shapes import vector_pair

ROUNDING = 1e-6
"""Spread, relative to the values themselves, below which a vector counts as constant (float32 rounding)."""


def l2(pred_mean: npt.ArrayLike, true_mean: npt.ArrayLike) -> float:
    r"""Euclidean distance of two mean profiles, :math:`\sqrt{\sum_g (\hat\mu_g - \mu_g)^2}`. Lower is better.

    Parameters
    ----------
    pred_mean, true_mean
        ``(genes,)`` mean log-normalised profiles.

    Returns
    -------
    The distance, on the log-normalised scale, summed (not averaged) over genes.

    Raises
    ------
    ValueError
        If the two are not vectors of one length.

    References
    ----------
    The main score of Ahlmann-Eltze, Huber, Anders, Nat Methods 2025,
    doi:10.1038/s41592-025-02772-6.

    Examples
    --------
    >>> from scjepa.metrics import l2
    >>> l2([1.0, 4.0], [4.0, 0.0])
    5.0
    """
    pred, true = vector_pair(pred_mean, true_mean, ("pred_mean", "true_mean"))
    return float(np.linalg.norm(pred - true))


def pearson_delta(
    pred_effect: npt.ArrayLike, true_effect: npt.ArrayLike, reference: npt.ArrayLike | None = None
) -> float:
    r"""Pearson correlation over genes of predicted and true effects. Higher is better.

    An effect is perturbed minus control mean. With ``reference`` the effects are taken against that effect instead:
    :math:`r(\hat\delta - \delta_{ref}, \delta - \delta_{ref})`. With the mean of the training effects as reference a
    model gains nothing from what all perturbations share (Systema).

    Parameters
    ----------
    pred_effect, true_effect
        ``(genes,)`` predicted and true perturbed minus control means.
    reference
        ``(genes,)`` effect to subtract from both, or None.

    Returns
    -------
    The correlation; NaN when one side is constant up to rounding, as for the prediction "no effect".

    Raises
    ------
    ValueError
        If the vectors differ in length.

    References
    ----------
    Against control: all genes, as in GEARS (Roohani et al., Nat Biotechnol 2023) and cell-eval. Against the training
    mean: Viñas Torné et al., Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> from scjepa.metrics import pearson_delta
    >>> round(pearson_delta([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    1.0
    >>> round(pearson_delta([1.0, 2.0, 3.0], [2.0, 2.0, 5.0], reference=[1.0, 1.0, 3.0]), 6)
    -0.5
    """
    pred, true = vector_pair(pred_effect, true_effect, ("pred_effect", "true_effect"))
    shared = np.zeros_like(true) if reference is None else vector_pair(reference, true, ("reference", "true_effect"))[0]
    sizes = [max(np.linalg.norm(v), np.linalg.norm(shared)) for v in (pred, true)]
    pred, true = (v - shared - (v - shared).mean() for v in (pred, true))
    a, b = np.linalg.norm(pred), np.linalg.norm(true)
    if not (a > ROUNDING * sizes[0] and b > ROUNDING * sizes[1]):  # worded so that NaN in is NaN out
        return float("nan")
    return float(np.clip(pred @ true / (a * b), -1.0, 1.0))


def shift_magnitude_ratio(pred_effect: npt.ArrayLike, true_effect: npt.ArrayLike) -> float:
    r"""Size of the predicted effect over that of the true one, :math:`\|\hat\delta\| / \|\delta\|`. Best is 1.

    Values well below 1 are the signature of effects shrunk toward no change. Noise lengthens the mean of few cells,
    so that even a perfect prediction stays a little below 1.

    Parameters
    ----------
    pred_effect, true_effect
        ``(genes,)`` predicted and true perturbed minus control means.

    Returns
    -------
    The ratio of Euclidean norms; NaN when the true effect is zero.

    Raises
    ------
    ValueError
        If the vectors differ in length.

    Examples
    --------
    >>> from scjepa.metrics import shift_magnitude_ratio
    >>> shift_magnitude_ratio([3.0, 0.0], [0.0, 6.0])
    0.5
    """
    pred, true = vector_pair(pred_effect, true_effect, ("pred_effect", "true_effect"))
    size = float(np.linalg.norm(true))
    return float(np.linalg.norm(pred)) / size if size > 0 else float("nan")
