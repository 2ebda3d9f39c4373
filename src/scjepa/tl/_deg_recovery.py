"""``deg_recovery``: which differentially expressed genes a prediction finds, by fold change and by test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_member, require_positive_int
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.tl._differential import log_fold_changes, rank_genes, read_sides
from scjepa.tl._evaluate import _store
from scjepa.tl._inputs import check_anndata, resolve_labels

Definition = Literal["fold_change", "test"]
DEFINITIONS: tuple[Definition, ...] = ("fold_change", "test")
METHODS = ("wilcoxon", "t-test", "t-test_overestim_var")


def deg_recovery(
    pred: AnnData,
    real: AnnData,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    definitions: Definition | Sequence[Definition] = DEFINITIONS,
    threshold: float = 1.5,
    pseudocount: float = 1e-9,
    fdr: float = 0.05,
    method: Literal["wilcoxon", "t-test", "t-test_overestim_var"] = "wilcoxon",
    top_k: Sequence[int] = (20, 50, 100),
    key_added: str = Keys.uns.deg_recovery,
) -> pd.DataFrame:
    r"""Compare the differentially expressed genes of predicted and of real conditions.

    Parameters
    ----------
    pred, real, perturbation_key, control, context_key, separator, layer
        As for :func:`scjepa.tl.evaluate`. Predicted cells are compared with the predictor's own controls of the
        context where ``pred`` has any, else with the real ones.
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
    method
        Test, see :func:`scanpy.tl.rank_genes_groups`; ``"wilcoxon"`` is corrected for ties.
    top_k
        Lengths of the lists of ``"overlap_at_k"``.
    key_added
        Key of the table in ``pred.uns["jepa"]``.

    Returns
    -------
    Tidy table, one row per condition x definition x metric: ``perturbation``, ``context``, ``definition``, ``metric``,
    ``value``. With :math:`T` and :math:`P` the true and predicted genes, the metrics are ``"recall"``
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
    whose lack of variance makes every gene significant.

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
    >>> table = deg_recovery(pred, real, perturbation_key="p", definitions=["fold_change"])
    >>> table.set_index("metric").loc[["recall", "precision"], "value"].tolist()
    [0.5, 1.0]
    """
    chosen = [definitions] if isinstance(definitions, str) else list(definitions)
    for definition in chosen:
        require_member(definition, DEFINITIONS, "definitions", where="the definitions")
    require_member(method, METHODS, "method", where="the tests of cells against controls")
    lengths = [require_positive_int(k, "top_k") for k in top_k]
    check_rates(threshold, pseudocount, fdr)
    labels = resolve_labels(check_anndata(pred, "pred"), perturbation_key, control, context_key, separator)
    sides = read_sides(pred, real, labels, layer)

    predicted_lfc, true_lfc = log_fold_changes(sides, pseudocount)
    if "test" in chosen:
        tests = [rank_genes(sides, method, predicted=p) for p in (True, False)]
    rows = []
    for i, (action, context) in enumerate(sides.pred.conditions):
        for definition in chosen:
            lfc = predicted_lfc[i], true_lfc[i]
            if definition == "fold_change":
                called, possible = [beyond(x, threshold) for x in lfc], True
            else:
                called = [t[i].adjusted < fdr for t in tests]
                possible = not any(np.isnan(t[i].adjusted).all() for t in tests)
            values = _recovery(called[0], called[1], lfc[0], lfc[1], lengths, possible)
            name = sides.real.names[action]
            rows += [(name, context, definition, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(rows, columns=["perturbation", "context", "definition", "metric", "value"])
    _store(pred, key_added, table)
    return table.copy()


def check_rates(threshold: float, pseudocount: float, fdr: float) -> None:
    """Raise unless the definition of a differentially expressed gene makes sense."""
    if not threshold > 1:
        raise ValueError(f"threshold={threshold:g}: expected a fold change above 1, for example 1.5.")
    if not pseudocount > 0:
        raise ValueError(f"pseudocount={pseudocount:g}: expected a number above 0; 1e-9 is what scanpy adds.")
    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr:g}: expected a rate between 0 and 1, for example 0.05.")


def beyond(log2fc: FloatArray, threshold: float) -> np.ndarray:
    """Return which genes change by more than ``threshold`` times, up or down."""
    return np.abs(log2fc) > np.log2(threshold)


def _recovery(
    pred: np.ndarray, true: np.ndarray, pred_lfc: FloatArray, true_lfc: FloatArray, lengths: list[int], possible: bool
) -> dict[str, float]:
    """Compare two sets of genes."""
    ratio = lambda a, b: float(a) / float(b) if possible and b else float("nan")
    n_true, n_pred, shared = true.sum(), pred.sum(), (true & pred).sum()
    out = {
        "recall": ratio(shared, n_true),
        "precision": ratio(shared, n_pred),
        "direction_match": ratio((np.sign(pred_lfc[true]) == np.sign(true_lfc[true])).sum(), n_true),
    }
    for k in lengths:
        top = [set(np.flatnonzero(c)[np.argsort(-np.abs(x[c]), kind="stable")[:k]]) for c, x in
               ((pred, pred_lfc), (true, true_lfc))]  # fmt: skip
        out[f"overlap_at_{k}"] = ratio(len(top[0] & top[1]), min(k, int(n_true)))
    out["n_true"] = float(n_true) if possible else float("nan")
    out["n_pred"] = float(n_pred) if possible else float("nan")
    return out
