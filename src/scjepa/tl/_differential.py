"""Differential expression of predicted and of measured conditions against their controls, side by side."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._types import FloatArray, IntArray, Matrix
from scjepa.data._conditions import weighted_means
from scjepa.tl._evaluate import _find_conditions
from scjepa.tl._inputs import Cells, Labels, check_anndata, group, predicted_matrix, reference_matrix

logger = logging.getLogger(__name__)


class Sides(NamedTuple):
    """Predicted and measured cells of the same conditions; ``rows[i]`` is condition ``i`` of ``pred`` in ``real``."""

    pred: Cells
    real: Cells
    rows: IntArray


class Tests(NamedTuple):
    """Results of one condition; NaN where there are fewer than two cells."""

    adjusted: FloatArray
    """``(genes,)`` p-values, Benjamini-Hochberg"""
    score: FloatArray
    """``(genes,)`` test statistic, signed"""


def read_sides(pred: AnnData, real: AnnData, labels: Labels, layer: str | None) -> Sides:
    """Check both AnnData and match their conditions."""
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    predicted = Cells(predicted_matrix(pred), *group(pred, labels, "pred", need_controls=False))
    if not predicted.conditions:
        raise ValueError(f"pred has no predicted cells: every label in obs[{labels.perturbation_key!r}] is a control.")
    measured = Cells(
        reference_matrix(real, pred.var_names, layer, "real"), *group(real, labels, "real", need_controls=True)
    )
    return Sides(predicted, measured, _find_conditions(predicted, measured, labels))


def _controls(sides: Sides, context: str, *, predicted: bool) -> tuple[Matrix, IntArray]:
    """Return where the controls of a context are: the predictor's own if it gave any, else the measured ones."""
    if predicted and context in sides.pred.groups.controls:
        return sides.pred.x, sides.pred.groups.controls[context]
    return sides.real.x, sides.real.groups.controls[context]


def _mean(x: Matrix, cells: IntArray) -> FloatArray:
    return weighted_means(x, [(cells, np.full(len(cells), 1 / len(cells)))])[0]


def log_fold_changes(sides: Sides, pseudocount: float) -> tuple[FloatArray, FloatArray]:
    r"""Return log2 fold changes of predicted and of measured conditions, ``(conditions, genes)`` each.

    :math:`\log_2 (e^{\bar x} - 1 + \epsilon) - \log_2 (e^{\bar x_{ctrl}} - 1 + \epsilon)` with means of log-normalised
    values, as in scanpy.
    """
    linear = lambda mean: np.log2(np.maximum(np.expm1(mean), 0) + pseudocount)
    out = []
    for predicted in (True, False):
        cells = sides.pred if predicted else sides.real
        members = [cells.groups.cells[i if predicted else sides.rows[i]] for i in range(len(sides.rows))]
        base = {
            c: linear(_mean(*_controls(sides, c, predicted=predicted))) for c in {c for _, c in sides.pred.conditions}
        }
        means = weighted_means(cells.x, [(m, np.full(len(m), 1 / len(m))) for m in members])
        out.append(linear(means) - np.stack([base[c] for _, c in sides.pred.conditions]))
    return out[0], out[1]


def rank_genes(sides: Sides, method: str, *, predicted: bool) -> list[Tests]:
    """Test each condition against the controls of its context with :func:`scanpy.tl.rank_genes_groups`."""
    import scanpy as sc  # slow to import, and only this function needs it

    cells = sides.pred if predicted else sides.real
    n_genes = cells.x.shape[1]
    nothing = Tests(np.full(n_genes, np.nan), np.full(n_genes, np.nan))
    out = [nothing] * len(sides.rows)
    for context in sorted({c for _, c in sides.pred.conditions}):
        base, controls = _controls(sides, context, predicted=predicted)
        where = [i for i, (_, c) in enumerate(sides.pred.conditions) if c == context]
        members = {i: cells.groups.cells[i if predicted else sides.rows[i]] for i in where}
        members = {i: m for i, m in members.items() if len(m) > 1}
        if not members or len(controls) < 2:
            continue
        blocks = [base[controls], *(cells.x[m] for m in members.values())]
        x = sp.vstack(blocks, format="csr") if any(map(sp.issparse, blocks)) else np.vstack(blocks)
        names = ["control", *map(str, members)]
        sizes = [len(controls), *map(len, members.values())]
        obs = pd.DataFrame({"condition": pd.Categorical(np.repeat(names, sizes), categories=names)})
        obs.index = obs.index.astype(str)
        adata = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index([str(j) for j in range(n_genes)])))
        # without the correction for ties (the zeros of most cells) p-values come out too large
        ties = method == "wilcoxon"
        sc.tl.rank_genes_groups(adata, "condition", reference="control", method=method, use_raw=False, tie_correct=ties)
        found = adata.uns["rank_genes_groups"]
        for i in members:
            gene = np.asarray(found["names"][str(i)]).astype(int)
            adjusted, score = np.empty(n_genes), np.empty(n_genes)
            adjusted[gene], score[gene] = found["pvals_adj"][str(i)], found["scores"][str(i)]
            out[i] = Tests(adjusted, score)
    few = sum(t is nothing for t in out)
    if few:
        side = "pred" if predicted else "real"
        logger.info("%d of %d conditions of %s have fewer than 2 cells: no test.", few, len(out), side)
    return out
