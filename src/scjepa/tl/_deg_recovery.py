"""``deg_recovery``: which differentially expressed genes a prediction finds, by fold change and by test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_member, require_positive_int
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.tl.evaluation._contenders import Baselines, contenders
from scjepa.tl.evaluation._differential import (
    DEFINITIONS,
    TESTS,
    Definition,
    Genes,
    GeneTest,
    beyond,
    check_rates,
    compare_genes,
)
from scjepa.tl.evaluation._inputs import check_anndata, resolve_labels, store_table

COLUMNS = ["method", "kind", "perturbation", "context", "definition", "metric", "value"]


@docs
def deg_recovery(
    pred: AnnData,
    real: AnnData,
    *,
    train: AnnData | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    definitions: Definition | Sequence[Definition] = DEFINITIONS,
    threshold: float = 1.5,
    pseudocount: float = 1e-9,
    fdr: float = 0.05,
    test: GeneTest = "wilcoxon",
    top_k: Sequence[int] = (20, 50, 100),
    baselines: Baselines = "auto",
    ceiling: bool = True,
    method: str = "model",
    max_cells: int = 2000,
    key_added: str = Keys.uns.deg_recovery,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Compare the differentially expressed genes of predicted and of real conditions, beside baselines and ceiling.

    Parameters
    ----------
    %(pred)s
    %(real)s
    %(train)s
    %(labels_of_pred)s
    %(measured_layer)s
    definitions
        ``"fold_change"``: a gene is differentially expressed when its fold change is above ``threshold`` or below
        ``1 / threshold``. ``"test"``: when the adjusted p-value of a test of cells is below ``fdr``.
    threshold
        Fold change, above 1.
    pseudocount
        Added to both means of a fold change, as in scanpy. Raise it (0.1, say) where genes that are hardly expressed
        fill the lists.
    fdr
        False discovery rate (Benjamini-Hochberg).
    test
        As in :func:`scanpy.tl.rank_genes_groups`; ``"wilcoxon"`` is corrected for ties.
    top_k
        Lengths of the lists of ``"overlap_at_k"``.
    %(baselines)s
    ceiling
        Whether to add the row "replicate ceiling": the genes of one half of the real cells as the prediction of those
        of the other half. Halves find fewer genes than all cells, so the ceiling is on the low side.
    %(method)s
    %(max_cells)s
    %(key_added)s
    seed
        Of subsets and halves.

    Returns
    -------
    Tidy table, one row per method x condition x definition x metric: ``method``, ``kind`` (``"model"``,
    ``"baseline"`` or ``"ceiling"``), ``perturbation``, ``context``, ``definition``, ``metric``, ``value``.
    With :math:`T` and :math:`P` the true and predicted genes, the metrics are ``"recall"``
    :math:`|T \cap P| / |T|`, ``"precision"`` :math:`|T \cap P| / |P|`, ``"direction_match"``, the share of
    :math:`T` whose predicted log fold change has the true sign, ``"overlap_at_k"``, the shared genes among the first
    ``k`` of both (by absolute log fold change) over :math:`\min(k, |T|)`, and the sizes ``"n_true"``, ``"n_pred"``.
    Undefined values (``T`` or ``P`` empty, fewer than two cells for a test) are NaN.
    Writes the same table to ``pred.uns["jepa"][key_added]``.

    Raises
    ------
    KeyError, ValueError
        As for :func:`scjepa.tl.evaluate`, and for a threshold, rate or list length out of range.

    Notes
    -----
    The test knows the number of cells: predict as many as were measured, and cells, not copies of a mean profile,
    whose lack of variance makes every gene significant. Baselines show the real controls moved by their effects, as
    many as cells were measured; by fold change only means count. "No change" finds no gene, so its recall is 0 and its
    precision undefined.

    References
    ----------
    Overlap and direction match: cell-eval (Arc Institute).

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import deg_recovery
    >>> obs = pd.DataFrame({"p": ["control", "control", "A", "A"]}, index=list("abcd"))
    >>> real = anndata.AnnData(np.log1p(np.array([[1.0, 1, 1]] * 2 + [[2.5, 0.5, 1]] * 2)), obs=obs)
    >>> pred = anndata.AnnData(np.log1p(np.array([[2.0, 1, 1]] * 2)), obs=obs[2:])
    >>> table = deg_recovery(pred, real, perturbation_key="p", definitions="fold_change", baselines=None)
    >>> table[table["method"] == "model"].set_index("metric").loc[["recall", "precision"], "value"].tolist()
    [0.5, 1.0]
    """
    chosen = [definitions] if isinstance(definitions, str) else list(definitions)
    for definition in chosen:
        require_member(definition, DEFINITIONS, "definitions", where="the definitions")
    require_member(test, TESTS, "test", where="the tests of cells against controls")
    lengths = [require_positive_int(k, "top_k") for k in top_k]
    check_rates(threshold, pseudocount, fdr)
    require_positive_int(max_cells, "max_cells", minimum=2)
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)
    who = contenders(
        pred,
        real,
        labels,
        train=train if train is None else check_anndata(train, "train"),
        layer=layer,
        baselines=baselines,
        method=method,
        max_cells=max_cells,
        seed=seed,
    )
    rows = []
    sides = compare_genes(who, pseudocount=pseudocount, test=test if "test" in chosen else None, ceiling=ceiling)
    for name, kind, conditions, guess, true in sides:
        for j, i in enumerate(conditions):
            for definition in chosen:
                called, wanted = (_called(side, j, definition, threshold, fdr) for side in (guess, true))
                values = _recovery(called, wanted, guess.lfc[j], true.lfc[j], lengths)
                where = (name, kind, who.names[i], who.contexts[i], definition)
                rows += [(*where, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    # the ceiling comes once for each split of the cells
    table = table.groupby(COLUMNS[:-1], sort=False, observed=True)["value"].mean().reset_index()
    store_table(pred, key_added, table)
    return table.copy()


def _called(side: Genes, j: int, definition: str, threshold: float, fdr: float) -> npt.NDArray[np.bool_] | None:
    """Return which genes of condition ``j`` are differentially expressed; None where no test was possible."""
    if definition == "fold_change":
        return beyond(side.lfc[j], threshold)
    assert side.fdr is not None  # tested, since this definition was asked for
    return None if np.isnan(side.fdr[j]).all() else side.fdr[j] < fdr


def _recovery(
    pred: npt.NDArray[np.bool_] | None,
    true: npt.NDArray[np.bool_] | None,
    pred_lfc: FloatArray,
    true_lfc: FloatArray,
    lengths: list[int],
) -> dict[str, float]:
    """Compare two sets of genes."""
    names = ["recall", "precision", "direction_match", *(f"overlap_at_{k}" for k in lengths), "n_true", "n_pred"]
    if pred is None or true is None:
        return dict.fromkeys(names, float("nan"))
    ratio = lambda a, b: float(a) / float(b) if b else float("nan")
    n_true, n_pred, shared = true.sum(), pred.sum(), (true & pred).sum()
    same = np.sign(pred_lfc[true]) == np.sign(true_lfc[true])
    rank_pred, rank_true = (
        np.flatnonzero(c)[np.argsort(-np.abs(x[c]), kind="stable")] for c, x in ((pred, pred_lfc), (true, true_lfc))
    )
    overlap = [ratio(np.isin(rank_pred[:k], rank_true[:k]).sum(), min(k, n_true)) for k in lengths]
    values = [ratio(shared, n_true), ratio(shared, n_pred), ratio(same.sum(), n_true), *overlap, n_true, n_pred]
    return {name: float(value) for name, value in zip(names, values, strict=True)}
