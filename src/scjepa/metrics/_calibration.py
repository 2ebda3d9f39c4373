"""How far a metric can be trusted on a data set: what it can tell apart, and how much all perturbations share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa.metrics._effects import cosine
from scjepa.metrics._shapes import Scores, scores


def dynamic_range_fraction(positive: npt.ArrayLike, negative: npt.ArrayLike, perfect: float) -> Scores:
    r"""Share of the way from the negative control to a perfect score that the positive control covers. Best is 1.

    .. math:: DRF = \frac{s_{pos} - s_{neg}}{s_{perfect} - s_{neg}}, \quad \text{clipped to } [-1, 1]

    Near 0 the metric cannot tell replicate data from an uninformative prediction on this data set: differences between
    models in it mean nothing. The positive control is a replicate (the other half of the cells; in the source shrunk
    towards the mean where a gene is not significant), the negative one the mean of all perturbations; where
    effects are taken against that mean, no change.

    Parameters
    ----------
    positive, negative
        Scores of the two controls, numbers or arrays of one value per condition.
    perfect
        Score of a perfect prediction: 1 for correlations, 0 for errors.

    Returns
    -------
    The fraction; NaN where the negative control is perfect or a score is NaN.

    Raises
    ------
    ValueError
        If the two differ in shape, or scores lie on both sides of ``perfect``.

    References
    ----------
    CellSimBench, bioRxiv 2025.10.20.683304 (which adds 1e-6 to the denominator).

    Examples
    --------
    >>> from scjepa.metrics import dynamic_range_fraction
    >>> dynamic_range_fraction(0.9, 0.6, perfect=1.0)
    0.75
    >>> dynamic_range_fraction([0.1, 0.4], [0.4, 0.2], perfect=0.0)
    array([ 0.75, -1.  ])
    """
    pos, neg = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if pos.shape != neg.shape:
        raise ValueError(f"positive has shape {pos.shape} and negative has shape {neg.shape}: expected one shape.")
    both = np.concatenate([pos.ravel(), neg.ravel()])
    if (both > perfect).any() and (both < perfect).any():
        raise ValueError(f"scores lie below and above perfect={perfect:g}: expected the best score that is possible.")
    room = perfect - neg
    fraction = np.divide(pos - neg, room, out=np.full(pos.shape, np.nan), where=~(room == 0))
    return scores(np.clip(fraction, -1.0, 1.0))


def systematic_variation(effects: npt.ArrayLike) -> float:
    r"""Mean cosine of effects and their average, :math:`\frac1P \sum_p \cos(\delta_p, \bar\delta)`: what all share.

    Near 1 every perturbation does the same (stress, cell cycle, batch), and :func:`pearson_delta` against control is
    high for any prediction with the average effect. Take it against the training mean then.

    Parameters
    ----------
    effects
        ``(conditions, genes)`` true perturbed minus control means.

    Returns
    -------
    A number between -1 and 1; conditions without any effect are left out, NaN when none are left.

    Raises
    ------
    ValueError
        If ``effects`` is no matrix.

    References
    ----------
    Viñas Torné et al., Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> from scjepa.metrics import systematic_variation
    >>> round(systematic_variation([[1.0, 0.0], [0.0, 1.0]]), 6)
    0.707107
    """
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"effects has shape {values.shape}: expected a matrix, conditions x genes.")
    each = cosine(values, np.broadcast_to(values.mean(0), values.shape))
    return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")
