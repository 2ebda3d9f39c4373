"""Fates: which cells become which, where they end, and which genes go with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa import dynamics
from scjepa._checks import closest, require_column, require_labels, require_numbers, some
from scjepa._types import FloatArray
from scjepa.model._trajectory_clones import CLONES, TrajectoryClones
from scjepa.model._trajectory_parts import Cells

FATE_PCS = 30
"""Components of the training cells in which walks to fates are made: the fewer of predictions cost AUROC (LARRY, .897 for .909)."""


class TrajectoryFates(TrajectoryClones):
    """Transitions, terminal states, fates, drivers and lineages of :class:`TrajectoryJEPA`."""

    fate_axes_: Mapping[str, FloatArray]

    def transition_matrix(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        method: Literal["transport", "graph"] = "transport",
        last: Literal["self", "graph"] = "self",
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> sp.csr_matrix:
        """Say for every cell which cells of the next time it becomes: :func:`scjepa.dynamics.transition_matrix`.

        Parameters
        ----------
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        method
            ``"transport"`` (entropic transport between neighbouring times; growth rates of the ``growth_key`` are used) or
            ``"graph"`` (nearest cells of the next time).
        last
            What cells of the last time do: stay (``"self"``) or walk among each other (``"graph"``).
        n_neighbors
            Of graphs.
        seed
            Of blocks of large snapshots.

        Returns
        -------
        ``(n, n)`` sparse, rows of sum one, cells in the order given. Cells of different conditions don't move into each other.

        Raises
        ------
        RuntimeError, ValueError
            Before training; for cells of one time only.
        """
        return self._moves(self._cells(adata, indices, "transition_matrix"), method, last, n_neighbors, seed)

    def _moves(
        self,
        cells: Cells,
        method: Literal["transport", "graph"],
        last: Literal["self", "graph"],
        n_neighbors: int,
        seed: int,
    ) -> sp.csr_matrix:
        """Return the transition matrix of cells; each condition has a block of its own."""
        rows: list[np.ndarray] = []
        blocks = []
        for label in np.unique(cells.conditions):
            mine = np.flatnonzero(cells.conditions == label)
            mass = self._descendants(cells, mine) if method == "transport" else None
            blocks.append(
                dynamics.transition_matrix(
                    cells.z[mine],
                    cells.times[mine],
                    method=method,
                    last=last,
                    n_neighbors=n_neighbors,
                    growth=mass,
                    seed=seed,
                )
            )
            rows.append(mine)
        back = np.argsort(np.concatenate(rows))
        return sp.csr_matrix(sp.block_diag(blocks, format="csr")[back][:, back])

    def _descendants(self, cells: Cells, mine: np.ndarray) -> FloatArray | None:
        """Return how many descendants cells have at the next time, above 0, or None without growth rates."""
        key = self._setup["growth_key"]
        if key is None:
            return None
        rate = require_numbers(cells.adata.obs, key, "growth_key", minimum=0.0)[cells.at[mine]]
        levels = np.unique(cells.times[mine])
        step = np.append(np.diff(levels), 0.0)[np.searchsorted(levels, cells.times[mine])]
        return np.asarray(np.maximum(rate**step, 1e-6))  # cells that die still have a row

    def to_cellrank(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        method: Literal["transport", "graph"] = "transport",
        last: Literal["self", "graph"] = "graph",
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> Any:
        """Hand moves to CellRank, for its estimators.

        Parameters
        ----------
        adata, indices, method, last, n_neighbors, seed
            As in :meth:`transition_matrix`; cells of the last time walk among each other, so that states are found among them.

        Returns
        -------
        ``cellrank.kernels.PrecomputedKernel`` on a copy of the cells, in the order given.

        Raises
        ------
        ImportError, RuntimeError, ValueError
            Without CellRank, before training, for cells of one time only.
        """
        cells = self._cells(adata, indices, "to_cellrank")
        try:
            from cellrank.kernels import PrecomputedKernel
        except ImportError as error:
            raise ImportError("to_cellrank needs CellRank: pip install 'scjepa[cellrank]'.") from error
        chain = self._moves(cells, method, last, n_neighbors, seed)
        return PrecomputedKernel(chain, adata=cells.adata[cells.at].copy())

    def velocity_arrows(
        self,
        basis: str = "X_umap",
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        method: Literal["transport", "graph"] = "transport",
        n_neighbors: int = 15,
        key_added: str | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        r"""Say where each cell goes on an embedding: the mean place of the cells that it becomes, minus its own.

        With P the moves and e places, :math:`P e - e`. Unlike velocity graphs, whose neighbours lie on all sides of a cell, moves
        lead to the next time only, so that no mean over neighbours is taken off.

        Parameters
        ----------
        basis
            Key of ``adata.obsm`` with an embedding.
        adata, indices, method, n_neighbors, seed
            As in :meth:`transition_matrix`.
        key_added
            Write arrows into ``adata.obsm[f"{key_added}_umap"]`` too (for ``basis="X_umap"``), NaN for other cells: with
            ``key_added="velocity"`` it is what ``scvelo.pl.velocity_embedding_stream(adata, basis="umap")`` looks for.

        Returns
        -------
        Cells x coordinates of the embedding, in its units, from each cell's time to the next one measured; NaN for cells of the
        last time, which do not move. :func:`scjepa.pl.arrows` draws them.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; for an absent embedding; for cells of one time only.
        """
        cells = self._cells(adata, indices, "velocity_arrows")
        if basis not in cells.adata.obsm:
            raise KeyError(
                f"basis={basis!r} is not in adata.obsm. Found: {some(sorted(cells.adata.obsm), 10)}."
                f"{closest(basis, cells.adata.obsm)} Run scanpy.tl.umap(adata) first for 'X_umap'."
            )
        places = np.asarray(cells.adata.obsm[basis], dtype=np.float64)
        arrows = np.asarray(self._moves(cells, method, "self", n_neighbors, seed) @ places[cells.at]) - places[cells.at]
        arrows[cells.last()] = np.nan
        short = basis.removeprefix("X_")
        if key_added is not None:
            full = np.full_like(places, np.nan)
            full[cells.at] = arrows
            cells.adata.obsm[f"{key_added}_{short}"] = full
        return pd.DataFrame(arrows, index=cells.names, columns=[f"{short}_{i + 1}" for i in range(arrows.shape[1])])

    def terminal_states(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_states: int | None = None,
        n_neighbors: int = 6,
        seed: int = 0,
    ) -> pd.Series:
        """Find the states in which cells end: :func:`scjepa.dynamics.terminal_states`.

        Parameters
        ----------
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        n_states
            How many; by default told from eigenvalues.
        n_neighbors
            Of the graph in which last cells walk: few, so that states which touch stay apart.
        seed
            Of blocks of large snapshots.

        Returns
        -------
        Categorical, indexed by cell names: ``"1"`` (the largest), ``"2"``, ...; missing for cells in none. States of a course
        with conditions are found over all of them.

        Raises
        ------
        RuntimeError, ValueError
            Before training; for cells of one time only.
        """
        names = self._cells(adata, indices, "terminal_states").names
        chain = self.transition_matrix(adata, indices=indices, last="graph", n_neighbors=n_neighbors, seed=seed)
        labels = pd.Series(
            dynamics.terminal_states(chain, n_states=n_states).labels, index=names, name="terminal_state"
        )
        return labels.where(labels != "").astype("category")

    def fate_probabilities(
        self,
        terminal_key: str | None = None,
        *,
        terminal_states: pd.Series | None = None,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        train_clones: Sequence[str] | None = None,
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
        cells = self._cells(adata, indices, "fate_probabilities")
        if terminal_key is not None and terminal_states is not None:
            raise ValueError("terminal_key and terminal_states both say what fates are. Give one of them.")
        if terminal_key is not None:
            column = require_column(cells.adata.obs, terminal_key, "terminal_key").iloc[cells.at].astype(object)
            fates = column.where(cells.last()).to_numpy(dtype=object)
            if train_clones is not None:
                taught = self._taught(cells, terminal_key, train_clones)
                fates = np.where(taught.notna(), taught, fates)
        else:
            if train_clones is not None:
                raise ValueError("train_clones needs a terminal_key, which says what became of the clones.")
            if terminal_states is None:
                terminal_states = self.terminal_states(adata, indices=indices, seed=seed)
            if not cells.names.isin(terminal_states.index).any():
                raise ValueError(
                    f"terminal_states names none of the {len(cells.names)} cells ({some(list(terminal_states.index), 3)}). Index it by "
                    "adata.obs_names."
                )
            fates = terminal_states.astype(object).reindex(cells.names).to_numpy(dtype=object)
        axes, rows = self.fate_axes_, self._read(cells.adata, cells.at).values
        loadings = np.asarray(axes["loadings"], dtype=np.float64)
        fine = np.asarray(rows @ loadings.T) - np.asarray(axes["mean"]) @ loadings.T
        graph = self._graph(cells._replace(z=fine), n_neighbors)
        found = dynamics.fate_probabilities(fine, fates, restart=restart, graph=graph)
        table = pd.DataFrame(found.probabilities, index=cells.names, columns=list(found.names))
        table.attrs[CLONES] = [] if train_clones is None else [str(name) for name in train_clones]
        if not found.reached.all():
            table.loc[~found.reached] = np.nan
            warnings.warn(
                f"from {int((~found.reached).sum())} of {len(table)} cells no fate can be reached: their rows are missing. More "
                "neighbours (n_neighbors) connect more cells.",
                UserWarning,
                stacklevel=2,
            )
        return table

    @staticmethod
    def _graph(cells: Cells, n_neighbors: int) -> sp.csr_matrix:
        """Connect cells of each condition."""
        rows = [np.flatnonzero(cells.conditions == label) for label in np.unique(cells.conditions)]
        back = np.argsort(np.concatenate(rows))
        blocks = [dynamics.neighbor_graph(cells.z[mine], n_neighbors=n_neighbors) for mine in rows]
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
