"""``to_cell_eval``: predictions and real cells as the files that cell-eval reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from scjepa._docs import docs
from scjepa._types import IntArray, Matrix
from scjepa.tl.evaluation._inputs import Labels, check_anndata, read_sides, resolve_labels

logger = logging.getLogger(__name__)


class _Block(NamedTuple):
    """Cells of one condition and where they come from (``"pred"`` or ``"real"``)."""

    source: str
    cells: IntArray
    label: str
    context: str


@docs
def to_cell_eval(
    pred: AnnData,
    real: AnnData,
    dir: str | Path,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
) -> dict[str, str]:
    """Write the two AnnData files that cell-eval compares, with its rules already met.

    cell-eval wants the same genes in the same order, exactly the same labels in both, controls in both, and
    log-normalised values from 0 to below 15. So ``real`` is cut down to the predicted conditions and the controls of
    their contexts, its genes are put in the order of ``pred`` and counts are log-normalised; labels of ``pred`` are
    written as in ``real`` (``"B+A"`` becomes ``"A+B"``); contexts for which ``pred`` brings no controls get the real
    ones; predicted values below zero become zero, and the log says how many.

    Parameters
    ----------
    %(pred)s
    %(real)s
    dir
        Folder of the files ``cell_eval_pred.h5ad`` and ``cell_eval_real.h5ad``; made if absent, and files of these
        names are replaced.
    %(labels_of_pred)s
    %(measured_layer)s

    Returns
    -------
    Arguments of ``cell_eval.MetricsEvaluator``: ``adata_pred`` and ``adata_real`` (paths), ``pert_col``,
    ``control_pert``.

    Raises
    ------
    KeyError, ValueError
        As for :func:`scjepa.tl.evaluate`.

    Notes
    -----
    Run ``cell_eval.MetricsEvaluator(**to_cell_eval(pred, real, "files")).compute()``. cell-eval pools contexts; for
    one result per context use ``cell-eval run --celltype-col`` with the context column, which both files keep. Its
    tests know the number of cells: predict as many as were measured.

    References
    ----------
    cell-eval 0.8 (Arc Institute), https://github.com/ArcInstitute/cell-eval.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, tempfile
    >>> from scjepa.tl import to_cell_eval
    >>> obs = pd.DataFrame({"p": ["control", "control", "A", "A", "B"]}, index=list("abcde"))
    >>> real = anndata.AnnData(np.log1p(np.arange(10.0).reshape(5, 2)), obs=obs)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arguments = to_cell_eval(real[2:4].copy(), real, folder, perturbation_key="p")
    ...     written = anndata.read_h5ad(arguments["adata_pred"])
    >>> written.obs["p"].tolist(), arguments["pert_col"], arguments["control_pert"]
    (['control', 'control', 'A', 'A'], 'p', 'control')
    """
    labels = resolve_labels(check_anndata(pred, "pred"), perturbation_key, control, context_key, separator)
    sides = read_sides(pred, real, labels, layer)
    contexts = sorted({context for _, context in sides.pred.conditions})
    lent = [c for c in contexts if c not in sides.pred.groups.controls]
    if lent:
        n = sum(len(sides.real.groups.controls[c]) for c in lent)
        logger.info("%d real control cells were added to pred, which has none in %d contexts.", n, len(lent))

    sources = {"pred": (sides.pred.x, pred.obs_names), "real": (sides.real.x, real.obs_names)}
    blocks: dict[str, list[_Block]] = {"pred": [], "real": []}
    for context in contexts:
        controls = sides.real.groups.controls[context]
        blocks["real"].append(_Block("real", controls, labels.control, context))
        own = sides.pred.groups.controls.get(context)
        blocks["pred"].append(_Block("real" if own is None else "pred", controls if own is None else own,
                                     labels.control, context))  # fmt: skip
    for (action, context), cells, row in zip(sides.pred.conditions, sides.pred.groups.cells, sides.rows, strict=True):
        label = sides.real.names[action]
        blocks["pred"].append(_Block("pred", cells, label, context))
        blocks["real"].append(_Block("real", sides.real.groups.cells[row], label, context))

    single = sum(len(cells) < 2 for cells in sides.pred.groups.cells)
    if single:
        logger.warning(
            "%d of %d predicted conditions are one profile: cell-eval can't test genes on them (use skip_de=True and "
            "profile='anndata').",
            single,
            len(sides.rows),
        )
    folder = Path(dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {side: folder / f"cell_eval_{side}.h5ad" for side in blocks}
    for side, parts in blocks.items():
        obs = pd.concat([_obs(part, labels, sources[part.source][1]) for part in parts]).astype("category")
        x = _non_negative(_stack([sources[part.source][0][part.cells] for part in parts]))
        obs.index = make_index_unique(obs.index)
        out = AnnData(x, obs=obs, var=pd.DataFrame(index=pred.var_names.astype(str)))
        out.write_h5ad(paths[side])
    return {
        "adata_pred": str(paths["pred"]),
        "adata_real": str(paths["real"]),
        "pert_col": labels.perturbation_key,
        "control_pert": labels.control,
    }


def _obs(block: _Block, labels: Labels, names: pd.Index) -> pd.DataFrame:
    columns = {labels.perturbation_key: block.label}
    if labels.context_key is not None:
        columns[labels.context_key] = block.context
    return pd.DataFrame(columns, index=names[block.cells].astype(str))


def _stack(blocks: list[Matrix]) -> Matrix:
    """Stack cells as float32; cell-eval's tests know no half precision."""
    if any(map(sp.issparse, blocks)):
        return sp.vstack(blocks, format="csr").astype(np.float32)
    return np.vstack(blocks).astype(np.float32)


def _non_negative(x: Matrix) -> Matrix:
    """Set values below zero to zero; ``x`` is changed."""
    values: np.ndarray = x.data if sp.issparse(x) else x  # type: ignore[assignment]
    below = values < 0
    if below.any():
        logger.warning("%d predicted values below zero were set to zero: cell-eval refuses them.", int(below.sum()))
        values[below] = 0
    return x
