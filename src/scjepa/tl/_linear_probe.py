"""``linear_probe``: what simple predictors read from an embedding, beside PCA of the same size and expression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import f1_score, r2_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scjepa._checks import closest, require_column, require_labels, require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray, Matrix
from scjepa.data import fit_components
from scjepa.tl.evaluation._inputs import check_anndata, reference_matrix, store_table

Compared = Literal["PCA", "expression"]
EXPRESSION, PCA = "expression", "PCA"
COMPARED: tuple[Compared, ...] = ("PCA", "expression")
LABEL_PROBES, NUMBER_PROBES = ("logistic", "knn"), ("ridge", "knn")
NEIGHBORS = 15
ALPHAS = np.logspace(-1, 5, 7)


def linear_probe(
    adata: AnnData,
    target_key: str,
    *,
    obsm: str | Sequence[str] = Keys.obsm.latent,
    probes: Sequence[Literal["logistic", "ridge", "knn"]] | None = None,
    group_key: str | None = None,
    layer: str | None = None,
    compare: Compared | Sequence[Compared] = COMPARED,
    n_splits: int = 5,
    n_repeats: int = 1,
    key_added: str = Keys.uns.linear_probe,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict an annotation of cells from their embedding by cross-validation, beside PCA and expression.

    Parameters
    ----------
    adata
        Cells with the embeddings in ``obsm``; expression (counts or log-normalised) in ``X``.
    target_key
        ``obs`` column to predict: labels (strings, categories, booleans) are classified, numbers are regressed.
    obsm
        One or several embeddings.
    probes
        ``"logistic"`` (labels), ``"ridge"`` (numbers; the penalty is chosen within the training folds) and ``"knn"``
        (15 neighbors, Euclidean). By default the linear one and ``"knn"``.
    group_key
        ``obs`` column (donor, batch) whose categories are never in training and test folds at once.
    layer
        Layer with the expression values (``X`` by default).
    compare
        Rows beside the embeddings: ``"PCA"``, as many principal components as each embedding has columns, and
        ``"expression"``, all genes. Both see training folds only.
    n_splits, n_repeats
        Folds, and how often all cells are divided anew. Folds of labels are stratified.
    key_added
        Key of the table in ``adata.uns["jepa"]``.
    seed
        Of the folds.

    Returns
    -------
    Tidy table, one row per representation x probe x repeat x fold x metric: ``representation`` (name in ``obsm``,
    ``"PCA (d)"``, ``"expression"``), ``n_features``, ``probe``, ``repeat``, ``fold``, ``metric``
    (``"balanced_accuracy"`` and ``"macro_f1"``, or ``"r2"``), ``value``.
    Writes the same table to ``adata.uns["jepa"][key_added]``.

    Raises
    ------
    KeyError, ValueError
        For unknown columns, embeddings or probes, missing values, one class only, or classes or groups fewer or smaller
        than ``n_splits``.

    Notes
    -----
    Linear probes read standardised columns, nearest neighbors the embedding as it is; expression is left on the
    log-normalised scale. The embedding itself usually saw all cells (without their labels): embed held-out donors with
    a model that never saw them for a stricter answer.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import linear_probe
    >>> rng = np.random.default_rng(0)
    >>> kind = np.repeat(["a", "b"], 20)
    >>> obs = pd.DataFrame({"cell_type": kind}, index=[f"cell{i}" for i in range(40)])
    >>> adata = anndata.AnnData(rng.uniform(1, 2, (40, 5)), obs=obs)
    >>> adata.obsm["X_jepa"] = np.c_[kind == "b", rng.uniform(size=40)].astype(float)
    >>> table = linear_probe(adata, "cell_type", probes=["logistic"])
    >>> float(table[(table.representation == "X_jepa") & (table.metric == "balanced_accuracy")]["value"].mean())
    1.0
    """
    check_anndata(adata, "adata")
    splits, repeats = (
        require_positive_int(n_splits, "n_splits", minimum=2),
        require_positive_int(n_repeats, "n_repeats"),
    )
    target, classify = _target(adata, target_key)
    options = LABEL_PROBES if classify else NUMBER_PROBES
    chosen = list(options if probes is None else [probes] if isinstance(probes, str) else probes)
    for probe in chosen:
        what = "labels" if classify else "numbers"
        require_member(probe, options, "probes", where=f"the probes for {what} (obs[{target_key!r}] holds {what})")
    beside = [compare] if isinstance(compare, str) else list(compare)
    for row in beside:
        require_member(row, COMPARED, "compare", where="the rows beside the embeddings")
    embeddings = {name: _embedding(adata, name) for name in ([obsm] if isinstance(obsm, str) else obsm)}
    sizes = sorted({z.shape[1] for z in embeddings.values()}) if PCA in beside else []
    x = reference_matrix(adata, adata.var_names, layer, "adata") if beside else None
    groups = None if group_key is None else require_labels(adata.obs, group_key, "group_key").to_numpy()
    _check_folds(target, target_key, groups, group_key, splits, classify)

    rows = []
    for repeat in range(repeats):
        for fold, (train, test) in enumerate(_folds(target, groups, splits, seed + repeat, classify)):
            inputs: dict[str, tuple[Matrix, Matrix]] = {n: (z[train], z[test]) for n, z in embeddings.items()}
            if sizes and x is not None:
                inputs |= _components(x, train, test, sizes, seed)
            if EXPRESSION in beside and x is not None:
                inputs[EXPRESSION] = (x[train], x[test])
            for name, (a, b) in inputs.items():
                for probe in chosen:
                    model = _probe(probe, classify, scale=name != EXPRESSION, n=len(train))
                    guess = model.fit(a, target[train]).predict(b)
                    rows += [
                        (name, a.shape[1], probe, repeat, fold, metric, value)
                        for metric, value in _scores(target[test], guess, classify).items()
                    ]
    columns = ["representation", "n_features", "probe", "repeat", "fold", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values(columns[:1], key=lambda c: c.map({n: i for i, n in enumerate(inputs)}), kind="stable")
    table = table.reset_index(drop=True)
    store_table(adata, key_added, table.rename(index=str))
    return table


def _target(adata: AnnData, key: str) -> tuple[np.ndarray, bool]:
    """Return the values to predict, and whether they are labels."""
    column = require_column(adata.obs, key, "target_key")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=float)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(
                f"target_key={key!r}: {bad} of {len(values)} values are missing or infinite. Drop these cells first."
            )
        return values, False
    return require_labels(adata.obs, key, "target_key").to_numpy(), True


