"""Synergy of two drugs on a grid of doses, by the references of Bliss, HSA, Loewe and ZIP."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from scjepa._checks import require_member
from scjepa._types import FloatArray
from scjepa.pharma._curves import checked_doses
from scjepa.pharma._hill_fit import Curve, fit_curves

Reference = Literal["bliss", "hsa", "loewe", "zip"]
REFERENCES = ("bliss", "hsa", "loewe", "zip")

HALVINGS = 100
"""Of the interval in which the Loewe response is looked for: beyond double precision."""


class Synergy(NamedTuple):
    """Result of :func:`synergy`, shaped as the effect."""

    expected: FloatArray
    """Effect of the combination when the drugs don't interact."""
    excess: FloatArray
    """Effect above the expected one: above 0 is synergy, below 0 antagonism; 0 where a drug is absent."""
    score: FloatArray
    """Mean excess over the doses at which both drugs are there, one per surface."""
    combination_index: FloatArray | None
    """Loewe only: below 1 is synergy. NaN where it is not defined: no effect, or one above the
    reach of both drugs."""


def synergy(
    doses_a: npt.ArrayLike,
    doses_b: npt.ArrayLike,
    effect: npt.ArrayLike,
    reference: Reference = "bliss",
    *,
    maximum: float = 1.0,
) -> Synergy:
    r"""Compare the effect of a combination with what its drugs would do if they did not interact.

    An effect is 0 without drug and grows with response: a fraction inhibited or killed (1 minus viability), or the size
    of a response along a signature. :math:`E_a` and :math:`E_b` are the effects of the drugs alone, at dose 0 of the
    other, and M is ``maximum``.

    - ``"bliss"``, independent action: :math:`E_a + E_b - E_a E_b / M`; with infinite M the sum.
    - ``"hsa"``, highest single agent: :math:`\max(E_a, E_b)`.
    - ``"loewe"``, dose additivity: the E that solves :math:`a / D_a(E) + b / D_b(E) = 1`, with :math:`D(E)` the dose at
      which a drug alone has effect E by its fitted Hill curve. Above the reach of the weaker drug the stronger one acts
      alone. The sum at the observed effect is the combination index.
    - ``"zip"``, zero interaction potency: Bliss of fitted Hill curves. The surface is smoothed too, by Hill curves along
      each drug that start at the fitted effect of the other, averaged; the excess is the smoothed minus the expected.

    Parameters
    ----------
    doses_a, doses_b
        ``(A,)`` and ``(B,)`` distinct doses, not logs, with 0 among them.
    effect
        ``(A, B)`` effects, or ``(..., A, B)`` for many surfaces of one pair (genes, contexts, patients).
    reference
        What no interaction means. Loewe and ZIP need at least three doses above 0 of each drug; Bliss and HSA need none.
    maximum
        Largest possible effect, of Bliss and ZIP: 1 for fractions, ``numpy.inf`` for effects without bound such as
        log fold changes.

    Returns
    -------
    Expected effect, excess, score, and for Loewe the combination index.

    Raises
    ------
    ValueError
        If shapes don't fit, a dose is negative, repeated or no number, 0 is not among the doses, an effect is missing,
        effects are not 0 without drug, or there are too few doses for the reference.

    References
    ----------
    Bliss, *Annals of Applied Biology* 26, 585-615 (1939); Gaddum 1940 (highest single agent); Loewe and Muischnek,
    *Archiv für experimentelle Pathologie und Pharmakologie* 114, 313-326 (1926); Yadav et al., *Computational and
    Structural Biotechnology Journal* 13, 504-513 (2015), for ZIP.

    Examples
    --------
    >>> from scjepa.pharma import synergy
    >>> surface = [[0.0, 0.5], [0.4, 0.9]]  # rows: doses of a
    >>> found = synergy([0, 1], [0, 1], surface)
    >>> round(float(found.expected[1, 1]), 3), round(float(found.score), 3)
    (0.7, 0.2)
    >>> round(float(synergy([0, 1], [0, 1], surface, "hsa").score), 3)
    0.4
    """
    require_member(reference, REFERENCES, "reference", where="the references")
    a, b, e = _surface(doses_a, doses_b, effect)
    if not maximum > 0:
        raise ValueError(f"maximum={maximum!r}: expected a number above 0: 1 for fractions, numpy.inf for no bound.")
    if reference in ("loewe", "zip"):
        for d, name in ((a, "doses_a"), (b, "doses_b")):
            if (d > 0).sum() < 3:
                raise ValueError(
                    f"{name} has {int((d > 0).sum())} doses above 0: reference={reference!r} fits a Hill curve to each "
                    "drug and needs at least 3. Use 'bliss' or 'hsa'."
                )
    alone_a, alone_b = e[..., :, b == 0], e[..., a == 0, :]  # (..., A, 1) and (..., 1, B)
    both = np.outer(a > 0, b > 0)
    observed, index = e, None
    expected: FloatArray
    if reference == "bliss":
        expected = alone_a + alone_b - alone_a * alone_b / maximum
    elif reference == "hsa":
        expected = np.maximum(alone_a, alone_b)
    else:
        flat = e.reshape(-1, *e.shape[-2:])
        curves_a = fit_curves(a, flat[:, :, b == 0][..., 0], bottom=0.0)
        curves_b = fit_curves(b, flat[:, a == 0, :][:, 0], bottom=0.0)
        if reference == "loewe":
            parts = [_loewe(a, b, s, x, y) for s, x, y in zip(flat, curves_a, curves_b, strict=True)]
            index = np.stack([i for _, i in parts]).reshape(e.shape)
        else:
            parts = [_zip(a, b, s, x, y, maximum) for s, x, y in zip(flat, curves_a, curves_b, strict=True)]
            observed = np.stack([o for _, o in parts]).reshape(e.shape)
        expected = np.stack([p for p, _ in parts]).reshape(e.shape)
    excess = np.where(both, observed - expected, 0.0)
    expected = np.where(both, expected, e)  # a drug alone is its own expectation
    return Synergy(expected, excess, excess[..., both].mean(-1), index)


