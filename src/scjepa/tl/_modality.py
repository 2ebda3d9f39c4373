"""``evaluate_modality``: predicted features of a modality beside closed forms and half-against-half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import require_member, some
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray, Matrix
from scjepa.baselines.modalities import PLAIN
from scjepa.omics import CLR, TFIDF, LogNormalize, Transform
from scjepa.tl.evaluation._inputs import check_anndata, store_table
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, CEILING

COLUMNS = ["method", "kind", "perturbation", "context", "metric", "value"]
METRICS = ("rmse", "rmse_feature", "pearson_feature", "pearson_cell", "coverage")
Scale = Literal["auto", "lognorm", "clr", "tfidf", "as is"]
SCALES: dict[str, type[Transform] | None] = {"lognorm": LogNormalize, "clr": CLR, "tfidf": TFIDF, "as is": None}
LEAST = 1e-5
"""Standard deviation below which a prediction is constant, and a correlation with it 0."""


@docs
def evaluate_modality(
    pred: AnnData,
    real: AnnData,
    *,
    train: tuple[AnnData, AnnData] | None = None,
    source: AnnData | None = None,
    scale: Scale = "auto",
    source_scale: Scale = "auto",
    batch_key: str | None = None,
    metrics: Sequence[str] | str = METRICS,
    baselines: Literal["auto"] | None = "auto",
    ceiling: bool = True,
    method: str = "model",
    key_added: str = Keys.uns.modality_scores,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score predicted features of a modality, beside what regressions predict from the same cells, and half against half.

    Parameters
    ----------
    pred
        Predicted cells x features of any tool; intervals, if there are any, in ``layers["lower"]`` and ``layers["upper"]``.
    real
        Measured cells: all of ``pred`` by name, with its features. Counts are brought to ``scale``.
    train
        Source and target of the training cells (paired by name): what the plain rows learn from.
    source
        Source of the predicted cells, which the plain rows predict from.
    scale
        Of ``pred``, to which counts of the target are brought: ``"lognorm"``, ``"clr"`` (proteins), ``"tfidf"`` (peaks, weighed by the training
        cells) or ``"as is"``. ``"auto"``: what ``pred`` says of itself, else as is, which counts are refused for.
    source_scale
        Likewise for the source; ``"auto"`` log-normalises counts.
    batch_key
        ``obs`` column of ``real`` (or ``pred``): scores are given for each batch too, as ``context``.
    metrics
        ``"rmse"`` (over all cells and features), ``"rmse_feature"``, ``"pearson_feature"`` (over cells, of each feature), ``"pearson_cell"``
        (over features, mean of cells), ``"coverage"`` (share of values inside their interval, of each feature).
    baselines
        ``"auto"``: mean, ridge, nearest cells and kernel ridge (:mod:`scjepa.baselines.modalities`), where ``train`` and ``source`` are
        given; None for no rows.
    ceiling
        Whether to add half of the counts of ``real`` against the other half, where it holds counts.
    %(method)s
    %(key_added)s
    seed
        Of landmarks and halves.

    Returns
    -------
    Tidy table as of :func:`scjepa.tl.evaluate`, with features in the place of conditions: ``method``, ``kind``, ``perturbation`` (the feature, or
    ``"(all conditions)"``), ``context`` (the batch, or ``"all"``), ``metric``, ``value``. Constant predictions have a correlation of 0;
    features that are constant in ``real`` have none. :func:`scjepa.tl.format_scores` prints it with verdicts over features,
    :func:`scjepa.pl.scores` draws it. Written to ``pred.uns["jepa"][key_added]`` too.

    Raises
    ------
    KeyError, ValueError
        For cells or features of ``pred`` that ``real`` lacks, unpaired training cells, counts without a scale, and unknown metrics.

    References
    ----------
    Rows and scores as in the benchmark of Lance et al. 2022, *PMLR* 176 (NeurIPS 2021, multimodal single-cell data integration).

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import evaluate_modality
    >>> rng = np.random.default_rng(0)
    >>> x, names = rng.normal(size=(200, 10)), [f"cell{i}" for i in range(200)]
    >>> rna, protein = (
    ...     anndata.AnnData(m, obs=pd.DataFrame(index=names)) for m in (x, x[:, :2] + rng.normal(size=(200, 2)))
    ... )
    >>> pred = anndata.AnnData(x[150:, :2], obs=protein.obs[150:], var=protein.var)
    >>> scores = evaluate_modality(pred, protein, train=(rna[:150], protein[:150]), source=rna[150:], scale="as is")
    >>> rmse = scores[scores["metric"] == "rmse"].set_index("method")["value"]
    >>> bool(rmse["model"] < rmse["mean"]), list(rmse.index)
    (True, ['model', 'mean', 'ridge', 'nearest cells', 'kernel ridge'])
    """
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in chosen:
        require_member(metric, METRICS, "metrics", where="the metrics of scjepa.tl.evaluate_modality")
    taken = [CEILING, *(make.name for make in PLAIN)]
    if method in taken:
        raise ValueError(f"method={method!r} is the name of another row: give the rows of pred another name.")
    real = _matched(real, pred.obs_names, "real")
    real = real[:, _known(real, pred, "real")]
    wanted = _scale_of(pred, real, scale)
    learned = None if train is None else (check_anndata(train[0], "train[0]"), check_anndata(train[1], "train[1]"))
    if learned is not None:
        lost = learned[0].obs_names.difference(learned[1].obs_names)
        if len(lost) or learned[0].n_obs != learned[1].n_obs:
            raise ValueError(
                f"train: {len(lost)} cells of the source have no target ({some(list(lost), 3)}). Give the same cells in both, by name."
            )
        learned = (learned[0], learned[1][learned[0].obs_names])
        shared = learned[1].obs_names.intersection(pred.obs_names)
        if len(shared):
            raise ValueError(
                f"{len(shared)} predicted cells are among those of train ({some(list(shared), 3)}): leave them out."
            )
    counts = _is_counts(real.X) and wanted != "as is"
    target = _Features(wanted, None if learned is None else _columns(learned[1], pred, "train[1]"))
    truth = target(real.X)
    batches = np.full(pred.n_obs, "all", dtype=object)
    if batch_key is not None:
        holder = real if batch_key in real.obs else pred
        if batch_key not in holder.obs:
            raise KeyError(f"batch_key={batch_key!r} is neither in real.obs nor in pred.obs.")
        batches = holder.obs[batch_key].astype(str).to_numpy(dtype=object)
    rows: list[tuple[str, str, FloatArray]] = [(method, "model", _dense(pred.X))]
    if baselines is not None and learned is not None:
        if source is None:
            raise ValueError(
                "train without source: the plain rows have nothing to predict from. Give the source of the predicted cells."
            )
        given = _matched(check_anndata(source, "source"), pred.obs_names, "source")
        features = _Features(
            "lognorm" if source_scale == "auto" and _is_counts(learned[0].X) else source_scale, learned[0].X
        )
        x, y, asked = (
            features(learned[0].X, sparse=True),
            target(_columns(learned[1], pred, "train[1]")),
            features(given[:, learned[0].var_names].X, sparse=True),
        )
        for make in PLAIN:
            options = {"seed": seed} if make.name == "kernel ridge" else {}
            rows.append((make.name, "baseline", make(**options).fit(x, y).predict(asked)))
    records = [
        (name, kind, *score)
        for name, kind, values in rows
        for score in _scores(
            values, truth, pred if kind == "model" else None, batches, chosen, list(map(str, pred.var_names))
        )
    ]
    if ceiling and counts:
        halves = _halves(real.X, np.random.default_rng(seed))
        one, other = (target(half) for half in halves)
        records += [
            (CEILING, "ceiling", *score)
            for score in _scores(one, other, None, batches, chosen, list(map(str, pred.var_names)))
        ]
    table = pd.DataFrame(records, columns=COLUMNS)
    store_table(pred, key_added, table)
    return table


