"""The baseline "linear": effects are bilinear in what is known of the read-out gene and of the perturbed gene."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.baselines._base import Baseline
from scjepa.data import ConditionTable


class Linear(Baseline):
    r"""Bilinear ridge regression of effects on gene vectors that come from the training profiles themselves.

    .. math::
        Y = \bar X - \bar x_0,\quad Y_c = Y - b,\quad
        K = (G^\top G + \lambda I)^{-1}\, G^\top Y_c P^\top\, (P P^\top + \lambda I)^{-1},\quad
        \hat\delta(p) = G K p + b

    with :math:`Y` the effects (genes x training conditions, the unperturbed one among them with effect zero),
    :math:`b` their mean, :math:`G` the scores of the genes on the leading principal components of the training
    profiles :math:`\bar X` (genes as observations, each condition centered), and a column :math:`p` of :math:`P` the
    row of :math:`G` of the perturbed gene: the sum of the rows for a combination, zero for the control. So a gene
    that was never perturbed can be predicted from how it is expressed, if it is measured.

    Parameters
    ----------
    n_components
        Length of the gene vectors; fewer if there are fewer conditions.
    strength
        :math:`\lambda`.

    Attributes
    ----------
    gene_vectors_
        :math:`G`, ``(genes, n_components)``.
    coefficients_
        :math:`K`, ``(n_components, n_components)``.
    center_
        :math:`b`, ``(genes,)``.

    Notes
    -----
    The linear model of Ahlmann-Eltze, Huber and Anders (2025), *Nature Methods*, 10.1038/s41592-025-02772-6, with
    their settings (10 components, 0.1). Every training row whose perturbed genes are all measured is regressed on; all
    rows shape :math:`G`. Contexts, kinds and doses are not distinguished, and every context adds one unperturbed
    condition. Rows with a gene that is not measured are NaN, and so is everything when the table names no genes.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines import Linear
    >>> from scjepa.data import ConditionTable
    >>> where = np.array(["all", "all"])
    >>> genes = ("A", "B", "C")
    >>> control = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    >>> effects = np.array([[-1.0, 0.0, 0.5], [0.0, -2.0, 0.0]])
    >>> table = ConditionTable((("A",), ("B",)), where, control, control + effects, genes=genes)
    >>> query = ConditionTable((("C",), ("unmeasured",)), where, control, genes=genes)
    >>> Linear().fit(table).effects(query).round(2).tolist()
    [[-0.25, -0.33, -0.26], [nan, nan, nan]]
    """

    name: ClassVar[str] = "linear"

    def __init__(self, n_components: int = 10, strength: float = 0.1) -> None:
        self.n_components = require_positive_int(n_components, "n_components")
        if not (np.isfinite(strength) and strength > 0):
            raise ValueError(f"strength={strength!r}: expected a positive number.")
        self.strength = float(strength)

    def fit(self, table: ConditionTable) -> Linear:
        """Find the gene vectors, solve for the coefficients."""
        self._remember(table)
        assert table.perturbed is not None  # checked by _remember
        where = table.contexts.astype(str)
        unperturbed = np.stack([table.control[where == c].mean(0) for c in np.unique(where)])
        profiles = np.concatenate([table.perturbed, unperturbed]).T
        profiles = profiles - profiles.mean(0)  # genes are the observations here
        left, size, _ = np.linalg.svd(profiles, full_matrices=False)
        self.gene_vectors_ = g = (left * size)[:, : self.n_components]
        usable = self._measured(table)
        y = np.concatenate([table.effects[usable], np.zeros_like(unperturbed)]).T
        p = np.concatenate([self._vectors(table)[usable], np.zeros((len(unperturbed), g.shape[1]))]).T
        self.center_ = y.mean(1)
        penalty = self.strength * np.eye(g.shape[1])
        inner = np.linalg.solve(g.T @ g + penalty, g.T @ (y - self.center_[:, None]) @ p.T)
        self.coefficients_ = np.linalg.solve(p @ p.T + penalty, inner.T).T
        return self

    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects, ``(m, genes)``; NaN for rows with a gene that is not measured."""
        table = self._trained(query)
        out = self._vectors(query) @ self.coefficients_.T @ self.gene_vectors_.T + self.center_
        if self._measured(table).any():
            out[~self._measured(query)] = np.nan
        else:  # nothing but controls to learn from
            out[:] = np.nan
        return out

    def _vectors(self, table: ConditionTable) -> FloatArray:
        """Return ``(m, n_components)``: the vectors of the perturbed genes, summed."""
        place = {name: j for j, name in enumerate(self.table_.genes)}
        names = [name for name in table.vocabulary() if name in place]  # of all genes, the few perturbed ones
        return table.design(names) @ self.gene_vectors_[[place[name] for name in names]]

    def _measured(self, table: ConditionTable) -> np.ndarray:
        """Return a boolean ``(m,)``: rows whose perturbed genes are all measured."""
        names = set(self.table_.genes)
        return np.array([names.issuperset(action) for action in table.actions], dtype=bool)
