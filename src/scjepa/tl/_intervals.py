"""``evaluate_intervals``: do the intervals of predicted effects hold, and does stated uncertainty announce errors?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, require_levels, require_positive_int, some
from scjepa._compat import as_text
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._labels import parse_label
from scjepa._types import FloatArray
from scjepa.data import ConditionTable, condition_table
from scjepa.data._groups import SINGLE_CONTEXT
from scjepa.metrics import interval_coverage, interval_width, l2, selective_risk_curve, uncertainty_spearman
from scjepa.tl.evaluation._inputs import check_anndata, store_table
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS

COLUMNS = ("level", "kind", "perturbation", "context", "genes", "metric", "value")
CURVE_COLUMNS = ("level", "genes", "uncertainty", "kept", "risk")
NUMBERS = ("effect", "lower", "upper")


class _Stated(NamedTuple):
    """One table of effects, conditions x genes; NaN where it has no row."""

    conditions: list[tuple[str, str]]
    rows: np.ndarray
    effect: FloatArray
    lower: FloatArray
    upper: FloatArray
    distance: FloatArray
    true: FloatArray
    expressed: np.ndarray


@docs
def evaluate_intervals(
    effects: pd.DataFrame | Mapping[float, pd.DataFrame],
    real: AnnData,
    *,
    perturbation_key: str,
    control: str = "control",
    context_key: str | None = None,
    separator: str = "+",
    layer: str | None = None,
    level: float = 0.9,
    n_top: int = 20,
    key_added: str = Keys.uns.intervals,
) -> pd.DataFrame:
    r"""Check intervals of predicted effects on measured cells, and whether uncertain predictions are the wrong ones.

    :func:`scjepa.pl.calibration` and :func:`scjepa.pl.selective_risk` draw what this writes.

    Parameters
    ----------
    effects
        Table of ``PerturbJEPA.predict_effect``, or of any tool with the columns ``perturbation``, ``gene``, ``effect``,
        ``lower``, ``upper``, the context if there are several (under the name ``context_key`` or ``"context"``) and,
        optionally, ``distance``. For several levels a dictionary level -> table. Conditions that the model abstains
        from count like all others: leave their rows out if they should not.
    real
        Measured cells: all predicted conditions and controls of their contexts; counts or log-normalised. Where doses
        or kinds differ, give the cells of the one that ``effects`` is about.
    %(labels)s
    %(measured_layer)s
    level
        Level of the intervals, if ``effects`` is a single table.
    n_top
        Genes per condition in the set of the largest measured effects.
    key_added
        Key of the table in ``real.uns["jepa"]``.

    Returns
    -------
    Tidy table with the columns ``level``, ``kind``, ``perturbation``, ``context``, ``genes``, ``metric``, ``value``.
    ``genes`` is ``"all"``, ``"expressed"`` (detected in the controls or in the cells of the condition; others are
    covered for nothing) or ``"top_20"`` (with ``n_top=20``: those of the expressed with the largest measured effects,
    where wrong intervals hurt).

    Rows of kind ``"condition"``, one condition each: ``"coverage"`` (:func:`~scjepa.metrics.interval_coverage`),
    ``"width"`` (mean, log-normalised), ``"l2"`` (error of the effect, :func:`scjepa.metrics.l2`), ``"gene_spearman"``
    (rank correlation over genes of width and absolute error), ``"n_genes"`` and, for all genes, ``"distance"``.

    Rows of kind ``"pooled"`` (perturbation and context ``"(all conditions)"``): ``"coverage"`` and ``"width"`` over all
    genes of all conditions, the mean ``"l2"``, ``"n_genes"``, and over conditions, with u the mean width or the distance,
    ``"spearman_u"`` (:func:`~scjepa.metrics.uncertainty_spearman` of u and L2) and ``"risk_area_u"``, the area under
    the curve of the mean L2 of the most certain conditions against the share kept
    (:func:`~scjepa.metrics.selective_risk_curve`); ``"risk_area_ideal"`` is that of the best possible order.
    Undefined values are NaN.

    Writes the same table to ``real.uns["jepa"][key_added]`` and the curves to ``real.uns["jepa"]["selective_risk"]``:
    ``level``, ``genes``, ``uncertainty`` (``"width"``, ``"distance"``, ``"ideal"``), ``kept``, ``risk``.

    Raises
    ------
    TypeError, KeyError, ValueError
        If ``effects`` is not such a table, repeats rows, has columns that tell conditions apart in another way,
        conditions or genes that ``real`` lacks, or a level that is not between 0 and 1.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import evaluate_intervals
    >>> obs = pd.DataFrame({"p": ["control", "A"]}, index=["c", "a"])
    >>> real = anndata.AnnData(np.array([[1.0, 1.0], [2.5, 1.25]]), obs=obs, var=pd.DataFrame(index=["g1", "g2"]))
    >>> rows = [("A", "g1", 1.0, 0.5, 1.25), ("A", "g2", 0.0, -0.5, 0.5)]
    >>> effects = pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"])
    >>> table = evaluate_intervals(effects, real, perturbation_key="p", n_top=1)
    >>> found = table[(table["kind"] == "pooled") & (table["metric"] == "coverage")]
    >>> found[["genes", "value"]].values.tolist()
    [['all', 0.5], ['expressed', 0.5], ['top_1', 0.0]]
    """
    tables = _by_level(effects, level)
    require_positive_int(n_top, "n_top")
    measured = condition_table(
        check_anndata(real, "real"),
        perturbation_key,
        control,
        layer=layer,
        context_key=context_key,
        separator=separator,
    )
    rows: list[tuple] = []
    curves: list[pd.DataFrame] = []
    for number in sorted(tables):
        name = "effects" if isinstance(effects, pd.DataFrame) else f"effects[{number:g}]"
        stated = _read(tables[number], name, measured, control, context_key, separator)
        for genes, members in _gene_sets(stated, n_top).items():
            found, lines = _score(stated, members, with_distance=genes == "all")
            rows += [(number, *row[:3], genes, *row[3:]) for row in found]
            curves += [line.assign(level=number, genes=genes) for line in lines]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    store_table(real, key_added, table)
    store_table(real, Keys.uns.selective_risk, pd.concat(curves, ignore_index=True)[list(CURVE_COLUMNS)])
    return table.copy()


def _by_level(effects: object, level: float) -> dict[float, pd.DataFrame]:
    """Return level -> table; raise when it is something else or a level is no share."""
    tables: dict[Any, Any] = dict(effects) if isinstance(effects, Mapping) else {level: effects}
    wrong = [v for v in tables.values() if not isinstance(v, pd.DataFrame)]
    if wrong or not tables:
        raise TypeError(
            f"effects {'holds' if isinstance(effects, Mapping) else 'is'} "
            f"{'a ' + type(wrong[0]).__name__ if wrong else 'nothing'}: expected the DataFrame of "
            "PerturbJEPA.predict_effect, or a dictionary level -> DataFrame."
        )
    require_levels(tables, "effects")
    return {float(k): v for k, v in tables.items()}


def _read(
    table: pd.DataFrame, name: str, measured: ConditionTable, control: str, context_key: str | None, separator: str
) -> _Stated:
    """Match a table of effects to the measured conditions and genes."""
    missing = [c for c in ("perturbation", "gene", *NUMBERS) if c not in table]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}: expected the table of PerturbJEPA.predict_effect. "
            f"Columns found: {some(list(table.columns), 10) or 'none'}."
        )
    if not len(table):
        raise ValueError(f"{name} has no rows.")
    contexts = _contexts(table, name, measured, context_key)
    labels = as_text(table["perturbation"])
    actions = {label: parse_label(label, control, separator) for label in labels.unique()}
    asked = pd.MultiIndex.from_arrays([labels.map(lambda label: separator.join(actions[label])), contexts])
    number = asked.factorize()[0]
    first = np.unique(number, return_index=True)[1]
    where = {key: i for i, key in enumerate(zip(measured.actions, measured.contexts.astype(str), strict=True))}
    conditions = [(labels.iloc[i], contexts[i]) for i in first]
    rows = np.array([where.get((actions[label], place), -1) for label, place in conditions])
    if (rows < 0).any():
        written = lambda label, place: label + (f" in {place}" if context_key else "")
        lost = [written(*conditions[i]) for i in np.flatnonzero(rows < 0)]
        known = [written(separator.join(action), place) for action, place in where]
        raise ValueError(
            f"{len(lost)} of {len(rows)} conditions of {name} have no perturbed cells in real: {some(lost)}."
            f"{closest(lost[0], known)} Leave their rows out, or check perturbation_key, context_key and separator."
        )
    genes = pd.Index(as_text(table["gene"]))
    found = genes.unique()
    column = pd.Index(measured.genes).get_indexer(found)
    if (column < 0).any():
        lost = list(found[column < 0])
        raise ValueError(
            f"{len(lost)} of the {len(found)} genes of {name} are not in real.var_names: {some(lost)}."
            f"{closest(lost[0], measured.genes)} Use the same gene names in both."
        )
    place = found.get_indexer(genes)
    repeated = len(table) - len(np.unique(number * len(found) + place))
    if repeated:
        raise ValueError(f"{name} has {repeated} rows that repeat a condition and gene. Give those of one call.")
    wide = {c: np.full((len(rows), len(found)), np.nan) for c in NUMBERS}
    for c, values in wide.items():
        values[number, place] = table[c].to_numpy(dtype=np.float64)
    distance = np.full(len(rows), np.nan)
    if "distance" in table:
        distance = table["distance"].to_numpy(dtype=np.float64)[first]
    assert measured.perturbed is not None  # for the type checker: these are cells
    seen = (measured.control[rows] > 0) | (measured.perturbed[rows] > 0)
    return _Stated(
        conditions,
        rows,
        **wide,
        distance=distance,
        true=measured.effects[rows][:, column],
        expressed=seen[:, column],
    )


def _contexts(table: pd.DataFrame, name: str, measured: ConditionTable, context_key: str | None) -> np.ndarray:
    """Return the context of each row of effects; raise when something else tells its conditions apart."""
    own = next((c for c in (context_key, "context") if c is not None and c in table), None) if context_key else None
    before = list(table.columns[: list(table.columns).index("gene")])
    others = [c for c in before if c not in ("perturbation", own)]
    if others:
        raise ValueError(
            f"{name} has the column {others[0]!r}, which tells conditions apart. If it is the context, give "
            f"context_key={others[0]!r}; else keep one value, the cells of real measured with it, and drop the column."
        )
    known = sorted(set(measured.contexts.astype(str)))
    if own is not None:
        return as_text(table[own]).to_numpy(dtype=object)
    if context_key and len(known) > 1:
        raise ValueError(
            f"{name} has no column {context_key!r}, and real has {len(known)} contexts: {some(known)}. Add the column."
        )
    return np.full(len(table), known[0] if known else SINGLE_CONTEXT, dtype=object)


def _gene_sets(stated: _Stated, n_top: int) -> dict[str, np.ndarray]:
    """Return which genes of each condition belong to a set."""
    given = np.isfinite(stated.effect) & np.isfinite(stated.lower) & np.isfinite(stated.upper)
    expressed = given & stated.expressed
    size = np.where(expressed, np.abs(stated.true), -1.0)
    rank = np.argsort(np.argsort(-size, axis=1, kind="stable"), axis=1)
    return {"all": given, "expressed": expressed, f"top_{n_top}": expressed & (rank < n_top)}


def _score(stated: _Stated, members: np.ndarray, *, with_distance: bool) -> tuple[list[tuple], list[pd.DataFrame]]:
    """Return rows (kind, perturbation, context, metric, value) of one set of genes, and its selective-risk curves."""
    rows: list[tuple] = []
    nan = float("nan")
    width, error = np.full(len(members), nan), np.full(len(members), nan)
    for i, (where, mine) in enumerate(zip(stated.conditions, members, strict=True)):
        effect, low, high, true = (a[i, mine] for a in (stated.effect, stated.lower, stated.upper, stated.true))
        values = {"coverage": nan, "width": nan, "l2": nan, "gene_spearman": nan, "n_genes": float(mine.sum())}
        if mine.any():
            width[i], error[i] = interval_width(low, high), l2(effect, true)
            values["coverage"], values["width"] = interval_coverage(true, low, high), width[i]
            values["l2"], values["gene_spearman"] = error[i], uncertainty_spearman(high - low, np.abs(effect - true))
        if with_distance:
            values["distance"] = stated.distance[i]
        rows += [("condition", *where, metric, value) for metric, value in values.items()]

    low, high, true = (a[members] for a in (stated.lower, stated.upper, stated.true))
    kept = np.isfinite(error)
    pooled = {
        "coverage": interval_coverage(true, low, high) if len(true) else nan,
        "width": interval_width(low, high) if len(true) else nan,
        "l2": float(error[kept].mean()) if kept.any() else nan,
        "n_genes": float(len(true)),
    }
    curves = []
    for name, uncertainty in (("width", width), ("distance", stated.distance), ("ideal", error)):
        if name != "ideal":
            pooled[f"spearman_{name}"] = uncertainty_spearman(uncertainty, error)
        share, risk = selective_risk_curve(error, uncertainty)
        pooled[f"risk_area_{name}"] = float(risk.mean()) if len(risk) else nan
        curves.append(pd.DataFrame({"uncertainty": name, "kept": share, "risk": risk}))
    rows += [("pooled", ALL_CONDITIONS, ALL_CONDITIONS, metric, value) for metric, value in pooled.items()]
    return rows, curves
