"""The replicate ceiling: how well half of the real cells of a condition predict the other half."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray, IntArray, Matrix
from scjepa.data._conditions import weighted_means
from scjepa.metrics import energy_distance, l2, pearson_delta, shift_magnitude_ratio, variance_ratio

CEILING = "replicate ceiling"
"""Name of its rows in score tables."""
MIN_CELLS = 4
"""Fewest cells that are split: below, a half is a single cell."""
REPEATS = 10
"""Splits averaged."""


class Halves(NamedTuple):
    """Cells split ``REPEATS`` times: which are in the first half, and the means of both halves."""

    first: npt.NDArray[np.bool_]
    """``(repeats, n)``"""
    means: FloatArray
    """``(2, repeats, genes)``"""


def split_in_halves(names: npt.NDArray, seed: int) -> npt.NDArray[np.bool_]:
    """Return ``(REPEATS, n)``: which cells are in the first half (the smaller one if ``n`` is odd).

    Which cells go together depends on their names and the seed, not on the order of cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.tl._ceiling import split_in_halves
    >>> first = split_in_halves(np.array(["a", "b", "c", "d", "e"]), seed=0)
    >>> first.shape, set(first.sum(1).tolist())
    ((10, 5), {2})
    """
    order = np.argsort(names, kind="stable")
    rng = np.random.default_rng(seed)
    first = np.zeros((REPEATS, len(order)), dtype=bool)
    for row in first:
        row[order[rng.permutation(len(order))[: len(order) // 2]]] = True
    return first


def halves_of(x: Matrix, cells: IntArray, names: npt.NDArray, seed: int) -> Halves | None:
    """Split ``cells`` of ``x`` and average each half; None with fewer than ``MIN_CELLS`` cells.

    Parameters
    ----------
    x
        Log-normalised cells x genes.
    cells
        Rows of ``x``.
    names
        Names of all rows of ``x``.
    seed
        Of the splits.
    """
    if len(cells) < MIN_CELLS:
        return None
    first = split_in_halves(names[cells], seed)
    groups = [(cells[mask], np.full(mask.sum(), 1 / mask.sum())) for half in (first, ~first) for mask in half]
    return Halves(first, weighted_means(x, groups).reshape(2, REPEATS, -1))


def ceiling_scores(
    metrics: Iterable[str],
    halves: Halves,
    control: FloatArray,
    reference: FloatArray | None,
    coordinates: FloatArray | None,
    names: npt.NDArray,
    seed: int,
) -> dict[str, float]:
    r"""Score one half of a condition as the prediction of the other, corrected for the size of the halves.

    With :math:`h_1, h_2` the means of the halves, :math:`n_1 + n_2 = n` their cells, :math:`\bar x` the mean of all
    :math:`n` cells and :math:`\mu` what it estimates:

    - **L2**: the noise of a mean falls with the number of cells, so
      :math:`E\|h_1 - h_2\|^2 = (1/n_1 + 1/n_2)\,\sigma^2` and :math:`E\|\bar x - \mu\|^2 = \sigma^2/n`
      with :math:`\sigma^2` the variance of a cell, summed over genes. The score of the perfect prediction :math:`\mu`
      is therefore estimated by :math:`\|h_1 - h_2\| \sqrt{n_1 n_2}/n`, half of the distance for equal halves.
    - **Correlations**: the mean ``r`` over the splits becomes :math:`2r/(1+r)` (Spearman and Brown), the correlation
      to expect of a second experiment of full size. A correlation that is not positive stays as it is.
    - **E-distance**: of two sets of one distribution the V-statistic has the mean :math:`(1/n_1 + 1/n_2)\,E\|x - x'\|`
      (each cell is at distance zero from itself), so that of the halves times :math:`2 n_1 n_2/n^2` is the score of a
      perfect prediction of ``n`` cells.
    - The ratios are those of the halves.

    All effects are taken against the mean of all controls, those of predictions and of the truth alike: the noise of
    this mean is on both sides of every score. (With halves of the controls the ceiling would lack it, and the additive
    baseline would come out above.)

    Parameters
    ----------
    metrics
        Names of metrics.
    halves
        Splits of the perturbed cells.
    control
        ``(genes,)`` mean of the controls of the context.
    reference
        ``(genes,)`` mean training effect, or None.
    coordinates
        ``(n, d)`` cells of the condition (or a subset) in principal components, or None.
    names
        Names of these cells.
    seed
        Of their splits.

    Returns
    -------
    Score by metric; NaN where it is undefined.

    References
    ----------
    Correction and use as a ceiling: cell-eval (Arc Institute). Spearman (1910) and Brown (1910), *British Journal of
    Psychology* 3, 271-295 and 296-322.
    """
    a, b = halves.means
    nan = float("nan")
    n = halves.first.shape[1]
    smaller = int(halves.first[0].sum())
    split = [] if coordinates is None or len(coordinates) < MIN_CELLS else list(split_in_halves(names, seed))

    def mean(values: Iterable[float]) -> float:
        found = list(values)
        return float(np.mean(found)) if found else nan

    effects = list(zip(a - control, b - control, strict=True))
    out: dict[str, float] = {}
    for metric in metrics:
        if metric == "l2":
            out[metric] = mean(map(l2, a, b)) * float(np.sqrt(smaller * (n - smaller)) / n)
        elif metric == "pearson_delta":
            out[metric] = full_size(mean(pearson_delta(p, q) for p, q in effects))
        elif metric == "pearson_delta_systema":
            pairs = [] if reference is None else effects
            out[metric] = full_size(mean(pearson_delta(p, q, reference) for p, q in pairs))
        elif metric == "shift_ratio":
            out[metric] = mean(shift_magnitude_ratio(p, q) for p, q in effects)
        else:
            score = energy_distance if metric == "e_distance" else variance_ratio
            out[metric] = nan if coordinates is None else mean(score(coordinates[m], coordinates[~m]) for m in split)
            if metric == "e_distance" and coordinates is not None:
                share = (len(coordinates) // 2) / len(coordinates)
                out[metric] *= 2 * share * (1 - share)
    return out


def full_size(r: float) -> float:
    """Return the correlation of full samples whose halves correlate with ``r`` (Spearman-Brown).

    Examples
    --------
    >>> from scjepa.tl._ceiling import full_size
    >>> full_size(0.5), full_size(-0.2)
    (0.6666666666666666, -0.2)
    """
    return 2 * r / (1 + r) if r > 0 else r
