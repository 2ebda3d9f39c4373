"""Genes that go with a fate: correlation with fate probabilities, p-values, false discovery rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import norm

from scjepa._checks import require_member, require_positive_int
from scjepa._types import FloatArray, Matrix

COLUMNS = ("gene", "fate", "correlation", "lower", "upper", "p_value", "fdr")
TESTS = ("fisher", "permutation")


def driver_genes(
    expression: Matrix,
    probabilities: FloatArray,
    *,
    genes: Sequence[Any] | None = None,
    fates: Sequence[Any] | None = None,
    test: Literal["fisher", "permutation"] = "fisher",
    n_permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Correlate genes with fate probabilities.

    Parameters
    ----------
    expression
        ``(n, genes)`` log-normalised, dense or sparse (never made dense); of the cells whose fates are asked about, usually the
        early ones: late cells make every marker of the fate a driver.
    probabilities
        ``(n, fates)``.
    genes, fates
        Names; numbers by default.
    test
        ``"fisher"``: :math:`z = \operatorname{artanh}(r) \sqrt{n - 3}` is standard normal without correlation, as CellRank has
        it. ``"permutation"``: cells' probabilities are shuffled, two-sided, with the observed order counted as one.
    n_permutations
        Shuffles.
    level
        Of the intervals, which are Fisher's for both tests.
    seed
        Of shuffles.

    Returns
    -------
    One row per fate and gene, best first within a fate: ``gene``, ``fate``, ``correlation`` (Pearson; NaN for genes or fates
    without variance), ``lower``, ``upper``, ``p_value`` and ``fdr`` (Benjamini-Hochberg within a fate). Cells of one clone or one
    smoothed neighbourhood are not independent, so p-values are too small: order by correlation, and test on other donors.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, fewer than four cells.

    References
    ----------
    ``compute_lineage_drivers`` of CellRank: Lange et al. 2022, *Nat Methods* 19. Benjamini, Hochberg 1995, *J R Stat Soc B* 57.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import driver_genes
    >>> p = np.array([0.1, 0.3, 0.5, 0.6, 0.9])
    >>> x = np.stack([2 * p, np.ones(5)], 1)
    >>> found = driver_genes(x, p[:, None], genes=["rises", "flat"], fates=["A"])
    >>> found["gene"].tolist(), found["correlation"].round(3).tolist()
    (['rises', 'flat'], [1.0, nan])
    """
    require_member(test, TESTS, "test", where="the tests")
    require_positive_int(n_permutations, "n_permutations")
    if isinstance(level, bool) or not 0 < level < 1:
        raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.95.")
    p = np.asarray(probabilities, dtype=np.float64)
    n, n_genes = expression.shape
    if p.ndim != 2 or p.shape[0] != n:
        raise ValueError(
            f"expression has shape {(n, n_genes)}, probabilities {p.shape}: expected the same cells as rows."
        )
    if n < 4:
        raise ValueError(f"{n} cells: a correlation with an interval needs at least four.")
    values = expression.data if sp.issparse(expression) else np.asarray(expression)
    if not np.isfinite(values).all() or not np.isfinite(p).all():
        raise ValueError("expression or probabilities have missing or infinite values: expected numbers.")
    names = [str(g) for g in (range(n_genes) if genes is None else genes)]
    columns = [str(f) for f in (range(p.shape[1]) if fates is None else fates)]
    if len(names) != n_genes or len(columns) != p.shape[1]:
        raise ValueError(
            f"{len(names)} genes and {len(columns)} fates are named: expected {n_genes} and {p.shape[1]}, one a column."
        )
    mean, std = _moments(expression)
    r = _correlations(expression, p, mean, std)
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    se = 1 / np.sqrt(n - 3)
    if test == "fisher":
        p_value = 2 * norm.sf(np.abs(z) / se)
    else:
        rng = np.random.default_rng(seed)
        beyond = np.zeros_like(r)
        with np.errstate(invalid="ignore"):
            for _ in range(n_permutations):
                shuffled = _correlations(expression, p[rng.permutation(n)], mean, std)
                beyond += np.abs(shuffled) >= np.abs(r) * (1 - 1e-12)
        p_value = np.where(np.isnan(r), np.nan, (beyond + 1) / (n_permutations + 1))
    half = norm.isf((1 - level) / 2) * se
    parts = []
    for j, fate in enumerate(columns):
        table = pd.DataFrame(
            {
                "gene": names, "fate": fate, "correlation": r[:, j], "lower": np.tanh(z[:, j] - half),
                "upper": np.tanh(z[:, j] + half), "p_value": p_value[:, j], "fdr": _fdr(p_value[:, j]),
            }
        )  # fmt: skip
        parts.append(table.sort_values("correlation", ascending=False, kind="stable", na_position="last"))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _moments(x: Matrix) -> tuple[FloatArray, FloatArray]:
    mean = np.asarray(x.mean(0), dtype=np.float64).ravel()
    square = sp.csr_matrix(x).power(2) if sp.issparse(x) else np.asarray(x, dtype=np.float64) ** 2
    variance = np.asarray(square.mean(0), dtype=np.float64).ravel() - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12 * np.maximum(mean**2, 1e-300), variance, 0.0))


def _correlations(x: Matrix, p: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    """Return Pearson correlations ``(genes, fates)``; means of ``p`` are taken off, so those of ``x`` need not be."""
    centered = p - p.mean(0)
    covariance = np.asarray(x.T @ centered, dtype=np.float64) / len(p)
    size = std[:, None] * centered.std(0)
    r = np.divide(covariance, size, out=np.full(covariance.shape, np.nan), where=size > 1e-12)
    return np.asarray(np.clip(r, -1.0, 1.0))


def _fdr(p: FloatArray) -> FloatArray:
    """Return Benjamini-Hochberg adjusted p-values, NaN kept."""
    out = np.full_like(p, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    m = len(order)
    scaled = p[order] * m / np.arange(1, m + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out
