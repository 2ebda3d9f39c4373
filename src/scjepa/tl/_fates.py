"""``evaluate_fates``: fate probabilities of early cells against what became of their clones, and its printer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import closest, require_column, require_positive_int, some
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.metrics import auroc
from scjepa.tl.evaluation._inputs import store_table

COLUMNS = [
    "method", "kind", "metric", "fate", "against", "value", "se", "n_cells", "n_clones", "baseline", "improvement",
    "lower", "upper", "better",
]  # fmt: skip
FREQUENCIES = "fate frequencies"
FEW_CLONES = 10
"""Fewer clones than these make no interval that can be trusted."""
LEAST = 1e-3
"""Smallest probability in log losses: one mistake costs no more than 7."""
ALL, OTHERS = "all", "all others"


class _Truth(NamedTuple):
    fates: tuple[str, ...]
    code: np.ndarray
    """``(n,)`` fate of each scored cell."""
    rows: np.ndarray
    """``(n,)`` which cells are scored."""
    clone: np.ndarray
    """``(n,)`` clone of each, as a number."""


@docs
def evaluate_fates(
    probabilities: AnnData | pd.DataFrame | Mapping[str, pd.DataFrame],
    truth: str | Sequence[Any] | np.ndarray | pd.Series | pd.DataFrame,
    *,
    clone_key: str | Sequence[Any] | np.ndarray | pd.Series | None = None,
    baselines: Mapping[str, pd.DataFrame] | None = None,
    key: str = "fate_probabilities",
    method: str = "model",
    n_boot: int = 1000,
    level: float = 0.95,
    key_added: str = Keys.uns.fate_scores,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score fate probabilities of early cells, grouped by clone.

    Parameters
    ----------
    probabilities
        ``(cells, fates)``, rows of sum one, columns named by fates; several methods as ``{name: table}``; or an AnnData with such a
        table in ``obsm[key]``.
    truth
        Fate of each cell (missing or ``""`` where unknown: such cells are not scored), ``obs`` column of it, or a table of fate
        shares of each cell's clone, whose largest share is the fate (cells without any, or with a tie, are not scored).
    clone_key
        Clone of each cell, or ``obs`` column of it; like ``truth``, a series of more cells is looked up by name. Cells of a clone have one truth and like states: standard errors are over clones.
        Without it each cell is its own clone, which makes them too small.
    baselines
        Plain rows to compare with, as ``{name: table}``.
    key
        In ``obsm``.
    method
        Name of the row of a single table.
    n_boot
        Resamples of clones.
    level
        Of the interval of the improvement.
    %(key_added)s
    seed
        Of the resampling.

    Returns
    -------
    Tidy table: ``method``, ``kind`` (``"model"``, ``"baseline"``), ``metric`` (``"auroc"``, ``"log_loss"``), ``fate``, ``against``,
    ``value``, ``se`` (bootstrap of clones), ``n_cells``, ``n_clones``. AUROC is of each fate against all others (``against="all
    others"``), their mean (``fate="all"``), and of each pair of fates among the cells of these two, by the share of the first in both:
    a macro score hides pairs that can't be told. Log losses take probabilities as 0.001 at least. Rows of ``fate="all"`` of models
    also hold ``baseline`` (the best one), ``improvement`` over it with its interval ``lower`` to ``upper`` (paired: same clones
    drawn for both) and ``better`` (``"yes"``, ``"no"``, ``"unclear"``; always unclear below 10 clones). The baseline
    ``"fate frequencies"`` gives every cell the shares of the truth. :func:`scjepa.tl.format_fates` prints it. For an AnnData the table is
    written to ``uns["jepa"][key_added]`` too.

    Raises
    ------
    KeyError
        If a column or table is missing.
    ValueError
        If shapes or fates don't fit, rows are no probabilities, or fewer than two fates occur among the scored cells.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import evaluate_fates
    >>> p = pd.DataFrame({"A": [0.9, 0.6, 0.4, 0.2], "B": [0.1, 0.4, 0.6, 0.8]})
    >>> scores = evaluate_fates(p, ["A", "A", "B", "B"], clone_key=[1, 1, 2, 3])
    >>> row = scores[(scores.method == "model") & (scores.metric == "auroc") & (scores.fate == "all")]
    >>> row[["value", "n_cells", "n_clones"]].values.tolist()
    [[1.0, 4.0, 3.0]]
    """
    require_positive_int(n_boot, "n_boot", minimum=100)
    if isinstance(level, bool) or not 0 < level < 1:
        raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.95.")
    adata = probabilities if isinstance(probabilities, AnnData) else None
    models = _tables(probabilities, key, method)
    plain = {str(name): table for name, table in (baselines or {}).items()}
    twice = [name for name in [*plain, FREQUENCIES] if name in models]
    if twice or FREQUENCIES in plain:
        raise ValueError(f"{some(twice or [FREQUENCIES])}: two rows of one name. Rename one of them.")
    cells = next(iter(models.values())).index
    n = len(cells)
    known = _truth(_named(truth, cells), _named(clone_key, cells), adata, n)
    values = {name: _aligned(table, known, n, name) for name, table in {**models, **plain}.items()}
    share = np.bincount(known.code, minlength=len(known.fates)) / len(known.code)
    values[FREQUENCIES] = np.tile(share, (len(known.code), 1))
    n_clones = int(known.clone.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(rng.integers(n_clones, size=n_clones), minlength=n_clones) for _ in range(n_boot)])
    weights = np.vstack([np.ones(n_clones), drawn])[:, known.clone].astype(np.float64)  # the first is the data itself
    found = {name: _scores(p, known, weights) for name, p in values.items()}
    names = [*plain, FREQUENCIES]
    rows = []
    for name in values:
        kind = "baseline" if name in names else "model"
        for (metric, fate, against), draws in found[name].items():
            cells = _cells_of(known, fate, against)
            row = [name, kind, metric, fate, against, float(draws[0]), float(np.nanstd(draws[1:], ddof=1)) if
                   np.isfinite(draws[1:]).sum() > 1 else np.nan, int(cells.sum()), len(set(known.clone[cells]))]  # fmt: skip
            compared: list[Any] = ["", np.nan, np.nan, np.nan, ""]
            if kind == "model" and fate == ALL:
                compared = _compared(
                    draws, {b: found[b][metric, fate, against] for b in names}, metric, level, n_clones
                )
            rows.append([*row, *compared])
    table = pd.DataFrame(rows, columns=COLUMNS)
    if adata is not None:
        store_table(adata, key_added, table)
    return table


