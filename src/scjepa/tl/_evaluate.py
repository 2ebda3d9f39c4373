"""``evaluate``: scores of predicted cells, with the baselines' rows beside them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, ImplicitModificationWarning

from scjepa._checks import closest, require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray, Matrix
from scjepa.baselines import Baseline, MeanEffect, NoChange, applicable
from scjepa.data import ConditionTable, condition_means, fit_components, shift_cells
from scjepa.data._conditions import weighted_means
from scjepa.metrics import energy_distance, l2, pearson_delta, shift_magnitude_ratio, variance_ratio
from scjepa.tl._ceiling import CEILING, ceiling_scores, halves_of
from scjepa.tl._inputs import (
    Cells,
    Labels,
    check_anndata,
    group,
    predicted_matrix,
    prediction_record,
    recorded_conditions,
    reference_matrix,
    resolve_labels,
)

logger = logging.getLogger(__name__)

METRICS = ("l2", "pearson_delta", "pearson_delta_systema", "e_distance", "variance_ratio", "shift_ratio")
"""Every metric that :func:`evaluate` knows, in the order of tables."""

CELL_METRICS = frozenset({"e_distance", "variance_ratio"})
"""Metrics of cells in principal components; the others compare means over all cells."""

Project = Callable[[Matrix], FloatArray]


class _Side(NamedTuple):
    """One condition as predicted or as measured: mean, effect and (when needed) cells in principal components."""

    mean: FloatArray
    effect: FloatArray
    cells: FloatArray | None = None


def evaluate(
    pred: AnnData,
    real: AnnData,
    *,
    train: AnnData | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    metrics: Sequence[str] = METRICS,
    baselines: Literal["auto"] | Sequence[Baseline] | None = "auto",
    ceiling: bool = True,
    n_pcs: int = 50,
    method: str = "model",
    max_cells: int = 2000,
    key_added: str = Keys.uns.scores,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score predicted cells against real cells, condition by condition, beside baselines and the replicate ceiling.

    A condition is a perturbation in a context; ``"B+A"`` is ``"A+B"``. Every condition of ``pred`` is scored.

    Parameters
    ----------
    pred
        Predicted cells (or one profile per condition) x genes of *any* tool, log-normalised in ``X``, labels in
        ``obs``. Control cells are optional: with them a predicted effect is taken against the predictor's own
        controls of the context, without them against the real ones.
    real
        Measured cells: controls of every context and every predicted condition; usually also the training
        conditions. Counts (normalised to 10,000 per cell and log1p'd here) or log-normalised. All genes of ``pred``
        must be there, in any order.
    train
        Cells that the predictor was trained on (controls included), for the baselines. By default the training
        conditions that scjepa predictions carry in ``uns``; without such a record every condition of ``real`` that
        is not predicted.
    perturbation_key, control, context_key, separator
        ``obs`` column of perturbation labels, label of controls, ``obs`` column of contexts (cell type, cell line)
        and what joins combinations. By default what ``pred.uns`` says, else no context, ``"control"`` and ``"+"``;
        ``context_key=""`` means no context.
    layer
        Layer of ``real`` and ``train`` with the expression values (``X`` by default).
    metrics
        Any of ``"l2"`` (:func:`scjepa.metrics.l2` of mean profiles), ``"pearson_delta"``
        (:func:`~scjepa.metrics.pearson_delta` of effects), ``"pearson_delta_systema"`` (the same against the mean of
        the training effects), ``"e_distance"`` (:func:`~scjepa.metrics.energy_distance`), ``"variance_ratio"``
        (:func:`~scjepa.metrics.variance_ratio`) and ``"shift_ratio"``
        (:func:`~scjepa.metrics.shift_magnitude_ratio`).
    baselines
        ``"auto"`` for every baseline that has a prediction for one of the conditions, a list of
        :class:`~scjepa.baselines.Baseline` objects (fitted here), or None.
    ceiling
        Whether to add the row "replicate ceiling": how well the data allow a prediction to score, see Notes.
    n_pcs
        Principal components in which ``"e_distance"`` and ``"variance_ratio"`` are computed. They are fitted on real
        controls and training cells only, and all share one scale: coordinates are divided by the mean standard
        deviation of the components over these cells.
    method
        Name of the rows of ``pred``.
    max_cells
        Cells per condition beyond which ``"e_distance"`` and ``"variance_ratio"`` use a random subset. Means always
        use all cells.
    key_added
        Key of the table in ``pred.uns["jepa"]``.
    seed
        Seed of the subsets.

    Returns
    -------
    Tidy table, one row per method x condition x metric: ``method``, ``kind`` (``"model"``, ``"baseline"`` or
    ``"ceiling"``), ``perturbation`` (label as written in ``real``), ``context`` (``"all"`` without ``context_key``),
    ``metric``, ``value`` (NaN where undefined). A baseline has no rows for conditions that it can't predict, the
    ceiling none for conditions with fewer than 4 real cells.
    Writes the same table to ``pred.uns["jepa"][key_added]``; a ``pred`` that is a view becomes data of its own.

    Raises
    ------
    KeyError
        If a label column is missing.
    ValueError
        If ``pred`` holds counts, genes or conditions of ``pred`` are not in ``real``, a context has no controls, or a
        predicted condition is among those of ``train``.

    Notes
    -----
    Predicted cells of a baseline are the real controls of the context moved by its effect
    (:func:`scjepa.data.shift_cells`); its mean scores come straight from the effect.

    Replicate ceiling: the real cells of a condition are split into halves of :math:`n_1 + n_2 = n` cells, and one half
    is scored as the prediction of the other (10 splits averaged; effects against the same controls), corrected for the
    size of the halves. L2 becomes that of a perfect prediction, :math:`\|h_1 - h_2\| \sqrt{n_1 n_2}/n`: half of the
    distance of equal halves, since :math:`E\|h_1 - h_2\|^2 = 4\,E\|\bar x - \mu\|^2`. Correlations become those of a
    second experiment of full size, :math:`2r/(1+r)` (Spearman-Brown, as in cell-eval); a prediction with less noise
    than an experiment can exceed them. E-distance becomes that of a perfect prediction of ``n`` cells,
    :math:`2 n_1 n_2/n^2` of that of the halves. The ratios are those of the halves.

    References
    ----------
    Why baselines belong in every table: Ahlmann-Eltze, Huber, Anders, Nat Methods 2025,
    doi:10.1038/s41592-025-02772-6. Why the training mean is a reference: Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import evaluate
    >>> rng = np.random.default_rng(0)
    >>> label = np.repeat(["control", "A", "B", "A+B"], 50)
    >>> shift = {"control": [0, 0, 0], "A": [2, 0, 0], "B": [0, 1, 0], "A+B": [2, 1, 0]}
    >>> x = 3 + np.array([shift[p] for p in label]) + rng.uniform(size=(200, 3))
    >>> real = anndata.AnnData(x, obs=pd.DataFrame({"p": label}, index=[f"cell{i}" for i in range(200)]))
    >>> pred = real[label == "A+B"].copy()  # a perfect prediction
    >>> scores = evaluate(pred, real, perturbation_key="p", metrics=["l2"])
    >>> float(scores.set_index("method").loc["model", "value"])
    0.0
    """
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    train = None if train is None else check_anndata(train, "train")
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in metrics:
        require_member(metric, METRICS, "metrics", where="the metrics of scjepa.tl.evaluate")
    require_positive_int(n_pcs, "n_pcs")
    require_positive_int(max_cells, "max_cells", minimum=2)
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)

    predicted = Cells(predicted_matrix(pred), *group(pred, labels, "pred", need_controls=False))
    if not predicted.conditions:
        raise ValueError(f"pred has no predicted cells: every label in obs[{labels.perturbation_key!r}] is a control.")
    measured = Cells(
        reference_matrix(real, pred.var_names, layer, "real"), *group(real, labels, "real", need_controls=True)
    )
    rows = _find_conditions(predicted, measured, labels)
    seen, trained = _training_cells(pred, predicted, measured, train, labels, layer)

    table = condition_means(seen.x, seen.groups.rows(trained), tuple(pred.var_names))
    truth = condition_means(measured.x, measured.groups.rows(rows), tuple(pred.var_names))
    assert truth.perturbed is not None  # for the type checker: these are measured conditions
    true_effects = truth.effects
    question = ConditionTable(truth.actions, truth.contexts, truth.control, genes=truth.genes)
    fitted = _fit_baselines(baselines, table, question)
    taken = [b.name for b in fitted]
    if method in (*taken, CEILING):
        raise ValueError(f"method={method!r} is the name of a baseline or ceiling: give the rows of pred another name.")
    effects = {b.name: np.asarray(b.effects(question), dtype=np.float64) for b in fitted}
    reference = MeanEffect().fit(table).effects(question)[0] if len(table) else None

    project = _principal_components(measured, seen, trained, n_pcs, seed) if CELL_METRICS & set(metrics) else None
    some_of = partial(_subset, max_cells=max_cells, seed=seed)
    means = _means(predicted.x, predicted.groups.cells)
    own = {c: _means(predicted.x, [cells])[0] for c, cells in predicted.groups.controls.items()}
    names = real.obs_names.astype(str).to_numpy()
    records: dict[str, list[tuple]] = {name: [] for name in (method, *effects, CEILING)}
    for i, (action, context) in enumerate(predicted.conditions):
        true = _Side(truth.perturbed[i], true_effects[i])
        sides = {method: _Side(means[i], means[i] - own.get(context, truth.control[i]))}
        for name, effect in effects.items():
            if np.isfinite(effect[i]).all():
                sides[name] = _Side(truth.control[i] + effect[i], effect[i])
        if project is not None:
            true = true._replace(cells=project(measured.x[some_of(measured.groups.cells[rows[i]])]))
            start = _dense(measured.x[some_of(measured.groups.controls[context])])
            for name, side in sides.items():
                moved = (
                    predicted.x[some_of(predicted.groups.cells[i])]
                    if name == method
                    else shift_cells(start, side.effect)
                )
                sides[name] = side._replace(cells=project(moved))
        for name, side in sides.items():
            row = (name, "model" if name == method else "baseline", measured.names[action], context)
            records[name] += [(*row, metric, _score(metric, side, true, reference)) for metric in metrics]
        halves = halves_of(measured.x, measured.groups.cells[rows[i]], names, seed) if ceiling else None
        if halves is not None:
            subset = names[some_of(measured.groups.cells[rows[i]])]
            best = ceiling_scores(metrics, halves, truth.control[i], reference, true.cells, subset, seed)
            row = (CEILING, "ceiling", measured.names[action], context)
            records[CEILING] += [(*row, metric, best[metric]) for metric in metrics]
    if ceiling and len(records[CEILING]) < len(records[method]):
        few = len(rows) - len(records[CEILING]) // max(len(metrics), 1)
        logger.info("No replicate ceiling for %d of %d conditions: fewer than 4 real cells.", few, len(rows))

    columns = ["method", "kind", "perturbation", "context", "metric", "value"]
    scores = pd.DataFrame([r for part in records.values() for r in part], columns=columns)
    _store(pred, key_added, scores)
    return scores.copy()


