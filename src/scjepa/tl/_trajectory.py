"""``evaluate_trajectory``: predicted cells at held-out times beside plain rows and half-against-half."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_column, require_member, require_positive_int, some
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.baselines.times import PLAIN, Cloud
from scjepa.dynamics import Times, read_times
from scjepa.tl.evaluation._inputs import check_anndata, predicted_matrix, reference_matrix, store_table
from scjepa.tl.evaluation._profiles import CEILING
from scjepa.tl.evaluation._snapshots import (
    METRICS,
    Points,
    copied,
    half_against_half,
    joined,
    score_points,
    training_axes,
)

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value", "time"]
COPIED = 0.02
"""Share of predicted cells that equal held-out ones from which a warning is due."""


class TimeBaseline(Protocol):
    """What predicts cells at a time: see :mod:`scjepa.baselines.times`."""

    name: str

    def fit(self, z: FloatArray, times: FloatArray) -> Any:
        """Learn from cells and their times."""

    def predict(self, time: float) -> Cloud:
        """Return the cells at a time."""


@docs
def evaluate_trajectory(
    pred: AnnData,
    real: AnnData,
    time_key: str,
    *,
    train: AnnData | None = None,
    weight_key: str | None = None,
    layer: str | None = None,
    metrics: Sequence[str] | str = METRICS,
    baselines: Literal["auto"] | Sequence[TimeBaseline] | None = "auto",
    ceiling: bool = True,
    n_pcs: int = 5,
    method: str = "model",
    max_cells: int = 1000,
    key_added: str = Keys.uns.trajectory_scores,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score predicted cells at times that were held out, beside plain rows and half-against-half.

    Parameters
    ----------
    pred
        Predicted cells x genes of any tool, log-normalised in ``X``, with their times in ``obs``. Every time of it is scored.
    real
        Measured cells: those of every predicted time, and (unless ``train`` is given) of the other times. Counts or log-normalised.
    time_key
        ``obs`` column of times, of all AnnData: numbers or text, see :func:`scjepa.dynamics.read_times`.
    train
        Cells that the predictor was trained on. By default the cells of ``real`` at times that are not predicted. Components,
        their scale and the plain rows are made from these cells only.
    weight_key
        ``obs`` column of ``pred`` with weights of cells (a weighted cloud), by default equal.
    %(measured_layer)s
    metrics
        Of ``"w1"``, ``"w2"`` (Wasserstein distances), ``"mmd"``, ``"e_distance"``; lower is better for all.
    baselines
        ``"auto"`` for previous copy, next copy, union and OT interpolation (:mod:`scjepa.baselines.times`), a list of objects with
        ``name``, ``fit(z, times)`` and ``predict(time)``, or None.
    ceiling
        Whether to add half against half of the held-out cells.
    n_pcs
        Principal components of training cells in which everything is compared; all divided by their mean standard deviation.
    %(method)s
    max_cells
        Points beyond which clouds are sampled. Distances of samples fall with their size: compare numbers of one setting only.
    %(key_added)s
    seed
        Of subsets and halves.

    Returns
    -------
    Tidy table as of :func:`scjepa.tl.evaluate`, with times as conditions: ``method``, ``kind`` (``"model"``, ``"baseline"``,
    ``"ceiling"``), ``perturbation`` (the time as ``real`` has it written), ``context`` (``"between"`` or ``"beyond"`` the training
    times), ``metric``, ``value``, ``time``. :func:`scjepa.tl.format_scores` prints it with verdicts, :func:`scjepa.pl.scores` draws it.
    Rows that are the same prediction (all plain rows are a copy of the last snapshot beyond it) are shown once. The ceiling is
    half against half as it is, without a correction for size: a cloud of many points can be nearer to the truth than half of it.
    Writes the same table to ``pred.uns["jepa"][key_added]``.

    Warns
    -----
    UserWarning
        When predicted cells are copies of held-out ones.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a predicted time was not measured or is among those of ``train``, times can't be read, or ``train`` has no cells.

    References
    ----------
    The plain rows beat published flow models on small courses: ``benchmarks/trajectory_heldout.py``.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import evaluate_trajectory
    >>> rng = np.random.default_rng(0)
    >>> day = np.repeat([0, 1, 2], 40)
    >>> x = 5 + 2 * day[:, None] * [1.0, 0.5, 0.0] + rng.uniform(size=(120, 3))
    >>> obs = pd.DataFrame({"day": day}, index=[f"cell{i}" for i in range(120)])
    >>> real = anndata.AnnData(x, obs=obs)
    >>> pred = real[day == 0].copy()
    >>> pred.X, pred.obs["day"] = pred.X + [2.0, 1.0, 0.0], 1
    >>> scores = evaluate_trajectory(pred, real, "day", metrics="w1", n_pcs=2)
    >>> w1 = scores.set_index("method")["value"]
    >>> bool(w1["model"] < 0.2 < w1["previous copy"]), scores["kind"].unique().tolist()
    (True, ['model', 'baseline', 'ceiling'])
    """
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in chosen:
        require_member(metric, METRICS, "metrics", where="the metrics of scjepa.tl.evaluate_trajectory")
    require_positive_int(n_pcs, "n_pcs")
    require_positive_int(max_cells, "max_cells", minimum=10)
    rows = [make(seed=seed) for make in PLAIN] if baselines == "auto" else list(baselines or ())
    taken = [CEILING, *(r.name for r in rows)]
    if method in taken:
        raise ValueError(f"method={method!r} is the name of another row: give the rows of pred another name.")
    times = read_times(require_column(real.obs, time_key, "time_key"), "time_key of real")
    asked = _times_of(pred, times, time_key, "pred")
    levels = np.unique(asked)
    lost = [times.label(t) for t in levels if not np.isclose(times.values, t, rtol=1e-9, atol=1e-12).any()]
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(levels)} predicted times have no cells in real, so they can't be scored: {some(lost)}. "
            f"Times of real: {some(times.labels, 12)}. Drop them from pred."
        )
    genes = pred.var_names
    guess, measured = predicted_matrix(pred), reference_matrix(real, genes, layer, "real")
    held = np.isin(times.values, levels) | np.isclose(times.values[:, None], levels[None]).any(1)
    if train is None:
        learned, when = joined(measured, np.flatnonzero(~held)), times.values[~held]
    else:
        train = check_anndata(train, "train")
        when = _times_of(train, times, time_key, "train")
        both = [times.label(t) for t in levels if np.isclose(when, t, rtol=1e-9, atol=1e-12).any()]
        if both:
            raise ValueError(
                f"predicted times are among those of train: {some(both)}. A time that was trained on is not held out: drop its "
                "cells from train, or these times from pred."
            )
        learned = reference_matrix(train, genes, layer, "train")
    if len(when) < 3:
        raise ValueError(
            f"{len(when)} training cells: every time of real is predicted. Give the cells that the predictor was trained on as train."
        )
    project = training_axes(learned, n_pcs, seed)
    z = project(learned)
    for row in rows:
        row.fit(z, when)
    weight = np.ones(pred.n_obs)
    if weight_key is not None:
        weight = require_column(pred.obs, weight_key, "weight_key").to_numpy(dtype=np.float64)
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise ValueError(f"weight_key={weight_key!r}: expected finite numbers of at least 0.")
    records: dict[tuple[str, str], list[tuple]] = {}
    leaked = {}
    for t in levels:
        true = project(joined(measured, np.flatnonzero(np.isclose(times.values, t, rtol=1e-9, atol=1e-12))))
        mine = np.flatnonzero(asked == t)
        if not weight[mine].sum() > 0:
            raise ValueError(f"weight_key={weight_key!r}: weights at time {times.label(t)} are all 0.")
        own = Points(project(joined(guess, mine)), weight[mine] / weight[mine].sum())
        leaked[times.label(t)] = copied(own.z, true, z)
        clouds: list[tuple[str, str, dict[str, float] | None]] = [
            (method, "model", score_points(own, true, chosen, max_cells))
        ]
        for row in rows:
            cloud = row.predict(float(t))
            points = Points(z[cloud.cells] + cloud.shift, cloud.mass)
            clouds.append((row.name, "baseline", score_points(points, true, chosen, max_cells)))
        if ceiling:
            clouds.append((CEILING, "ceiling", half_against_half(true, chosen, max_cells, seed)))
        place = "between" if when.min() < t < when.max() else "beyond"
        for name, kind, scores in clouds:
            records.setdefault((name, kind), []).extend(
                (name, kind, times.label(t), place, m, v, float(t)) for m, v in (scores or {}).items()
            )
    table = pd.DataFrame([row for part in records.values() for row in part], columns=COLUMNS)
    if found := {t: share for t, share in leaked.items() if share > COPIED}:
        warnings.warn(
            f"{method} seems to have seen the answer: predicted cells are copies of held-out ones at {some(list(found))} "
            f"(up to {max(found.values()):.0%} of them).",
            UserWarning,
            stacklevel=2,
        )
    store_table(pred, key_added, table)
    return table


def _times_of(adata: AnnData, times: Times, key: str, name: str) -> FloatArray:
    """Return times of another AnnData in the unit of those of ``real``."""
    column = require_column(adata.obs, key, f"{name}: time_key")
    if column.isna().any():
        raise ValueError(f"{name}: time_key={key!r}: {int(column.isna().sum())} times are missing. Drop these cells.")
    distinct = list(pd.unique(column.astype(object)))
    read = dict(zip(distinct, times.read(distinct), strict=True))
    return column.astype(object).map(read).to_numpy(dtype=np.float64)
