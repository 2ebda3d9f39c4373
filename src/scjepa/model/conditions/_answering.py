"""How models of unpaired conditions answer: questions spelled out, anchor and network asked, answers judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.data import ConditionTable, control_cells
from scjepa.model.conditions._design import Asked, Question
from scjepa.model.conditions._effects import COLUMNS, bounds, check_free, check_level, effect_table, gene_positions
from scjepa.model.conditions._mover import Answers, Mover
from scjepa.model.conditions._prediction import Sources, highest, move_cells, predicted_anndata, provenance
from scjepa.model.conditions._trained import TrainedConditions
from scjepa.model.conditions._trust import Trust, reliability_of, stated


class Answering(TrainedConditions):
    """A trained model that is asked; what users call stands in :class:`ConditionModel`."""

    def _item_features(self) -> pd.DataFrame | None:
        """Return item x features, for items that were never trained on; None: such items are refused."""
        return None

    @property
    def _mover(self) -> Mover:
        known = frozenset(self.known_.items)
        return Mover(self.module, self._vocabulary, known, self.joint_, self.reference_unit_)

    def _ask(
        self,
        labels: str | Sequence[str],
        contexts: Iterable[str],
        dose: Asked,
        kind: str | None,
        time: float | Sequence[float] | None,
    ) -> list[Question]:
        """Check what is asked and spell it out."""
        return self._design.ask(
            labels,
            list(contexts),
            dose=dose,
            time=time,
            kind=kind,
            usual_dose=self.dose_ref_,
            usual_time=self.time_ref_,
            usual_kind=self.known_.usual_kind,
            asked=self._words.asked,
        )

    def _answer(self, questions: list[Question], control: FloatArray) -> Answers:
        """Return what the anchors say of questions that start from control profiles, and how far the network counts."""
        anchors = self.anchors_
        if not anchors or self.joint_:
            self._require_known(questions)
            zero = np.zeros_like(control)
            return Answers(zero, zero, np.full(len(questions), float(self.residual_)))
        table = self._design.table(questions, control, tuple(self.var_names))
        full, base = anchors.effects(table)
        lost = np.flatnonzero(~np.isfinite(full).all(1) | ~np.isfinite(base).all(1))
        if len(lost):
            unseen = self._unseen_effects([questions[i] for i in lost], table.rows(lost))
            full, base = full.copy(), base.copy()
            full[lost] = base[lost] = unseen
        share = self.gate_.share(table, self.known_, anchors.full) if self.residual_ else np.zeros(len(questions))
        share[lost] = 0.0  # the network has never met the item
        return Answers(full, base, share)

    def _unseen_effects(self, questions: list[Question], table: ConditionTable) -> FloatArray:
        """Effects that the anchor can't predict alone: of items never trained on, from their features."""
        anchor, features = self.anchor_, self._item_features()
        if not isinstance(anchor, SelfJudging):
            self._require_known(questions)
            names = sorted({q.label for q in questions})
            raise ValueError(
                f"the anchor {getattr(anchor, 'name', None)!r} has no prediction for {some(names)}. "
                f"Use anchor='kernel', which predicts any combination of known {self._words.items} in any context."
            )
        self._require_known(questions, () if features is None else features.index.astype(str))
        assert features is not None
        return self.anchors_.unseen_effects(table, lambda: features)

    def _require_known(self, questions: list[Question], featured: Iterable[str] = ()) -> None:
        """Raise when an item was never trained on and is not among those with features."""
        able = self.known_.named | set(featured)
        for q in questions:
            unknown = [name for name in q.action if name not in able]
            if unknown:
                raise ValueError(
                    f"{some(unknown)} in {q.label!r} was not {self._words.done} in any training cell and has no features "
                    f"({self._words.features}).{closest(unknown[0], able)} {self._words.mend}"
                )

    def _judge(self, table: ConditionTable, effect: FloatArray, network: FloatArray, intervals: bool) -> Trust | None:
        """Return what is known of answers; None for models that have no anchor to leave conditions out of."""
        if not self.anchors_ or self.joint_:
            return None
        return self.intervals_.judge(table, effect, network, self._words, intervals=intervals)

    def _predict(
        self,
        labels: str | Sequence[str],
        adata: AnnData | None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        context: str | Sequence[str] | None = None,
        dose: Asked = None,
        kind: str | None = None,
        time: float | Sequence[float] | None = None,
        n_cells: int | None = None,
        include_control: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells under actions, starting from control cells; the body of a model's own method."""
        adata, design = self._own_or_given(adata), self._design
        if n_cells is not None:
            require_positive_int(n_cells, "n_cells")
        places = control_cells(adata, design.keys, indices=indices, context=context)
        questions = self._ask(labels, places, dose, kind, time)
        sources = Sources.read(adata, self._reader, places)
        pick = sources.drawn(n_cells, seed)
        cells = {place: matrix.rows(pick[place]) for place, matrix in sources.matrices.items()}
        control = sources.profiles(questions)
        answers = self._answer(questions, control)
        mover = self._mover
        x, moved = move_cells(mover, questions, answers, cells, self.max_expression_, bounded=not self._signatures)
        table = design.table(questions, control, tuple(self.var_names))
        trust = self._judge(table, moved, answers.network, intervals=False)
        if trust is not None:
            trust.warn(stacklevel=3)
        names = {place: sources.names[at[pick[place]]] for place, at in places.items()}
        obs = [design.describe(q, names[q.context]) for q in questions]
        doses = None if design.dose_key is None else design.values(questions, "dose")
        if include_control:
            obs = [design.describe(Question(design.control, (), place), names[place]) for place in places] + obs
            x = np.concatenate([*(cells[place] for place in places), x])
        known = {} if self.anchors_.table is None else reliability_of(self.anchors_.table)
        return predicted_anndata(
            x,
            pd.concat(obs),
            self.var_names_,
            design,
            latents=mover.embed(x) if self.embedded_ else None,
            record={
                **provenance(type(self).__name__, design, self.known_.conditions, self._setup["input_scale"]),
                **stated([q.label for q in questions], table, trust, known, doses),
            },
        )

    def _effects(
        self,
        labels: str | Sequence[str],
        adata: AnnData | None,
        *,
        context: str | Sequence[str] | None,
        dose: Asked,
        kind: str | None,
        time: float | Sequence[float] | None,
        level: float,
        genes: str | Sequence[str] | None,
    ) -> pd.DataFrame:
        """Predict mean effects with intervals; the body of :meth:`ConditionModel.predict_effect`."""
        self._require_trained("predict_effect")
        level = check_level(level)
        if not self.anchors_ or self.joint_:
            why = "joint=True" if self.joint_ else "anchor=None"
            raise ValueError(
                f"the model was trained with {why}: intervals come from training conditions left out under the anchor, "
                "which is not used then. Train with an anchor (anchor='kernel', joint=False), or predict cells: those come "
                "without intervals."
            )
        columns = gene_positions(genes, self.var_names)
        adata, design = self._own_or_given(adata), self._design
        places = control_cells(adata, design.keys, context=context)
        questions = self._ask(labels, places, dose, kind, time)
        check_free(design, COLUMNS)
        sources = Sources.read(adata, self._reader, places)
        effect, control, most, network = self._mean_effects(questions, sources)
        table = design.table(questions, control, tuple(self.var_names))
        trust = self._judge(table, effect, network, intervals=True)
        assert trust is not None  # there is an anchor
        trust.warn(stacklevel=3)
        half = trust.half_widths(effect, control, level)
        if self._signatures:  # of any sign
            ends: tuple[FloatArray, FloatArray] = effect - half, effect + half
        else:
            ends = bounds(effect, half, control, most, float(np.log1p(self.reference_unit_)))
        lower, upper = ends
        values = {"effect": effect, "lower": lower, "upper": upper}
        return effect_table(questions, design, self.var_names, columns, values, trust)

    def _mean_effects(
        self, questions: list[Question], sources: Sources
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return mean effects, control profiles and the largest possible means ``(m, genes)``, and the network's share."""
        control = sources.profiles(questions)
        answers = self._answer(questions, control)
        bound = {place: highest(matrix, self.max_expression_) for place, matrix in sources.matrices.items()}
        most = np.stack([bound[q.context] for q in questions])
        mover = self._mover
        shift = np.stack([
            mover.mean_shift(sources.matrices[q.context], q, full, base, float(network))
            for q, full, base, network in zip(questions, *answers, strict=True)
        ])  # fmt: skip
        # as predicted cells are
        effect = shift if self._signatures else np.clip(control + shift, 0, most) - control
        return effect, control, most, answers.network