def _store(pred: AnnData, key: str, scores: pd.DataFrame) -> None:
    """Write ``scores`` to ``pred``; the AnnData that a view looks at stays as it is."""
    if pred.is_view:
        logger.info("pred is a view: it is copied in place, so that scores can be written to it.")
    with warnings.catch_warnings():  # anndata copies views that are written to, and warns: here it is meant
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        pred.uns[Keys.uns.root] = {**pred.uns.get(Keys.uns.root, {}), key: scores}


def _score(metric: str, pred: _Side, true: _Side, reference: FloatArray | None) -> float:
    """Compute one metric of one condition; NaN where it is undefined."""
    if metric in CELL_METRICS:
        if pred.cells is None or true.cells is None or min(len(pred.cells), len(true.cells)) < 2:
            return float("nan")  # one profile per condition says nothing about a distribution
        return (energy_distance if metric == "e_distance" else variance_ratio)(pred.cells, true.cells)
    if metric == "l2":
        return l2(pred.mean, true.mean)
    if metric == "shift_ratio":
        return shift_magnitude_ratio(pred.effect, true.effect)
    if metric == "pearson_delta":
        return pearson_delta(pred.effect, true.effect)
    return float("nan") if reference is None else pearson_delta(pred.effect, true.effect, reference=reference)