def _embedding(adata: AnnData, name: str) -> FloatArray:
    if name not in adata.obsm:
        raise KeyError(
            f"obsm={name!r} is not in adata.obsm.{closest(name, adata.obsm.keys())} Found: "
            f"{some(list(adata.obsm.keys()), 10) or 'none'}. Write it there first: "
            f"adata.obsm[{name!r}] = model.get_latent_representation(adata)."
        )
    z = np.asarray(adata.obsm[name], dtype=np.float64)
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"adata.obsm[{name!r}] has shape {z.shape}: expected finite numbers, cells x dimensions.")
    return z


def _check_folds(
    target: np.ndarray, key: str, groups: np.ndarray | None, group_key: str | None, n_splits: int, classify: bool
) -> None:
    """Raise when there are not enough cells, classes or groups for the folds."""
    if groups is not None and len(np.unique(groups)) < n_splits:
        raise ValueError(
            f"group_key={group_key!r} has {len(np.unique(groups))} groups for n_splits={n_splits} folds. "
            "Lower n_splits to the number of groups or below."
        )
    if len(target) < n_splits:
        raise ValueError(f"adata has {len(target)} cells for n_splits={n_splits} folds. Lower n_splits.")
    if not classify:
        return
    names, count = np.unique(target, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"target_key={key!r} has one label only ({str(names[0])!r}): there is nothing to tell apart.")
    rare = list(names[count < n_splits])
    if rare and groups is None:
        raise ValueError(
            f"target_key={key!r}: {len(rare)} labels have fewer cells than n_splits={n_splits}: {some(rare)}. Lower "
            f"n_splits, or drop these cells: adata = adata[~adata.obs[{key!r}].isin({[str(r) for r in rare[:5]]})].copy()."
        )


def _folds(
    target: np.ndarray, groups: np.ndarray | None, n_splits: int, seed: int, classify: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    strata = target if classify else np.zeros(len(target), dtype=int)
    maker = StratifiedKFold if groups is None else StratifiedGroupKFold
    return maker(n_splits, shuffle=True, random_state=seed).split(strata, strata, groups)


def _components(
    x: Matrix, train: np.ndarray, test: np.ndarray, sizes: list[int], seed: int
) -> dict[str, tuple[Matrix, Matrix]]:
    """Fit principal components on training cells; smaller sizes are the first of the largest."""
    mean, loadings, _ = fit_components(x[train], sizes[-1], seed=seed)
    axes = loadings.T.astype(np.float64)
    a, b = (np.asarray(x[cells] @ axes) - mean @ axes for cells in (train, test))
    return {f"{PCA} ({d})": (a[:, :d], b[:, :d]) for d in sizes}


def _probe(probe: str, classify: bool, *, scale: bool, n: int) -> Any:
    if probe == "knn":
        return (KNeighborsClassifier if classify else KNeighborsRegressor)(n_neighbors=min(NEIGHBORS, n))
    model = LogisticRegression(max_iter=1000) if probe == "logistic" else RidgeCV(ALPHAS)
    return make_pipeline(StandardScaler(), model) if scale else model


def _scores(true: np.ndarray, guess: np.ndarray, classify: bool) -> dict[str, float]:
    if not classify:
        return {"r2": float(r2_score(true, guess))}
    # recall of the classes that are in the test fold: others have no recall
    recalls = [float((guess[true == c] == c).mean()) for c in np.unique(true)]
    return {
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(true, guess, average="macro", labels=np.unique(true), zero_division=0)),
    }
