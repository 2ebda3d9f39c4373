"""Links between features of two modalities: which peak goes with which gene, which gene with which protein."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import false_discovery_control, norm, t

from scjepa._checks import require_member, require_positive_int
from scjepa._types import FloatArray, Matrix

BLOCK = 512
"""Target features that are looked at at once."""
MOST = 100_000
"""Null correlations that are kept of each shuffle and block."""
FAR, LEAST_FAR = 500, 20
"""Source features of other chromosomes that a link must stand out of, at most and at least."""
TAIL = 10
"""The largest null correlations, beyond which p-values are extrapolated."""


def feature_links(
    source: Matrix,
    target: Matrix,
    *,
    source_names: Sequence[str],
    target_names: Sequence[str],
    source_positions: pd.DataFrame | None = None,
    target_positions: pd.DataFrame | None = None,
    window: int = 100_000,
    groups: Sequence[object] | np.ndarray | None = None,
    background: Literal["auto", "trans", "shuffled"] = "auto",
    n_permutations: int = 20,
    top: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Correlate features of two modalities over cells, against cells that were shuffled.

    The statistic of a pair is the correlation of its two features, each centred within groups. What it is compared with:

    ``"trans"`` (the default with positions)
        the target feature's correlations with up to 500 source features of other chromosomes. Features that go along with the same
        state of the cell correlate wherever they are, so a link must stand out of that: p-values are by the normal distribution of
        background correlations, feature by feature.
    ``"shuffled"``
        all pairs asked for when the cells of one modality are shuffled within groups: is there any correlation at all? A p-value is
        the share of shuffled correlations that is as large, and beyond the tenth largest what Student's distribution makes of it.

    False discovery rates are by Benjamini and Hochberg.

    Parameters
    ----------
    source, target
        ``(n, p)`` and ``(n, q)`` features of the same cells, dense or sparse.
    source_names, target_names
        Their names.
    source_positions, target_positions
        Tables of ``chromosome``, ``start`` and ``end``, a row a feature: only pairs of one chromosome up to ``window`` apart are
        asked for. None: all pairs.
    window
        Largest distance, in bases, between the middle of a source feature and the start of a target feature.
    groups
        ``(n,)`` batches, or cell types whose differences are not to count.
    background
        ``"trans"`` (needs positions on two chromosomes), ``"shuffled"``, or ``"auto"`` for the first where it is possible.
    n_permutations
        Shuffles.
    top
        Pairs of each target feature that are returned at most, the strongest; None for all.
    seed
        Of the shuffles, and of features of other chromosomes.

    Returns
    -------
    One row a pair, the surest first: ``source``, ``target``, ``correlation`` (signed), ``distance`` (with positions), ``p_value``,
    ``fdr``.

    Raises
    ------
    ValueError
        For shapes that don't fit, positions of other features, and no pair within the window.

    References
    ----------
    Peaks and genes over cells within a window, against a background of other peaks: Ma et al. 2020, *Cell* 183 (SHARE-seq); Stuart et
    al. 2021, *Nature Methods* 18 (Signac). Benjamini & Hochberg 1995.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.omics import feature_links
    >>> rng = np.random.default_rng(0)
    >>> peaks = rng.normal(size=(200, 5))
    >>> genes = np.stack([peaks[:, 3] + rng.normal(size=200), rng.normal(size=200)], 1)
    >>> links = feature_links(peaks, genes, source_names=list("abcde"), target_names=["X", "Y"])
    >>> links.loc[0, ["source", "target"]].tolist(), bool(links.loc[0, "fdr"] < 0.05)
    (['d', 'X'], True)
    """
    x, y = (sp.csc_matrix(m) if sp.issparse(m) else np.asarray(m, dtype=np.float64) for m in (source, target))
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"source has shape {x.shape} and target {y.shape}: expected (cells, features) of the same cells."
        )
    for names, matrix, name in ((source_names, x, "source"), (target_names, y, "target")):
        if len(names) != matrix.shape[1]:
            raise ValueError(
                f"{name}_names has {len(names)} names, {name} {matrix.shape[1]} features: expected one each."
            )
    require_positive_int(n_permutations, "n_permutations")
    if (source_positions is None) != (target_positions is None):
        raise ValueError("positions of one modality only: a distance needs source_positions and target_positions.")
    code = np.zeros(x.shape[0], dtype=int) if groups is None else pd.factorize(np.asarray(groups))[0]
    if len(code) != x.shape[0]:
        raise ValueError(f"groups has {len(code)} entries for {x.shape[0]} cells: expected one each.")
    require_member(background, ("auto", "trans", "shuffled"), "background", where="the backgrounds")
    elsewhere = _elsewhere(source_positions, target_positions, np.random.default_rng([seed, 1]))
    if background == "trans" and not elsewhere:
        raise ValueError(
            "background='trans' needs positions of both modalities on two chromosomes or more. Use 'shuffled'."
        )
    trans = bool(elsewhere) and background != "shuffled"
    pairs = _pairs(x.shape[1], y.shape[1], source_positions, target_positions, window)
    rng = np.random.default_rng(seed)
    cells = np.arange(x.shape[0])
    shuffles = [_within(cells, code, rng) for _ in range(n_permutations)]
    rows, nulls, scaled = [], [], []
    for start in range(0, y.shape[1], BLOCK):
        columns = np.arange(start, min(start + BLOCK, y.shape[1]))
        mine = [pairs[j] for j in columns]
        if not any(len(m) for m in mine):
            continue
        others = [elsewhere[name] for name in sorted(elsewhere)] if trans else []
        used = np.unique(np.concatenate([*mine, *others]))
        a, b = _standardised(x[:, used], code), _standardised(y[:, columns], code)
        at, column = (np.concatenate(parts) for parts in zip(
            *((np.searchsorted(used, sources), np.full(len(sources), j)) for j, sources in enumerate(mine)), strict=True
        ))  # fmt: skip
        r = np.asarray(a.T @ b)
        rows.append((columns[column], used[at], r[at, column]))
        if trans and target_positions is not None:
            where = target_positions["chromosome"].astype(str).to_numpy()[columns]
            mean, spread = np.zeros(len(columns)), np.ones(len(columns))
            for name in np.unique(where):
                far = r[np.searchsorted(used, elsewhere[name])][:, where == name]
                mean[where == name], spread[where == name] = far.mean(0), np.maximum(far.std(0, ddof=1), 1e-12)
            scaled.append((r[at, column] - mean[column]) / spread[column])
            continue
        for order in shuffles:
            chance = np.abs(np.asarray(a[order].T @ b)[at, column])
            nulls.append(chance if len(chance) <= MOST else rng.choice(chance, MOST, replace=False))
    if not rows:
        raise ValueError(
            f"no pair lies within window={window:,} bases. Widen it, or look at the chromosome names of both tables."
        )
    column, row, r = (np.concatenate(part) for part in zip(*rows, strict=True))
    if trans:
        p = np.maximum(2 * norm.sf(np.abs(np.concatenate(scaled))), 1e-300)
    else:
        p = _pvalues(np.abs(r), np.concatenate(nulls), x.shape[0] - len(np.unique(code)) - 1)
    table = pd.DataFrame({
        "source": np.asarray(source_names, dtype=object)[row], "target": np.asarray(target_names, dtype=object)[column], "correlation": r,
        "p_value": p, "fdr": false_discovery_control(p),
    })  # fmt: skip
    if source_positions is not None and target_positions is not None:
        table.insert(3, "distance", _distance(source_positions, target_positions)(row, column))
    table = table.iloc[np.lexsort([-np.abs(r), p])]
    if top is not None:
        require_positive_int(top, "top")
        table = table.groupby("target", sort=False).head(top)
    return table.reset_index(drop=True)


