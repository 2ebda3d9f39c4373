"""Who competes in an evaluation: predicted cells, baselines fitted to the training conditions, and the truth."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import require_member, some
from scjepa._types import FloatArray, IntArray, Matrix
from scjepa.baselines import Baseline, MeanEffect, NoChange, applicable
from scjepa.data import ConditionTable, condition_means, fit_components, largest_values, shift_cells
from scjepa.data._conditions import weighted_means
from scjepa.tl.evaluation._inputs import (
    Cells,
    Labels,
    group,
    of_signatures,
    prediction_record,
    read_sides,
    recorded_conditions,
    reference_matrix,
)
from scjepa.tl.evaluation._profiles import CEILING

logger = logging.getLogger(__name__)

SAME_EFFECT = 1e-9
"""Difference of effects, log-normalised, that is rounding: ranks and tests of cells could turn it into a score."""

PCA_CELLS = 5000
"""Cells that principal components are fitted to; more change the coordinates by less than a seed does."""

Project = Callable[[Matrix], FloatArray]
Baselines = Literal["auto"] | Sequence[Baseline] | None


@dataclass(frozen=True)
class Contenders:
    """Everything that scores are made of; arrays run over the predicted conditions and the genes of ``pred``.

    ``seen`` and ``trained`` are the cells, and rows of their conditions, that baselines learned from. A baseline's
    effects are NaN for conditions that it can't predict; baselines that predict the same share one array.
    """

    labels: Labels
    method: str
    predicted: Cells
    measured: Cells
    rows: IntArray
    seen: Cells
    trained: IntArray
    truth: ConditionTable
    effects: dict[str, FloatArray]
    reference: FloatArray | None
    predicted_names: npt.NDArray
    real_names: npt.NDArray
    max_cells: int
    seed: int
    signatures: bool = False

    @property
    def names(self) -> list[str]:
        """Perturbations as written in ``real``."""
        return [self.measured.names[action] for action, _ in self.predicted.conditions]

    @property
    def contexts(self) -> list[str]:
        """Contexts of the predicted conditions."""
        return [context for _, context in self.predicted.conditions]

    @property
    def methods(self) -> list[str]:
        """The prediction, then the baselines."""
        return [self.method, *self.effects]

    def same_as(self, method: str) -> str:
        """Return the first method with the very effects of ``method``, whose scores are therefore the same."""
        mine = self.effects.get(method)
        return next((m for m, effect in self.effects.items() if effect is mine), method)

    @cached_property
    def true_means(self) -> FloatArray:
        """``(conditions, genes)``"""
        assert self.truth.perturbed is not None  # for the type checker: these are measured conditions
        return self.truth.perturbed

    @cached_property
    def own_controls(self) -> FloatArray:
        """``(conditions, genes)`` means of the predictor's own controls, of the real ones where it gave none."""
        mean = {c: means(self.predicted.x, [cells])[0] for c, cells in self.predicted.groups.controls.items()}
        return np.stack([mean.get(c, self.truth.control[i]) for i, c in enumerate(self.contexts)])

    @cached_property
    def predicted_means(self) -> FloatArray:
        """``(conditions, genes)``"""
        return means(self.predicted.x, self.predicted.groups.cells)

    def mean_effects(self, method: str) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return means, effects and the control means these are taken against, ``(conditions, genes)`` each."""
        if method == self.method:
            return self.predicted_means, self.predicted_means - self.own_controls, self.own_controls
        effect = self.effects[method]
        return self.truth.control + effect, effect, self.truth.control

    def predicts(self, method: str) -> np.ndarray:
        """Return which conditions a method has a prediction for."""
        if method == self.method:
            return np.ones(len(self.rows), dtype=bool)
        return np.asarray(np.isfinite(self.effects[method]).all(axis=1))

    def some(self, cells: IntArray, limit: int | None = None) -> IntArray:
        """Return at most ``limit`` (``max_cells``) of ``cells``, in their order."""
        limit = self.max_cells if limit is None else min(limit, self.max_cells)
        if len(cells) <= limit:
            return cells
        return np.sort(np.random.default_rng(self.seed).choice(cells, limit, replace=False))

    def true_cells(self, i: int) -> IntArray:
        """Return the positions in ``real`` of all cells of condition ``i``."""
        return self.measured.groups.cells[self.rows[i]]

    def controls(self, context: str, *, own: bool = False) -> Matrix:
        """Return a subset of the real controls of a context, or (``own``) of the predictor's if it gave any."""
        if own and context in self.predicted.groups.controls:
            return self.predicted.x[self.some(self.predicted.groups.controls[context])]
        return self.measured.x[self.some(self.measured.groups.controls[context])]

    def start(self, context: str) -> FloatArray:
        """Return the controls that baselines move: no more than the most cells of a condition, predicted or real."""
        here = [i for i, c in enumerate(self.contexts) if c == context]
        most = max(max(len(self.predicted.groups.cells[i]), len(self.true_cells(i))) for i in here)
        return dense(self.measured.x[self.some(self.measured.groups.controls[context], most)])

    def cells(self, method: str, i: int, start: FloatArray) -> Matrix:
        """Return cells that a method predicts for condition ``i``: a baseline moves the controls ``start``."""
        if method == self.method:
            return self.predicted.x[self.some(self.predicted.groups.cells[i])]
        if self.signatures:  # of any sign: nothing is bounded
            return start + self.effects[method][i].astype(start.dtype)
        return shift_cells(start, self.effects[method][i], self.highest)

    @cached_property
    def highest(self) -> FloatArray:
        """``(genes,)`` what training cells can show: no baseline's cell exceeds it."""
        return largest_values(self.seen.x, self.seen.groups.rows(self.trained))