def format_fates(scores: pd.DataFrame) -> str:
    """Lay a table of :func:`scjepa.tl.evaluate_fates` out for printing.

    Parameters
    ----------
    scores
        The table.

    Returns
    -------
    A line for each method with macro AUROC and log loss, standard errors over clones, and the hardest pair of fates of that method;
    then a line for each claim.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import evaluate_fates, format_fates
    >>> p = pd.DataFrame({"A": [0.9, 0.6, 0.4, 0.2], "B": [0.1, 0.4, 0.6, 0.8]})
    >>> print(format_fates(evaluate_fates(p, ["A", "A", "B", "B"])).splitlines()[1].split())
    ['model', '1.000', '±', '.000', '.338', '±', '.090', 'A', '/', 'B', '1.000', '±', '.000']
    """
    missing = [c for c in COLUMNS if c not in getattr(scores, "columns", ())]
    if missing or not len(scores):
        raise ValueError(f"scores lacks {missing or 'rows'}: expected the table of scjepa.tl.evaluate_fates.")
    lines = [["method", "AUROC ↑", "log loss ↓", "hardest pair of fates"]]
    for name, part in scores.groupby("method", sort=False, observed=True):
        whole = part[part["fate"] == ALL].set_index("metric")
        pairs = part[(part["metric"] == "auroc") & (part["fate"] != ALL) & (part["against"] != OTHERS)].dropna(
            subset=["value"]
        )
        hardest = "–"
        if len(pairs):
            worst = pairs.loc[pairs["value"].idxmin()]
            hardest = f"{worst['fate']} / {worst['against']} {_pm(worst)}"
        lines.append([str(name), _pm(whole.loc["auroc"]), _pm(whole.loc["log_loss"]), hardest])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    whole = scores[scores["fate"] == ALL].iloc[0]
    text.append(f"{whole['n_cells']} cells of {whole['n_clones']} clones; ± standard error over clones.")
    words = {"yes": "better", "no": "WORSE", "unclear": "no clear difference"}
    for _, row in scores[(scores["fate"] == ALL) & (scores["baseline"] != "")].iterrows():
        few = f", fewer than {FEW_CLONES} clones" if row["n_clones"] < FEW_CLONES else ""
        text.append(
            f"{row['metric'].replace('_', ' ')}: {row['method']} {row['value']:.3f}, best baseline {row['baseline']}: "
            f"{words[row['better']]}, improvement {row['improvement']:.3f} ({row['lower']:.3f} to {row['upper']:.3f}{few})."
        )
    return "\n".join(text)


