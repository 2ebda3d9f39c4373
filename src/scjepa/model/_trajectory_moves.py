"""Moves: which cells become which at the next time, for CellRank, on an embedding, and the states in which they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa import dynamics
from scjepa._checks import closest, require_numbers, some
from scjepa._types import FloatArray
from scjepa.model._trajectory_parts import Cells, TrajectoryParts


class TrajectoryMoves(TrajectoryParts):
    """Transitions and terminal states of :class:`TrajectoryJEPA`."""

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