def contenders(
    pred: AnnData,
    real: AnnData,
    labels: Labels,
    *,
    train: AnnData | None = None,
    layer: str | None = None,
    baselines: Baselines = "auto",
    method: str = "model",
    max_cells: int = 2000,
    seed: int = 0,
) -> Contenders:
    """Read both AnnData (checked before), find the training conditions, and fit the baselines to them.

    Parameters
    ----------
    pred, real, train, layer, baselines, method, max_cells, seed
        As for :func:`scjepa.tl.evaluate`.
    labels
        Columns and labels.

    Raises
    ------
    ValueError
        As :func:`scjepa.tl.evaluate` documents.
    """
    predicted, measured, rows = read_sides(pred, real, labels, layer)
    seen, trained = _training_cells(pred, predicted, measured, train, labels, layer)

    genes = tuple(pred.var_names)
    table = condition_means(seen.x, seen.groups.rows(trained), genes)
    truth = condition_means(measured.x, measured.groups.rows(rows), genes)
    question = ConditionTable(truth.actions, truth.contexts, truth.control, genes=truth.genes)
    fitted = _fit_baselines(baselines, table, question)
    if method in (*(b.name for b in fitted), CEILING):
        raise ValueError(f"method={method!r} is the name of a baseline or ceiling: give the rows of pred another name.")
    return Contenders(
        labels=labels,
        method=method,
        predicted=predicted,
        measured=measured,
        rows=rows,
        seen=seen,
        trained=trained,
        truth=truth,
        effects=_equal_shared({b.name: np.asarray(b.effects(question), dtype=np.float64) for b in fitted}),
        reference=MeanEffect().fit(table).effects(question)[0] if len(table) else None,
        predicted_names=pred.obs_names.astype(str).to_numpy(),
        real_names=real.obs_names.astype(str).to_numpy(),
        max_cells=max_cells,
        seed=seed,
        signatures=of_signatures(pred),
    )


def principal_components(who: Contenders, n_pcs: int) -> Project | None:
    """Fit components on real controls and training cells; return the map of cells to coordinates of one scale."""
    measured, seen = who.measured, who.seen
    controls = np.sort(np.concatenate(list(measured.groups.controls.values())))
    learned = np.sort(np.concatenate([np.zeros(0, dtype=int), *(seen.groups.cells[i] for i in who.trained)]))
    rng = np.random.default_rng(who.seed)
    few = lambda cells: cells if len(cells) <= PCA_CELLS else np.sort(rng.choice(cells, PCA_CELLS, replace=False))
    if seen is measured:
        x = measured.x[few(np.union1d(controls, learned))]
    else:
        blocks = [measured.x[few(controls)], seen.x[few(learned)]]
        x = sp.vstack(blocks, format="csr") if any(map(sp.issparse, blocks)) else np.vstack(blocks)
    if x.shape[0] < 3:
        return None
    mean, loadings, std = fit_components(x, n_pcs, seed=who.seed)
    loadings, std = loadings[std > 0], std[std > 0]
    if not len(std):
        return None
    axes = loadings.T.astype(np.float64) / std.mean()
    offset = mean @ axes
    return lambda cells: np.asarray(cells @ axes) - offset