def _find_conditions(predicted: Cells, measured: Cells, labels: Labels) -> np.ndarray:
    """Return the row of every predicted condition among the measured ones; raise when one has no real cells."""
    row = {condition: i for i, condition in enumerate(measured.conditions)}
    lost = [c for c in predicted.conditions if c not in row]
    if lost:
        written = lambda c, cells: cells.names[c[0]] + (f" in {c[1]}" if labels.context_key else "")
        names = [written(c, predicted) for c in lost]
        options = [written(c, measured) for c in measured.conditions]
        hints = "".join(dict.fromkeys(closest(name, options) for name in names[:3]))
        raise ValueError(
            f"{len(lost)} of {len(predicted.conditions)} predicted conditions have no cells in real, so they can't be "
            f"scored: {some(names)}.{hints} Drop them from pred or check perturbation_key, context_key and separator."
        )
    return np.array([row[c] for c in predicted.conditions])


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
            reference_matrix(train, pred.var_names, layer, "train"), *group(train, labels, "train", need_controls=True)
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
            stacklevel=3,
        )
    rows = np.array([i for i, c in enumerate(measured.conditions) if c in known], dtype=int)
    return measured, rows


def _fit_baselines(
    baselines: Literal["auto"] | Sequence[Baseline] | None, table: ConditionTable, question: ConditionTable
) -> list[Baseline]:
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
            stacklevel=3,
        )
        return [NoChange().fit(replace(question, perturbed=question.control))]
    return [b.fit(table) for b in chosen] if chosen else applicable(table, question)


