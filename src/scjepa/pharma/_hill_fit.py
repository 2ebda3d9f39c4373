"""Fit of Hill curves to many responses: a grid solved at once, then scipy; flat curves are told; intervals."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from scjepa._checks import require_levels, require_member, require_positive_int
from scjepa._types import FloatArray
from scjepa.pharma._curves import dose_curves, hill, hill_auc

LN10 = float(np.log(10.0))
SLOPES = (0.1, 10.0)
"""Range of slopes fitted; measured ones are rarely outside .3 to 4."""
BEYOND = 1.0
"""Decades outside the measured doses in which an EC50 is looked for: farther away the data say nothing."""
ROOM = 1.0
"""How far top and bottom may lie outside the measured responses, in units of their range."""
STARTS = 3
EVALUATIONS = 50
"""Of one start: real curves need about ten, noise creeps along a valley without an end."""


class Curve(NamedTuple):
    """Parameters of one fitted curve and what its intervals are made of; see :func:`fit_hill`."""

    bottom: float
    top: float
    log_ec50: float
    log_slope: float
    rss: float
    jacobian: FloatArray
    free: list[int]

    def values(self, doses: FloatArray) -> FloatArray:
        """Return the fitted responses."""
        return hill(doses, self.bottom, self.top, np.exp(self.log_ec50), np.exp(self.log_slope))


def fit_hill(
    doses: npt.ArrayLike,
    responses: npt.ArrayLike | pd.DataFrame,
    *,
    bottom: float | npt.ArrayLike | None = None,
    top: float | npt.ArrayLike | None = None,
    level: float = 0.95,
    intervals: Literal["delta", "bootstrap"] = "delta",
    alpha: float = 0.05,
    min_effect: float = 0.0,
    n_boot: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Fit Hill curves to responses by least squares, many at a time, with confidence intervals.

    Given EC50 and slope, bottom and top are a linear regression: a grid over the first two is solved for all curves at
    once, and its best cells are where ``scipy.optimize.least_squares`` starts. EC50 and slope are fitted as logs; the
    EC50 at most one decade outside the measured doses, slopes between .1 and 10, bottom and top at most one range of
    the responses outside them.

    A curve is *flat* unless it beats a constant: by an F-test of the fit, or by the correlation of response and log dose
    (few doses have no power for the first), each at ``alpha / 2``, and with a fitted change of at least ``min_effect``
    over the doses. A flat curve has bottom = top = its mean and no EC50 or slope.

    Parameters
    ----------
    doses
        ``(doses,)`` not logs, in any order; repeats are replicates, 0 is the vehicle.
    responses
        ``(doses,)`` or ``(curves, doses)``; a DataFrame names the curves by its index. NaN is not measured.
    bottom, top
        Value at which to hold the parameter, one number or one per curve; None fits it. Effects against vehicle have
        ``bottom=0``.
    level
        Of the intervals.
    intervals
        ``"delta"`` (linearised, :math:`s^2 (J^T J)^{-1}`, Student's t) or ``"bootstrap"`` (residuals resampled).
    alpha
        Above 0, at most 1; with 1 every curve with any change gets its EC50.
    min_effect
        Smallest change over the measured doses that counts.
    n_boot, seed
        Of the bootstrap.

    Returns
    -------
    DataFrame, one row per curve: ``bottom``, ``top``, ``ec50``, ``slope``, ``auc`` (mean response over the log doses
    measured, see :func:`hill_auc`), each with ``_lower`` and ``_upper``; ``r2``, ``rmse``, ``p_value``, ``flat``, and
    ``extrapolated``: the EC50 is outside the measured doses. Intervals are NaN where no degree of freedom is left.

    Raises
    ------
    ValueError
        If shapes don't fit, a dose is negative or no number, there are fewer than three doses above 0 or fewer
        responses than free parameters, or an option is out of range.

    References
    ----------
    Hill, *Journal of Physiology* 40 (1910); Ritz et al., *PLoS ONE* 10, e0146021 (2015); Golub and Pereyra, *SIAM
    Journal on Numerical Analysis* 10, 413-432 (1973), for the grid.

    Examples
    --------
    >>> from scjepa.pharma import fit_hill, hill
    >>> doses = [0.0, 0.01, 0.1, 1.0, 10.0, 100.0]
    >>> table = fit_hill(doses, [hill(doses, 0.0, 2.0, 0.5, 1.2), [1.0] * 6])
    >>> table[["ec50", "slope", "top", "flat"]].round(3).values.tolist()
    [[0.5, 1.2, 2.0, False], [nan, nan, 1.0, True]]
    """
    names = responses.index if isinstance(responses, pd.DataFrame) else None
    d, y, _ = dose_curves(doses, responses)
    require_levels([level], "level")
    require_member(intervals, ("delta", "bootstrap"), "intervals", where="the methods")
    require_positive_int(n_boot, "n_boot", minimum=2)
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha!r}: expected a number above 0 and at most 1, for example 0.05.")
    if not min_effect >= 0:
        raise ValueError(f"min_effect={min_effect!r}: expected a number of at least 0, on the scale of the responses.")
    curves = fit_curves(d, y, bottom, top)
    rng = np.random.default_rng(seed)
    rows = []
    for values, curve in zip(y, curves, strict=True):
        seen = np.isfinite(values)
        row = _described(d[seen], values[seen], curve, alpha, min_effect)
        ends = None if row["flat"] else _ends(d[seen], values[seen], curve, level, intervals, n_boot, rng)
        for i, name in enumerate(("bottom", "top", "ec50", "slope", "auc")):
            row[f"{name}_lower"], row[f"{name}_upper"] = (np.nan, np.nan) if ends is None else ends[i]
        rows.append(row)
    return pd.DataFrame(rows, index=names)


