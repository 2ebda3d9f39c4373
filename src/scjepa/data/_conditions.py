"""Conditions (perturbation x context) as a table of mean profiles, beside those of their matched controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import require_labels, require_member, require_numbers
from scjepa._labels import Action
from scjepa._scale import check_scale, lognormalise
from scjepa._types import FloatArray, InputScale, Matrix
from scjepa.data._doses import Dose, dose_column, dose_matrix, dose_values, no_dose
from scjepa.data._groups import CellGroups, group_cells

LEAST_FREE = 20
"""Degrees of freedom below which the variance within conditions counts as unknown."""
BLOCK = 8192
"""Rows that are squared at a time."""


@dataclass(frozen=True)
class ConditionTable:
    r"""Mean profiles of conditions, one row per (action, context, dose, kind, time).

    A table with ``perturbed`` is what baselines are fitted on; one without is a question to them.

    Attributes
    ----------
    actions
        Sorted names of what was perturbed, one tuple a row.
    contexts
        ``(m,)`` context labels.
    control
        ``(m, genes)`` mean log-normalised profile of the controls matched to the row.
    perturbed
        ``(m, genes)`` mean log-normalised profile of the perturbed cells, or None.
    n_cells
        ``(m,)`` number of perturbed cells behind each row (0 in questions).
    dose
        ``(m,)`` doses; ``(m, k)`` where any combination has a dose for each item, in the order of the (sorted) action and
        NaN beyond the last; or None.
    kind
        ``(m,)`` kinds of perturbation (``"KO"``, ``"OE"``, ...), or None.
    genes
        Names of the measured genes.
    variance
        ``(genes,)`` variance of cells within conditions and within controls, pooled; None where there are too few cells
        to tell, as in tables of profiles.
    n_controls
        ``(m,)`` effective number of controls behind each row, :math:`1 / \sum w^2` for controls of weights ``w``; None if
        unknown.
    time
        ``(m,)`` how long each action lasted, or None.
    """

    actions: tuple[Action, ...]
    contexts: np.ndarray
    control: FloatArray
    perturbed: FloatArray | None = None
    n_cells: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    dose: FloatArray | None = None
    kind: np.ndarray | None = None
    genes: tuple[str, ...] = ()
    variance: FloatArray | None = None
    n_controls: FloatArray | None = None
    time: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def effects(self) -> FloatArray:
        """``(m, genes)`` perturbed minus control means."""
        if self.perturbed is None:
            raise ValueError("this ConditionTable is a question: it has no perturbed profiles.")
        return self.perturbed - self.control

    @property
    def order(self) -> np.ndarray:
        """``(m,)`` number of perturbed genes per row."""
        return np.array([len(a) for a in self.actions], dtype=int)

    @property
    def doses(self) -> list[Dose]:
        """The dose of each row: a number, or a tuple of one for each item; empty without doses."""
        return [] if self.dose is None else dose_values(self.dose, self.actions)

    def dose_design(self, vocabulary: Sequence[str]) -> FloatArray:
        """Return the ``(m, len(vocabulary))`` matrix of the doses of items, 0 where they were not given."""
        return dose_matrix(np.ones(len(self)) if self.dose is None else self.dose, self.actions, vocabulary)

    @property
    def untreated(self) -> np.ndarray:
        """``(m,)`` rows in which nothing was done: without items, or at dose zero."""
        nothing = self.order == 0
        return nothing if self.dose is None else nothing | no_dose(self.dose)

    def rows(self, index: Sequence[int] | np.ndarray) -> ConditionTable:
        """Return the rows ``index`` (integers or a boolean mask) as a table of their own."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(int)
        pick = lambda a: None if a is None else a[index]
        return replace(
            self,
            actions=tuple(self.actions[i] for i in index),
            contexts=self.contexts[index],
            control=self.control[index],
            perturbed=pick(self.perturbed),
            n_cells=self.n_cells[index] if len(self.n_cells) else self.n_cells,
            dose=pick(self.dose),
            kind=pick(self.kind),
            n_controls=pick(self.n_controls),
            time=pick(self.time),
        )

    def vocabulary(self) -> tuple[str, ...]:
        """Sorted names of everything perturbed in any row."""
        return tuple(sorted({name for action in self.actions for name in action}))

    def design(self, vocabulary: Sequence[str]) -> FloatArray:
        """Return the ``(m, len(vocabulary))`` multi-hot matrix of actions; names outside are left out."""
        column = {name: j for j, name in enumerate(vocabulary)}
        out = np.zeros((len(self), len(column)))
        for i, action in enumerate(self.actions):
            for name in action:
                if name in column:
                    out[i, column[name]] = 1.0
        return out


