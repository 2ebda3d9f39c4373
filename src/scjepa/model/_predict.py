"""Counterfactual prediction: which controls to move, by how much, and the AnnData that comes out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import closest, require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._labels import Action
from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect
from scjepa.data import ConditionTable, LabelKeys, aligned, control_cells, shift_cells
from scjepa.model._trust import TrustMixin

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """One thing to predict: a perturbation in a context, at a dose, of a kind."""

    label: str
    action: Action
    context: str
    dose: float | None = None
    kind: str | None = None


class PredictionMixin(TrustMixin):
    """Prediction methods of :class:`PerturbJEPA`."""

    def _questions(
        self,
        perturbations: str | Sequence[str],
        contexts: Sequence[str],
        dose: float | Sequence[float] | None,
        kind: str | None,
    ) -> list[Question]:
        """Check what is asked and spell it out, one question per perturbation, dose and context."""
        s = self._setup
        actions = self._keys.parse(perturbations)
        if s["dose_key"] is None and dose is not None:
            raise ValueError("dose was given, but the model was set up without dose_key.")
        doses = [None] if s["dose_key"] is None else np.atleast_1d(self.dose_ref_ if dose is None else dose).tolist()
        for d in doses:
            if d is not None and not (isinstance(d, (int, float)) and np.isfinite(d) and d >= 0):
                raise ValueError(f"dose={d!r}: expected numbers of at least 0.")
        if s["kind_key"] is None and kind is not None:
            raise ValueError("kind was given, but the model was set up without kind_key.")
        if kind is not None:
            require_member(kind, self._kinds(), "kind", where="the kinds the model was set up with")
        usual = self.usual_kind_
        return [
            Question(label, action, context, d, None if s["kind_key"] is None else kind or usual.get(action, usual[()]))
            for label, action in actions.items()
            for d in doses
            for context in contexts
        ]

    @property
    def _keys(self) -> LabelKeys:
        s = self._setup
        return LabelKeys(s["perturbation_key"], s["control"], s["context_key"], s["separator"])

    def _question_table(self, questions: list[Question], control: FloatArray) -> ConditionTable:
        """Write questions as a table."""
        return ConditionTable(
            actions=tuple(q.action for q in questions),
            contexts=np.array([q.context for q in questions], dtype=object),
            control=control,
            dose=None if self._setup["dose_key"] is None else np.array([q.dose for q in questions], dtype=float),
            kind=None if self._setup["kind_key"] is None else np.array([q.kind for q in questions], dtype=object),
            genes=tuple(self.var_names),
        )

    def _effects(self, questions: list[Question], control: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Effects ``(m, genes)`` of the anchor and of the one that the network corrects; how far the latter two count."""
        table = self._question_table(questions, control)
        if self.anchor_ is None or self.base_anchor_ is None or self.joint_:
            self._require_known(questions)
            zero = np.zeros_like(control)
            return zero, zero, np.full(len(questions), float(self.residual_))
        full = self.anchor_.effects(table)
        base = full if self.base_anchor_ is self.anchor_ else self.base_anchor_.effects(table)
        full, base = self._filled(full, self.anchor_, table), self._filled(base, self.base_anchor_, table)
        lost = np.flatnonzero(~np.isfinite(full).all(1) | ~np.isfinite(base).all(1))
        if len(lost):
            unseen = self._unseen_effects([questions[i] for i in lost], table.rows(lost))
            full, base = full.copy(), base.copy()
            full[lost] = base[lost] = unseen
        share = self._gates(table) if self.residual_ else np.zeros(len(questions))
        share[lost] = 0.0  # the network has never met the gene
        return full, base, share

    @staticmethod
    def _filled(effects: FloatArray, anchor: Baseline, table: ConditionTable) -> FloatArray:
        """Fill rows without a prediction that were trained on: additive says nothing of singles, but has seen them."""
        lost = np.flatnonzero(~np.isfinite(effects).all(1))
        if not len(lost):
            return effects
        trained = anchor.table_
        seen = {(a, str(c)): i for i, (a, c) in enumerate(zip(trained.actions, trained.contexts, strict=True))}
        rows = {i: seen[key] for i in lost if (key := (table.actions[i], str(table.contexts[i]))) in seen}
        effects = effects.copy()
        if rows:
            effects[list(rows)] = trained.effects[list(rows.values())]
        return effects

    def _unseen_effects(self, questions: list[Question], table: ConditionTable) -> FloatArray:
        """Effects that the anchor can't predict alone: of genes never perturbed in training, from their features."""
        if not isinstance(self.anchor_, KernelEffect):
            self._require_known(questions)
            names = sorted({q.label for q in questions})
            raise ValueError(
                f"the anchor {getattr(self.anchor_, 'name', None)!r} has no prediction for {some(names)}. "
                "Use anchor='kernel', which predicts any combination of known genes in any context."
            )
        self._require_known(questions, self._gene_features().index.astype(str))
        if self._unseen_anchor is None:  # kept apart, so that features change nothing for perturbations that were seen
            self._unseen_anchor = KernelEffect(features=self._gene_features()).fit(self.anchor_.table_)
        return self._unseen_anchor.effects(table)

    def _gene_features(self) -> pd.DataFrame:
        """Features of genes: ``gene_embeddings`` if given, else the loadings of the measured genes."""
        given = self.init_params_["non_kwargs"]["gene_embeddings"]
        if given is not None:
            return given
        return pd.DataFrame(self.module.space.loadings.T.cpu().numpy() * self.axes_std_, index=self.var_names)

    def _require_known(self, questions: list[Question], featured: Iterable[str] = ()) -> None:
        """Raise when a perturbed gene was never trained on and is not among those with features."""
        separator = self._setup["separator"]
        able = {name for label in self.trained_on_["perturbation"] for name in label.split(separator)} | set(featured)
        for q in questions:
            unknown = [name for name in q.action if name not in able]
            if unknown:
                raise ValueError(
                    f"{some(unknown)} in {q.label!r} was not perturbed in any training cell and has no features "
                    f"(no gene_embeddings, not a measured gene).{closest(unknown[0], able)} Pass gene_embeddings= "
                    "(a DataFrame gene x features that covers it) to PerturbJEPA."
                )

    def _shift(
        self, x: torch.Tensor, question: Question, full: FloatArray, base: FloatArray, network: float
    ) -> torch.Tensor:
        """Shift ``(cells, genes)`` (or ``(1, genes)``) of control cells ``x`` under one question.

        ``network`` is the share that the corrected anchor and its correction have; the anchor that predicts alone has
        the rest.
        """
        space = self.module.space
        full_t, base_t = (torch.as_tensor(e, dtype=torch.float32, device=self.device)[None] for e in (full, base))
        if question.dose == 0:  # nothing was done
            return torch.zeros_like(x[:1])
        known = set(question.action) & set(self.trained_actions_)  # others have vectors that were never trained
        move = None
        if network and known:
            actions = torch.tensor([[float(name in known) for name in self.actions_]], device=self.device)
            dose = None if question.dose is None else torch.tensor([question.dose], device=self.device).float()
            kind = None if question.kind is None else torch.tensor([self._kinds().index(question.kind)]).to(self.device)
            if self.joint_:
                start = self.module.embed(self._at_reference(x))
                end = start + self.module.shift(start[None], actions, dose, kind)[0]
                return self.module.readout(end) - self.module.readout(start)
            h = None if self.module.predictor_input == "z" else self.module.embed(self._at_reference(x))
            move = self.module.shift(self.module.state(space.project(x), h)[None], actions, dose, kind)[0]
        if move is None:
            return full_t
        inside = space.project_shift(full_t)
        return full_t + space.lift_shift(network * (space.project_shift(base_t) + move - inside))

    def _at_reference(self, x: torch.Tensor) -> torch.Tensor:
        """Expression on the scale that the encoder reads."""
        return x if self.reference_unit_ == 1.0 else torch.log1p(torch.expm1(x) / self.reference_unit_)

    def predict_perturbation(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        context: str | Sequence[str] | None = None,
        dose: float | Sequence[float] | None = None,
        kind: str | None = None,
        n_cells: int | None = None,
        include_control: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells under perturbations, starting from control cells.

        Parameters
        ----------
        perturbations
            ``"A"``, ``"A+B"`` (any number of genes, any order), or a list of such labels; seen or unseen.
        adata
            Where control cells come from, with the model's genes in any order and possibly a new context; by default
            the AnnData of the model. Without the perturbation column all its cells count as controls.
        indices
            Positions or boolean mask of the cells to use; those that are not controls are left out.
        context
            Contexts to predict in, by default all that have control cells.
        dose
            One dose or several (each perturbation at each), by default the median training dose.
        kind
            Kind of perturbation, by default the most frequent one of that perturbation in training.
        n_cells
            Cells per perturbation and context; by default each control once.
        include_control
            Put the controls used in front, so that the result goes straight into cell-eval or pertpy.
        seed
            Of the draw of controls when ``n_cells`` is given.

        Returns
        -------
        Predicted cells. ``X``: float32, log-normalized, in the model's ``var_names``, between 0 and the largest value of
        the gene in training cells or in the controls that are moved; ``obs``: the perturbation, context, dose and kind
        columns, ``source`` (name of the control started from) and ``jepa_prediction`` (``"predicted"`` or
        ``"control"``); ``obsm["X_jepa"]``: embeddings of the predicted cells (not after ``train(embed=False)``);
        ``uns["jepa"]["prediction"]``: what it was made with, and (for models with an anchor) what it rests on:
        ``"conditions"``, a table of ``perturbation``, ``context`` (dose, kind), ``basis`` (the size of the effect was
        judged by ``"left out"`` conditions, by ``"sampling noise"`` alone, or by nothing: ``"none"``), ``support`` and
        ``abstain`` (see :meth:`predict_effect`); ``"reliability"`` of the training conditions (median, how many are
        ``near_zero``, of ``n``; see :meth:`get_reliability`), if cells tell; and ``"note"``. ``obs_names`` are unique.

        Warns
        -----
        UserWarning
            Once, with numbers: when effects could not be judged by leaving training conditions out, when the model
            abstains, when training contexts differ in a way that their controls do not explain. The same text is the
            ``"note"``.

        Raises
        ------
        ValueError
            For unknown genes without features, unknown contexts, a selection without controls, bad doses.

        Notes
        -----
        Controls and perturbed cells are unpaired: the predicted *set* is what was learned. That a predicted cell
        belongs to its source cell is an assumption of minimal displacement, not a measurement.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> seen = [p for p in adata.obs["perturbation"].unique() if p != "control"][:2]
        >>> model.predict_perturbation(seen, n_cells=5, context="state A").shape == (10, adata.n_vars)
        True
        """
        self._require_trained("predict_perturbation")
        adata = self._own_or_given(adata)
        if n_cells is not None:
            require_positive_int(n_cells, "n_cells")
        sources = control_cells(adata, self._keys, indices=indices, context=context)
        questions = self._questions(perturbations, list(sources), dose, kind)
        rng = np.random.default_rng(seed)
        cells, control_mean, chosen = {}, {}, {}
        for place, positions in sources.items():
            matrix = self._read(adata, positions)
            control_mean[place] = np.asarray(matrix.values.mean(0), dtype=np.float64).ravel()
            pick = np.arange(len(positions))
            if n_cells is not None:
                pick = np.sort(rng.choice(pick, n_cells, replace=n_cells > len(pick)))
            cells[place], chosen[place] = matrix.rows(pick), positions[pick]
        full, base, network = self._effects(questions, np.stack([control_mean[q.context] for q in questions]))
        sizes = [len(chosen[q.context]) for q in questions]
        x = np.empty((sum(sizes), len(self.var_names)), np.float32)
        ends = np.cumsum([0, *sizes])
        with torch.inference_mode():
            for i, q in enumerate(questions):
                start = aligned(cells[q.context]).to(self.device)
                shift = self._shift(start, q, full[i], base[i], float(network[i])).cpu().numpy()
                x[ends[i] : ends[i + 1]] = shift_cells(cells[q.context], shift, self.max_expression_)
        control = np.stack([control_mean[q.context] for q in questions])
        moved = [x[ends[i] : ends[i + 1]].mean(0) - cells[q.context].mean(0) for i, q in enumerate(questions)]
        table = self._question_table(questions, control)
        trust = self._trust(table, np.stack(moved).astype(np.float64), network, intervals=False)
        if trust is not None:
            trust.warn()
        obs = pd.concat([self._describe(q, adata.obs_names[chosen[q.context]]) for q in questions])
        if include_control:
            controls = [Question(self._setup["control"], (), c, None, None) for c in sources]
            first = pd.concat([self._describe(q, adata.obs_names[chosen[q.context]]) for q in controls])
            x = np.concatenate([*(cells[c] for c in sources), x])
            obs = pd.concat([first, obs])
        return self._assemble(x, obs, self._stated([q.label for q in questions], table, trust))

    def _describe(self, question: Question, sources: pd.Index) -> pd.DataFrame:
        """``obs`` of the cells predicted for one question."""
        s, n = self._setup, len(sources)
        obs = pd.DataFrame({s["perturbation_key"]: [question.label] * n})
        if s["context_key"] is not None:
            obs[s["context_key"]] = question.context
        if s["dose_key"] is not None:
            obs[s["dose_key"]] = 0.0 if question.dose is None else float(question.dose)
        if s["kind_key"] is not None:
            obs[s["kind_key"]] = s["control"] if question.kind is None else question.kind
        obs[Keys.obs.source] = sources.astype(str).to_numpy()
        obs[Keys.obs.kind] = "predicted" if question.action else "control"
        return obs

    def _embedded(self, x: FloatArray) -> FloatArray:
        """Return JEPA embeddings ``(n, n_latent)`` of expression."""
        h = np.empty((len(x), self.module.encoder.n_latent), np.float32)
        for start in range(0, len(x), 2048):
            block = aligned(x[start : start + 2048]).to(self.device)
            h[start : start + 2048] = self.module.embed(self._at_reference(block)).cpu().numpy()
        return h

    def _assemble(self, x: FloatArray, obs: pd.DataFrame, stated: dict[str, Any]) -> AnnData:
        """Put predicted expression and annotation into an AnnData with embeddings and provenance."""
        s = self._setup
        obs.index = pd.Index([f"prediction-{i}" for i in range(len(obs))])
        for key in (s["perturbation_key"], s["context_key"], s["kind_key"], Keys.obs.kind):
            if key is not None:
                obs[key] = obs[key].astype("category")
        out = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(self.var_names)))
        if self.embedded_:
            out.obsm[Keys.obsm.latent] = self._embedded(x)
        out.uns[Keys.uns.root] = {
            Keys.uns.prediction: {
                "model": type(self).__name__,
                "perturbation_key": s["perturbation_key"],
                "control": s["control"],
                "context_key": s["context_key"] or "",
                "separator": s["separator"],
                "train": self.trained_on_[["perturbation", "context"]].reset_index(drop=True).rename(index=str),
                **stated,
            }
        }
        return out