def fit_curves(
    doses: FloatArray,
    responses: FloatArray,
    bottom: float | npt.ArrayLike | None = None,
    top: float | npt.ArrayLike | None = None,
    n_starts: int = STARTS,
) -> list[Curve]:
    """Return the least-squares curve of each row of responses, flat or not."""
    n = len(responses)
    held: list[FloatArray | None] = []
    for given, name in ((bottom, "bottom"), (top, "top")):
        value = None if given is None else np.asarray(given, dtype=np.float64)
        if value is not None and (value.shape not in ((), (n,)) or not np.isfinite(value).all()):
            raise ValueError(f"{name}={given!r}: expected a finite number or one per curve ({n}), or None to fit it.")
        held.append(None if value is None else np.broadcast_to(value, (n,)))
    free = [i for i in range(4) if i > 1 or held[i] is None]
    above = np.unique(doses[doses > 0])
    if len(above) < 3:
        raise ValueError(f"doses has {len(above)} distinct doses above 0: expected at least 3 to tell EC50 from slope.")
    few = np.flatnonzero(np.isfinite(responses).sum(1) < len(free))
    if len(few):
        raise ValueError(
            f"{len(few)} curves have fewer responses than the {len(free)} parameters to fit, the first is curve {few[0]}: "
            "measure more doses, or hold bottom or top, for example bottom=0."
        )
    lowest, highest = np.log(above[0]) - BEYOND * LN10, np.log(above[-1]) + BEYOND * LN10
    grid = [
        (m, s)
        for m in np.linspace(lowest, highest, max(9, int(4 * (highest - lowest) / LN10)))
        for s in np.log([0.3, 0.7, 1.0, 1.5, 3.0])
    ]
    out = []
    for i, values in enumerate(responses):
        seen = np.isfinite(values)
        fixed = [None if h is None else float(h[i]) for h in held]
        out.append(_fit_one(doses[seen], values[seen], fixed, free, grid, (lowest, highest), n_starts))
    return out