class _Features:
    """Brings a modality to a scale, fitted on training cells where there are any."""

    def __init__(self, scale: str, train: Matrix | None) -> None:
        require_member(scale if scale != "auto" else "as is", SCALES, "scale", where="the scales")
        kind = SCALES.get(scale)
        self.transform: Transform | None = None if kind is None else kind()
        self.train = train
        if kind is TFIDF and train is None:
            raise ValueError("scale='tfidf' weighs peaks by the training cells: give train.")
        if self.transform is not None and train is not None:
            self.transform.fit(train)

    def __call__(self, x: Matrix, *, sparse: bool = False) -> Any:
        if self.transform is not None:
            if self.train is None:
                self.transform.fit(x)  # of one cell at a time: nothing is learned from others
            x = self.transform.transform(x)
        return sp.csr_matrix(x) if sparse and sp.issparse(x) else _dense(x)


def _scores(
    values: FloatArray,
    truth: FloatArray,
    pred: AnnData | None,
    batches: np.ndarray,
    metrics: Sequence[str],
    names: list[str],
) -> list[tuple[str, str, str, float]]:
    """Return (feature, batch, metric, value) rows of one method."""
    lower = upper = None
    if pred is not None and {"lower", "upper"} <= set(pred.layers):
        lower, upper = _dense(pred.layers["lower"]), _dense(pred.layers["upper"])
    out: list[tuple[str, str, str, float]] = []
    for batch in dict.fromkeys(batches):
        mine = batches == batch
        a, b = values[mine], truth[mine]
        error = (a - b) ** 2
        for metric in metrics:
            if metric == "rmse":
                out.append((ALL_CONDITIONS, batch, metric, float(np.sqrt(error.mean()))))
            elif metric == "pearson_cell":
                out.append((ALL_CONDITIONS, batch, metric, float(np.nanmean(_pearson(a.T, b.T)))))
            elif metric == "rmse_feature":
                out += [(name, batch, metric, float(v)) for name, v in zip(names, np.sqrt(error.mean(0)), strict=True)]
            elif metric == "pearson_feature":
                out += [(name, batch, metric, float(v)) for name, v in zip(names, _pearson(a, b), strict=True)]
            elif lower is not None and upper is not None:
                inside = ((b >= lower[mine]) & (b <= upper[mine])).mean(0)
                out += [(name, batch, metric, float(v)) for name, v in zip(names, inside, strict=True)]
    return out


