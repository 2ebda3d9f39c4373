"""The closed forms that a prediction starts from: one predicts, the network corrects one, one knows items by features."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd

from scjepa._types import FloatArray
from scjepa.baselines import ANCHORS, Baseline, KernelEffect, SelfJudging
from scjepa.baselines._base import condition_keys
from scjepa.data import ConditionTable

logger = logging.getLogger(__name__)


class Anchors:
    """The anchors of one model.

    Parameters
    ----------
    wanted
        ``"kernel"``, the name of another baseline, a baseline (fresh ones are made like it), or None for no anchor.

    Attributes
    ----------
    full
        The anchor that predicts; None before :meth:`fit`, and without one.
    base
        The anchor that the network corrects; often ``full`` itself.
    unseen
        The anchor that knows items which were never trained on by their features; made when it is first needed.

    Raises
    ------
    ValueError
        For a name that is not a baseline's.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import ConditionTable
    >>> from scjepa.model.conditions._anchors import Anchors
    >>> table = ConditionTable((("A",),), np.array(["all"]), np.zeros((1, 2)), np.ones((1, 2)), np.array([5]))
    >>> anchors = Anchors("mean").fit(table)
    >>> anchors.effects(table)[0].tolist(), Anchors.from_state(anchors.state()).base.name
    ([[1.0, 1.0]], 'mean')
    """

    def __init__(self, wanted: str | Baseline | None = "kernel") -> None:
        self.wanted = wanted
        self.full: Baseline | None = None
        self.base: Baseline | None = None
        self.unseen: SelfJudging | None = None
        self.fresh()  # a wrong name is refused here, not after minutes of training

    def __bool__(self) -> bool:
        return self.full is not None

    @property
    def table(self) -> ConditionTable | None:
        """The training conditions, or None."""
        return None if self.full is None else self.full.table_

    def fresh(self, **changes: Any) -> Baseline | None:
        """Return an unfitted anchor as was wanted, with some of its arguments changed."""
        wanted = self.wanted
        if wanted is None:
            return None
        if isinstance(wanted, Baseline):
            return type(wanted).from_state({**wanted.state(), **changes})
        if wanted in ("kernel", KernelEffect.name):
            return KernelEffect(**changes)
        if wanted not in ANCHORS:
            raise ValueError(
                f"anchor={wanted!r}: expected 'kernel', None, a baseline, or one of {sorted(ANCHORS, key=str.lower)}."
            )
        return ANCHORS[wanted]()

    def fit(self, table: ConditionTable, *, n_contexts: int = 1) -> Self:
        """Fit to training conditions, of which those of the model's own cells are from ``n_contexts`` contexts."""
        self.unseen = None
        self.full = self.base = self.fresh()
        if table.variance is None:
            logger.info(
                "too few cells per condition to know the sampling noise: %s.",
                "in new contexts the spread between contexts stands for it, elsewhere conditions are believed alike"
                if len(set(table.contexts)) > 1
                else "all conditions are believed alike",
            )
        if self.full is None:
            return self
        self.full.fit(table)
        if isinstance(self.full, SelfJudging) and n_contexts > 1:
            # With a context kernel the training effects are fitted so closely that nothing is left to learn
            # from: the network corrects the anchor that does not look at contexts.
            blind = self.full.blind()
            self.base = self.full if blind is None else blind.fit(table)
        return self

    def without(self, table: ConditionTable) -> Anchors:
        """Return the same anchors fitted to fewer conditions; those that judge themselves keep their choices."""
        new = Anchors(self.wanted)
        new.full, new.base = (self._again(anchor, table) for anchor in (self.full, self.base))
        return new

    def _again(self, anchor: Baseline | None, table: ConditionTable) -> Baseline:
        assert anchor is not None
        if isinstance(anchor, SelfJudging):
            return anchor.again(table)
        fresh = self.fresh()
        assert fresh is not None
        return fresh.fit(table)

    def told(self, tell: Callable[[Any], Baseline]) -> Anchors:
        """Return the same anchors after ``tell`` told them something that needs no fitting."""
        new = Anchors(None)
        new.wanted, new.full = self.wanted, tell(self.full)
        new.base = new.full if self.base is self.full else tell(self.base)
        return new

    def effects(self, table: ConditionTable) -> tuple[FloatArray, FloatArray]:
        """Return the effects ``(m, genes)`` of ``full`` and ``base``; rows that they can't predict are NaN."""
        assert self.full is not None and self.base is not None
        full = self.full.effects(table)
        base = full if self.base is self.full else self.base.effects(table)
        return _filled(full, self.full, table), _filled(base, self.base, table)

    def unseen_effects(self, table: ConditionTable, features: Callable[[], pd.DataFrame]) -> FloatArray:
        """Return the effects of items that were never trained on, from their features; ``full`` judges itself."""
        assert isinstance(self.full, SelfJudging)
        if self.unseen is None:  # kept apart, so that features change nothing for items that were seen
            self.unseen = self.full.knowing(features())
        return self.unseen.effects(table)

    def state(self) -> dict[str, Any]:
        """Return the fitted anchors as plain data; baselines of the user's own classes stay objects."""
        base = "full" if self.base is self.full else _plain(self.base)
        return {"wanted": _plain(self.wanted), "full": _plain(self.full), "base": base}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        new = cls(_baseline(state["wanted"]))
        new.full = _baseline(state["full"])
        new.base = new.full if state["base"] == "full" else _baseline(state["base"])
        return new


def _plain(anchor: Any) -> Any:
    """Write a baseline that scjepa knows by name as plain data; leave anything else as it is."""
    if isinstance(anchor, Baseline) and ANCHORS.get(str(getattr(anchor, "name", None))) is type(anchor):
        return {"name": anchor.name, "state": anchor.state()}
    return anchor


def _baseline(held: Any) -> Any:
    """Rebuild from :func:`_plain`."""
    return ANCHORS[held["name"]].from_state(held["state"]) if isinstance(held, dict) else held


def _filled(effects: FloatArray, anchor: Baseline, table: ConditionTable) -> FloatArray:
    """Fill rows without a prediction that were trained on: additive says nothing of singles, but has seen them."""
    lost = np.flatnonzero(~np.isfinite(effects).all(1))
    if not len(lost):
        return effects
    trained = anchor.table_
    keys = lambda of: list(zip(condition_keys(of), of.contexts.astype(str), strict=True))
    seen, asked = {key: i for i, key in enumerate(keys(trained))}, keys(table)
    rows = {i: seen[asked[i]] for i in lost if asked[i] in seen}
    effects = effects.copy()
    if rows:
        effects[list(rows)] = trained.effects[list(rows.values())]
    return effects