def weighted_means(x: Matrix, groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> FloatArray:
    """Return ``(len(groups), genes)`` weighted means of rows of ``x`` in one sparse product."""
    indptr = np.cumsum([0, *(len(cells) for cells, _ in groups)])
    indices = np.concatenate([np.asarray(cells) for cells, _ in groups]) if groups else np.zeros(0, int)
    weights = np.concatenate([np.asarray(w, dtype=np.float64) for _, w in groups]) if groups else np.zeros(0)
    average = sp.csr_matrix((weights, indices, indptr), shape=(len(groups), x.shape[0]))
    means = average @ x
    return np.asarray(means.toarray() if sp.issparse(means) else means, dtype=np.float64)


def condition_means(x: Matrix, groups: CellGroups, genes: Sequence[str] = ()) -> ConditionTable:
    """Average log-normalised ``x`` over the cells of every condition and over its matched controls.

    The variance within conditions is that around the mean of a cell's condition or (controls) of its context and batch.
    """
    strata, weights = groups.control_strata
    alike = lambda parts: [(cells, np.full(len(cells), 1 / len(cells))) for cells in parts]
    of_strata = weighted_means(x, alike(strata))
    control = weighted_means(of_strata, weights)
    perturbed = weighted_means(x, alike(groups.cells))
    parts = [*groups.cells, *strata]
    size = np.array([len(cells) for cells in parts], dtype=float)
    spread = None
    if (free := size.sum() - len(size)) >= LEAST_FREE:
        square = _sum_of_squares(x, np.concatenate(parts)) - size @ np.vstack([perturbed, of_strata]) ** 2
        spread = np.maximum(square, 0) / free
    return ConditionTable(
        actions=groups.actions,
        contexts=groups.contexts,
        control=control,
        perturbed=perturbed,
        n_cells=np.array([len(c) for c in groups.cells], dtype=int),
        dose=groups.dose,
        kind=groups.kind,
        time=groups.time,
        genes=tuple(genes),
        variance=spread,
        n_controls=np.array([1 / np.sum(w**2 / [len(strata[s]) for s in which]) for which, w in weights]),
    )


def _sum_of_squares(x: Matrix, cells: np.ndarray) -> FloatArray:
    """Return ``(genes,)`` sums of squares over the rows ``cells``, each counted once, block by block."""
    chosen = np.zeros(x.shape[0])
    chosen[cells] = 1.0
    total = np.zeros(x.shape[1])
    for start in range(0, x.shape[0], BLOCK):
        mask, block = chosen[start : start + BLOCK], x[start : start + BLOCK]
        if mask.any():
            square = sp.csr_matrix(block).power(2) if sp.issparse(block) else np.square(block, dtype=np.float64)
            total += mask @ square
    return total


def condition_table(
    adata: AnnData,
    perturbation_key: str,
    control: str = "control",
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    context_key: str | None = None,
    dose_key: str | None = None,
    kind_key: str | None = None,
    time_key: str | None = None,
    separator: str = "+",
    target_sum: float = 1e4,
    input_scale: InputScale = "auto",
) -> ConditionTable:
    """Build a :class:`ConditionTable` from cells.

    Parameters
    ----------
    adata
        Cells x genes; counts (normalised to ``target_sum`` and log1p'd here) or log-normalised values.
    perturbation_key, control, separator
        Column of perturbation labels, label of controls, what joins combinations.
    layer, batch_key, context_key, dose_key, kind_key, time_key
        Where to find the matrix and the columns.
    target_sum
        Library size that counts are scaled to.
    input_scale
        ``"counts"``, ``"lognorm"``, ``"auto"`` to find out, or ``"signature"`` for differences
        (:func:`scjepa.data.signatures_to_conditions`).

    Returns
    -------
    The table, in ``adata.var_names``.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.data import condition_table
    >>> obs = pd.DataFrame({"p": ["control", "control", "A", "A"]}, index=list("abcd"))
    >>> cells = anndata.AnnData(np.array([[0.5, 1.0], [1.5, 1.0], [3.5, 1.0], [2.5, 2.0]]), obs=obs)
    >>> condition_table(cells, "p").effects.tolist()
    [[2.0, 0.5]]
    """
    obs = adata.obs
    labels = require_labels(obs, perturbation_key, "perturbation_key").to_numpy()
    batches = None
    if batch_key is not None:
        batches = np.unique(require_labels(obs, batch_key, "batch_key").to_numpy(), return_inverse=True)[1]
    groups = group_cells(
        labels,
        control=control,
        separator=separator,
        contexts=None if context_key is None else require_labels(obs, context_key, "context_key").to_numpy(),
        dose=None
        if dose_key is None
        else dose_column(obs, dose_key, perturbation_key, control=control, separator=separator),
        kind=None if kind_key is None else require_labels(obs, kind_key, "kind_key").to_numpy(),
        time=None if time_key is None else require_numbers(obs, time_key, "time_key", minimum=0.0),
        batches=batches,
    )
    if layer is not None:
        require_member(layer, adata.layers, "layer", where="adata.layers")
    x = adata.X if layer is None else adata.layers[layer]
    if check_scale(x, input_scale, name="adata.X" if layer is None else f"adata.layers[{layer!r}]") == "counts":
        x = lognormalise(x, target_sum)
    return condition_means(x, groups, tuple(adata.var_names))
