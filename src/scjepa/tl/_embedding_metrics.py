"""``embedding_metrics``: predicted against true embeddings, beside no change and shuffled conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import rankdata

from scjepa._checks import closest, some
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.data._conditions import weighted_means
from scjepa.tl.evaluation._inputs import Cells, check_anndata, find_conditions, group, resolve_labels, store_table

EMBEDDING_METRICS = ("cosine", "l2", "spearman", "cosine_shift", "spearman_shift")
NO_CHANGE, SHUFFLED = "no change", "shuffled conditions"


@docs
def embedding_metrics(
    pred: AnnData,
    real: AnnData,
    *,
    obsm: str = Keys.obsm.latent,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    method: str = "model",
    key_added: str = Keys.uns.embedding_metrics,
) -> pd.DataFrame:
    r"""Compare mean predicted and mean true embeddings, condition by condition.

    Parameters
    ----------
    pred, real
        Predicted and measured cells, as for :func:`scjepa.tl.evaluate`; only embeddings and labels are read.
    obsm
        Embedding in ``pred.obsm`` (scjepa predictions have it) and ``real.obsm``, of the same encoder:
        ``real.obsm["X_jepa"] = model.get_latent_representation(real)``.
    %(labels_of_pred)s
    %(method)s
    %(key_added)s

    Returns
    -------
    Tidy table as of :func:`scjepa.tl.evaluate` (:func:`scjepa.tl.summarize_scores` reads it): ``method``, ``kind``,
    ``perturbation``, ``context``, ``metric``, ``value``. With :math:`\hat z, z` the means of predicted and true cells
    and :math:`z_0` that of the real controls of the context, the metrics are ``"cosine"`` and ``"spearman"`` (over
    dimensions) of :math:`\hat z` and :math:`z`, ``"l2"`` :math:`\|\hat z - z\|`, and ``"cosine_shift"`` and
    ``"spearman_shift"`` of :math:`\hat z - z_0` and :math:`z - z_0`; undefined values are NaN. Rows beside ``pred``:
    ``"no change"`` predicts :math:`z_0`; ``"shuffled conditions"`` is the mean score of the predictions for the *other*
    conditions of the context: a prediction that does not beat it knows the context, not the perturbation.
    Writes the same table to ``pred.uns["jepa"][key_added]``.

    Raises
    ------
    KeyError
        If a column or an embedding is missing.
    ValueError
        If the embeddings differ in size, are not finite, or a predicted condition is not in ``real``.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import embedding_metrics
    >>> obs = pd.DataFrame({"p": ["control", "A", "B"]}, index=list("abc"))
    >>> real = anndata.AnnData(np.ones((3, 1)), obs=obs, obsm={"X_jepa": np.array([[0.0, 1], [3, 1], [0, 5]])})
    >>> table = embedding_metrics(real[1:].copy(), real, perturbation_key="p")
    >>> table[(table.perturbation == "A") & (table.metric == "l2")][["method", "value"]].values.tolist()
    [['model', 0.0], ['no change', 3.0], ['shuffled conditions', 5.0]]
    """
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)
    z = {name: _embedding(adata, obsm, name) for name, adata in (("pred", pred), ("real", real))}
    if z["pred"].shape[1] != z["real"].shape[1]:
        raise ValueError(
            f"pred.obsm[{obsm!r}] has {z['pred'].shape[1]} dimensions, real.obsm[{obsm!r}] has {z['real'].shape[1]}: "
            "expected embeddings of one encoder."
        )
    if method in (NO_CHANGE, SHUFFLED):
        raise ValueError(f"method={method!r} is the name of a baseline: give the rows of pred another name.")
    predicted = Cells(z["pred"], *group(pred, labels, "pred", need_controls=False))
    if not predicted.conditions:
        raise ValueError(f"pred has no predicted cells: every label in obs[{labels.perturbation_key!r}] is a control.")
    measured = Cells(z["real"], *group(real, labels, "real", need_controls=True))
    found = find_conditions(predicted, measured, labels)

    guess, truth = (
        _means(z["pred"], predicted.groups.cells),
        _means(z["real"], [measured.groups.cells[i] for i in found]),
    )
    contexts = np.array([c for _, c in predicted.conditions])
    names = [measured.names[a] for a, _ in predicted.conditions]
    rows: list[tuple] = []
    for context in dict.fromkeys(contexts.tolist()):
        where = np.flatnonzero(contexts == context)
        start = _means(z["real"], [measured.groups.controls[context]])[0]
        scores = _scores(guess[where], truth[where], start)  # (metrics, predictions, truths)
        n = len(where)
        others = np.full((len(scores), n), np.nan)
        if n > 1:  # mean over predictions of other conditions, of those that are defined
            apart = np.where(np.eye(n, dtype=bool), np.nan, scores)
            defined = np.isfinite(apart).sum(1)
            others = np.where(defined > 0, np.nansum(apart, axis=1) / np.maximum(defined, 1), np.nan)
        still = _scores(start[None], truth[where], start)[:, 0]
        for name, kind, values in (
            (method, "model", np.einsum("kii->ki", scores)),
            (NO_CHANGE, "baseline", still),
            (SHUFFLED, "baseline", others),
        ):
            rows += [
                (name, kind, names[where[j]], context, metric, float(values[k, j]))
                for j in range(n)
                for k, metric in enumerate(EMBEDDING_METRICS)
            ]
    table = pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"])
    order = {name: i for i, name in enumerate((method, NO_CHANGE, SHUFFLED))}
    table = table.sort_values("method", key=lambda c: c.map(order), kind="stable").reset_index(drop=True)
    store_table(pred, key_added, table.rename(index=str))
    return table


def _embedding(adata: AnnData, key: str, name: str) -> FloatArray:
    if key not in adata.obsm:
        raise KeyError(
            f"obsm={key!r} is not in {name}.obsm.{closest(key, adata.obsm.keys())} Found: "
            f"{some(list(adata.obsm.keys()), 10) or 'none'}. Embed the cells with the model of the prediction: "
            f"{name}.obsm[{key!r}] = model.get_latent_representation({name})."
        )
    z = np.asarray(adata.obsm[key], dtype=np.float64)
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"{name}.obsm[{key!r}] has shape {z.shape}: expected finite numbers, cells x dimensions.")
    return z


def _means(z: FloatArray, groups: list[np.ndarray] | tuple[np.ndarray, ...]) -> FloatArray:
    return weighted_means(z, [(cells, np.full(len(cells), 1 / len(cells))) for cells in groups])


def _cosine(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return all cosines of rows of ``a`` and ``b``; NaN for rows of zeros."""
    size = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(a @ b.T, size, out=np.full(size.shape, np.nan), where=size > 0)


def _spearman(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return all rank correlations of rows; NaN for constant rows."""
    ranks = [rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (a, b)]
    return _cosine(*ranks)


def _scores(guess: FloatArray, truth: FloatArray, start: FloatArray) -> FloatArray:
    """Return every metric of every prediction with every truth, ``(metrics, predictions, truths)``."""
    distance = np.linalg.norm(guess[:, None] - truth[None], axis=2)
    shifts = guess - start, truth - start
    return np.stack([_cosine(guess, truth), distance, _spearman(guess, truth), _cosine(*shifts), _spearman(*shifts)])