def _fit_one(
    d: FloatArray,
    y: FloatArray,
    fixed: list[float | None],
    free: list[int],
    grid: list[tuple[float, float]],
    log_ec50: tuple[float, float],
    n_starts: int,
) -> Curve:
    """Fit one curve from the best cells of the grid; responses are brought to the unit range first."""
    known = [v for v in fixed if v is not None]
    span = float(max([y.max(), *known]) - min([y.min(), *known]))
    if not span > 1e-12 * max(float(np.abs(y).max()), *map(abs, known), 1e-300):
        constant = float(y.mean())
        b, t = (constant if v is None else v for v in fixed)
        return Curve(b, t, np.nan, np.nan, float(((y - constant) ** 2).sum()), np.zeros((len(y), len(free))), free)
    shift = float(y.mean())
    z = (y - shift) / span
    hold = [None if v is None else (v - shift) / span for v in fixed]
    with np.errstate(divide="ignore"):
        x = np.log(d)
    shape = lambda m, s: expit(np.exp(s) * (x - m))

    # bottom and top of every cell of the grid by linear regression
    M, S = (np.array(v) for v in zip(*grid, strict=True))
    G = expit(np.exp(S)[:, None] * (x[None, :] - M[:, None]))
    starts = _linear(G, z, hold)
    low, high = z.min() - ROOM, z.max() + ROOM
    starts = np.clip(starts, low, high)
    rss = ((starts[:, :1] + (starts[:, 1:] - starts[:, :1]) * G - z) ** 2).sum(1)
    order = np.argsort(rss, kind="stable")[:n_starts]

    whole = np.array([hold[0] or 0.0, hold[1] or 0.0, 0.0, 0.0])
    lower = np.array([low, low, log_ec50[0], np.log(SLOPES[0])])[free]
    upper = np.array([high, high, log_ec50[1], np.log(SLOPES[1])])[free]

    def fill(p: FloatArray) -> FloatArray:
        full = whole.copy()
        full[free] = p
        return full

    def residual(p: FloatArray) -> FloatArray:
        b, t, m, s = fill(p)
        return b + (t - b) * shape(m, s) - z

    def jacobian(p: FloatArray) -> FloatArray:
        b, t, m, s = fill(p)
        g, k = shape(m, s), np.exp(s)
        bend = (t - b) * g * (1 - g)
        with np.errstate(invalid="ignore"):
            far = np.where(np.isfinite(x), k * (x - m), 0.0)  # at dose 0 the curve is at its bottom, whatever the slope
        return np.column_stack([1 - g, g, -k * bend, bend * far])[:, free]

    best = None
    for i in order:
        p0 = np.clip(np.array([starts[i, 0], starts[i, 1], M[i], S[i]])[free], lower + 1e-9, upper - 1e-9)
        found = least_squares(
            residual,
            p0,
            jacobian,
            bounds=(lower, upper),
            x_scale="jac",
            xtol=1e-8,
            ftol=1e-12,
            gtol=1e-10,
            max_nfev=EVALUATIONS,
        )
        if best is None or found.cost < best.cost * (1 - 1e-9):
            best = found
        if best.cost < 1e-20:
            break
    assert best is not None
    b, t, m, s = fill(best.x)
    scale = np.array([1 / span, 1 / span, 1.0, 1.0])[free]
    return Curve(
        b * span + shift, t * span + shift, m, s, float(2 * best.cost * span**2), jacobian(best.x) * span * scale, free
    )


def _linear(G: FloatArray, z: FloatArray, hold: list[float | None]) -> FloatArray:
    """Return ``(cells, 2)`` bottoms and tops that fit best for shapes ``(cells, doses)`` between 0 and 1."""
    n = G.shape[1]
    b, t = hold
    if b is not None and t is not None:
        return np.tile([b, t], (len(G), 1))
    tiny = 1e-12
    if b is not None:
        tops = b + (G * (z - b)).sum(1) / np.maximum((G**2).sum(1), tiny)
        return np.column_stack([np.full(len(G), b), tops])
    if t is not None:
        H = 1 - G
        bottoms = t + (H * (z - t)).sum(1) / np.maximum((H**2).sum(1), tiny)
        return np.column_stack([bottoms, np.full(len(G), t)])
    mean = G.mean(1)
    change = (G @ z - n * mean * z.mean()) / np.maximum((G**2).sum(1) - n * mean**2, tiny)
    bottoms = z.mean() - change * mean
    return np.column_stack([bottoms, bottoms + change])


