"""What every question to TrajectoryJEPA needs: times, conditions and coordinates of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from anndata import AnnData

from scjepa._checks import require_column, require_labels
from scjepa._types import FloatArray
from scjepa.dynamics import Times, read_times
from scjepa.model.core import JEPAModel
from scjepa.model.core._parts import Part
from scjepa.model.trajectories import ONLY, Courses


class TrajectoryParts(JEPAModel):
    """How :class:`TrajectoryJEPA` reads cells."""

    _parts: ClassVar[Mapping[str, type[Part]]] = {"anchor_": Courses}
    anchor_: Courses
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
