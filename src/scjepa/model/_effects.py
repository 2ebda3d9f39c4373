"""predict_effect: mean effects with intervals, their distance from training, and where the model had better not answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import closest, some
from scjepa._types import FloatArray
from scjepa.baselines import Baseline, KernelEffect
from scjepa.baselines._base import condition_keys
from scjepa.baselines._support import left_out_predictions, left_together, rows_like
from scjepa.data import aligned, control_cells
from scjepa.model._conformal import Calibration, SamplingNoise, calibrate
from scjepa.model._predict import PredictionMixin, Question

logger = logging.getLogger(__name__)

COLUMNS = ("perturbation", "gene", "effect", "lower", "upper", "distance", "support", "abstain")
CLASSES = ("single", "combination", "context", "unseen")
MAX_CONDITIONS = 300
"""More left-out conditions add nothing to a quantile; so many, drawn with seed 0, calibrate in large screens."""
LEAST_SKILL = 0.05
"""A class whose left-out predictions take less than so much off the squared error of "no change" abstains."""
BEYOND = 1.01
"""Distances up to one per cent above the farthest left-out condition still count as seen."""


class EffectsMixin(PredictionMixin):
    """Effects with intervals, for :class:`PerturbJEPA`."""

    _calibrations: WeakKeyDictionary | None = None

    def predict_effect(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        dose: float | Sequence[float] | None = None,
        kind: str | None = None,
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
            Mean of the predicted cells minus mean of the controls, log-normalized scale.
        ``lower``, ``upper``
            The interval; finite.
        ``distance``
            Share of the predictive variance that training leaves, 0 to 1.
        ``support``
            ``"trained"`` (the condition was trained on), ``"near"``, or ``"far"``: farther than any training condition
            was when left out, or no training condition could be left out in this way.
        ``abstain``
            True where the effect should not be used: support is far, or left-out predictions of this kind were no
            better than "no change".

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
        controls is not part of it: all conditions share them. Coverage holds on average over conditions; one condition
        may be covered far better than another.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 5, 4, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> double = next(p for p in adata.obs["perturbation"].unique() if "+" in p)
        >>> model.train(max_epochs=1, holdout=[double], enable_progress_bar=False)
        >>> effects = model.predict_effect(double, context="state A")
        >>> effects.shape, effects["support"].unique().tolist()
        ((60, 9), ['near'])
        >>> bool((effects["lower"] <= effects["effect"]).all() and (effects["effect"] <= effects["upper"]).all())
        True
        """
        self._require_trained("predict_effect")
        if isinstance(level, bool) or not (isinstance(level, (float, int, np.floating)) and 0 < level < 1):
            raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.9.")
        if self.anchor_ is None or self.joint_:
            why = "joint=True" if self.joint_ else "anchor=None"
            raise ValueError(
                f"the model was trained with {why}: intervals come from training conditions left out under the anchor, "
                "which is not used then. Train with an anchor (anchor='kernel', joint=False), or use "
                "predict_perturbation for predictions without intervals."
            )
        columns = self._gene_positions(genes)
        adata = self._own_or_given(adata)
        sources = control_cells(adata, self._keys, context=context)
        questions = self._questions(perturbations, list(sources), dose, kind)
        self._check_columns()
        matrices = {place: self._read(adata, positions) for place, positions in sources.items()}
        means = {p: np.asarray(m.values.mean(0), dtype=np.float64).ravel() for p, m in matrices.items()}
        control = np.stack([means[q.context] for q in questions])
        full, base, network = self._effects(questions, control)
        effect = np.empty_like(control)
        for i, q in enumerate(questions):
            cells = matrices[q.context]
            n = len(sources[q.context])
            total = np.zeros(control.shape[1])
            with torch.inference_mode():
                for start in range(0, n, 2048):
                    x = aligned(cells.rows(slice(start, start + 2048))).to(self.device)
                    shift = self._shift(x, q, full[i], base[i], float(network[i]))
                    if len(shift) == 1:  # the same for every cell
                        total = n * shift[0].cpu().numpy().astype(np.float64)
                        break
                    total += shift.sum(0).cpu().numpy()
            effect[i] = np.maximum(control[i] + total / n, 0) - control[i]  # predicted cells are not negative
        half, distance, support, abstain = self._uncertainty(questions, control, effect, network, float(level))
        lower = np.maximum(effect - half, -(1 + 1e-5) * control)  # no mean expression is below zero, but for rounding
        m, g = len(questions), len(columns)
        names = np.asarray(self.var_names, dtype=object)[columns]
        out = pd.DataFrame({"perturbation": np.repeat([q.label for q in questions], g)})
        for key, values in (
            ("context_key", [q.context for q in questions]),
            ("dose_key", [q.dose for q in questions]),
            ("kind_key", [q.kind for q in questions]),
        ):
            if self._setup[key] is not None:
                out[self._setup[key]] = np.repeat(np.array(values, dtype=None if key == "dose_key" else object), g)
        out["gene"] = np.tile(names, m)
        for name, matrix in (("effect", effect), ("lower", lower), ("upper", effect + half)):
            out[name] = matrix[:, columns].ravel()
        out["distance"], out["support"] = np.repeat(distance, g), np.repeat(support, g)
        out["abstain"] = np.repeat(abstain, g)
        return out

    def _gene_positions(self, genes: str | Sequence[str] | None) -> np.ndarray:
        """Return the positions of the genes asked for."""
        if genes is None:
            return np.arange(len(self.var_names))
        asked = [str(g) for g in np.atleast_1d(np.asarray(genes, dtype=object))]
        found = pd.Index(self.var_names).get_indexer(asked)
        missing = [g for g, at in zip(asked, found, strict=True) if at < 0]
        if missing or not asked:
            raise ValueError(
                f"genes: {some(missing) or 'none'} asked for, not among the {len(self.var_names)} genes of the model."
                f"{closest(missing[0], self.var_names) if missing else ''} Leave genes out for all of them."
            )
        return found

    def _check_columns(self) -> None:
        """Raise when a column of the user's would be overwritten by one of the result."""
        for argument in ("context_key", "dose_key", "kind_key"):
            key = self._setup[argument]
            if key in COLUMNS:
                raise ValueError(
                    f"{argument}={key!r}: the result has a column of its own by this name. Rename yours in obs "
                    "and set the model up again."
                )

    def _uncertainty(
        self, questions: list[Question], control: FloatArray, effect: FloatArray, network: np.ndarray, level: float
    ) -> tuple[FloatArray, FloatArray, np.ndarray, np.ndarray]:
        """Return half-widths ``(m, genes)``, distances, support and abstention ``(m,)``."""
        m = len(questions)
        half, distance = np.zeros_like(effect), np.zeros(m)
        support, abstain = np.full(m, "near", dtype=object), np.zeros(m, bool)
        table = self._question_table(questions, control)
        assert self.anchor_ is not None and self.base_anchor_ is not None
        seen = self.anchor_.table_
        known = set(zip(condition_keys(seen), seen.contexts.astype(str), strict=True))
        asked = zip(condition_keys(table), table.contexts.astype(str), strict=True)
        trained = np.array([key in known for key in asked], dtype=bool)
        # by what predicted the row: the anchor, the one that the network corrects, or the one that reads gene features
        predictors: list[Baseline] = [self.anchor_, self.base_anchor_]
        which = (network > 0.5).astype(int)
        if self._unseen_anchor is not None and isinstance(self.anchor_, KernelEffect):
            predictors.append(self._unseen_anchor)
            which = np.where(self.anchor_.classes(table) == "", 2, which)
        nothing = table.order == 0
        if table.dose is not None:
            nothing = nothing | (np.asarray(table.dose, dtype=float) == 0)
        for number, anchor in enumerate(predictors):
            mine = np.flatnonzero((which == number) & ~nothing)
            if not len(mine):
                continue
            ruler = self._ruler(anchor)
            distance[mine] = ruler.distances(table.rows(mine))
            classes = ruler.classes(table)
            many = table.order >= 2
            for cls in dict.fromkeys(classes[mine]):
                for combined in (False, True):
                    rows = mine[(classes[mine] == cls) & (many[mine] == combined)]
                    if not len(rows):
                        continue
                    found, own = self._calibration(anchor, str(cls), combined)
                    half[rows] = found.half_widths(effect[rows], control[rows], distance[rows], level)
                    far = ~trained[rows] & ((distance[rows] > BEYOND * found.farthest) | (not own))
                    support[rows] = np.where(trained[rows], "trained", np.where(far, "far", "near"))
                    abstain[rows] = far | (~trained[rows] & (found.skill < LEAST_SKILL))
        return half, distance, support, abstain

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

    def _calibration(self, anchor: Baseline, cls: str, combined: bool) -> tuple[Calibration, bool]:
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
                kept["widest"] = max(known, key=lambda pair: pair[1].typical_width)
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
                kept["widest"] = ("no change", found)
        name, found = kept["widest"]
        logger.warning(
            "no training condition could be left out as a question of class %r: its intervals are borrowed from %r, "
            "and the model abstains.",
            cls,
            name,
        )
        return found, False

    def _calibrated(self, anchor: Baseline, cls: str, combined: bool) -> Calibration | None:
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
            found = calibrate(
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
        kept[key] = found
        return found