# ------------------------------------------------------------------------------------------------------------- parts
def _pm(row: pd.Series) -> str:
    value, se = (
        f"{x:.3f}" if x >= 1 or np.isnan(x) else f"{x:.3f}".removeprefix("0") for x in (row["value"], row["se"])
    )
    return f"{value} ± {se}"


def _tables(given: Any, key: str, method: str) -> dict[str, pd.DataFrame]:
    if isinstance(given, AnnData):
        if key not in given.obsm:
            raise KeyError(
                f"key={key!r} is not in obsm.{closest(key, given.obsm.keys())} Found: "
                f"{some(list(given.obsm.keys()), 10) or 'none'}."
            )
        given = given.obsm[key]
    tables = {str(name): t for name, t in given.items()} if isinstance(given, Mapping) else {method: given}
    for name, table in tables.items():
        if not isinstance(table, pd.DataFrame):
            raise TypeError(
                f"{name} is a {type(table).__name__}: expected a DataFrame, cells x fates, columns named by fates."
            )
    if not tables:
        raise ValueError("no table of probabilities was given.")
    return tables


def _named(values: Any, cells: pd.Index) -> Any:
    """Return a series or table in the order of the cells, where it names all of them; else as it is."""
    if not isinstance(values, (pd.Series, pd.DataFrame)) or not (values.index.is_unique and cells.is_unique):
        return values
    return values.reindex(cells) if cells.isin(values.index).all() else values


def _truth(truth: Any, clones: Any, adata: AnnData | None, n: int) -> _Truth:
    if isinstance(truth, str):
        if adata is None:
            raise ValueError(
                f"truth={truth!r} names a column, but probabilities are no AnnData: give the fates themselves."
            )
        truth = require_column(adata.obs, truth, "truth")
    if isinstance(truth, pd.DataFrame):
        shares = truth.to_numpy(dtype=np.float64)
        top = shares.max(1, initial=0.0)
        clear = (top > 0) & ((shares == top[:, None]).sum(1) == 1)
        labels = pd.Series(np.where(clear, truth.columns.astype(str).to_numpy()[shares.argmax(1)], ""), dtype=object)
    else:
        series = pd.Series(truth).reset_index(drop=True).astype(object)
        labels = series.where(series.notna(), "").astype(str)
    if len(labels) != n:
        raise ValueError(f"truth has {len(labels)} cells, probabilities {n}: expected the same cells.")
    if isinstance(clones, str):
        if adata is None:
            raise ValueError(
                f"clone_key={clones!r} names a column, but probabilities are no AnnData: give the clones themselves."
            )
        clones = require_column(adata.obs, clones, "clone_key")
    clone = pd.Series(np.arange(n) if clones is None else clones).reset_index(drop=True)
    if len(clone) != n:
        raise ValueError(f"clone_key has {len(clone)} cells, probabilities {n}: expected the same cells.")
    rows = np.flatnonzero((labels != "").to_numpy())
    lost = int(clone.iloc[rows].isna().sum())
    if lost:
        raise ValueError(
            f"{lost} cells with a known fate have no clone. Set their fate to missing, or name their clone."
        )
    fates = tuple(sorted(set(labels.iloc[rows])))
    if len(fates) < 2:
        raise ValueError(
            f"cells with a known fate have {len(fates)} fate(s) ({some(fates)}): scores need at least two."
        )
    code = labels.iloc[rows].map({f: i for i, f in enumerate(fates)}).to_numpy(dtype=int)
    return _Truth(fates, code, rows, pd.factorize(clone.iloc[rows])[0])