def _pearson(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return correlations of columns; 0 with constant predictions ``a``, NaN where ``b`` is constant."""
    x, y = a - a.mean(0), b - b.mean(0)
    spread = x.std(0) * y.std(0)
    r = np.divide((x * y).mean(0), spread, out=np.zeros_like(spread), where=(x.std(0) > LEAST) & (spread > 0))
    return np.where(y.std(0) > LEAST, r, np.nan)


def _scale_of(pred: AnnData, real: AnnData, scale: str) -> str:
    """Return the scale of a prediction; raise where counts would be compared with something else."""
    require_member(scale, ["auto", *SCALES], "scale", where="the scales")
    if scale == "auto":
        said = pred.uns.get(Keys.uns.root, {}).get(Keys.uns.prediction, {})
        scale = str(said.get("scale", "as is")) if isinstance(said, dict) else "as is"
        if scale == "as is" and _is_counts(real.X) and not _is_counts(pred.X):
            raise ValueError(
                "real holds counts and pred does not: say to which scale counts are to be brought, scale='clr' for proteins or "
                "'lognorm' for RNA."
            )
    return scale


def _matched(adata: AnnData, wanted: pd.Index, name: str) -> AnnData:
    """Return cells by name, in the order wanted."""
    lost = wanted.difference(adata.obs_names)
    if len(lost):
        raise KeyError(
            f"{name} lacks {len(lost)} of {len(wanted)} predicted cells ({some(list(lost), 3)}). Cells are matched by obs_names."
        )
    return adata[wanted]


def _known(adata: AnnData, pred: AnnData, name: str) -> pd.Index:
    lost = pred.var_names.difference(adata.var_names)
    if len(lost):
        raise KeyError(f"{name} lacks {len(lost)} of {pred.n_vars} predicted features ({some(list(lost), 3)}).")
    return pred.var_names


def _columns(adata: AnnData, pred: AnnData, name: str) -> Matrix:
    return adata[:, _known(adata, pred, name)].X


def _halves(x: Matrix, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Split counts into two halves at random."""
    counts = np.rint(_dense(x)).astype(np.int64)
    first = rng.binomial(counts, 0.5)
    return first.astype(np.float64), (counts - first).astype(np.float64)


def _is_counts(x: Any) -> bool:
    values = x.data if sp.issparse(x) else np.asarray(x)
    return bool((values >= 0).all() and (values == np.rint(values)).all() and (np.asarray(values) > 1).any())


def _dense(x: Any) -> FloatArray:
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)