def means(x: Matrix, groups: Sequence[np.ndarray]) -> FloatArray:
    """Return the mean profile of each group of cells."""
    return weighted_means(x, [(cells, np.full(len(cells), 1 / len(cells))) for cells in groups])


def dense(x: Matrix) -> FloatArray:
    """Return ``x`` as an array; for subsets of cells only."""
    return sp.csr_matrix(x).toarray() if sp.issparse(x) else np.asarray(x)


def _training_cells(
    pred: AnnData, predicted: Cells, measured: Cells, train: AnnData | None, labels: Labels, layer: str | None
) -> tuple[Cells, np.ndarray]:
    """Find the cells that baselines may learn from, and the rows of their training conditions.

    A predicted condition in an explicit ``train`` is an error; in the record of ``pred`` (the model itself says that
    it saw it) it is a warning, since scoring a seen condition can be meant.
    """
    asked = set(predicted.conditions)
    if train is not None:
        cells = Cells(
            reference_matrix(train, pred.var_names, layer, "train", signatures=of_signatures(pred)),
            *group(train, labels, "train", need_controls=True),
        )
        leaked = sorted(cells.names[c[0]] for c in asked & set(cells.conditions))
        if leaked:
            raise ValueError(
                f"{len(leaked)} predicted conditions are among the conditions of train: {some(leaked)}. Scores on "
                "seen conditions say nothing about unseen ones: leave these cells out of train."
            )
        return cells, np.arange(len(cells.groups))
    record = prediction_record(pred).get("train")
    if record is None:
        rows = np.array([i for i, c in enumerate(measured.conditions) if c not in asked], dtype=int)
        logger.info("Training conditions of the baselines: the %d conditions of real that pred lacks.", len(rows))
        return measured, rows
    known = recorded_conditions(record, labels, measured.groups.controls)
    leaked = sorted(measured.names[c[0]] for c in asked & known)
    if leaked:
        warnings.warn(
            f"{len(leaked)} predicted conditions were seen in training: {some(leaked)}. Their scores say nothing "
            "about unseen perturbations.",
            UserWarning,
            stacklevel=4,
        )
    rows = np.array([i for i, c in enumerate(measured.conditions) if c in known], dtype=int)
    return measured, rows


def _equal_shared(effects: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Give baselines whose effects differ by rounding alone the array of the first of them."""
    shared: dict[str, FloatArray] = {}
    for name, effect in effects.items():
        same = (e for e in shared.values() if np.allclose(e, effect, rtol=0, atol=SAME_EFFECT, equal_nan=True))
        shared[name] = next(same, effect)
    return shared


def _fit_baselines(baselines: Baselines, table: ConditionTable, question: ConditionTable) -> list[Baseline]:
    """Return fitted baselines with unique names."""
    if baselines is None or (not isinstance(baselines, str) and not len(baselines)):
        return []
    if isinstance(baselines, str):
        require_member(baselines, ["auto"], "baselines", where="the named choices")
    chosen = [] if isinstance(baselines, str) else list(baselines)
    wrong = [b for b in chosen if not isinstance(b, Baseline)]
    if wrong:
        raise TypeError(
            f"baselines holds a {type(wrong[0]).__name__}: expected 'auto', None or a list of objects from "
            "scjepa.baselines, for example [scjepa.baselines.Additive()]."
        )
    names = [b.name for b in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"baselines has two of one name: {some(names, 10)}. Names are the rows of the table.")
    if not len(table):  # only "no change" has something to say without training conditions
        warnings.warn(
            "real has no training conditions (of pred's record, or besides the predicted ones), so baselines have "
            "nothing to learn from; only 'no change' is shown. Give the training cells: train=...",
            UserWarning,
            stacklevel=4,
        )
        return [NoChange().fit(replace(question, perturbed=question.control))]
    return [b.fit(table) for b in chosen] if chosen else applicable(table, question)
