"""What a prediction rests on: how its size was judged, how far it is from training, and whether to use it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect
from scjepa.baselines._base import condition_keys
from scjepa.baselines._contexts import slope
from scjepa.baselines._noise import effect_noise, reliability
from scjepa.baselines._support import left_out_predictions, left_together, rows_like
from scjepa.data import ConditionTable
from scjepa.model._conformal import Calibration, SamplingNoise, calibrate
from scjepa.model._perturb_state import PerturbState

logger = logging.getLogger(__name__)

CLASSES = ("single", "combination", "context", "unseen")
MAX_CONDITIONS = 300
"""More left-out conditions add nothing to a quantile; so many, drawn with seed 0, calibrate in large screens."""
LEAST_GAIN = 0.05
"""A prediction that is expected to take less than so much off the squared error of "no change" is not to be used."""
SIZE_VARIANCE = 0.25
"""Prior variance of the slope of measured on predicted effects; the mean is 1, since predictions are shrunken already."""
BEYOND = 1.01
"""Distances up to one per cent above the farthest left-out condition still count as seen."""
UNKNOWN = 0.95
"""A gene never perturbed at such a distance: its features say next to nothing."""
FEW_CELLS = 3
"""A condition measured in fewer cells is as good as not measured."""
NEAR_ZERO = 0.1
"""A measured effect of which less than this share is not noise."""


class Judged(NamedTuple):
    """A class of questions as left-out training conditions show it.

    Attributes
    ----------
    calibration
        For intervals.
    slope
        Of measured on predicted effects: 1, predictions are as large as they should be.
    error
        Mean squared error of left-out predictions, sampling noise of the measured effect included.
    """

    calibration: Calibration
    slope: float
    error: float


@dataclass(frozen=True)
class Trust:
    """What is known of the answers to some questions; arrays run over these.

    Attributes
    ----------
    basis
        What judged the size of the effect: ``"left out"``, ``"sampling noise"`` or ``"none"``.
    support
        ``"trained"``, ``"near"`` or ``"far"``.
    abstain
        Whether the effect had better not be used.
    distance
        Share of predictive variance that training leaves.
    parts
        Rows that share a calibration, and that.
    note
        A sentence to warn with, or an empty string.
    """

    basis: np.ndarray
    support: np.ndarray
    abstain: np.ndarray
    distance: FloatArray
    parts: list[tuple[np.ndarray, Calibration]]
    note: str

    def half_widths(self, effect: FloatArray, control: FloatArray, level: float) -> FloatArray:
        """Return half the widths of the intervals ``(m, genes)`` of predicted effects, given the control profiles."""
        out = np.zeros_like(effect)
        for rows, calibration in self.parts:
            out[rows] = calibration.half_widths(effect[rows], control[rows], self.distance[rows], level)
        return out

    def warn(self, stacklevel: int = 2) -> None:
        """Say what the reader of a prediction should know, at the line that called the caller of this."""
        if self.note:
            warnings.warn(self.note, UserWarning, stacklevel=stacklevel + 1)


def expected_gain(effect: FloatArray, slope: float, error: float) -> FloatArray:
    r"""Return which share of the squared error of "no change" predictions are expected to take off, ``(m,)``.

    If measured effects are :math:`b\,\hat\delta` plus an error of squared length :math:`e`, the prediction takes
    :math:`(2b - 1)|\hat\delta|^2` off :math:`(2b - 1)|\hat\delta|^2 + e`.

    Parameters
    ----------
    effect
        ``(m, genes)`` predicted effects.
    slope, error
        See :class:`Judged`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model._trust import expected_gain
    >>> expected_gain(np.array([[1.0, 1.0], [0.1, 0.0]]), 1.0, 2.0).round(3).tolist()
    [0.5, 0.005]
    >>> expected_gain(np.array([[1.0, 1.0]]), 0.4, 2.0).tolist()
    [0.0]
    """
    gain = np.maximum((2 * slope - 1) * (np.asarray(effect) ** 2).sum(1), 0)
    return np.asarray(np.divide(gain, gain + error, out=np.zeros_like(gain), where=gain > 0))


class TrustMixin(PerturbState):
    """Basis, support and abstention of predictions, for :class:`PerturbJEPA`."""

    _calibrations: WeakKeyDictionary | None = None

    def _trust(
        self, table: ConditionTable, effect: FloatArray, network: FloatArray, *, intervals: bool
    ) -> Trust | None:
        """Return what is known of answers; None for models that have no anchor to leave conditions out of.

        Parameters
        ----------
        table
            The questions.
        effect
            ``(m, genes)`` predicted effects.
        network
            ``(m,)`` share of the network's correction in them.
        intervals
            Whether intervals are wanted; without them, conditions that were trained on need not be left out.
        """
        if self.anchor_ is None or self.base_anchor_ is None or self.joint_:
            return None
        m = len(table)
        distance, basis = np.zeros(m), np.full(m, "left out", dtype=object)
        support, abstain = np.full(m, "near", dtype=object), np.zeros(m, bool)
        seen = self.anchor_.table_
        row = {key: i for i, key in enumerate(zip(condition_keys(seen), seen.contexts.astype(str), strict=True))}
        asked = zip(condition_keys(table), table.contexts.astype(str), strict=True)
        place = np.array([row.get(key, -1) for key in asked], dtype=int)
        trained = place >= 0
        # by what predicted the row: the anchor, the one that the network corrects, or the one that reads gene features
        predictors: list[Baseline] = [self.anchor_, self.base_anchor_]
        which = (network > 0.5).astype(int)
        if self._unseen_anchor is not None and isinstance(self.anchor_, KernelEffect):
            predictors.append(self._unseen_anchor)
            which = np.where(self.anchor_.classes(table) == "", 2, which)
        nothing = table.order == 0
        if table.dose is not None:
            nothing = nothing | (np.asarray(table.dose, dtype=float) == 0)
        parts: list[tuple[np.ndarray, Calibration]] = []
        classes = np.full(m, "", dtype=object)
        for number, anchor in enumerate(predictors):
            mine = np.flatnonzero((which == number) & ~nothing)
            if not len(mine):
                continue
            ruler = self._ruler(anchor)
            distance[mine] = ruler.distances(table.rows(mine))
            classes[mine] = ruler.classes(table)[mine]
            many = table.order >= 2
            for cls in dict.fromkeys(classes[mine]):
                basis[mine[classes[mine] == cls]] = anchor.picks_[cls]["basis"] if anchor is ruler else "none"
                for combined in (False, True):
                    rows = mine[(classes[mine] == cls) & (many[mine] == combined)]
                    if not len(rows):
                        continue
                    if trained[rows].all() and not intervals:
                        support[rows] = "trained"
                        continue
                    found, own = self._calibration(anchor, str(cls), combined)
                    parts.append((rows, found.calibration))
                    far = distance[rows] > BEYOND * found.calibration.farthest
                    far |= (cls == "unseen") & (distance[rows] > UNKNOWN)
                    size, error = (found.slope, found.error) if own else self._noise_alone(anchor, basis[rows[0]])
                    poor = expected_gain(effect[rows], size, error) < LEAST_GAIN
                    support[rows] = np.where(trained[rows], "trained", np.where(far | (not own), "far", "near"))
                    abstain[rows] = ~trained[rows] & (poor | (far & own))
        few = trained & (seen.n_cells[np.maximum(place, 0)] < FEW_CELLS) & (seen.variance is not None)
        abstain |= few
        note = self._note(classes, basis, abstain, trained, int(few.sum()))
        return Trust(basis, support, abstain, distance, parts, note)

    @staticmethod
    def _noise_alone(anchor: Baseline, basis: str) -> tuple[float, float]:
        """Return slope and error of predictions that nothing judges but the mean noise of training effects, if that."""
        seen = anchor.table_
        noise = effect_noise(seen.variance, seen.n_cells, seen.n_controls)
        return (1.0, float(noise.mean())) if basis == "sampling noise" and noise is not None else (0.0, 1.0)

    def _reliability_of_training(self) -> dict[str, float | int]:
        """Return how much of the measured training effects is not noise: median, number near zero, number of conditions."""
        table = self._reference_table()
        noise = None if table is None else effect_noise(table.variance, table.n_cells, table.n_controls)
        if table is None or noise is None:
            return {}
        share = reliability((table.effects**2).sum(1), noise)
        return {"median": float(np.median(share)), "near_zero": int((share < NEAR_ZERO).sum()), "n": len(share)}

    def _reference_table(self) -> ConditionTable | None:
        """Return the training conditions, or None."""
        return None if self.anchor_ is None else self.anchor_.table_

    def _note(self, classes: np.ndarray, basis: np.ndarray, abstain: np.ndarray, trained: np.ndarray, few: int) -> str:
        """Write down, with numbers, what the reader of predictions should know before using them."""
        said, m = [], len(classes)
        unjudged = (basis != "left out") & ~trained & (classes != "")
        if unjudged.any() and not isinstance(self.anchor_, KernelEffect):
            name = getattr(self.anchor_, "name", "anchor")
            said.append(f"the anchor {name!r} does not judge by left-out conditions how large effects should be")
        elif unjudged.any():
            n = len(set(self._reference_table().contexts.astype(str)))  # type: ignore[union-attr]
            why = {
                "context": f"of a context never trained on, after training in {n} context{'s' * (n > 1)}",
                "combination": "fewer than three combinations were measured whose genes were measured alone too",
                "single": "no gene was measured twice",
                "unseen": "genes never perturbed, after training on fewer than three",
            }
            reasons = "; ".join(why[c] for c in dict.fromkeys(classes[unjudged]))
            noise = basis[unjudged] == "sampling noise"
            fixed = ~noise | (classes[unjudged] == "combination")
            how = "a fixed rule" if fixed.any() else "sampling noise alone"
            if fixed.any() and noise.any():
                how += " and sampling noise"
            said.append(
                f"no training condition could be left out that is like {int(unjudged.sum())} of {m} predicted conditions "
                f"({reasons}): their effects are shrunken by {how}"
            )
        doubtful = abstain & ~trained
        if doubtful.any():
            said.append(
                f"the model abstains on {int(doubtful.sum())} of {m} (no better than no change can be expected)"
            )
        if few:
            said.append(f"{few} of {m} were trained on in fewer than {FEW_CELLS} cells and are as good as not measured")
        if (classes == "context").any() and isinstance(self.anchor_, KernelEffect):
            report = self.anchor_.context_report()
            if report is not None and report.note:
                said.append(report.note + "; anchor=scjepa.baselines.KernelEffect(cautious=True) trusts them less")
        if not said:
            return ""
        known = self._reliability_of_training()
        if known:
            said.append(
                f"reliability of the {known['n']} training conditions: median {known['median']:.2f}, {known['near_zero']} "
                f"below {NEAR_ZERO}"
            )
        text = "; ".join(said)
        return text[0].upper() + text[1:] + "."

    def _stated(self, labels: list[str], table: ConditionTable, trust: Trust | None) -> dict[str, Any]:
        """Return what predictions carry of this in ``uns``; nothing for models that have no anchor."""
        if trust is None:
            return {}
        conditions = pd.DataFrame(
            {
                "perturbation": labels,
                "context": table.contexts.astype(str),
                "basis": trust.basis.astype(str),
                "support": trust.support.astype(str),
                "abstain": trust.abstain,
            }
        )
        if table.dose is not None:
            conditions["dose"] = np.asarray(table.dose, dtype=float)
        if table.kind is not None:
            conditions["kind"] = table.kind.astype(str)
        stated: dict[str, Any] = {"conditions": conditions.rename(index=str), "note": trust.note}
        known = self._reliability_of_training()
        return {**stated, "reliability": known} if known else stated

    def _remembered(self, anchor: Baseline) -> dict:
        """What was computed for an anchor before; gone with the anchor, so that a second training starts anew."""
        if self._calibrations is None:
            self._calibrations = WeakKeyDictionary()
        return self._calibrations.setdefault(anchor, {})

    def _anchor_again(self) -> Baseline:
        """Return an unfitted anchor like the one that predicts."""
        anchor = self._new_anchor()
        assert anchor is not None
        return anchor

    def _ruler(self, anchor: Baseline) -> KernelEffect:
        """Return what tells classes and distances: the anchor itself, or a kernel fitted on what it was fitted on."""
        if isinstance(anchor, KernelEffect):
            return anchor
        kept = self._remembered(anchor)
        if "ruler" not in kept:
            kept["ruler"] = KernelEffect().fit(anchor.table_)
        return kept["ruler"]

    def _calibration(self, anchor: Baseline, cls: str, combined: bool) -> tuple[Judged, bool]:
        """Return the calibration of a class, and whether it is its own; else the widest of the other classes."""
        own = self._calibrated(anchor, cls, combined)
        if own is not None:
            return own, True
        kept = self._remembered(anchor)
        if "widest" not in kept:
            others = [
                (c, self._calibrated(anchor, c, c == "combination")) for c in CLASSES if c in self._ruler(anchor).picks_
            ]
            known = [(c, found) for c, found in others if found is not None]
            if known:
                kept["widest"] = max(known, key=lambda pair: pair[1].calibration.typical_width)
            else:  # one condition, say: as wrong as no change was
                effects = anchor.table_.effects
                found = calibrate(
                    np.zeros_like(effects),
                    effects,
                    control=anchor.table_.control,
                    effects=effects,
                    together=np.eye(len(effects), dtype=bool),
                    base=anchor.table_.control.mean(0),
                    units=np.array(["+".join(a) for a in anchor.table_.actions]),
                    distances=np.ones(len(effects)),
                )
                kept["widest"] = ("no change", Judged(found, 0.0, float((effects**2).sum(1).mean())))
        name, found = kept["widest"]
        logger.info("intervals of questions of class %r are borrowed from %r.", cls, name)
        return found, False

    def _calibrated(self, anchor: Baseline, cls: str, combined: bool) -> Judged | None:
        """Return the calibration of a class from its left-out conditions, None when there are none."""
        kept, key = self._remembered(anchor), (cls, combined)
        if key in kept:
            return kept[key]
        table, ruler = anchor.table_, self._ruler(anchor)
        if anchor is ruler:
            predicted = ruler.left_out_effects(cls)
        else:
            predicted = left_out_predictions(self._anchor_again, table, cls)
        distances = ruler.left_out_distances(cls)
        usable = np.isfinite(predicted).all(1) & np.isfinite(distances)
        rows = np.flatnonzero(rows_like(table, cls, combinations=combined, usable=usable))
        if len(rows) > MAX_CONDITIONS:
            rows = np.sort(np.random.default_rng(0).choice(rows, MAX_CONDITIONS, replace=False))
        found = None
        if len(rows):
            by = table.contexts.astype(str) if cls == "context" else np.array(["+".join(a) for a in table.actions])
            calibration = calibrate(
                predicted[rows],
                table.effects[rows],
                control=table.control[rows],
                effects=table.effects,
                together=left_together(table, cls)[rows],
                base=table.control.mean(0),
                units=by[rows],
                distances=distances[rows],
                noise=SamplingNoise.of(table, rows, new_context=cls == "context"),
            )
            size, unsure = slope(table.effects[rows], predicted[rows], by[rows], prior=0.0)
            weight = SIZE_VARIANCE / (SIZE_VARIANCE + unsure**2)
            size = 1 + weight * (size - 1) if weight > 0 else 1.0
            error = float(((table.effects[rows] - predicted[rows]) ** 2).sum(1).mean())
            found = Judged(calibration, size, error)
        kept[key] = found
        return found