def _described(d: FloatArray, y: FloatArray, curve: Curve, alpha: float, min_effect: float) -> dict[str, Any]:
    """Return parameters and quality of one curve, and whether it is flat."""
    above = d[d > 0]
    low, high = above.min(), above.max()
    p_value = _p_value(d, y, curve)
    change = 0.0
    if np.isfinite(curve.log_ec50):
        start, *_, end = np.sort(curve.values(np.array([d.min(), low, high])))
        change = float(end - start)
    flat = not (p_value <= alpha and change >= min_effect and change > 0)
    total = float(((y - y.mean()) ** 2).sum())
    if flat:
        mean = float(y.mean())
        bottom = top = auc = mean
        ec50 = slope = np.nan
        rss = total
    else:
        bottom, top = curve.bottom, curve.top
        ec50, slope = float(np.exp(curve.log_ec50)), float(np.exp(curve.log_slope))
        auc, rss = float(hill_auc(bottom, top, ec50, slope, low, high)), curve.rss
    return {
        "bottom": bottom,
        "top": top,
        "ec50": ec50,
        "slope": slope,
        "auc": auc,
        "r2": 1 - rss / total if total > 0 else np.nan,
        "rmse": float(np.sqrt(rss / len(y))),
        "p_value": p_value,
        "flat": flat,
        "extrapolated": bool(not flat and not low <= ec50 <= high),
    }


def _p_value(d: FloatArray, y: FloatArray, curve: Curve) -> float:
    """Return the p-value of "no change with dose": the smaller of two tests, doubled."""
    n, k = len(y), len(curve.free)
    total = float(((y - y.mean()) ** 2).sum())
    if not np.isfinite(curve.log_ec50) or not total > 0:
        return 1.0
    values = [1.0]
    if n > k and k > 1:
        ratio = max(total - curve.rss, 0.0) / (k - 1) / max(curve.rss / (n - k), 1e-300)
        values.append(float(f_distribution.sf(ratio, k - 1, n - k)))
    levels = np.unique(d, return_inverse=True)[1].astype(np.float64)  # ranks: dose 0 is one step below the lowest
    if n > 2 and levels.std() > 0:
        r2 = float(np.corrcoef(levels, y)[0, 1]) ** 2
        statistic = np.sqrt(r2 * (n - 2) / max(1 - r2, 1e-300))
        values.append(float(2 * t_distribution.sf(statistic, n - 2)))
    return min(2 * min(values), 1.0)


def _ends(
    d: FloatArray, y: FloatArray, curve: Curve, level: float, method: str, n_boot: int, rng: np.random.Generator
) -> list[tuple[float, float]] | None:
    """Return intervals of bottom, top, EC50, slope and area, or None when no degree of freedom is left."""
    n, k = len(y), len(curve.free)
    if n <= k:
        return None
    low, high = d[d > 0].min(), d.max()
    center = np.array([curve.bottom, curve.top, curve.log_ec50, curve.log_slope])
    area = lambda p: hill_auc(p[..., 0], p[..., 1], np.exp(p[..., 2]), np.exp(p[..., 3]), low, high)
    if method == "bootstrap":
        fitted = curve.values(d)
        residual = (y - fitted) * np.sqrt(n / (n - k))
        bottom, top = (v if i not in curve.free else None for i, v in enumerate((curve.bottom, curve.top)))
        again = fit_curves(d, fitted + rng.choice(residual - residual.mean(), (n_boot, n)), bottom, top, n_starts=1)
        draws = np.array([[c.bottom, c.top, c.log_ec50, c.log_slope] for c in again])
        draws = np.column_stack([draws, area(draws)])
        lower, upper = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    else:
        J = curve.jacobian
        scale = np.maximum(np.linalg.norm(J, axis=0), 1e-300)
        U, w, Vt = np.linalg.svd(J / scale, full_matrices=False)
        # what the data do not determine gets an endless interval, not that of a pseudo-inverse
        inverse = (Vt.T / np.maximum(w, 1e-9 * w[0])) / scale[:, None]
        covariance = np.zeros((4, 4))
        covariance[np.ix_(curve.free, curve.free)] = inverse @ inverse.T * curve.rss / (n - k)
        step = 1e-5 * np.array([max(abs(curve.top - curve.bottom), 1e-12)] * 2 + [1.0, 1.0])
        slope = np.array(
            [(area(center + e) - area(center - e)) / (2 * s) for e, s in zip(np.diag(step), step, strict=True)]
        )
        spread = np.sqrt(np.append(np.diag(covariance), slope @ covariance @ slope))
        width = t_distribution.ppf((1 + level) / 2, n - k) * spread
        middle = np.append(center, area(center))
        lower, upper = middle - width, middle + width
    with np.errstate(over="ignore"):
        for ends in (lower, upper):
            ends[2:4] = np.exp(ends[2:4])
    return [(float(a), float(b)) for a, b in zip(lower, upper, strict=True)]
