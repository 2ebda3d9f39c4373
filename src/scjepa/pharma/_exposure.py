"""Response over time and dose: when it fades, where benefit outweighs toxicity, and which dose is best."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from scjepa._checks import require_levels, require_member, require_positive_int
from scjepa._types import FloatArray
from scjepa.pharma._curves import checked_doses

Scale = Literal["log", "linear"]


class Fading(NamedTuple):
    """Result of :func:`fade_time`, one entry per curve, floats for a single one."""

    onset: FloatArray
    """When the response falls below the share of its maximum, for good; NaN if it does not."""
    before: FloatArray
    """Last measured time at which it was not below; the onset lies between this and ``after``."""
    after: FloatArray
    peak_time: FloatArray
    peak: FloatArray
    """Largest response; NaN onsets where it is not above 0."""


class ResistanceOnset(NamedTuple):
    """Result of :func:`resistance_onset`."""

    onset: float
    """Of the mean curve; NaN if it does not fade."""
    lower: float
    upper: float
    """Interval of the onset; infinite ``upper`` when too many resamples never fade."""
    probability: float
    """Share of resamples that fade while they are watched."""


class OptimalDose(NamedTuple):
    """Result of :func:`optimal_dose`, one entry per curve, floats for a single one."""

    dose: FloatArray
    """NaN when no dose is tolerated."""
    benefit: FloatArray
    toxicity: FloatArray


def fade_time(times: npt.ArrayLike, responses: npt.ArrayLike, *, share: float = 0.5) -> Fading:
    """Find when a response fades: falls below a share of its maximum after the maximum, and stays below.

    Parameters
    ----------
    times
        ``(times,)`` of exposure, increasing, in any unit.
    responses
        ``(times,)`` or ``(curves, times)`` sizes of the response, 0 for none, for example along the drug's own signature.
    share
        Of the maximum, between 0 and 1.

    Returns
    -------
    Onset by linear interpolation, the measured times around it, and time and height of the maximum.

    Raises
    ------
    ValueError
        If shapes don't fit, times don't increase, a response is missing, or the share is out of range.

    Examples
    --------
    >>> from scjepa.pharma import fade_time
    >>> fade_time([0.0, 6.0, 24.0, 48.0], [0.0, 4.0, 3.0, 1.0])[:3]
    (36.0, 24.0, 48.0)
    """
    t, y, single = _course(times, responses, share)
    parts = _fade(t, y, share)
    return Fading(*(float(v[0]) for v in parts)) if single else Fading(*parts)  # type: ignore[arg-type]


def resistance_onset(
    times: npt.ArrayLike,
    replicates: npt.ArrayLike,
    *,
    share: float = 0.5,
    level: float = 0.9,
    n_boot: int = 1000,
    seed: int = 0,
) -> ResistanceOnset:
    """Find when a response fades, with an interval from replicates (patients, wells, or models of an ensemble).

    Parameters
    ----------
    times
        ``(times,)`` of exposure, increasing, in any unit.
    replicates
        ``(replicates, times)`` sizes of the response. A single one gets the measured times around its onset as interval.
    share
        Of the maximum, between 0 and 1.
    level
        Of the interval: quantiles over resampled replicates.
    n_boot, seed
        Of the resampling.

    Returns
    -------
    Onset of the mean curve (see :func:`fade_time`), its interval, and the share of resamples that fade.

    Raises
    ------
    ValueError
        As in :func:`fade_time`, or if an option is out of range.

    Examples
    --------
    >>> from scjepa.pharma import resistance_onset
    >>> found = resistance_onset([0, 6, 24, 48], [[0, 4, 3, 1], [0, 5, 4, 1], [0, 4, 3, 0]])
    >>> round(found.onset, 1), found.probability
    (34.5, 1.0)
    """
    t, y, _ = _course(times, replicates, share)
    require_levels([level], "level")
    require_positive_int(n_boot, "n_boot", minimum=20)
    onset, before, after = (float(v[0]) for v in _fade(t, y.mean(0, keepdims=True), share)[:3])
    if len(y) == 1:
        return ResistanceOnset(onset, before, after, float(np.isfinite(onset)))
    drawn = np.random.default_rng(seed).multinomial(len(y), np.full(len(y), 1 / len(y)), n_boot) / len(y)
    found = np.sort(np.nan_to_num(_fade(t, drawn @ y, share)[0], nan=np.inf))
    faded = float(np.isfinite(found).mean())
    if not faded:
        return ResistanceOnset(onset, np.nan, np.nan, 0.0)
    at = [int(np.floor((n_boot - 1) * (1 - level) / 2)), int(np.ceil((n_boot - 1) * (1 + level) / 2))]
    return ResistanceOnset(onset, float(found[at[0]]), float(found[at[1]]), faded)


def treatment_window(
    axis: npt.ArrayLike,
    benefit: npt.ArrayLike,
    toxicity: npt.ArrayLike,
    *,
    min_benefit: float,
    max_toxicity: float,
    scale: Scale = "log",
) -> pd.DataFrame:
    """Find the doses, or times, at which the benefit is large enough and the toxicity small enough.

    Parameters
    ----------
    axis
        ``(points,)`` doses or times, increasing, at least 0.
    benefit, toxicity
        ``(points,)`` or ``(curves, points)`` responses, for example :func:`signature_score` of each; between points they
        are interpolated.
    min_benefit, max_toxicity
        Thresholds; values equal to them are inside.
    scale
        Of the interpolation: ``"log"`` for doses, ``"linear"`` for times. From dose 0 to the next it is linear.

    Returns
    -------
    DataFrame, one row per window: ``curve``, ``lower``, ``upper``. Curves without a window have no row.

    Raises
    ------
    ValueError
        If shapes don't fit, the axis doesn't increase, or a value is missing.

    Examples
    --------
    >>> from scjepa.pharma import treatment_window
    >>> treatment_window([1, 10, 100], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], min_benefit=0.5, max_toxicity=0.5).round(2)
       curve  lower  upper
    0      0   3.16  31.62
    """
    x, gain, harm, _ = _balance(axis, benefit, toxicity, "axis")
    require_member(scale, ("log", "linear"), "scale", where="the scales")
    rows = []
    for curve, (g, h) in enumerate(zip(gain - min_benefit, max_toxicity - harm, strict=True)):
        windows: list[list[float]] = []
        for i in range(len(x) - 1):
            for ends in _inside(g[i : i + 2], h[i : i + 2]):
                lower, upper = (_between(x[i], x[i + 1], s, scale) for s in ends)
                if windows and lower <= windows[-1][1]:
                    windows[-1][1] = upper
                else:
                    windows.append([lower, upper])
        rows += [(curve, *w) for w in windows]
    return pd.DataFrame(rows, columns=["curve", "lower", "upper"]).astype(
        {"curve": int, "lower": float, "upper": float}
    )


def optimal_dose(
    doses: npt.ArrayLike,
    benefit: npt.ArrayLike,
    toxicity: npt.ArrayLike,
    *,
    max_toxicity: float = np.inf,
    weight: float = 1.0,
) -> OptimalDose:
    r"""Find the dose with the largest benefit minus weighted toxicity, of those that are tolerated.

    .. math:: \arg\max_d\; benefit(d) - w\, toxicity(d) \quad \text{with} \quad toxicity(d) \le toxicity_{max}

    Both are interpolated linearly in log dose, so that the best dose is a measured one or one at which the toxicity
    reaches its limit.

    Parameters
    ----------
    doses
        ``(doses,)`` not logs, increasing; 0 is no treatment and may be the best.
    benefit, toxicity
        ``(doses,)`` or ``(curves, doses)`` responses on one scale, for example :func:`signature_score` of each.
    max_toxicity
        Largest toxicity tolerated.
    weight
        What a unit of toxicity costs in units of benefit, at least 0.

    Returns
    -------
    Dose, benefit and toxicity; of equally good doses the lowest.

    Raises
    ------
    ValueError
        If shapes don't fit, doses don't increase, a value is missing, or the weight is negative.

    Examples
    --------
    >>> from scjepa.pharma import optimal_dose
    >>> found = optimal_dose([0.1, 1.0, 10.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0], max_toxicity=0.5, weight=0.5)
    >>> round(found.dose, 2), found.benefit, found.toxicity
    (3.16, 1.5, 0.5)
    """
    d, gain, harm, single = _balance(doses, benefit, toxicity, "doses")
    if not weight >= 0:
        raise ValueError(f"weight={weight!r}: expected a number of at least 0.")
    if np.isnan(max_toxicity):
        raise ValueError("max_toxicity is NaN: expected a number, numpy.inf for no limit.")
    found = np.full((3, len(gain)), np.nan)
    for i, (g, h) in enumerate(zip(gain, harm, strict=True)):
        points = [(x, b, t) for x, b, t in zip(d, g, h, strict=True) if t <= max_toxicity]
        for j in range(len(d) - 1):
            if (h[j] - max_toxicity) * (h[j + 1] - max_toxicity) < 0:  # crosses the limit in between
                s = (max_toxicity - h[j]) / (h[j + 1] - h[j])
                points.append((_between(d[j], d[j + 1], s, "log"), g[j] + s * (g[j + 1] - g[j]), max_toxicity))
        if points:
            found[:, i] = max(sorted(points), key=lambda p: p[1] - weight * p[2])
    return OptimalDose(*(float(v[0]) for v in found)) if single else OptimalDose(*found)  # type: ignore[arg-type]


def _fade(t: FloatArray, y: FloatArray, share: float) -> tuple[FloatArray, ...]:
    """Return onset, times around it, time and height of the maximum of ``(curves, times)`` responses."""
    rows, last = np.arange(len(y)), len(t) - 1
    at = y.argmax(1)
    peak = y[rows, at]
    limit = share * peak
    above = y >= limit[:, None]
    i = last - above[:, ::-1].argmax(1)  # the last time at which it is not below
    fades = (peak > 0) & (i < last)
    j = np.minimum(i + 1, last)
    with np.errstate(divide="ignore", invalid="ignore"):
        onset = t[i] + (t[j] - t[i]) * (y[rows, i] - limit) / (y[rows, i] - y[rows, j])
    hide = lambda v: np.where(fades, v, np.nan)
    return hide(onset), hide(t[i]), hide(t[j]), t[at], peak


def _between(low: float, high: float, s: float, scale: str) -> float:
    """Return the point at share ``s`` of the way; linear from 0, which has no log."""
    if s in (0.0, 1.0):
        return float(high if s else low)
    return float(low * (high / low) ** s if scale == "log" and low > 0 else low + s * (high - low))


def _inside(g: FloatArray, h: FloatArray) -> list[tuple[float, float]]:
    """Return the part of a step, as shares of it, in which two linear functions are at least 0."""
    low, high = 0.0, 1.0
    for start, end in (g, h):
        if start < 0 and end < 0:
            return []
        if start < 0:
            low = max(low, start / (start - end))
        elif end < 0:
            high = min(high, start / (start - end))
    return [(low, high)] if low <= high else []


def _increasing(axis: npt.ArrayLike, name: str) -> FloatArray:
    x = checked_doses(axis, name)
    if x.ndim != 1 or len(x) < 2 or (np.diff(x) <= 0).any():
        raise ValueError(f"{name} is {x.tolist()}: expected at least 2 values, increasing, each once. Sort first.")
    return x


def _course(times: npt.ArrayLike, responses: npt.ArrayLike, share: float) -> tuple[FloatArray, FloatArray, bool]:
    t, y = _increasing(times, "times"), np.asarray(responses, dtype=np.float64)
    if y.ndim not in (1, 2) or not y.size or y.shape[-1] != len(t):
        raise ValueError(
            f"responses has shape {y.shape}: expected ({len(t)},) or (curves, {len(t)}), one value per time."
        )
    if not np.isfinite(y).all():
        raise ValueError(f"responses has {int((~np.isfinite(y)).sum())} missing or infinite values: expected numbers.")
    if not 0 < share < 1:
        raise ValueError(f"share={share!r}: expected a number between 0 and 1, for example 0.5.")
    return t, np.atleast_2d(y), y.ndim == 1


def _balance(
    axis: npt.ArrayLike, benefit: npt.ArrayLike, toxicity: npt.ArrayLike, name: str
) -> tuple[FloatArray, FloatArray, FloatArray, bool]:
    x = _increasing(axis, name)
    gain, harm = np.asarray(benefit, dtype=np.float64), np.asarray(toxicity, dtype=np.float64)
    if gain.ndim not in (1, 2) or gain.shape != harm.shape or not gain.size or gain.shape[-1] != len(x):
        raise ValueError(
            f"benefit has shape {gain.shape} and toxicity {harm.shape}: expected ({len(x)},) or (curves, {len(x)}) for both."
        )
    missing = int((~np.isfinite(gain)).sum() + (~np.isfinite(harm)).sum())
    if missing:
        raise ValueError(f"benefit and toxicity have {missing} missing or infinite values: expected numbers.")
    return x, np.atleast_2d(gain), np.atleast_2d(harm), gain.ndim == 1