def _principal_components(measured: Cells, seen: Cells, trained: np.ndarray, n_pcs: int, seed: int) -> Project | None:
    """Fit components on real controls and training cells; return the map of cells to coordinates of one scale."""
    controls = np.sort(np.concatenate(list(measured.groups.controls.values())))
    learned = np.sort(np.concatenate([np.zeros(0, dtype=int), *(seen.groups.cells[i] for i in trained)]))
    if seen is measured:
        x = measured.x[np.union1d(controls, learned)]
    else:
        blocks = [measured.x[controls], seen.x[learned]]
        x = sp.vstack(blocks, format="csr") if any(map(sp.issparse, blocks)) else np.vstack(blocks)
    if x.shape[0] < 3:
        return None
    mean, loadings, std = fit_components(x, n_pcs, seed=seed)
    loadings, std = loadings[std > 0], std[std > 0]
    if not len(std):
        return None
    axes = loadings.T.astype(np.float64) / std.mean()
    offset = mean @ axes
    return lambda cells: np.asarray(cells @ axes) - offset


def _subset(cells: np.ndarray, *, max_cells: int, seed: int) -> np.ndarray:
    """Return at most ``max_cells`` of ``cells``, in their order."""
    if len(cells) <= max_cells:
        return cells
    return np.sort(np.random.default_rng(seed).choice(cells, max_cells, replace=False))


def _means(x: Matrix, groups: Sequence[np.ndarray]) -> FloatArray:
    """Return the mean profile of each group of cells."""
    return weighted_means(x, [(cells, np.full(len(cells), 1 / len(cells))) for cells in groups])


def _dense(x: Matrix) -> FloatArray:
    return sp.csr_matrix(x).toarray() if sp.issparse(x) else np.asarray(x)