def _elsewhere(
    source: pd.DataFrame | None, target: pd.DataFrame | None, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return, for each chromosome of targets, some source features of other chromosomes; empty where there are none."""
    if source is None or target is None or "chromosome" not in source.columns or "chromosome" not in target.columns:
        return {}
    chromosome = source["chromosome"].astype(str).to_numpy()
    out = {}
    for name in np.unique(target["chromosome"].astype(str)):
        far = np.flatnonzero(chromosome != name)
        if len(far) < LEAST_FAR:
            return {}
        out[str(name)] = np.sort(rng.permutation(far)[:FAR])
    return out


def _pvalues(r: FloatArray, null: FloatArray, freedom: int) -> FloatArray:
    """Return how often shuffled cells have as large a correlation, beyond the tenth largest by Student's distribution."""
    null = np.sort(null)
    larger = len(null) - np.searchsorted(null, r - 1e-12)
    p = (1 + larger) / (1 + len(null))
    edge = null[-min(TAIL, len(null))]
    student = lambda value: (
        2 * t.sf(value * np.sqrt(max(freedom, 1) / np.maximum(1 - value**2, 1e-12)), max(freedom, 1))
    )
    tail = min(TAIL, len(null)) / (1 + len(null)) * student(r) / max(float(student(edge)), 1e-300)
    return np.where(r > edge, np.maximum(np.minimum(tail, p), 1e-300), p)


def _within(order: np.ndarray, code: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle cells within groups."""
    out = order.copy()
    for g in range(code.max() + 1):
        at = np.flatnonzero(code == g)
        out[at] = rng.permutation(at)
    return out


def _standardised(x: Any, code: np.ndarray) -> FloatArray:
    """Return features centred within groups, of unit length; constant ones are zero."""
    dense = np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)
    for g in range(code.max() + 1):
        at = code == g
        dense = np.where(at[:, None], dense - dense[at].mean(0), dense)
    length = np.linalg.norm(dense, axis=0)
    return np.divide(dense, length, out=np.zeros_like(dense), where=length > 1e-12)


def _distance(source: pd.DataFrame, target: pd.DataFrame) -> Callable[[np.ndarray, np.ndarray], FloatArray]:
    """Return a function that gives distances of pairs, in bases."""
    middle = (source["start"].to_numpy(dtype=float) + source["end"].to_numpy(dtype=float)) / 2
    begin = target["start"].to_numpy(dtype=float)
    return lambda i, j: middle[i] - begin[j]


def _pairs(p: int, q: int, source: pd.DataFrame | None, target: pd.DataFrame | None, window: int) -> list[np.ndarray]:
    """Return, for each target feature, the source features that are asked for."""
    if source is None or target is None:
        return [np.arange(p)] * q
    for table, n, name in ((source, p, "source_positions"), (target, q, "target_positions")):
        missing = [c for c in ("chromosome", "start", "end") if c not in table.columns]
        if missing or len(table) != n:
            raise ValueError(
                f"{name} has {len(table)} rows and lacks {missing}: expected {n} rows with chromosome, start and end."
            )
    middle = (source["start"].to_numpy(dtype=float) + source["end"].to_numpy(dtype=float)) / 2
    chromosome, of = source["chromosome"].astype(str).to_numpy(), target["chromosome"].astype(str).to_numpy()
    begin = target["start"].to_numpy(dtype=float)
    out: list[np.ndarray] = [np.zeros(0, dtype=int)] * q
    for name in np.unique(of):
        here = np.flatnonzero(chromosome == name)
        here = here[np.argsort(middle[here], kind="stable")]
        for j in np.flatnonzero(of == name):
            low, high = np.searchsorted(middle[here], [begin[j] - window, begin[j] + window + 1e-9])
            out[j] = np.sort(here[low:high])
    return out
