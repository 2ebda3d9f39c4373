"""What cells descend to in number and in kind: growth rates, and what became of clones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa import dynamics
from scjepa._checks import require_column, some
from scjepa.model._trajectory_parts import Cells, TrajectoryParts

CLONES = "train_clones"
"""Where fate probabilities say which clones they learned from."""


class TrajectoryClones(TrajectoryParts):
    """Growth and clones of :class:`TrajectoryJEPA`."""

    def get_growth_rates(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        marginal: float = 0.2,
        seed: int = 0,
    ) -> pd.Series:
        """Estimate how many descendants cells have after one unit of time: :func:`scjepa.dynamics.growth_rates`.

        Parameters
        ----------
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        marginal
            See :func:`scjepa.dynamics.growth_rates`.
        seed
            Of blocks of large snapshots.

        Returns
        -------
        Rates, indexed by cell names, 1 for the mean cell of a time (and condition); missing at the last time. Predictions use
        rates that are given: ``adata.obs["growth"] = rates.fillna(1)`` and ``setup_anndata(..., growth_key="growth")``.

        Raises
        ------
        RuntimeError, ValueError
            Before training; for cells of one time only.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1, 2], n_cells=30)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> rates = model.get_growth_rates()
        >>> len(rates), int(rates.isna().sum())
        (90, 30)
        """
        cells = self._cells(adata, indices, "get_growth_rates")
        out = np.full(len(cells.at), np.nan)
        for label in np.unique(cells.conditions):
            mine = np.flatnonzero(cells.conditions == label)
            out[mine] = dynamics.growth_rates(cells.z[mine], cells.times[mine], marginal=marginal, seed=seed)
        return pd.Series(out, index=cells.names, name="growth_rate")

    def clonal_fates(
        self,
        terminal_key: str,
        probabilities: pd.DataFrame | None = None,
        *,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> pd.DataFrame:
        """Say what became of the clones of early cells: the truth for :func:`scjepa.tl.evaluate_fates`.

        Parameters
        ----------
        terminal_key
            Column of ``obs`` with fates; those of cells at the last time (of each condition) count.
        probabilities
            What :meth:`fate_probabilities` returned: clones that it learned from (``train_clones``) are left out here, so that no
            clone both teaches and judges.
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.

        Returns
        -------
        Cells x fates: shares of the fates among the clone's cells at the last time; missing for cells at the last time, without a
        clone, or of a clone without such cells. ``attrs["clones"]`` counts clones that judge.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; without a ``lineage_key``, for an absent column, and where no clone has cells at the last time and before.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1, 2], n_cells=40, n_clones=10)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time", lineage_key="clone")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> truth = model.clonal_fates("fate")
        >>> scores = scjepa.tl.evaluate_fates(
        ...     model.fate_probabilities("fate"), truth, clone_key=adata.obs["clone"], n_boot=100
        ... )
        """
        cells = self._cells(adata, indices, "clonal_fates")
        clones = self._clones(cells)
        shares = _shares(cells, clones, terminal_key)
        taught = [] if probabilities is None else list(probabilities.attrs.get(CLONES, ()))
        if len(shares) and not len(shares := shares.drop(index=[c for c in taught if c in shares.index])):
            raise ValueError(
                f"the probabilities learned from all {len(taught)} clones: none is left to judge them. Train on fewer clones."
            )
        if not len(shares):
            raise ValueError("no clone has cells both at the last time and before: there is nothing to judge fates by.")
        early = clones.where(~pd.Series(cells.last(), index=clones.index))
        out = shares.reindex(early.to_numpy())
        out.index = cells.names
        out.attrs["clones"] = int(early[early.isin(shares.index)].nunique())
        return out

    def _clones(self, cells: Cells) -> pd.Series:
        """Return the clone of each cell, missing for cells without."""
        key = self._setup["lineage_key"]
        if key is None:
            raise ValueError("no column of clones is known. Name it at setup: setup_anndata(..., lineage_key='clone').")
        column = require_column(cells.adata.obs, key, "lineage_key").iloc[cells.at].astype(object)
        known = column.notna() & (column.astype(str) != "")
        return column.astype(str).where(known).reset_index(drop=True)

    def _taught(self, cells: Cells, terminal_key: str, names: Sequence[str]) -> pd.Series:
        """Return fates of early cells of some clones: their clone's most frequent one; missing for ties and other cells."""
        clones = self._clones(cells)
        shares = _shares(cells, clones, terminal_key)
        wanted = pd.Index([str(name) for name in names])
        unknown = [name for name in wanted if name not in shares.index]
        if unknown:
            raise ValueError(
                f"train_clones: {len(unknown)} of {len(wanted)} clones have no cells both at the last time and before, or don't occur "
                f"({some(unknown, 5)}). Choose from those of model.clonal_fates(...)."
            )
        mine = shares.loc[wanted]
        clear = mine.eq(mine.max(axis=1), axis=0).sum(axis=1) == 1
        fate = mine[clear].idxmax(axis=1)
        early = clones.where(~pd.Series(cells.last(), index=clones.index))
        return early.map(fate)


def _shares(cells: Cells, clones: pd.Series, terminal_key: str) -> pd.DataFrame:
    """Return clones x fates: shares among each clone's cells at the last time, of clones that have cells before it too."""
    column = require_column(cells.adata.obs, terminal_key, "terminal_key").iloc[cells.at].astype(object)
    last = pd.Series(cells.last(), index=clones.index)
    fate = column.reset_index(drop=True).where(last)
    fate = fate.where(fate.notna() & (fate.astype(str) != ""))
    seen = fate.notna() & clones.notna()
    counts = pd.crosstab(clones[seen], fate[seen].astype(str))
    both = counts.index.isin(clones[~last].dropna())
    counts = counts[both]
    return counts.div(counts.sum(axis=1), axis=0)
