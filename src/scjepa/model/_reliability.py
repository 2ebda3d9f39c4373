"""get_reliability: is there anything to predict? Measured effects against the noise of drawing cells, before any training."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import chi2

from scjepa._checks import require_labels, require_numbers
from scjepa._types import FloatArray
from scjepa.baselines._base import condition_keys
from scjepa.baselines._noise import effect_noise, reliability
from scjepa.data import CellGroups, ConditionTable, condition_means
from scjepa.data._conditions import LEAST_FREE
from scjepa.model._perturb_training import PerturbTrainingMixin

logger = logging.getLogger(__name__)

COLUMNS = ("n_cells", "n_controls", "effect_size", "noise", "measured", "reliability", "p_value", "trained")
LEAST_PAIRS = 30
"""Pairs of cells below which a context borrows the covariance of all contexts."""
MOST_PAIRS = 300
"""More pairs change the p-values by less than their own error; so many, drawn with seed 0, in large contexts."""


class ReliabilityMixin(PerturbTrainingMixin):
    """How much of the measured effects is noise, for :class:`PerturbJEPA`."""

    def get_reliability(self, adata: AnnData | None = None) -> pd.DataFrame:
        r"""Tell how much of each measured effect is more than the noise of having drawn a limited number of cells.

        A statement about the data, to be read before training and before any score: an effect that is all noise can't be
        predicted, and no model is to blame. Nothing is written to ``adata``. :func:`scjepa.pl.reliability` draws the table.

        Parameters
        ----------
        adata
            Cells with the columns that the model was set up with and its genes, in any order; by default the AnnData of
            the model.

        Returns
        -------
        One row per condition, the most reliable first:

        ``perturbation``
            What was done; the context, dose and kind stand in columns named as in ``obs``, if the model has them.
        ``n_cells``, ``n_controls``
            Perturbed cells :math:`n`, and the effective number of controls :math:`m`, matched by context and batch.
        ``effect_size``
            Length of the effect without the noise, :math:`\sqrt{\max(0, |\hat\delta|^2 - \nu)}`; L2 over genes, log-normalized
            scale, as the next two.
        ``noise``
            Length that sampling alone gives, :math:`\sqrt\nu` with :math:`\nu = \sum_g V_g (1/n + 1/m)` and :math:`V` the variance
            within the conditions of this context (of all contexts where this one has too few cells to tell).
        ``measured``
            Length of the measured mean effect, :math:`|\hat\delta|`: perturbed minus control means.
        ``reliability``
            :math:`\max(0, 1 - \nu / |\hat\delta|^2)`, the share of the squared length that is not noise, 0 to 1 (James and
            Stein 1961); one half is where effect and noise are of one size. Null perturbations get 0, or a little more by chance.
        ``p_value``
            How often sampling alone makes a :math:`|\hat\delta|` as large as this one. Not adjusted for the number of rows.
        ``trained``
            Whether this model was trained on the condition; False before training.

        Raises
        ------
        KeyError, TypeError, ValueError
            For absent columns or genes, missing labels, no controls, and what is no AnnData in memory.

        Warns
        -----
        Where there are too few rows to tell the variance within conditions, as with one profile per condition, noise,
        effect size, reliability and p-value are NaN, and the log says so.

        Notes
        -----
        The noise is that of drawing cells. Differences between wells, guides or donors are in it only as far as they are
        within conditions, and are best matched by ``batch_key``: with one donor a small p-value does not promise another one.

        :math:`|\hat\delta|^2 / \nu` under the null is a weighted sum of chi-squares, with the eigenvalues of the covariance
        :math:`\Sigma` within conditions for weights: genes that vary together count as few. It is matched in three moments
        by a scaled and shifted chi-square (Pearson 1959; Zhang et al. 2020 in two moments), which need the traces
        of :math:`\Sigma`, :math:`\Sigma^2` and :math:`\Sigma^3` alone. The latter are averages of products of
        differences between two cells of a condition, unbiased whatever the distribution (Chen and Qin 2010). For relabelled
        controls p-values are close to uniform from about five cells on.

        References
        ----------
        James and Stein. Estimation with quadratic loss. Proc. 4th Berkeley Symp. Math. Stat. Prob., 1961.
        Pearson. Note on an approximation to the distribution of non-central chi-square. Biometrika 46, 1959.
        Chen and Qin. A two-sample test for high-dimensional data with applications to gene-set testing. Ann. Stat. 38, 2010.
        Zhang, Guo, Zhou and Cheng. A simple two-sample test in high dimensions based on L2-norm. JASA 115, 2020.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> table = scjepa.PerturbJEPA(adata).get_reliability()
        >>> table.shape, bool(table["reliability"].is_monotonic_decreasing)
        ((12, 10), True)
        """
        adata = self._own_or_given(adata)
        self._check_reliability_columns(adata)
        groups = self._groups(adata)
        if not len(groups):
            control, key = self._setup["control"], self._setup["perturbation_key"]
            raise ValueError(
                f"adata has no perturbed cells: all labels in adata.obs[{key!r}] are the control {control!r}."
            )
        matrix = self._read(adata).values
        names = np.empty(adata.n_obs, dtype=int)
        names[np.argsort(adata.obs_names.to_numpy(dtype=str), kind="stable")] = np.arange(adata.n_obs)
        parts, everywhere, all_pairs = [], None, None
        for context in dict.fromkeys(groups.contexts):
            mine = groups.rows(groups.contexts == context)
            table = condition_means(matrix, mine)
            variance, pairs = table.variance, cell_pairs(mine, names)
            if variance is None:
                everywhere = everywhere or condition_means(matrix, groups)
                variance = everywhere.variance
            if len(pairs) < LEAST_PAIRS:
                all_pairs = cell_pairs(groups, names) if all_pairs is None else all_pairs
                pairs = all_pairs
            square = (table.effects**2).sum(1)
            noise = effect_noise(variance, table.n_cells, table.n_controls)
            p = np.full(len(mine), np.nan)
            if noise is None:
                noise = p.copy()
            elif len(pairs) >= LEAST_PAIRS and noise.all():
                p = noise_p_value(square / noise, *spectrum(_differences(matrix, pairs)))
            parts.append(self._reliability_rows(table, square, noise, p))
        out = pd.concat(parts, ignore_index=True)
        if out["noise"].isna().any():
            logger.warning(
                "noise, effect_size, reliability and p_value are NaN: adata has %d rows for %d conditions and their controls, "
                "too few to tell the variance within conditions. Give single cells, or replicates (several profiles of "
                "a condition or of the controls) as rows, at least %d more than conditions and groups of controls.",
                adata.n_obs, len(out), LEAST_FREE,
            )  # fmt: skip
        return out.sort_values("reliability", ascending=False, kind="stable", ignore_index=True)

    def _check_reliability_columns(self, adata: AnnData) -> None:
        """Raise when ``adata`` lacks a column, or one of the user's would be overwritten by one of the result."""
        for argument, key in zip(("perturbation", "context", "dose", "kind", "batch"), self._columns, strict=True):
            argument = f"{argument}_key"
            if key is None:
                continue
            if argument == "dose_key":
                require_numbers(adata.obs, key, argument, minimum=0.0)
            else:
                require_labels(adata.obs, key, argument)
            shown = argument in ("context_key", "dose_key", "kind_key")
            if shown and key in ("perturbation", *COLUMNS):
                raise ValueError(
                    f"{argument}={key!r}: the result has a column of its own by this name. Rename yours in obs "
                    "and set the model up again."
                )

    def _reliability_rows(
        self, table: ConditionTable, square: FloatArray, noise: FloatArray, p: FloatArray
    ) -> pd.DataFrame:
        """Name the columns of the conditions of one context."""
        s = self._setup
        out = pd.DataFrame({"perturbation": [s["separator"].join(a) for a in table.actions]}, dtype=object)
        for key, values in (
            (s["context_key"], table.contexts),
            (s["dose_key"], table.dose),
            (s["kind_key"], table.kind),
        ):
            if key is not None:
                out[key] = values
        out["n_cells"], out["n_controls"] = table.n_cells, table.n_controls
        out["effect_size"] = np.sqrt(np.maximum(square - noise, 0))
        out["noise"], out["measured"] = np.sqrt(noise), np.sqrt(square)
        out["reliability"] = np.where(np.isnan(noise), np.nan, reliability(square, noise))
        out["p_value"] = p
        out["trained"] = self._trained_on(table)
        return out

    def _trained_on(self, table: ConditionTable) -> np.ndarray:
        """Return which conditions this model was trained on."""
        if not self.is_trained_:
            return np.zeros(len(table), bool)
        contexts = table.contexts.astype(str)
        if self.anchor_ is None:  # what is remembered then knows neither dose nor kind
            known = set(zip(self.trained_on_["perturbation"], self.trained_on_["context"].astype(str), strict=True))
            labels = [self._setup["separator"].join(a) for a in table.actions]
            return np.array([key in known for key in zip(labels, contexts, strict=True)], dtype=bool)
        seen = self.anchor_.table_
        fitted = set(zip(condition_keys(seen), seen.contexts.astype(str), strict=True))
        return np.array([key in fitted for key in zip(condition_keys(table), contexts, strict=True)], dtype=bool)


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
    >>> from scjepa.model._reliability import spectrum
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
    >>> from scjepa.model._reliability import noise_p_value
    >>> float(noise_p_value(np.array([chi2.isf(0.05, 4) / 4]), 1 / 4, 1 / 16)[0].round(4))
    0.05
    """
    k = second**3 / third**2
    return np.asarray(chi2.sf(k + (ratio - 1) * second / third, k))
