"""The Hill equation of dose and response, and areas under curves over log dose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from scjepa._types import FloatArray


def hill(
    dose: npt.ArrayLike,
    bottom: npt.ArrayLike = 0.0,
    top: npt.ArrayLike = 1.0,
    ec50: npt.ArrayLike = 1.0,
    slope: npt.ArrayLike = 1.0,
) -> Any:
    r"""Response at a dose by the Hill equation.

    .. math:: y(d) = bottom + (top - bottom) \frac{d^s}{EC_{50}^s + d^s}

    Parameters
    ----------
    dose
        Doses, not logs, 0 or above. At dose 0 nothing happens: the response is ``bottom``.
    bottom, top
        Response without drug and at saturating dose (Emax); ``top`` may be the lower one.
    ec50
        Dose of half the effect, in the unit of ``dose``, above 0.
    slope
        Hill coefficient s, above 0.

    Returns
    -------
    Responses; all arguments are broadcast against each other. NaN where a parameter is.

    Raises
    ------
    ValueError
        If a dose is negative or no number, or an EC50 or slope is not above 0.

    References
    ----------
    Hill, *Journal of Physiology* 40, iv-vii (1910).

    Examples
    --------
    >>> from scjepa.pharma import hill
    >>> hill([0.0, 1.0, 10.0, 1e9], bottom=0.0, top=2.0, ec50=1.0)
    array([0.        , 1.        , 1.81818182, 2.        ])
    """
    d = checked_doses(dose, "dose")
    low, high = np.asarray(bottom, dtype=np.float64), np.asarray(top, dtype=np.float64)
    half, steep = np.asarray(ec50, dtype=np.float64), np.asarray(slope, dtype=np.float64)
    for values, name in ((half, "ec50"), (steep, "slope")):
        if (values <= 0).any():
            raise ValueError(
                f"{name} has a value of {values.min():g}: expected numbers above 0 (a falling curve has its top below its bottom)."
            )
    with np.errstate(divide="ignore"):
        return _number(low + (high - low) * expit(steep * (np.log(d) - np.log(half))))


def hill_auc(
    bottom: npt.ArrayLike, top: npt.ArrayLike, ec50: npt.ArrayLike, slope: npt.ArrayLike, low: float, high: float
) -> Any:
    r"""Mean response of a Hill curve over log dose: its area between two doses over their distance in decades.

    .. math:: bottom + \frac{top - bottom}{s \ln(high / low)} \ln \frac{EC_{50}^s + high^s}{EC_{50}^s + low^s}

    Parameters
    ----------
    bottom, top, ec50, slope
        As in :func:`hill`; broadcast against each other.
    low, high
        Doses between which the mean is taken, ``0 < low < high``.

    Returns
    -------
    Mean responses, on the scale of the response. Comparable between drugs of the same doses only.

    Raises
    ------
    ValueError
        If the doses are not ``0 < low < high``.

    References
    ----------
    The integral of the Hill equation; Pozdeyev et al., *Oncotarget* 7, 51619 (2016), on areas as a measure of response.

    Examples
    --------
    >>> from scjepa.pharma import hill_auc
    >>> hill_auc(0.0, 1.0, 1.0, 1.0, 0.01, 100.0)  # symmetric about the EC50
    0.5
    """
    if not 0 < low < high < np.inf:
        raise ValueError(f"low={low!r} and high={high!r}: expected doses 0 < low < high.")
    s, x = np.asarray(slope, dtype=np.float64), np.log(np.asarray(ec50, dtype=np.float64))
    upper, lower = np.logaddexp(0, s * (np.log(high) - x)), np.logaddexp(0, s * (np.log(low) - x))
    share = (upper - lower) / (s * np.log(high / low))
    b = np.asarray(bottom, dtype=np.float64)
    return _number(b + (np.asarray(top, dtype=np.float64) - b) * share)


def dose_auc(doses: npt.ArrayLike, responses: npt.ArrayLike) -> Any:
    """Mean measured response over log dose, by the trapezoidal rule; needs no fit.

    Parameters
    ----------
    doses
        ``(doses,)`` not logs; repeated ones are averaged, 0 is left out (it is infinitely far on a log scale).
    responses
        ``(doses,)`` or ``(curves, doses)``.

    Returns
    -------
    The area between lowest and highest dose over their distance in decades; one per curve, NaN where a response is.

    Raises
    ------
    ValueError
        If shapes don't fit, a dose is negative or no number, or there are fewer than two doses above 0.

    Examples
    --------
    >>> from scjepa.pharma import dose_auc
    >>> dose_auc([0.0, 0.1, 1.0, 10.0], [0.0, 0.0, 1.0, 2.0])
    1.0
    """
    d, y, single = dose_curves(doses, responses)
    levels, at = np.unique(d, return_inverse=True)
    means = np.stack([y[:, at == i].mean(1) for i in range(len(levels))], axis=1)[:, levels > 0]
    x = np.log(levels[levels > 0])
    if len(x) < 2:
        raise ValueError(f"doses has {len(x)} distinct doses above 0: expected at least 2, an area needs a width.")
    area = np.trapezoid(means, x, axis=1) / (x[-1] - x[0])
    return float(area[0]) if single else area


def _number(values: FloatArray) -> Any:
    """Return a float for one value, the array otherwise."""
    return float(values) if np.ndim(values) == 0 else values


def checked_doses(doses: npt.ArrayLike, name: str) -> FloatArray:
    """Return doses as float64, or raise a :class:`ValueError` that says what is wrong with them."""
    try:
        d = np.asarray(doses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} has values that are no numbers: expected doses such as 0.1, without a unit."
        ) from error
    if not np.isfinite(d).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(d)).sum())} missing or infinite doses: expected finite numbers."
        )
    if (d < 0).any():
        raise ValueError(
            f"{name} has {int((d < 0).sum())} negative doses, the lowest is {d.min():g}: expected doses of at least 0. "
            "Logs of doses have to be undone first: 10**x."
        )
    return d


def dose_curves(doses: npt.ArrayLike, responses: npt.ArrayLike | pd.DataFrame) -> tuple[FloatArray, FloatArray, bool]:
    """Return doses, ``(curves, doses)`` responses, and whether a single curve was given."""
    d = checked_doses(doses, "doses")
    y = np.asarray(responses, dtype=np.float64)
    if d.ndim != 1 or y.ndim not in (1, 2) or y.shape[-1] != len(d) or not y.size:
        raise ValueError(
            f"doses has shape {d.shape} and responses has shape {y.shape}: expected (doses,) and (doses,) or "
            "(curves, doses)."
        )
    if np.isinf(y).any():
        raise ValueError(
            f"responses has {int(np.isinf(y).sum())} infinite values: expected numbers, or NaN where not measured."
        )
    return d, np.atleast_2d(y), y.ndim == 1
