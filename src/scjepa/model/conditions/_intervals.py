"""Intervals and trust: what training conditions, predicted while they were left out, say of a model's answers."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Self

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect, SelfJudging
from scjepa.baselines._base import condition_keys
from scjepa.baselines._contexts import slope
from scjepa.baselines._noise import effect_noise
from scjepa.baselines._support import left_out_predictions
from scjepa.data import ConditionTable
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._conformal import Calibration, SamplingNoise, calibrate
from scjepa.model.conditions._design import Words
from scjepa.model.conditions._trust import FEW_CELLS, Trust, expected_gain, note_of

logger = logging.getLogger(__name__)

CLASSES = ("single", "combination", "context", "unseen")
FULL, BASE, UNSEEN = "full", "base", "unseen"
"""What predicted a row: the anchor, the one that the network corrects, or the one that reads features of items."""
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

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"calibration": self.calibration.state(), "slope": self.slope, "error": self.error}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        return cls(Calibration.from_state(state["calibration"]), state["slope"], state["error"])


class Intervals:
    """Judges answers by training conditions that the anchors predict while they are left out, class by class.

    What was left out once is kept. A model makes new ones whenever its anchors are fitted.

    Parameters
    ----------
    anchors
        Fitted anchors.
    """

    def __init__(self, anchors: Anchors) -> None:
        self.anchors = anchors
        self._judged: dict[tuple[str, str, bool], Judged | None] = {}
        self._rulers: dict[str, SelfJudging] = {}
        self._widest: dict[str, tuple[str, Judged]] = {}

    def judge(
        self, table: ConditionTable, effect: FloatArray, network: FloatArray, words: Words, *, intervals: bool
    ) -> Trust:
        """Return what is known of answers.

        Parameters
        ----------
        table
            The questions.
        effect
            ``(m, genes)`` predicted effects.
        network
            ``(m,)`` share of the network's correction in them.
        words
            How the note speaks.
        intervals
            Whether intervals are wanted; without them, conditions that were trained on need not be left out.
        """
        m = len(table)
        distance, basis = np.zeros(m), np.full(m, "left out", dtype=object)
        support, abstain = np.full(m, "near", dtype=object), np.zeros(m, bool)
        seen = self._anchor(FULL).table_
        row = {key: i for i, key in enumerate(zip(condition_keys(seen), seen.contexts.astype(str), strict=True))}
        asked = zip(condition_keys(table), table.contexts.astype(str), strict=True)
        place = np.array([row.get(key, -1) for key in asked], dtype=int)
        trained = place >= 0
        # by what predicted the row: the anchor, the one that the network corrects, or the one that reads gene features
        which = np.where(network > 0.5, BASE, FULL)
        if self.anchors.unseen is not None and isinstance(self.anchors.full, SelfJudging):
            which = np.where(self.anchors.full.classes(table) == "", UNSEEN, which)
        nothing = table.untreated if table.time is None else table.untreated | (table.time == 0)
        parts: list[tuple[np.ndarray, Calibration]] = []
        classes = np.full(m, "", dtype=object)
        for who in (FULL, BASE, UNSEEN):
            mine = np.flatnonzero((which == who) & ~nothing)
            if not len(mine):
                continue
            anchor, ruler = self._anchor(who), self._ruler(who)
            # what the ruler can't place (items never trained on, under an anchor that answers all) is as far as can be
            distance[mine] = np.nan_to_num(ruler.distances(table.rows(mine)), nan=1.0)
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
                    found, own = self._calibration(who, str(cls), combined)
                    parts.append((rows, found.calibration))
                    far = distance[rows] > BEYOND * found.calibration.farthest
                    far |= str(cls).startswith("unseen") & (distance[rows] > UNKNOWN)
                    size, error = (found.slope, found.error) if own else _noise_alone(anchor, basis[rows[0]])
                    poor = expected_gain(effect[rows], size, error) < LEAST_GAIN
                    support[rows] = np.where(trained[rows], "trained", np.where(far | (not own), "far", "near"))
                    abstain[rows] = ~trained[rows] & (poor | (far & own))
        few = trained & (seen.n_cells[np.maximum(place, 0)] < FEW_CELLS) & (seen.variance is not None)
        abstain |= few
        full, told = self._anchor(FULL), None
        if isinstance(full, SelfJudging):
            told = full.remarks(table)
        if told is not None:
            own_word = (told["support"] != "").to_numpy() & ~trained
            support[own_word] = told["support"].to_numpy()[own_word]
            labels = ["+".join(action) for action in table.actions]
            said = [(label, text) for label, text, own in zip(labels, told["remark"], own_word, strict=True) if own]
        note = note_of(
            self._anchor(FULL),
            words,
            classes=classes,
            basis=basis,
            abstain=abstain,
            trained=trained,
            few=int(few.sum()),
            remarks=said if told is not None else (),
        )
        return Trust(basis, support, abstain, distance, parts, note, told)

    def state(self) -> dict[str, Any]:
        """Return what was judged so far, as plain data."""
        judged = [[list(key), None if found is None else found.state()] for key, found in self._judged.items()]
        return {"judged": judged}

    @classmethod
    def from_state(cls, state: dict[str, Any], anchors: Anchors | None = None) -> Self:
        """Rebuild from :meth:`state`; the anchors, which are a part of their own, are put in by who has them."""
        new = cls(Anchors(None) if anchors is None else anchors)
        for key, found in state["judged"]:
            new._judged[tuple(key)] = None if found is None else Judged.from_state(found)
        return new

    def _who(self, who: str) -> str:
        """Return the one name of an anchor that has two."""
        return FULL if who == BASE and self.anchors.base is self.anchors.full else who

    def _anchor(self, who: str) -> Baseline:
        anchor = getattr(self.anchors, who)
        assert anchor is not None
        return anchor

    def _again(self) -> Baseline:
        """Return an unfitted anchor like the one that predicts."""
        anchor = self.anchors.fresh()
        assert anchor is not None
        return anchor

    def _ruler(self, who: str) -> SelfJudging:
        """Return what tells classes and distances: the anchor itself, or a kernel fitted on what it was fitted on."""
        anchor, who = self._anchor(who), self._who(who)
        if isinstance(anchor, SelfJudging):
            return anchor
        if who not in self._rulers:
            self._rulers[who] = KernelEffect().fit(anchor.table_)
        return self._rulers[who]

    def _calibration(self, who: str, cls: str, combined: bool) -> tuple[Judged, bool]:
        """Return the calibration of a class, and whether it is its own; else the widest of the other classes."""
        own = self._calibrated(who, cls, combined)
        if own is not None:
            return own, True
        who = self._who(who)
        if who not in self._widest:
            picks = self._ruler(who).picks_
            classes = dict.fromkeys([*(c for c in CLASSES if c in picks), *picks])
            others = [(c, self._calibrated(who, c, c == "combination")) for c in classes]
            known = [(c, found) for c, found in others if found is not None]
            if known:
                self._widest[who] = max(known, key=lambda pair: pair[1].calibration.typical_width)
            else:
                self._widest[who] = ("no change", _no_change(self._anchor(who).table_))
        name, found = self._widest[who]
        logger.info("intervals of questions of class %r are borrowed from %r.", cls, name)
        return found, False

    def _calibrated(self, who: str, cls: str, combined: bool) -> Judged | None:
        """Return the calibration of a class from its left-out conditions, None when there are none."""
        key = (self._who(who), cls, combined)
        if key in self._judged:
            return self._judged[key]
        anchor, ruler = self._anchor(who), self._ruler(who)
        if cls not in ruler.picks_:
            return None
        table = anchor.table_
        if anchor is ruler:
            predicted = ruler.left_out_effects(cls)
        else:
            predicted = left_out_predictions(self._again, table, cls)
        distances = ruler.left_out_distances(cls)
        usable = np.isfinite(predicted).all(1) & np.isfinite(distances)
        rows = np.flatnonzero(ruler.rows_like(cls, combinations=combined, usable=usable))
        if len(rows) > MAX_CONDITIONS:
            rows = np.sort(np.random.default_rng(0).choice(rows, MAX_CONDITIONS, replace=False))
        found = None
        if len(rows):
            by = (
                table.contexts.astype(str) if ruler.new_context(cls) else np.array(["+".join(a) for a in table.actions])
            )
            calibration = calibrate(
                predicted[rows],
                table.effects[rows],
                control=table.control[rows],
                effects=table.effects,
                together=ruler.left_together(cls)[rows],
                base=table.control.mean(0),
                units=by[rows],
                distances=distances[rows],
                noise=SamplingNoise.of(table, rows, new_context=ruler.new_context(cls)),
            )
            size, unsure = slope(table.effects[rows], predicted[rows], by[rows], prior=0.0)
            weight = SIZE_VARIANCE / (SIZE_VARIANCE + unsure**2)
            size = 1 + weight * (size - 1) if weight > 0 else 1.0
            error = float(((table.effects[rows] - predicted[rows]) ** 2).sum(1).mean())
            found = Judged(calibration, size, error)
        self._judged[key] = found
        return found


def _noise_alone(anchor: Baseline, basis: str) -> tuple[float, float]:
    """Return slope and error of predictions that nothing judges but the mean noise of training effects, if that."""
    seen = anchor.table_
    noise = effect_noise(seen.variance, seen.n_cells, seen.n_controls)
    return (1.0, float(noise.mean())) if basis == "sampling noise" and noise is not None else (0.0, 1.0)


def _no_change(table: ConditionTable) -> Judged:
    """Judge answers that nothing judges, after training on one condition, say: as wrong as no change was."""
    effects = table.effects
    found = calibrate(
        np.zeros_like(effects),
        effects,
        control=table.control,
        effects=effects,
        together=np.eye(len(effects), dtype=bool),
        base=table.control.mean(0),
        units=np.array(["+".join(a) for a in table.actions]),
        distances=np.ones(len(effects)),
    )
    return Judged(found, 0.0, float((effects**2).sum(1).mean()))
