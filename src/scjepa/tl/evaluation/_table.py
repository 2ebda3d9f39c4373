"""The table of scores: every method and the replicate ceiling, every condition, every metric."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scjepa._types import FloatArray
from scjepa.metrics import de_spearman_count, pearson_edistance
from scjepa.tl.evaluation._ceiling import ceiling_scores
from scjepa.tl.evaluation._contenders import Contenders, Project, principal_components
from scjepa.tl.evaluation._gene_tests import Controls, GeneTests, prepare_controls, score_genes
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, CEILING, REGISTRY
from scjepa.tl.evaluation._scoring import Profiles, score_cells, score_centroids, score_means, score_ranks, truth_of

logger = logging.getLogger(__name__)

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value"]
THREADS = 2
"""Conditions that are scored at the same time."""
Values = dict[str, FloatArray]
"""By metric: one score per condition, or one for all."""


def score_table(who: Contenders, metrics: Sequence[str], *, n_pcs: int, ceiling: bool) -> pd.DataFrame:
    """Score every method, and the halves of the real cells, by every metric.

    Parameters
    ----------
    who
        Prediction, baselines, truth.
    metrics
        Names of scores.
    n_pcs
        Principal components for scores of cells.
    ceiling
        Whether to score the halves.
    """
    sources = {REGISTRY[m].source for m in metrics}
    truth = truth_of(who, metrics)
    in_pcs = "cells" in sources or "pearson_edistance" in metrics
    project = principal_components(who, n_pcs) if in_pcs else None
    scores: dict[str, Values] = {}
    for method in _scored(who):
        sides = Profiles(*who.mean_effects(method))
        scores[method] = values = {}
        for metric in metrics:
            if REGISTRY[metric].source == "means":
                values[metric] = score_means(metric, sides, truth)
            elif REGISTRY[metric].source == "ranks":
                values[metric] = score_ranks(metric, sides, truth)
            elif metric == "centroid_ami":
                values[metric] = np.array([score_centroids(sides, truth)])
    tests = "genes" in sources or "de_spearman_count" in metrics
    if project is not None or tests:
        _score_all_cells(who, metrics, project, tests, scores)

    records = []
    for method in who.methods:
        kind = "model" if method == who.method else "baseline"
        records += _records(method, kind, who, metrics, scores[who.same_as(method)], who.predicts(method))
    if ceiling:
        best, able = ceiling_scores(who, metrics, truth, project)
        records += _records(CEILING, "ceiling", who, metrics, best, able)
        if not able.all():
            few = int((~able).sum())
            logger.info("No replicate ceiling for %d of %d conditions: fewer than 4 real cells.", few, len(able))
    return pd.DataFrame(records, columns=COLUMNS)


def _scored(who: Contenders) -> list[str]:
    """Return methods of which each predicts something else: the same effects are scored once."""
    return [m for m in who.methods if who.same_as(m) == m]


def _records(
    method: str, kind: str, who: Contenders, metrics: Sequence[str], values: Values, has: npt.NDArray[np.bool_]
) -> list[tuple]:
    """Return rows of the table: conditions that the method has, then scores of all conditions."""
    each = [m for m in metrics if REGISTRY[m].source != "table"]
    rows: list[tuple] = []
    for i in np.flatnonzero(has):
        place = (method, kind, who.names[i], who.contexts[i])
        rows += [(*place, m, float(values[m][i]) if m in values else float("nan")) for m in each]
    if has.any():
        place = (method, kind, ALL_CONDITIONS, ALL_CONDITIONS)
        rows += [(*place, m, float(values[m][0]) if m in values else float("nan")) for m in metrics if m not in each]
    return rows


def _score_all_cells(
    who: Contenders, metrics: Sequence[str], project: Project | None, tests: bool, scores: dict[str, Values]
) -> None:
    """Add scores of cells and of genes, condition by condition, so that moved controls are made once and forgotten."""
    from_cells = [m for m in metrics if REGISTRY[m].source == "cells"]
    from_genes = [m for m in metrics if REGISTRY[m].source == "genes"]
    for values in scores.values():
        values |= {m: np.full(len(who.rows), np.nan) for m in from_cells}
    shape = who.true_means.shape
    methods = _scored(who)
    sides = ("", *methods)  # the truth and all predictions
    tested = {side: GeneTests.empty(*shape) for side in sides} if tests else {}
    apart: dict[str, list[Any]] = {side: [None] * shape[0] for side in sides}
    for context in dict.fromkeys(who.contexts):
        start = who.start(context)
        against: dict[bool, Controls] = {}
        if tests:
            against[False] = against[True] = prepare_controls(who.controls(context))
            if context in who.predicted.groups.controls:
                against[True] = prepare_controls(who.controls(context, own=True))

        def score(i: int, start: FloatArray = start, against: dict[bool, Controls] = against) -> None:
            real = who.measured.x[who.some(who.true_cells(i))]
            apart[""][i] = z = None if project is None else project(real)
            if tests:
                tested[""].fill(i, real, against[False])
            # a test knows the number of cells: baselines show as many as were measured
            shown = np.random.default_rng([who.seed, i]).permutation(len(start))[: real.shape[0]]
            for method in methods:
                if not who.predicts(method)[i]:
                    continue
                cells = who.cells(method, i, start)
                apart[method][i] = guess = None if project is None else project(cells)
                for metric in from_cells:
                    scores[method][metric][i] = score_cells(metric, guess, z, who.seed)
                if tests and method == who.method:
                    tested[method].fill(i, cells, against[True])
                elif tests:
                    tested[method].fill(i, cells[shown], against[False])

        # numpy lets go of the interpreter while it sorts and multiplies; each condition writes its own rows
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(score, [i for i, c in enumerate(who.contexts) if c == context]))
    for method in methods:
        if tests:
            scores[method] |= score_genes(from_genes, tested[method], tested[""])
        complete = bool(who.predicts(method).all())
        if "de_spearman_count" in metrics:
            value = de_spearman_count(tested[method].fdr, tested[""].fdr) if complete else np.nan
            scores[method]["de_spearman_count"] = np.array([value])
        if "pearson_edistance" in metrics and project is not None and complete and len(set(who.contexts)) == 1:
            own = project(who.controls(who.contexts[0], own=method == who.method))
            real = project(who.controls(who.contexts[0]))
            scores[method]["pearson_edistance"] = np.array([pearson_edistance(apart[method], apart[""], own, real)])
