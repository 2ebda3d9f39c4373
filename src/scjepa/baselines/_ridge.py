"""The baseline "ridge": effects regressed linearly on which genes were perturbed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.baselines._design import ActionDesign
from scjepa.data import ConditionTable

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ridge strengths that leave-one-condition-out chooses from."""


class Ridge(Baseline):
    r"""Ridge regression of effects on the multi-hot of perturbed genes, in the leading directions of the effects.

    .. math::
        \Delta = U S V^\top,\quad Z = \Delta V_k,\quad
        W = (A^\top A + \lambda I)^{-1} A^\top Z,\quad \hat\delta(a) = a W V_k^\top

    Neither effects nor actions are centered, so an action without genes has no effect and combinations are sums of
    shrunken single effects. :math:`\lambda` has the least squared leave-one-condition-out error, for which ridge has a
    closed form: residuals divided by :math:`1 - h_{ii}` of the hat matrix.

    Parameters
    ----------
    n_pcs
        Number of leading directions of the training effects that are predicted.

    Attributes
    ----------
    strength_
        The chosen :math:`\lambda`.
    coefficients_
        ``(columns, genes)`` effect of every column of the design (gene, and gene with kind when kinds are given).

    Notes
    -----
    The linear model of Ahlmann-Eltze, Huber and Anders (2025), *Nature Methods*, 10.1038/s41592-025-02772-6, with
    one-hot vectors of the perturbed genes. Contexts are not distinguished. A row with a gene that was never perturbed
    in training is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import Ridge
    >>> from scjepa.data import ConditionTable
    >>> effects = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    >>> table = ConditionTable((("A",), ("B",), ("A", "B")), np.array(["all"] * 3), np.zeros((3, 2)), effects)
    >>> Ridge().fit(table).effects(table).round(1).tolist()
    [[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]]
    """

    name: ClassVar[str] = "ridge"

    def __init__(self, n_pcs: int = 50) -> None:
        self.n_pcs = require_positive_int(n_pcs, "n_pcs")

    def fit(self, table: ConditionTable) -> Ridge:
        """Find the leading directions, choose the strength, solve."""
        self._remember(table)
        design = ActionDesign.of(table).rows(table)
        axes = np.linalg.svd(table.effects, full_matrices=False)[2][: self.n_pcs]
        scores = table.effects @ axes.T
        left, size, right = np.linalg.svd(design, full_matrices=False)
        inside = left.T @ scores
        errors = []
        for strength in STRENGTHS:
            shrink = size**2 / (size**2 + strength)
            leverage = np.minimum((left**2) @ shrink, 1 - 1e-9)
            residual = scores - left @ (shrink[:, None] * inside)
            errors.append(np.square(residual / (1 - leverage)[:, None]).sum())
        self.strength_ = STRENGTHS[int(np.argmin(errors))]
        weights = right.T @ ((size / (size**2 + self.strength_))[:, None] * inside)
        self.coefficients_ = weights @ axes
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects, ``(m, genes)``; NaN for rows with a gene never perturbed in training."""
        design = ActionDesign.of(self._trained(query))
        out = design.rows(query) @ self.coefficients_
        out[~design.known(query)] = np.nan
        return out
