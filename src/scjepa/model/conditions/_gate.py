"""How far the network is trusted: weighed on training conditions that it, and its anchor, were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self, TypeGuard

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines import Baseline, SelfJudging
from scjepa.baselines._base import condition_keys
from scjepa.data import ConditionTable
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._known import Known

logger = logging.getLogger(__name__)

SPREAD = 0.4
"""Standard deviation of a gate before anything is known of it; the mean is 0, the anchor alone."""
LEAST_GATE, MOST_GATE = 0.2, 0.7
"""Smaller gates are closed: what they buy is less than what is known of them. Larger ones are not believed: left-out
networks correct an anchor that lacks what was left out too, and so find more to do than the network in use will."""
LEAST_GAIN = 0.05
"""A network that takes less than so much off the anchor's squared error of left-out conditions is not asked."""
FEW = 5
"""With fewer left-out conditions the anchors' own left-out errors decide whether the network is asked in known contexts."""
CLASSES = ("combination", "single", "context")


class Evidence(NamedTuple):
    """A left-out condition in coordinates: what the anchor misses, and what the network adds to it.

    ``noise`` is the expected squared length of the sampling noise in what is missing (0: unknown).
    """

    cls: str
    unit: str
    missing: FloatArray
    added: FloatArray
    noise: float = 0.0


class Weighed(NamedTuple):
    """How far the network is trusted, and what that bought on left-out conditions.

    Attributes
    ----------
    share
        Of the network's correction that counts, 0 to 1.
    gain
        Share of the anchor's squared error, sampling noise taken off, that this removed; NaN where nothing was left out.
    """

    share: float
    gain: float


def weigh(evidence: list[Evidence]) -> Weighed:
    r"""Return the share of the network's correction that serves left-out conditions best.

    Least squares of what the anchor misses on what the network adds. A condition weighs
    :math:`1/\sqrt{e_i + \bar e}`, with :math:`e_i` its squared error less the sampling noise in it and :math:`\bar e` their mean:
    neither the largest conditions nor those that are all noise decide alone. Rows of one unit (a combination in all its
    contexts, else a condition) are not independent, so the standard error is a jackknife over units. The estimate is
    shrunken toward 0, the anchor alone, by its precision; 0 also where nothing could be left out, where no error is left
    besides noise, and where the network takes less than 5 % off it.

    Parameters
    ----------
    evidence
        Left-out conditions of one class.

    Examples
    --------
    Two conditions of which the network adds exactly what is missing; then a third where it adds the opposite.

    >>> import numpy as np
    >>> from scjepa.model.conditions._gate import Evidence, weigh
    >>> good = [Evidence("context", unit, np.ones(2), np.ones(2)) for unit in "ab"]
    >>> weigh(good).share, round(weigh(good).gain, 2)
    (0.7, 0.91)
    >>> weigh([*good, Evidence("context", "c", np.ones(2), -np.ones(2))]).share, weigh([]).share
    (0.0, 0.0)
    """
    units = sorted({e.unit for e in evidence})
    if len(units) < 2:  # one unit has no spread: nothing says how far it can be trusted
        return Weighed(0.0, float("nan"))
    length = np.array([e.missing @ e.missing for e in evidence])
    noise = np.array([e.noise for e in evidence])
    inner = np.array([e.missing @ e.added for e in evidence])
    square = np.array([e.added @ e.added for e in evidence])
    clear = np.maximum(length - noise, 0)
    if not (clear.mean() > 0 and square.sum() > 0):
        return Weighed(0.0, 0.0)
    weight = 1 / np.sqrt(clear + clear.mean())
    of = np.array([units.index(e.unit) for e in evidence])
    sums = np.array([np.bincount(of, weight * part, len(units)) for part in (inner, square)])
    total = sums.sum(1, keepdims=True)
    estimate = float(total[0, 0] / total[1, 0])
    without = (total - sums)[0] / np.maximum((total - sums)[1], 1e-12)
    k = len(units)
    variance = float((k - 1) / k * ((without - without.mean()) ** 2).sum())
    share = min(max(estimate * SPREAD**2 / (SPREAD**2 + variance), 0.0), MOST_GATE)
    if share < LEAST_GATE:
        return Weighed(0.0, 0.0)
    left = length - 2 * share * inner + share**2 * square
    gain = 1 - (weight * (left - noise)).sum() / max(float((weight * (length - noise)).sum()), 1e-12)
    return Weighed(share, float(gain)) if gain >= LEAST_GAIN else Weighed(0.0, 0.0)


