"""What users ask of models of unpaired conditions: predicted cells, effects with intervals, reliability, diagnostics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.baselines import SelfJudging
from scjepa.baselines._base import condition_keys
from scjepa.data import ConditionTable, control_cells
from scjepa.model.conditions._design import Asked, Question
from scjepa.model.conditions._diagnostics import condition_diagnostics, trained_conditions
from scjepa.model.conditions._effects import COLUMNS, bounds, check_free, check_level, effect_table, gene_positions
from scjepa.model.conditions._mover import Answers, Mover
from scjepa.model.conditions._prediction import Sources, highest, move_cells, predicted_anndata, provenance
from scjepa.model.conditions._reliability import COLUMNS as RELIABILITY
from scjepa.model.conditions._reliability import reliability_table
from scjepa.model.conditions._trained import TrainedConditions
from scjepa.model.conditions._trust import Trust, reliability_of, stated
from scjepa.model.core import Diagnostic


class ConditionModel(TrainedConditions):
    """Base of models that learn what actions do to cells from unpaired controls and treated cells.

    A model class writes its words, ``setup_anndata``, ``__init__`` and the method that predicts cells, and where they differ
    from the usual its encoder of actions (``_new_action_encoder``) and what it knows of items that were never trained on
    (``_item_features``).
    """

    # ---------------------------------------------------------------- questions and answers
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

    # ---------------------------------------------------------------- what users ask for
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

    def predict_effect(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        dose: Asked = None,
        kind: str | None = None,
        time: float | Sequence[float] | None = None,
        level: float = 0.9,
        genes: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Predict mean effects with intervals, how far each question is from training, and whether to trust it.

        Parameters
        ----------
        perturbations, adata, context, dose, kind
            As in :meth:`predict_perturbation`; all controls of ``adata`` are used.
        level
            Share of measured effects that the intervals should cover, between 0 and 1.
        genes
            Genes to report, by default all; intervals don't depend on it.

        Returns
        -------
        One row per perturbation, dose, context and gene:

        ``perturbation``, ``gene``
            What was asked; the context, dose and kind stand in columns named as in ``obs``, if the model has them.
        ``effect``
            Mean of the predicted cells minus mean of the controls, log-normalized scale. The mean is between 0 and the
            largest value of the gene in training cells or controls.
        ``lower``, ``upper``
            The interval; finite, and no mean in it is below zero or beyond the larger of that value and of one count.
        ``distance``
            Share of the predictive variance that training leaves, 0 to 1.
        ``support``
            ``"trained"`` (the condition was trained on), ``"near"``, or ``"far"``: farther than any training condition
            was when left out, or no training condition could be left out in this way.
        ``abstain``
            True where the effect should not be used: support is far; the prediction is expected to take less than 5 %
            off the squared error of "no change", by the size of left-out predictions and of their errors; or the
            condition was trained on in one or two cells only.

        Raises
        ------
        ValueError
            As in :meth:`predict_perturbation`; for a level that is not between 0 and 1, unknown genes, and models
            without an anchor, which have no left-out predictions.

        Notes
        -----
        The interval is about the mean effect measured in a new condition with about as many cells as the training
        conditions have. Training conditions are predicted while left out in the way that the question demands: one
        condition, one combination, one context, or one gene with all conditions it is part of. Their errors give each
        gene its scale and, with conditions (not genes) as exchangeable units, the quantile (Lee, Barber and Willett 2023,
        arXiv:2306.06342; with few conditions a predictive t distribution for how well a new one is predicted).
        Intervals widen with the distance and never fall below what was calibrated. Trained conditions get those of their
        class when left out: narrower ones, by the kernel's variance, covered replicates too rarely. Errors are those of
        the anchor: where the network improves on it, intervals are too wide rather than too narrow. The noise of the
        controls is part of it in new contexts only: elsewhere all conditions share them. Coverage holds on average over
        conditions; one condition may be covered far better than another.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 5, 4, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> double = next(p for p in adata.obs["perturbation"].unique() if "+" in p)
        >>> model.train(max_epochs=1, holdout=[double], enable_progress_bar=False)
        >>> effects = model.predict_effect(double, context="state A")
        >>> effects.shape, effects["abstain"].dtype
        ((60, 9), dtype('bool'))
        >>> bool((effects["lower"] <= effects["effect"]).all() and (effects["effect"] <= effects["upper"]).all())
        True
        """
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
        questions = self._ask(perturbations, places, dose, kind, time)
        check_free(design, COLUMNS)
        sources = Sources.read(adata, self._reader, places)
        effect, control, most, network = self._mean_effects(questions, sources)
        table = design.table(questions, control, tuple(self.var_names))
        trust = self._judge(table, effect, network, intervals=True)
        assert trust is not None  # there is an anchor
        trust.warn()
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

    def get_reliability(self, adata: AnnData | None = None) -> pd.DataFrame:
        r"""Tell how much of each measured effect is more than the noise of having drawn a limited number of cells.

        A statement about the data, to be read before training and before any score: an effect that is all noise can't be
        predicted, and no model is to blame. Nothing is written to ``adata``. :func:`scjepa.pl.reliability` draws the table.

        Parameters
        ----------
        adata
            Cells with the columns that the model was set up with and its genes, in any order; by default the AnnData of
            the model.

        Returns
        -------
        One row per condition, the most reliable first:

        ``perturbation``
            What was done; the context, dose and kind stand in columns named as in ``obs``, if the model has them.
        ``n_cells``, ``n_controls``
            Perturbed cells :math:`n`, and the effective number of controls :math:`m`, matched by context and batch.
        ``effect_size``
            Length of the effect without the noise, :math:`\sqrt{\max(0, |\hat\delta|^2 - \nu)}`; L2 over genes, log-normalized
            scale, as the next two.
        ``noise``
            Length that sampling alone gives, :math:`\sqrt\nu` with :math:`\nu = \sum_g V_g (1/n + 1/m)` and :math:`V` the variance
            within the conditions of this context (of all contexts where this one has too few cells to tell).
        ``measured``
            Length of the measured mean effect, :math:`|\hat\delta|`: perturbed minus control means.
        ``reliability``
            :math:`\max(0, 1 - \nu / |\hat\delta|^2)`, the share of the squared length that is not noise, 0 to 1 (James and
            Stein 1961); one half is where effect and noise are of one size. Null perturbations get 0, or a little more by chance.
        ``p_value``
            How often sampling alone makes a :math:`|\hat\delta|` as large as this one. Not adjusted for the number of rows.
        ``trained``
            Whether this model was trained on the condition; False before training.

        Raises
        ------
        KeyError, TypeError, ValueError
            For absent columns or genes, missing labels, no controls, and what is no AnnData in memory.

        Warns
        -----
        Where there are too few rows to tell the variance within conditions, as with one profile per condition, noise,
        effect size, reliability and p-value are NaN, and the log says so.

        Notes
        -----
        The noise is that of drawing cells. Differences between wells, guides or donors are in it only as far as they are
        within conditions, and are best matched by ``batch_key``: with one donor a small p-value does not promise another one.

        :math:`|\hat\delta|^2 / \nu` under the null is a weighted sum of chi-squares, with the eigenvalues of the covariance
        :math:`\Sigma` within conditions for weights: genes that vary together count as few. It is matched in three moments
        by a scaled and shifted chi-square (Pearson 1959; Zhang et al. 2020 in two moments), which need the traces
        of :math:`\Sigma`, :math:`\Sigma^2` and :math:`\Sigma^3` alone. The latter are averages of products of
        differences between two cells of a condition, unbiased whatever the distribution (Chen and Qin 2010). For relabelled
        controls p-values are close to uniform from about five cells on.

        References
        ----------
        James and Stein. Estimation with quadratic loss. Proc. 4th Berkeley Symp. Math. Stat. Prob., 1961.
        Pearson. Note on an approximation to the distribution of non-central chi-square. Biometrika 46, 1959.
        Chen and Qin. A two-sample test for high-dimensional data with applications to gene-set testing. Ann. Stat. 38, 2010.
        Zhang, Guo, Zhou and Cheng. A simple two-sample test in high dimensions based on L2-norm. JASA 115, 2020.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> table = scjepa.PerturbJEPA(adata).get_reliability()
        >>> table.shape, bool(table["reliability"].is_monotonic_decreasing)
        ((12, 10), True)
        """
        adata, design = self._own_or_given(adata), self._design
        design.check_columns(adata.obs, self._words.label)
        check_free(design, ("perturbation", *RELIABILITY))
        groups = design.groups(adata.obs)
        if not len(groups):
            raise ValueError(
                f"adata has no {self._words.done} cells: all labels in adata.obs[{design.label_key!r}] are the control "
                f"{design.control!r}."
            )
        order = np.empty(adata.n_obs, dtype=int)
        order[np.argsort(adata.obs_names.to_numpy(dtype=str), kind="stable")] = np.arange(adata.n_obs)
        return reliability_table(self._read(adata).values, groups, design, order, self._trained_among)

    def _trained_among(self, table: ConditionTable) -> np.ndarray:
        """Return which conditions this model was trained on."""
        if not self.is_trained_:
            return np.zeros(len(table), bool)
        seen = self.anchors_.table
        if seen is None:  # what is remembered then knows neither dose nor kind
            return np.array(self.known_.among(table), dtype=bool)
        keys = lambda of: zip(condition_keys(of), of.contexts.astype(str), strict=True)
        fitted = set(keys(seen))
        return np.array([key in fitted for key in keys(table)], dtype=bool)

    def _diagnostics(self, rng: np.random.Generator) -> list[Diagnostic]:
        """Add what earlier cell JEPAs failed: are predicted sets as wide, and predicted effects as large, as true ones?"""
        rows = super()._diagnostics(rng) if self.embedded_ else []
        adata, design = self._own_or_given(None), self._design
        groups = design.groups(adata.obs)
        axes, pairs = self.module.space.loadings.T.cpu().numpy(), []
        for i in trained_conditions(groups, self.known_, rng):
            label = design.label(groups.actions[i])
            predicted = self._predict(
                label,
                None,
                context=None if design.context_key is None else str(groups.contexts[i]),
                dose=None
                if groups.dose is None
                else design.written_dose(Question(label, groups.actions[i], "", groups.doses[i])),
                kind=None if groups.kind is None else str(groups.kind[i]),
                time=None if groups.time is None else float(groups.time[i]),
                include_control=True,
            )
            cells = np.sort(rng.choice(groups.cells[i], min(len(groups.cells[i]), 500), replace=False))
            pairs.append((predicted, self._read(adata, cells).rows(slice(None))))
        return rows + condition_diagnostics(pairs, axes, self.gate_, self.anchor_)
