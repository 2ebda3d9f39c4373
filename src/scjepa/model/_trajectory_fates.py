"""Fates: where cells end, which genes go with it, and which clusters descend from which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa import dynamics
from scjepa._checks import closest, require_column, require_labels, some
from scjepa._types import FloatArray
from scjepa.model._trajectory_clones import CLONES, TrajectoryClones
from scjepa.model._trajectory_moves import TrajectoryMoves
from scjepa.model._trajectory_parts import Cells

FATE_PCS = 30
"""Components of the training cells in which walks to fates are made: the fewer of predictions cost AUROC (LARRY, .897 for .909)."""


class TrajectoryFates(TrajectoryMoves, TrajectoryClones):
    """Fates, drivers and lineages of :class:`TrajectoryJEPA`."""

    fate_axes_: Mapping[str, FloatArray]

    def fate_probabilities(
        self,
        terminal_key: str | None = None,
        *,
        terminal_states: pd.Series | None = None,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        train_clones: Sequence[str] | None = None,
        with_training: bool | None = None,
        n_neighbors: int = 15,
        restart: float = 0.1,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Say where cells end: a walk with restart over cells of all times, :func:`scjepa.dynamics.fate_probabilities`.

        Parameters
        ----------
        terminal_key
            Column of ``obs`` whose labels at the last time (of each condition) are the fates; labels of earlier cells are not
            used.
        terminal_states
            In its place: fates of some cells, indexed by cell names, for example of :meth:`terminal_states`, which are also
            the default.
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        train_clones
            Clones (of the ``lineage_key``) whose early cells count as having their clone's most frequent fate at the last time,
            with a ``terminal_key``. On real clones that told no more than states do (LARRY, other clones: AUROC .867 for .864); don't
            judge by the same clones (:meth:`clonal_fates` leaves them out).
        with_training
            Whether the model's training cells take part, with their fates, though rows are of the given cells only: for query
            cells of early times. By default they do where the given cells are of one time, or of none of the last times.
        n_neighbors
            Of the graph.
        restart
            See :func:`scjepa.dynamics.fate_probabilities`.
        seed
            Of terminal states that are found.

        Returns
        -------
        Cells x fates, rows of sum one. Cells from which no fate can be reached are missing (NaN), and one warning counts them.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; for both sources of fates, an absent column, states that name none of the cells, no labelled cell,
            and clones that can't teach.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1, 2], n_cells=30)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> model.fate_probabilities("fate").shape
        (90, 2)
        """
        cells = self._cells(adata, indices, "fate_probabilities", times=1)
        if terminal_key is not None and terminal_states is not None:
            raise ValueError("terminal_key and terminal_states both say what fates are. Give one of them.")
        if terminal_key is None and train_clones is not None:
            raise ValueError("train_clones needs a terminal_key, which says what became of the clones.")
        if with_training is None:
            ends = {label: self.anchor_.levels(label)[-1] for label in self.anchor_.of}
            late = [t == ends.get(label) for t, label in zip(cells.times, cells.conditions, strict=True)]
            with_training = adata is not None and adata is not self.adata and not any(late)
        others: Cells | None = None
        if with_training:
            others = self._cells(None, None, "fate_probabilities")
            others = others.rows(~others.names.isin(cells.names))
        else:
            self._require_two_times(cells, "fate_probabilities")
        labelled = cells if others is None else others
        if terminal_key is not None:
            column = require_column(labelled.adata.obs, terminal_key, "terminal_key").iloc[labelled.at].astype(object)
            fates = column.where(labelled.last()).to_numpy(dtype=object)
            if train_clones is not None:
                taught = self._taught(labelled, terminal_key, train_clones)
                fates = np.where(taught.notna(), taught, fates)
        else:
            if terminal_states is None:
                own: dict[str, Any] = {} if others is not None else {"adata": adata, "indices": indices}
                terminal_states = self.terminal_states(**own, seed=seed)
            if not labelled.names.isin(terminal_states.index).any():
                raise ValueError(
                    f"terminal_states names none of the {len(labelled.names)} cells ({some(list(terminal_states.index), 3)}). Index it by "
                    "adata.obs_names."
                )
            fates = terminal_states.astype(object).reindex(labelled.names).to_numpy(dtype=object)
        n, fine = len(cells.at), self._fine(cells)
        if others is not None:
            fine = np.concatenate([fine, self._fine(others)])
            fates = np.concatenate([np.full(n, None, dtype=object), fates])
        labels = cells.conditions if others is None else np.concatenate([cells.conditions, others.conditions])
        graph = self._graph(fine, labels, n_neighbors)
        found = dynamics.fate_probabilities(fine, fates, restart=restart, graph=graph)
        table = pd.DataFrame(found.probabilities[:n], index=cells.names, columns=list(found.names))
        table.attrs[CLONES] = [] if train_clones is None else [str(name) for name in train_clones]
        lost = ~found.reached[:n]
        if lost.any():
            table.loc[lost] = np.nan
            warnings.warn(
                f"from {int(lost.sum())} of {len(table)} cells no fate can be reached: their rows are missing. More "
                "neighbours (n_neighbors) connect more cells.",
                UserWarning,
                stacklevel=2,
            )
        return table

    def _fine(self, cells: Cells) -> FloatArray:
        """Return cells in the components in which walks are made."""
        axes, rows = self.fate_axes_, self._read(cells.adata, cells.at).values
        loadings = np.asarray(axes["loadings"], dtype=np.float64)
        return np.asarray(rows @ loadings.T) - np.asarray(axes["mean"]) @ loadings.T

    @staticmethod
    def _graph(z: FloatArray, conditions: np.ndarray, n_neighbors: int) -> sp.csr_matrix:
        """Connect cells of each condition."""
        rows = [np.flatnonzero(conditions == label) for label in np.unique(conditions)]
        back = np.argsort(np.concatenate(rows))
        blocks = [dynamics.neighbor_graph(z[mine], n_neighbors=n_neighbors) for mine in rows]
        return sp.csr_matrix(sp.block_diag(blocks, format="csr")[back][:, back])

    def driver_genes(
        self,
        fate: str | None = None,
        *,
        probabilities: pd.DataFrame | None = None,
        terminal_key: str | None = None,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Correlate genes with fates, over cells before the last time: :func:`scjepa.dynamics.driver_genes`.

        Parameters
        ----------
        fate
            One of the fates, by default all.
        probabilities
            Of :meth:`fate_probabilities`; found with ``terminal_key`` by default.
        terminal_key
            See :meth:`fate_probabilities`.
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        seed
            Of terminal states that are found.

        Returns
        -------
        One row per fate and gene, best first within a fate: ``gene``, ``fate``, ``correlation``, ``lower``, ``upper``,
        ``p_value``, ``fdr``.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; for an unknown fate, and probabilities of other cells.
        """
        cells = self._cells(adata, indices, "driver_genes")
        if probabilities is None:
            probabilities = self.fate_probabilities(terminal_key, adata=adata, indices=indices, seed=seed)
        table = probabilities.reindex(cells.names)
        if table.isna().all(axis=None):
            raise ValueError(
                f"probabilities are of none of the {len(cells.names)} cells ({some(list(probabilities.index), 3)}). Give those of "
                "model.fate_probabilities(...) for the same cells."
            )
        if fate is not None and fate not in table.columns:
            raise KeyError(
                f"fate={fate!r} is not one of the fates: {some(list(table.columns))}.{closest(str(fate), table.columns)}"
            )
        early = np.flatnonzero(~cells.last() & table.notna().all(axis=1).to_numpy())
        found = dynamics.driver_genes(
            self._read(cells.adata, cells.at[early]).values,
            table.iloc[early].to_numpy(),
            genes=list(self.var_names_),
            fates=list(table.columns),
        )
        return found if fate is None else found[found["fate"] == fate].reset_index(drop=True)

    def lineage_relations(
        self,
        cluster_key: str,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        least: float = 0.05,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Say which clusters descend from which: :func:`scjepa.dynamics.lineage_relations`.

        Parameters
        ----------
        cluster_key
            Column of ``obs`` with the cluster of every cell.
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        least
            Edges that are below this share both of what leaves the source and of what arrives at the target are left out.
        seed
            Of blocks of large snapshots.

        Returns
        -------
        The graph of flows, a row an edge; ``attrs["parents"]`` is the tree of main parents.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; for an absent column, and cells without a cluster.
        """
        cells = self._cells(adata, indices, "lineage_relations")
        clusters = require_labels(cells.adata.obs, cluster_key, "cluster_key").iloc[cells.at]
        chain = self.transition_matrix(adata, indices=indices, seed=seed)
        found = dynamics.lineage_relations(clusters.to_numpy(dtype=object), cells.times, chain, least=least)
        flows = found.flows.copy()
        flows.attrs["parents"] = found.parents.to_dict("list")
        return flows
