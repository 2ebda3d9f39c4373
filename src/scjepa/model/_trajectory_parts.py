"""What every question to TrajectoryJEPA needs: times, conditions and coordinates of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_column, require_labels
from scjepa._types import FloatArray
from scjepa.data import cell_positions
from scjepa.dynamics import Times, read_times
from scjepa.model.core import JEPAModel
from scjepa.model.core._parts import Part
from scjepa.model.trajectories import ONLY, Courses, Residual, start_times
from scjepa.train import digest


class Cells(NamedTuple):
    """Cells that a question is about."""

    adata: AnnData
    at: np.ndarray
    """``(n,)`` their positions."""
    names: pd.Index
    z: FloatArray
    times: FloatArray
    conditions: np.ndarray

    def rows(self, kept: np.ndarray) -> Cells:
        """Return some of the cells."""
        i = np.flatnonzero(kept)
        return Cells(self.adata, self.at[i], self.names[i], self.z[i], self.times[i], self.conditions[i])

    def last(self) -> np.ndarray:
        """Return which cells are of the last time of their condition."""
        latest = pd.Series(self.times).groupby(self.conditions).transform("max").to_numpy()
        return np.asarray(self.times == latest)


class TrajectoryParts(JEPAModel):
    """How :class:`TrajectoryJEPA` reads cells."""

    _parts: ClassVar[Mapping[str, type[Part]]] = {"anchor_": Courses, "residual_": Residual}
    anchor_: Courses
    residual_: Residual
    times_: dict[str, Any]
    cell_names_: str | None = None

    def _times(self, adata: AnnData) -> Times:
        key = self._setup["time_key"]
        require_column(adata.obs, key, "time_key")
        return read_times(adata.obs[key], f"time_key={key!r}")

    @property
    def _known_times(self) -> Times:
        held = self.times_
        return Times(
            np.zeros(0), str(held["unit"]), tuple(map(str, held["labels"])), np.asarray(held["levels"], dtype=float)
        )

    def _conditions(self, adata: AnnData) -> np.ndarray:
        key = self._setup["condition_key"]
        if key is None:
            return np.full(adata.n_obs, ONLY, dtype=object)
        return require_labels(adata.obs, key, "condition_key").astype(str).to_numpy()

    def _coordinates(self, rows: Any) -> FloatArray:
        """Return cells ``(n, genes)`` in the coordinates in which they move."""
        space = self.module.space
        loadings = space.loadings.cpu().numpy().astype(np.float64)
        z = np.asarray(rows @ loadings.T) - space.mean.cpu().numpy() @ loadings.T
        return np.asarray(z / float(space.scale))

    def _cells(
        self, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None, what: str, *, times: int = 2
    ) -> Cells:
        """Return the cells that a question is about; raise when a condition has them at fewer times than are needed."""
        self._require_trained(what)
        trained = adata is None and indices is None
        adata = self._own_or_given(adata)
        at = cell_positions(adata, indices)
        held = self.test_indices
        if trained and held is not None and digest(adata.obs_names.to_numpy()) == self.cell_names_:
            at = np.setdiff1d(at, np.asarray(held, dtype=np.int64))  # they have no say unless they are asked for
        key = self._setup["time_key"]
        require_column(adata.obs, key, "time_key")
        when = start_times(self._known_times, adata.obs[key].iloc[at])
        z = self._coordinates(self._read(adata, at).values)
        cells = Cells(adata, at, adata.obs_names[at], z, when, self._conditions(adata)[at].astype(str))
        if times > 1:
            self._require_two_times(cells, what)
        return cells

    def _require_two_times(self, cells: Cells, what: str) -> None:
        for label in np.unique(cells.conditions):
            if len(np.unique(cells.times[cells.conditions == label])) < 2:
                where = "" if self._setup["condition_key"] is None else f" of condition {label!r}"
                raise ValueError(f"{what}: all cells{where} are of one time; moves need two. Give cells of more times.")
