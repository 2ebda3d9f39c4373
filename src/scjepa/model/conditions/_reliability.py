"""Is there anything to predict? Measured effects against the noise of drawing cells, before any training."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import chi2

from scjepa._types import FloatArray
from scjepa.baselines._noise import effect_noise, reliability
from scjepa.data import CellGroups, ConditionTable, Dose, condition_means
from scjepa.data._conditions import LEAST_FREE
from scjepa.model.conditions._design import Design, Question

logger = logging.getLogger(__name__)

COLUMNS = ("n_cells", "n_controls", "effect_size", "noise", "measured", "reliability", "p_value", "trained")
LEAST_PAIRS = 30
"""Pairs of cells below which a context borrows the covariance of all contexts."""
MOST_PAIRS = 300
"""More pairs change the p-values by less than their own error; so many, drawn with seed 0, in large contexts."""


def reliability_table(
    matrix: sp.csr_matrix, groups: CellGroups, design: Design, order: np.ndarray, trained: Callable[..., np.ndarray]
) -> pd.DataFrame:
    """Tell how much of each measured effect is more than sampling noise; see ``get_reliability`` of the models.

    Parameters
    ----------
    matrix
        ``(n, genes)`` log-normalised expression.
    groups
        Its conditions and controls.
    design
        Names of the columns.
    order
        ``(n,)`` place of each cell in an order that does not depend on how cells are stored.
    trained
        Turns a table into a mask of conditions that were trained on.
    """
    parts, everywhere, all_pairs = [], None, None
    for context in dict.fromkeys(groups.contexts):
        mine = groups.rows(groups.contexts == context)
        table = condition_means(matrix, mine)
        variance, pairs = table.variance, cell_pairs(mine, order)
        if variance is None:
            everywhere = everywhere or condition_means(matrix, groups)
            variance = everywhere.variance
        if len(pairs) < LEAST_PAIRS:
            all_pairs = cell_pairs(groups, order) if all_pairs is None else all_pairs
            pairs = all_pairs
        square = (table.effects**2).sum(1)
        noise = effect_noise(variance, table.n_cells, table.n_controls)
        p = np.full(len(mine), np.nan)
        if noise is None:
            noise = p.copy()
        elif len(pairs) >= LEAST_PAIRS and noise.all():
            p = noise_p_value(square / noise, *spectrum(_differences(matrix, pairs)))
        parts.append(_rows(table, design, square, noise, p).assign(trained=trained(table)))
    out = pd.concat(parts, ignore_index=True)
    if out["noise"].isna().any():
        logger.warning(
            "noise, effect_size, reliability and p_value are NaN: adata has %d rows for %d conditions and their controls, "
            "too few to tell the variance within conditions. Give single cells, or replicates (several profiles of "
            "a condition or of the controls) as rows, at least %d more than conditions and groups of controls.",
            matrix.shape[0], len(out), LEAST_FREE,
        )  # fmt: skip
    return out.sort_values("reliability", ascending=False, kind="stable", ignore_index=True)


def _rows(table: ConditionTable, design: Design, square: FloatArray, noise: FloatArray, p: FloatArray) -> pd.DataFrame:
    """Name the columns of the conditions of one context."""
    out = pd.DataFrame({"perturbation": [design.label(a) for a in table.actions]}, dtype=object)
    doses: list[Dose | None] = [*table.doses] or [None] * len(table)
    asked = [Question(x, a, "", d) for x, a, d in zip(out["perturbation"], table.actions, doses, strict=True)]
    for name, key in design.covariates.items():
        column = {"context": lambda: table.contexts, "dose": lambda: design.values(asked, "dose")}
        out[key] = column[name]() if name in column else getattr(table, name)
    out["n_cells"], out["n_controls"] = table.n_cells, table.n_controls
    out["effect_size"] = np.sqrt(np.maximum(square - noise, 0))
    out["noise"], out["measured"] = np.sqrt(noise), np.sqrt(square)
    out["reliability"] = np.where(np.isnan(noise), np.nan, reliability(square, noise))
    out["p_value"] = p
    return out


def cell_pairs(groups: CellGroups, order: np.ndarray) -> np.ndarray:
    """Pair cells of the same condition, controls (of one context and batch) first; no cell is in two pairs.

    Parameters
    ----------
    groups
        Conditions and their controls.
    order
        ``(n,)`` place of each cell in an order of its own, so that the order in ``groups`` does not matter.

    Returns
    -------
    ``(pairs, 2)`` cells, at most ``MOST_PAIRS``.
    """
    rng = np.random.default_rng(0)
    found = np.zeros((0, 2), dtype=int)
    for parts in (groups.control_strata[0], groups.cells):
        drawn = [rng.permutation(cells[np.argsort(order[cells], kind="stable")]) for cells in parts]
        pairs = np.concatenate([cells[: len(cells) // 2 * 2].reshape(-1, 2) for cells in drawn])
        found = np.concatenate([found, rng.permutation(pairs)])[:MOST_PAIRS]
    return found


def _differences(x: sp.csr_matrix, pairs: np.ndarray) -> FloatArray:
    """Return ``(pairs, genes)`` differences within pairs, of the covariance that cells have."""
    return np.asarray((x[pairs[:, 0]] - x[pairs[:, 1]]).toarray(), dtype=np.float64) / np.sqrt(2)


def spectrum(differences: FloatArray) -> tuple[float, float]:
    r"""Estimate :math:`r_2 = \mathrm{tr}\,\Sigma^2 / (\mathrm{tr}\,\Sigma)^2` and :math:`r_3 = \mathrm{tr}\,\Sigma^3 / (\mathrm{tr}\,\Sigma)^3`.

    For independent :math:`u_i` of mean zero, :math:`E (u_i \cdot u_j)^2 = \mathrm{tr}\,\Sigma^2` and
    :math:`E (u_i \cdot u_j)(u_j \cdot u_k)(u_k \cdot u_i) = \mathrm{tr}\,\Sigma^3` (Chen and Qin 2010); averages over different
    ones are brought inside what the eigenvalues of a covariance can have.

    Parameters
    ----------
    differences
        ``(pairs, genes)``, at least three rows.

    Examples
    --------
    One direction only, and as many as there are genes.

    >>> import numpy as np
    >>> from scjepa.model.conditions._reliability import spectrum
    >>> normal = np.random.default_rng(0).normal(size=(2000, 4))
    >>> np.round(spectrum(normal[:, :1] * [1.0, 2.0]), 1).tolist(), np.round(spectrum(normal), 2).tolist()
    ([1.0, 1.0], [0.25, 0.06])
    """
    n, genes = differences.shape
    gram = differences @ differences.T
    total = float(np.trace(gram)) / n
    np.fill_diagonal(gram, 0)
    second = float((gram**2).sum()) / (n * (n - 1)) / total**2
    third = float(((gram @ gram) * gram).sum()) / (n * (n - 1) * (n - 2)) / total**3
    second = float(np.clip(second, 1 / genes, 1))
    return second, float(np.clip(third, second**2, second**1.5))


def noise_p_value(ratio: FloatArray, second: float, third: float) -> FloatArray:
    r"""Return how often noise alone makes :math:`|\hat\delta|^2 / \nu` at least ``ratio``.

    That has mean 1, variance :math:`2 r_2` and third central moment :math:`8 r_3`, as
    :math:`1 + (\chi^2_k - k)\, r_3 / r_2` with :math:`k = r_2^3 / r_3^2` has.

    Parameters
    ----------
    ratio
        Measured squared lengths over their expectation.
    second, third
        :math:`r_2` and :math:`r_3` of :func:`spectrum`.

    Examples
    --------
    Four genes of the same variance: the chi-square of four degrees of freedom, exactly.

    >>> import numpy as np
    >>> from scipy.stats import chi2
    >>> from scjepa.model.conditions._reliability import noise_p_value
    >>> float(noise_p_value(np.array([chi2.isf(0.05, 4) / 4]), 1 / 4, 1 / 16)[0].round(4))
    0.05
    """
    k = second**3 / third**2
    return np.asarray(chi2.sf(k + (ratio - 1) * second / third, k))