class Gate:
    """The share of the network's correction that counts, per class of question.

    Parameters
    ----------
    shares
        Class of question -> share, 0 (anchor alone) to 1; ``"trained single"`` and ``"trained combination"`` for conditions
        that were trained on (1 unless said).
    gains
        Class -> share of the anchor's squared error of left-out conditions that the network removed, where it is asked.

    Examples
    --------
    >>> from scjepa.model.conditions._gate import Gate
    >>> Gate.fixed(0.5).shares["single"], Gate.from_state(Gate.fixed(0.5).state()).shares["context"]
    (0.5, 0.5)
    """

    def __init__(self, shares: Mapping[str, float] | None = None, gains: Mapping[str, float] | None = None) -> None:
        self.shares: dict[str, float] = dict(shares or {})
        self.gains: dict[str, float] = dict(gains or {})

    @classmethod
    def fixed(cls, share: float, classes: Iterable[str] = ()) -> Self:
        """Return a gate that is the same for all questions, also of further ``classes``."""
        return cls(dict.fromkeys([*CLASSES, *classes], float(share)))

    @classmethod
    def fit(cls, evidence: list[Evidence], own: Mapping[str, bool]) -> Self:
        """Weigh the network on left-out conditions.

        Parameters
        ----------
        evidence
            What anchor and network said of them.
        own
            Class -> whether effects are a context's own, see :func:`contexts_matter`.
        """
        classes = list(dict.fromkeys([*CLASSES, *sorted({e.cls for e in evidence})]))
        judged = {c: sum(e.cls == c for e in evidence) for c in classes}
        found = {c: weigh([e for e in evidence if e.cls == c]) for c in classes}
        shares = {c: weighed.share for c, weighed in found.items()}
        for c in ("combination", "single"):
            if own[c] and judged[c] < FEW:
                shares[c] = 0.0
            shares[f"trained {c}"] = float(not own[c])
        gains = {c: weighed.gain for c, weighed in found.items() if shares[c] > 0}
        bought = lambda c: f", {gains[c]:.0%} off its error" if c in gains else ""
        logger.info(
            "share of the network's correction that counts, and what it takes off the anchor's squared error of left-out "
            "conditions (noise taken off): %s.",
            "; ".join(f"{c} {shares[c]:.2f} ({judged[c]} left out{bought(c)})" for c in classes),
        )
        return cls(shares, gains)

    def share(self, question: ConditionTable, known: Known, judge: Baseline | None = None) -> FloatArray:
        """Return the share ``(m,)`` of the network's correction for each question, given what was trained on.

        With a ``judge`` that has classes of its own each of them has a share, a class that could not be judged none, and only
        conditions that were trained on at this dose and time count as such.

        Conditions that the network was trained on get all of it, unless effects are a context's own: then the anchor
        that looks at contexts knows them better.
        """
        classes, seen = classes_of(question, known.contexts, known.named), known.among(question)
        kinds = classes
        if has_own_classes(judge):
            kinds = classes_of(question, known.contexts, known.named, judge)
            keys = lambda of: zip(condition_keys(of), of.contexts.astype(str), strict=True)
            fitted = set(keys(judge.table_))
            seen = [key in fitted for key in keys(question)]
        return np.array([
            self.shares.get(f"trained {cls}", 1.0) if trained else self.shares.get(kind, 0.0)
            for trained, cls, kind in zip(seen, classes, kinds, strict=True)
        ])  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return shares and gains."""
        return {"shares": dict(self.shares), "gains": dict(self.gains)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        return cls(state["shares"], state["gains"])


def contexts_matter(anchors: Anchors, cls: str) -> bool:
    """Whether effects are a context's own, so that in known contexts the anchor which the network corrects is worse.

    The network corrects the anchor that does not look at contexts. Its left-out error is compared with that of the
    one that does; where no left-out combination can tell, singles do.
    """
    full, base = anchors.full, anchors.base
    if full is base or not (isinstance(full, SelfJudging) and isinstance(base, SelfJudging)):
        return False
    own, shared = (anchor.picks_[cls]["error"] for anchor in (full, base))
    if not np.isfinite([own, shared]).all():
        own, shared = (anchor.picks_["single"]["error"] for anchor in (full, base))
    return bool(own < 0.95 * shared)


def has_own_classes(judge: Baseline | None) -> TypeGuard[SelfJudging]:
    """Return whether an anchor tells more classes of questions apart than :data:`CLASSES`."""
    return isinstance(judge, SelfJudging) and judge.own_classes


def classes_of(
    question: ConditionTable, contexts: Iterable[str], names: Iterable[str], judge: Baseline | None = None
) -> np.ndarray:
    """Return the class of each question ``(m,)``, given the contexts and the names that were trained on.

    Where the anchor ``judge`` has classes of its own, they are these. ``""`` stands where an item was never trained on: the
    network is not asked then.
    """
    out = np.where(question.order >= 2, "combination", "single").astype(object)
    out[~np.isin(question.contexts.astype(str), list(map(str, contexts)))] = "context"
    if has_own_classes(judge):
        out = judge.classes(question)
    known = set(names)
    out[[not known.issuperset(action) for action in question.actions]] = ""
    return out
