"""What the parts of PerturbJEPA (training, prediction, effects, ...) share: its attributes and two helpers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pandas as pd

from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect
from scjepa.data import ConditionTable
from scjepa.model._base import JEPABase


class PerturbState(JEPABase):
    """Base of the mixins that :class:`PerturbJEPA` is put together from.

    Attributes
    ----------
    actions_
        Names of everything perturbed in any label, sorted: the columns of the network's actions.
    axes_std_
        Standard deviations of the training cells along the coordinates' axes.
    anchor_
        The closed-form anchor that predicts, or None.
    base_anchor_
        The anchor that the network corrects; often ``anchor_`` itself.
    dose_ref_
        Median positive training dose (1 without doses).
    joint_
        Whether encoder and predictor were trained together.
    residual_
        Whether a network was trained.
    trained_actions_
        Those of ``actions_`` that training cells carry; the network knows no others.
    trained_on_
        Training conditions: perturbation, context, number of cells.
    usual_kind_
        Most frequent kind of each trained action, and under ``()`` of all; empty without kinds.
    """

    actions_: tuple[str, ...]
    anchor_: Baseline | None
    base_anchor_: Baseline | None
    dose_ref_: float
    joint_: bool
    residual_: bool
    trained_actions_: tuple[str, ...]
    trained_on_: pd.DataFrame
    usual_kind_: dict[tuple[str, ...], str]
    axes_std_: FloatArray
    _table: ConditionTable
    _unseen_anchor: KernelEffect | None = None

    @abstractmethod
    def _kinds(self) -> list[str]:
        """Return the kinds of perturbation the model was set up with; empty without ``kind_key``."""

    @abstractmethod
    def _new_anchor(self, **changes: Any) -> Baseline | None:
        """Return a fresh, unfitted anchor as ``anchor=`` asks for."""
