"""What the parts of PerturbJEPA (training, prediction, effects, ...) share: its attributes and two helpers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd

from scjepa._types import FloatArray, Matrix
from scjepa.baselines import Baseline, KernelEffect
from scjepa.data import CellGroups, ConditionTable, ExpressionMatrix, Split, largest_values
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
    cell_names_
        Hash of the ``obs_names`` that it was trained on; None for models saved before it was recorded.
    dose_ref_
        Median positive training dose (1 without doses).
    embedded_
        Whether there is an embedding: False after ``train(embed=False)``.
    gates_
        Class of question -> share of the network's correction that counts (``gate=``).
    max_expression_
        ``(genes,)`` float32: the largest log-normalised value of each gene in the training cells, which predictions do
        not exceed (:func:`scjepa.data.largest_values`). None for models saved before it was recorded: no bound.
    gate_gains_
        Class of question -> share of the anchor's squared error of left-out conditions that the network removed, where it
        is asked.
    joint_
        Whether encoder and predictor were trained together.
    residual_
        Whether a network was trained.
    trained_actions_
        Those of ``actions_`` that training cells carry; the network knows no others.
    trained_on_
        Training conditions: perturbation, context, number of cells.
    pretrained_
        What the pretrained encoder is and saw (see :meth:`PerturbJEPA.from_pretrained`), or None.
    usual_kind_
        Most frequent kind of each trained action, and under ``()`` of all; empty without kinds.
    """

    actions_: tuple[str, ...]
    anchor_: Baseline | None
    base_anchor_: Baseline | None
    cell_names_: str | None = None
    dose_ref_: float
    gates_: dict[str, float]
    gate_gains_: dict[str, float] = {}
    joint_: bool
    max_expression_: FloatArray | None = None
    pretrained_: dict[str, Any] | None = None
    residual_: bool
    trained_actions_: tuple[str, ...]
    trained_on_: pd.DataFrame
    usual_kind_: dict[tuple[str, ...], str]
    axes_std_: FloatArray
    _table: ConditionTable
    _unseen_anchor: KernelEffect | None = None

    @property
    def _columns(self) -> list[str | None]:
        """Columns of ``obs`` that the model was set up with, or None."""
        return [self._setup[f"{name}_key"] for name in ("perturbation", "context", "dose", "kind", "batch")]

    def _check_transfer(self, joint: bool, fine_tune: bool, embed: bool) -> None:
        """Raise when training is asked for what a pretrained encoder, a reference or the predictor does not allow."""
        if not embed and (joint or fine_tune):
            asked = "joint" if joint else "fine_tune"
            raise ValueError(f"embed=False leaves the encoder as it is, but {asked}=True trains it. Drop one of them.")
        reads = self.module_arguments_["predictor_input"]
        if not embed and reads != "z" and not self._given_embedding:
            raise ValueError(
                f"embed=False leaves the embedding out, but predictor_input={reads!r} reads it. Make the model with "
                "predictor_input='z' (the default), or train with embed=True."
            )
        if fine_tune and self.pretrained_ is None:
            raise ValueError("fine_tune=True: there is no pretrained encoder. Make the model with from_pretrained.")
        if joint and self.pretrained_ is not None and not fine_tune:
            raise ValueError("joint=True trains the pretrained encoder on. Say so with fine_tune=True.")
        if self.reference_ is not None and joint != self.joint_:
            raise ValueError(f"the reference of these query data was trained with joint={self.joint_}: do the same.")

    def _note_range(self, values: Matrix, known: CellGroups) -> None:
        """Record what training cells, and those of the reference, can show of each gene."""
        self.max_expression_ = largest_values(values, known)
        if self.reference_ is not None:
            held = self.reference_.get("max_expression")  # of a reference saved before it was recorded nothing is known
            self.max_expression_ = None if held is None else np.maximum(self.max_expression_, held)

    def _upper(self, controls: Matrix) -> FloatArray:
        """Return ``(genes,)`` bounds of the mean of ``controls`` under a perturbation: what was measured is possible."""
        if self.max_expression_ is None:
            return np.full(controls.shape[1], np.inf)
        return np.maximum(self.max_expression_, np.asarray(controls.max(0).todense()).ravel()).astype(np.float64)

    def _to_learn(self, known: CellGroups) -> np.ndarray:
        """Return the conditions that the network is trained on."""
        return np.arange(len(known))

    def _with_reference(self, table: ConditionTable) -> ConditionTable:
        """Add conditions that another model saw to the table that the anchor is fitted on."""
        return table

    def _note_leaks(self, split: Split) -> None:
        """Say when another model saw cells that are held out."""

    @abstractmethod
    def _kinds(self) -> list[str]:
        """Return the kinds of perturbation the model was set up with; empty without ``kind_key``."""

    @abstractmethod
    def _new_anchor(self, **changes: Any) -> Baseline | None:
        """Return a fresh, unfitted anchor as ``anchor=`` asks for."""

    @abstractmethod
    def _weigh_network(
        self, matrix: ExpressionMatrix, known: CellGroups, max_epochs: int | None, plan_kwargs: dict | None, seed: int
    ) -> None:
        """Set ``gates_``."""

    @abstractmethod
    def _gates(self, question: ConditionTable) -> FloatArray:
        """Return the share of the network's correction that counts for each question, ``(m,)``."""