def _aligned(table: pd.DataFrame, known: _Truth, n: int, name: str) -> FloatArray:
    """Return probabilities of the scored cells for the fates of the truth, scaled to one."""
    if len(table) != n:
        raise ValueError(f"{name} has {len(table)} cells, expected {n}: all tables must have the same cells.")
    columns = table.columns.astype(str)
    missing = [f for f in known.fates if f not in columns]
    if missing:
        raise ValueError(
            f"{name} has no column for {some(missing)}.{closest(missing[0], columns)} Found: {some(list(columns), 10)}."
        )
    p = table.set_axis(columns, axis=1)[list(known.fates)].to_numpy(dtype=np.float64)[known.rows]
    if not np.isfinite(p).all() or (p < 0).any() or (p.sum(1) > 1 + 1e-4).any():
        raise ValueError(f"{name} has values that are no probabilities: expected rows of at least 0, of sum one.")
    total = p.sum(1, keepdims=True)
    return np.where(total > 0, p / np.maximum(total, 1e-300), 1 / p.shape[1])


def _scores(p: FloatArray, known: _Truth, weights: FloatArray) -> dict[tuple[str, str, str], FloatArray]:
    """Return every score for every set of weights."""
    each = np.array([np.asarray(auroc(known.code == j, p[:, j], weights)) for j in range(len(known.fates))])
    defined = np.isfinite(each).sum(0)
    mean = np.where(defined > 0, np.nansum(each, 0) / np.maximum(defined, 1), np.nan)
    loss = -np.log(np.clip(p[np.arange(len(p)), known.code], LEAST, 1.0))
    out = {("auroc", ALL, OTHERS): mean, ("log_loss", ALL, ""): weights @ loss / weights.sum(1)}
    out |= {("auroc", fate, OTHERS): values for fate, values in zip(known.fates, each, strict=True)}
    for i, j in combinations(range(len(known.fates)), 2):
        two = np.flatnonzero((known.code == i) | (known.code == j))
        both = p[two, i] + p[two, j]
        share = np.divide(p[two, i], both, out=np.full(len(two), 0.5), where=both > 0)
        out["auroc", known.fates[i], known.fates[j]] = np.asarray(auroc(known.code[two] == i, share, weights[:, two]))
    return out


def _cells_of(known: _Truth, fate: str, against: str) -> np.ndarray:
    if against in (OTHERS, ""):
        return np.ones(len(known.code), dtype=bool)
    return np.isin(known.code, [known.fates.index(fate), known.fates.index(against)])


def _compared(
    draws: FloatArray, baselines: dict[str, FloatArray], metric: str, level: float, n_clones: int
) -> list[Any]:
    """Compare with the best baseline, clone for clone."""
    sign = 1.0 if metric == "auroc" else -1.0
    best = max(baselines, key=lambda b: sign * baselines[b][0])
    gain = sign * (draws - baselines[best])
    low, high = np.nanquantile(gain[1:], [(1 - level) / 2, (1 + level) / 2])
    better = "unclear" if n_clones < FEW_CLONES else "yes" if low > 0 else "no" if high < 0 else "unclear"
    return [best, float(gain[0]), float(low), float(high), better]
