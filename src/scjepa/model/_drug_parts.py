"""What a model of drugs holds beyond a model of conditions: its words, structures, the anchor and the encoder of actions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from scjepa._types import FloatArray
from scjepa.baselines import DrugEffect
from scjepa.model._drug_structures import Structures, smiles_of
from scjepa.model.conditions import ConditionModel, Intervals, Words
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._trust import Trust
from scjepa.nn import ActionEncoder


class Responses(NamedTuple):
    """Mean effects of some questions."""

    questions: list[Question]
    effects: FloatArray
    control: FloatArray
    trust: Trust | None

    @property
    def words(self) -> np.ndarray:
        """Support of each question, ``(m,)``; ``"none"`` for models that can't tell."""
        return np.array(["none"] * len(self.questions) if self.trust is None else self.trust.support, dtype=object)

    @property
    def doubts(self) -> np.ndarray:
        """Whether the model abstains, ``(m,)``."""
        return np.zeros(len(self.questions), bool) if self.trust is None else self.trust.abstain


SUPPORT = ("none", "trained", "near", "dose beyond", "time beyond", "structure uninformative", "far")
"""Words of support, from what speaks for a prediction to what speaks against it."""


def least_sure(words: Iterable[str]) -> str:
    """Return the word that speaks most against a prediction.

    Examples
    --------
    >>> from scjepa.model._drug_parts import least_sure
    >>> least_sure(["near", "dose beyond", "trained"])
    'dose beyond'
    """
    return max(map(str, words), key=lambda word: SUPPORT.index(word) if word in SUPPORT else len(SUPPORT))


class DrugParts(ConditionModel):
    """Parts of :class:`DrugJEPA`.

    Attributes
    ----------
    structures_
        What is known of drugs besides their effects.
    """

    _parts = {**ConditionModel._parts, "structures_": Structures}
    _words = Words(
        label="drug_key",
        asked="drugs",
        items="drugs",
        item="drug",
        done="given",
        features="no SMILES and no drug_features",
        mend="Give its structure: smiles={name: SMILES}, or its row of DrugJEPA(drug_features=).",
    )
    structures_: Structures

    def _drug_anchor(self) -> DrugEffect:
        return DrugEffect(features=self.structures_.tables() or None)

    def _new_action_encoder(self) -> ActionEncoder:
        design = self._design
        return ActionEncoder(
            len(self.actions_),
            features=self.structures_.of_network(self.actions_),
            dose_gate=design.dose_key is not None,
            dose_ref=float(self.dose_ref_),
            time=design.time_key is not None,
            time_ref=float(self.time_ref_),
        )

    def _item_features(self) -> pd.DataFrame | None:
        tables = self.structures_.tables()
        return next(iter(tables.values())) if tables else None

    def _grow(self, reference: Self) -> None:
        new = self.structures_
        super()._grow(reference)
        key = self._setup["smiles_key"]
        if key is not None:
            design = self._design
            more = smiles_of(self.adata.obs, design.label_key, key, design.control, design.separator)
            self.structures_ = new.joined(more)
            if isinstance(self.anchors_.wanted, DrugEffect):
                self.anchors_.wanted = self._drug_anchor()

    @contextmanager
    def _knowing(self, smiles: Mapping[str, str] | None) -> Iterator[None]:
        """Know more structures inside: the anchor is told of them, and is not fitted anew."""
        if smiles is not None and not isinstance(smiles, (Mapping, pd.Series)):
            raise TypeError(f"smiles is {type(smiles).__name__}: expected names with their SMILES, {{'new': 'CCO'}}.")
        smiles = {} if smiles is None else {str(name): text for name, text in smiles.items()}
        new = {name: text for name, text in smiles.items() if name not in self.structures_.smiles}
        if not new:
            yield
            return
        if not isinstance(self.anchor_, DrugEffect) or not self.structures_.smiles:
            raise ValueError(
                f"smiles was given for {sorted(new)[:3]}, but this model knows no structures: set it up with smiles_key= and "
                "make it with anchor='drug' (the default)."
            )
        held = self.anchors_, self.intervals_
        more = self.structures_.of(new)
        self.anchors_ = held[0].told(lambda anchor: anchor.also(features=more.tables()))
        self.intervals_ = Intervals.from_state(held[1].state(), self.anchors_)
        try:
            yield
        finally:
            self.anchors_, self.intervals_ = held
