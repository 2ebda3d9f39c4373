"""Metrics of prediction intervals: how often they hold, how wide they are, and whether both agree with the level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray


def interval_coverage(truth: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""Share of true values inside their intervals, :math:`\frac1n \sum_i [l_i \le y_i \le u_i]`. Best is the level.

    Parameters
    ----------
    truth, lower, upper
        Arrays of one shape, genes or conditions x genes.

    Returns
    -------
    The share; values that are NaN anywhere don't count, NaN when none are left.

    Raises
    ------
    ValueError
        If shapes differ, arrays are empty, or a lower end lies above its upper end.

    References
    ----------
    Prediction interval coverage probability; Khosravi et al., IEEE Trans Neural Netw 2011,
    doi:10.1109/TNN.2010.2096824.

    Examples
    --------
    >>> from scjepa.metrics import interval_coverage
    >>> interval_coverage([0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 4.0])
    0.75
    """
    y, low, high = _ends(lower, upper, truth)
    return float(((low <= y) & (y <= high)).mean()) if len(y) else float("nan")


def interval_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""Mean width of intervals, :math:`\frac1n \sum_i (u_i - l_i)`. Of intervals with equal coverage, lower is better.

    Parameters
    ----------
    lower, upper
        Arrays of one shape.

    Returns
    -------
    The width in the units of the values; pairs with a NaN don't count, NaN when none are left.

    Raises
    ------
    ValueError
        If shapes differ, arrays are empty, or a lower end lies above its upper end.

    References
    ----------
    Sharpness of central intervals; Gneiting, Balabdaoui and Raftery, J R Stat Soc B 2007,
    doi:10.1111/j.1467-9868.2007.00587.x.

    Examples
    --------
    >>> from scjepa.metrics import interval_width
    >>> interval_width([0.0, -1.0], [1.0, 2.0])
    2.0
    """
    low, high = _ends(lower, upper)
    return float((high - low).mean()) if len(low) else float("nan")


def coverage_by_level(
    truth: npt.ArrayLike,
    intervals: Callable[[float], tuple[npt.ArrayLike, npt.ArrayLike]],
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
) -> dict[float, float]:
    """Coverage of intervals at several levels, the points of a calibration curve. Best is the diagonal.

    Parameters
    ----------
    truth
        True values.
    intervals
        Takes a level and returns the lower and upper ends, shaped as ``truth``.
    levels
        Levels between 0 and 1.

    Returns
    -------
    Coverage (:func:`interval_coverage`) by level.

    Raises
    ------
    ValueError
        For levels that are not between 0 and 1, and as in :func:`interval_coverage`.

    References
    ----------
    Kuleshov, Fenner and Ermon. Accurate uncertainties for deep learning using calibrated regression. ICML 2018.

    Examples
    --------
    >>> from scjepa.metrics import coverage_by_level
    >>> coverage_by_level([1.0, 2.0, 3.0, 4.0], lambda level: ([0.0] * 4, [4 * level] * 4), levels=(0.5, 0.8))
    {0.5: 0.5, 0.8: 0.75}
    """
    bad = [level for level in levels if not 0 < level < 1]
    if bad or not len(levels):
        raise ValueError(f"levels={list(levels)!r}: expected one or more numbers between 0 and 1.")
    return {float(level): interval_coverage(truth, *intervals(level)) for level in levels}


def _ends(lower: npt.ArrayLike, upper: npt.ArrayLike, truth: npt.ArrayLike | None = None) -> list[FloatArray]:
    """Return (truth and) ends as flat vectors without NaN; check shapes and order."""
    given = {"lower": lower, "upper": upper} if truth is None else {"truth": truth, "lower": lower, "upper": upper}
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) > 1 or not arrays["lower"].size:
        raise ValueError(f"expected arrays of one shape with at least one value, found {shapes}.")
    flat: list[FloatArray] = [values.ravel() for values in arrays.values()]
    kept = ~np.isnan(flat).any(0)
    flat = [values[kept] for values in flat]
    crossed = int((flat[-2] > flat[-1]).sum())
    if crossed:
        raise ValueError(f"{crossed} of {len(flat[-1])} lower ends lie above their upper ends. Swap lower and upper.")
    return flat