def _loewe(a: FloatArray, b: FloatArray, effect: FloatArray, x: Curve, y: Curve) -> tuple[FloatArray, FloatArray]:
    """Return the dose-additive effect and the combination index of each pair of doses."""
    A, B = np.meshgrid(a, b, indexing="ij")

    def index(e: FloatArray) -> FloatArray:
        return A / _dose(e, x) + B / _dose(e, y)

    # the index falls with the effect: from infinity at none to 0 at the reach of the stronger drug
    low, high = np.zeros(A.shape), np.full(A.shape, max(_reach(x), _reach(y), 0.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            above = index(middle) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = index(effect)
    defined = (effect > 0) & (effect < max(_reach(x), _reach(y))) & ((A > 0) | (B > 0))
    return (low + high) / 2, np.where(defined, observed, np.nan)


def _reach(curve: Curve) -> float:
    """Return the largest effect of a drug; one that does nothing, or the reverse, has none."""
    return curve.top if np.isfinite(curve.log_ec50) else 0.0


def _dose(effect: FloatArray, curve: Curve) -> FloatArray:
    """Return the dose of a drug alone that has an effect above 0, infinite above its reach."""
    top = _reach(curve)
    within = (effect > 0) & (effect < top)
    odds = np.divide(effect, top - effect, out=np.ones_like(effect), where=within)
    dose = np.exp(curve.log_ec50 + np.log(odds) / np.exp(curve.log_slope)) if top > 0 else np.full_like(effect, np.inf)
    return np.where(within, dose, np.where(effect > 0, np.inf, 0.0))


def _zip(
    a: FloatArray, b: FloatArray, effect: FloatArray, x: Curve, y: Curve, maximum: float
) -> tuple[FloatArray, FloatArray]:
    """Return the expected effect and the smoothed one."""
    alone_a, alone_b = _fitted(a, x), _fitted(b, y)
    expected = alone_a[:, None] + alone_b[None, :] - np.outer(alone_a, alone_b) / maximum
    along_a = np.stack([_fitted(a, c) for c in fit_curves(a, effect.T, bottom=alone_b)], axis=1)
    along_b = np.stack([_fitted(b, c) for c in fit_curves(b, effect, bottom=alone_a)])
    return expected, (along_a + along_b) / 2


def _fitted(doses: FloatArray, curve: Curve) -> FloatArray:
    if not np.isfinite(curve.log_ec50):  # the same response at all doses
        return np.where(doses > 0, curve.top, curve.bottom)
    return curve.values(doses)


def _surface(
    doses_a: npt.ArrayLike, doses_b: npt.ArrayLike, effect: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return doses and effects, or raise a :class:`ValueError` that says what is wrong with them."""
    a, b, e = checked_doses(doses_a, "doses_a"), checked_doses(doses_b, "doses_b"), np.asarray(effect, dtype=np.float64)
    if a.ndim != 1 or b.ndim != 1 or e.ndim < 2 or e.shape[-2:] != (len(a), len(b)) or not e.size:
        raise ValueError(
            f"doses_a has shape {a.shape}, doses_b {b.shape} and effect {e.shape}: expected (A,), (B,) and (A, B), or "
            "(..., A, B) for many surfaces."
        )
    for d, name in ((a, "doses_a"), (b, "doses_b")):
        if len(np.unique(d)) < len(d):
            raise ValueError(f"{name} has repeated doses: average replicates first, so that each dose occurs once.")
        if not (d == 0).any() or len(d) < 2:
            raise ValueError(
                f"{name} is {d.tolist()}: expected 0, where the other drug acts alone, and doses above it."
            )
    if not np.isfinite(e).all():
        raise ValueError(
            f"effect has {int((~np.isfinite(e)).sum())} missing or infinite values: synergy needs the whole surface."
        )
    without, largest = np.abs(e[..., a == 0, b == 0]).max(), np.abs(e).max()
    if without > 0.5 * largest:
        raise ValueError(
            f"the effect without drug is {e[..., a == 0, b == 0].flat[0]:g}, as large as with it: expected about 0. "
            "For viabilities give 1 - viability; otherwise subtract the value at doses 0 and 0."
        )
    return a, b, e
