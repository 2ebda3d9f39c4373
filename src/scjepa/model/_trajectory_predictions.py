"""Predicted cells at any time: populations, and given cells on their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import require_column, require_positive_int
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.data import aligned, cell_positions, shift_cells
from scjepa.model._trajectory_parts import TrajectoryParts
from scjepa.model.core import at_depth
from scjepa.model.trajectories import Predicted, described, moved, record, start_times
from scjepa.train import digest

LEAST = 2000
"""Cells that are predicted of one time by default, at least."""


class TrajectoryPredictions(TrajectoryParts):
    """Predictions of :class:`TrajectoryJEPA`."""

    max_expression_: FloatArray | None = None

    def predict_trajectory(
        self,
        time_points: Any,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        condition: str | None = None,
        n_cells: int | None = None,
        n_paths: int | None = None,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells at some times.

        Parameters
        ----------
        time_points
            One or several, in any order: numbers in the unit of training, or text (``"36 h"``).
        adata, indices
            Start cells, each of which is moved from its own time to each time asked for (forward or back). By default the
            population at that time is predicted from the training snapshots around it.
        condition
            Which course, for models with a ``condition_key``; for start cells by default their own. Another one is a
            counterfactual: the same start, under another condition.
        n_cells
            Cells a time, by default as many as the snapshots around it have, at least 2,000; of start cells all.
        n_paths
            Paths of each start cell: between snapshots each takes the displacement of a random one of its neighbours, the same in
            all times asked for. By default one, along the mean of the neighbours' displacements.
        seed
            Of the sample and the paths.

        Returns
        -------
        Cells x the model's genes, log-normalized, times in the order in which they were asked for; ``obs``: the column of times
        as it was written (a number, or text with its unit), ``source`` (the cell that each was), ``path`` (with ``n_paths``), the
        condition, ``jepa_prediction``; ``obsm["X_jepa"]`` if the embedding was trained; ``uns["jepa"]["prediction"]`` says what each time
        is (between measured ones, a copy, ...), whether to ``abstain``, and a ``note``, which is also the one warning.

        Raises
        ------
        ValueError
            For times that can't be read, an unknown condition, start cells without a time, and paths without start cells.
        """
        self._require_trained("predict_trajectory")
        asked = (times := self._known_times).read(time_points)
        for value, name in ((n_cells, "n_cells"), (n_paths, "n_paths")):
            if value is not None:
                require_positive_int(value, name)
        if n_paths is not None and adata is None and indices is None:
            raise ValueError(
                f"n_paths={n_paths} without start cells: a population has no paths. Give cells: predict_trajectory(times, adata) or "
                "indices=."
            )
        rng = np.random.default_rng(seed)
        if adata is None and indices is None:
            parts = [self._population(self.anchor_.condition(condition), t, n_cells, rng.random()) for t in asked]
        else:
            parts = self._moved(self._own_or_given(adata), indices, asked, condition, n_cells, n_paths, rng)
        key, x = self._setup["time_key"], np.concatenate([part.x for part in parts])
        obs = described(parts, asked, times, key, self._setup["condition_key"])
        out = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(self.var_names_)))
        if self.embedded_:
            with torch.inference_mode():
                at = at_depth(aligned(x).to(self.device), self.reference_unit_)
                out.obsm[Keys.obsm.latent] = self.module.embed(at).cpu().numpy()
        out.uns[Keys.uns.root] = {Keys.uns.prediction: record(parts, asked, times, type(self).__name__, key)}
        return out

    def _population(self, condition: str, time: float, n_cells: int | None, start: float) -> Predicted:
        """Return the population at a time."""
        n = max(LEAST, self.anchor_.size(condition, time)) if n_cells is None else n_cells
        drawn = self.anchor_.draw(condition, time, n, start=start, correct=self.residual_.corrected)
        adata = self._own_or_given(None)
        if digest(adata.obs_names.to_numpy()) != self.cell_names_:
            raise ValueError(
                "a population is predicted from the cells that the model was trained on, and it holds others. Load it with "
                f"them: {type(self).__name__}.load(folder, adata); or give start cells: predict_trajectory(times, adata)."
            )
        x = self._lifted(self._read(adata, drawn.cells).rows(slice(None)), drawn.shift)
        names = adata.obs_names.to_numpy()[drawn.cells]
        return Predicted(x, names, np.full(n, condition, dtype=object), self.anchor_.kind(condition, time))

    def _moved(
        self,
        adata: AnnData,
        indices: Any,
        asked: FloatArray,
        condition: str | None,
        n_cells: int | None,
        n_paths: int | None,
        rng: np.random.Generator,
    ) -> list[Predicted]:
        """Return start cells at each time."""
        cells = cell_positions(adata, indices)
        if n_cells is not None:
            cells = cells[np.sort(rng.choice(len(cells), n_cells, replace=n_cells > len(cells)))]
        path = neighbor = None
        if n_paths is not None:
            path, cells = np.tile(np.arange(n_paths), len(cells)), np.repeat(cells, n_paths)
            most = max(len(self.anchor_.levels(label)) for label in self.anchor_.of)
            neighbor = rng.integers(0, 2**31, (most - 1, len(cells)))
        key = self._setup["time_key"]
        require_column(adata.obs, key, "time_key")
        start = start_times(self._known_times, adata.obs[key].iloc[cells])
        labels = self._conditions(adata)[cells]
        if condition is not None:
            labels = np.full(len(cells), self.anchor_.condition(condition), dtype=object)
        matrix = self._read(adata, cells)
        rows, z = matrix.rows(slice(None)), self._coordinates(matrix.values)
        names, out = adata.obs_names.to_numpy()[cells], []
        for t in asked:
            shift, kind = moved(self.anchor_, z, start, labels, t, residual=self.residual_, neighbor=neighbor)
            out.append(Predicted(self._lifted(rows, shift), names, labels, kind, path))
        return out

    def _lifted(self, rows: FloatArray, shift: FloatArray) -> FloatArray:
        """Return cells ``(n, genes)`` moved by a shift of their coordinates; what was not measured to be possible is not."""
        space = self.module.space
        by = shift.astype(np.float32) @ space.loadings.cpu().numpy() * float(space.scale)
        if not by.any():
            return np.asarray(rows, dtype=np.float32)
        return shift_cells(np.asarray(rows, dtype=np.float32), by, self.max_expression_)
