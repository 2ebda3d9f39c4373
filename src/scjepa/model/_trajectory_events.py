"""Events: where one population becomes several, when a system is about to tip, and which samples go the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.cluster.vq import kmeans2
from sklearn.metrics import silhouette_samples

from scjepa import dynamics
from scjepa._checks import require_labels, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.model._trajectory_parts import Cells, TrajectoryParts
from scjepa.model.trajectories import moved
from scjepa.pharma import responder_groups

GROUPED = 4
"""Samples from which on groups are looked for."""


class TrajectoryEvents(TrajectoryParts):
    """Branch points, critical transitions and groups of samples of :class:`TrajectoryJEPA`."""

    def branch_points(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        label_key: str | None = None,
        alpha: float = 0.02,
        min_share: float = 0.05,
        min_stability: float = 0.6,
        n_runs: int = 20,
        key_added: str | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Find where one population becomes several: :func:`scjepa.dynamics.branch_points`.

        Parameters
        ----------
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        label_key
            Column of ``obs`` whose most frequent label names each fate; by default they are ``"1"`` (the largest), ``"2"``, ...
        alpha, min_share, min_stability, n_runs
            See :func:`scjepa.dynamics.branch_points`.
        key_added
            Write the fate of cells of the last time into ``adata.obs[key_added]``, and how likely each cell is to reach which
            into ``adata.obsm[key_added]`` (a table; of one condition only).
        seed
            Of samples and runs.

        Returns
        -------
        A row per branch point, the first in time first: ``from_time`` and ``to_time`` (the last time with one population, the
        first with several, in ``attrs["unit"]``), ``n_ways``, ``branches`` (the fates that each way leads to),
        ``shares`` (of each way among their cells at the last time), ``p_value``, ``stability``, ``stable`` (at least
        ``min_stability``), ``cells`` (names of those nearest to the point), with a ``condition_key`` ``condition``.
        No row: no branch point. ``attrs["start"]`` says how many populations there were from the first time on.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; for an absent column; for cells of one time only, and fewer than ten cells at a time.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1, 2, 3], n_cells=60, branch_times=1.5)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> model.branch_points(n_runs=4)[["from_time", "to_time", "n_ways", "stable"]]
           from_time  to_time  n_ways  stable
        0        1.0      2.0       2    True
        """
        cells = self._cells(adata, indices, "branch_points")
        if key_added is not None and len(np.unique(cells.conditions)) > 1:
            raise ValueError(
                f"key_added={key_added!r}: fates of {len(np.unique(cells.conditions))} conditions have no common names. Ask for one "
                "condition at a time with indices=."
            )
        labels = None
        if label_key is not None:
            labels = require_labels(cells.adata.obs, label_key, "label_key").iloc[cells.at].astype(str).to_numpy()
        options = {"alpha": alpha, "min_share": min_share, "min_stability": min_stability, "n_runs": n_runs}
        rows, start = [], {}
        for label, mine in self._by_condition(cells):
            found = _told(dynamics.branch_points, label, cells.z[mine], cells.times[mine], seed=seed, **options)
            names = _fate_names(found, None if labels is None else labels[mine])
            start[label] = found.start
            rows += [
                {
                    "from_time": point.between[0],
                    "to_time": point.between[1],
                    "n_ways": len(point.fates),
                    "branches": tuple(tuple(names[f] for f in way) for way in point.fates),
                    "shares": point.shares,
                    "p_value": point.p,
                    "stability": point.stability,
                    "stable": stable,
                    "cells": tuple(cells.names[mine[point.cells]]),
                    "condition": label,
                }
                for points, stable in ((found.points, True), (found.unstable, False))
                for point in points
            ]
            if key_added is not None:
                self._write_fates(cells, found, names, key_added)
        columns = ["from_time", "to_time", "n_ways", "branches", "shares", "p_value", "stability", "stable", "cells"]
        if self._setup["condition_key"] is not None:
            columns = ["condition", *columns]
        table = pd.DataFrame(rows, columns=[*columns, *({"condition"} - set(columns))])
        table = table.sort_values(["condition", "to_time"], ignore_index=True)[columns]
        table.attrs = {"unit": self._known_times.units, "start": start}
        return table

    @staticmethod
    def _write_fates(cells: Cells, found: dynamics.BranchPoints, names: list[str], key: str) -> None:
        """Write fates and their probabilities; cells that were not asked about are missing."""
        fate = np.full(cells.adata.n_obs, None, dtype=object)
        last = found.fates >= 0
        fate[cells.at[last]] = np.array(names, dtype=object)[found.fates[last]]
        cells.adata.obs[key] = pd.Categorical(fate, categories=names)
        chance = np.full((cells.adata.n_obs, len(names)), np.nan)
        chance[cells.at] = found.probabilities
        cells.adata.obsm[key] = pd.DataFrame(chance, index=cells.adata.obs_names, columns=names)

    def critical_transitions(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_genes: int = 60,
        n_permutations: int = 199,
        off_path: bool = True,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Find the time at which a system is about to tip: :func:`scjepa.dynamics.critical_transitions`.

        Parameters
        ----------
        adata, indices
            Cells of three times or more, by default all of the model's that were not held out. Raw counts are thinned to one
            depth; normalised cells whose depth differs between times are refused.
        n_genes, n_permutations, off_path
            See :func:`scjepa.dynamics.critical_transitions`.
        seed
            Of thinning, samples, halves and permutations.

        Returns
        -------
        A row per time: ``time`` (in ``attrs["unit"]``), ``index`` (log variance along the leading axis over that of a
        gene), ``null_low`` and ``null_high`` (95 % of the indices where fluctuations have nothing to do with time),
        ``prominence``, ``peak`` (the most prominent time), ``p_value`` (of the peak, in all rows), with a ``condition_key``
        ``condition``. ``attrs["module"]`` holds the genes that fluctuate together at the peak, with their weights, the strongest
        first (of each condition, where there are several). Where ``p_value`` is not small there is no transition.

        Raises
        ------
        RuntimeError, ValueError
            Before training; for fewer than three times, fewer than 20 cells at a time, and depths that differ and can't be
            thinned.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(200, times=[0, 1, 2, 3, 4], n_fates=0, tipping="peak")
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> table = model.critical_transitions(n_permutations=39)
        >>> table.loc[table["peak"], "time"].tolist(), bool(table["p_value"].iloc[0] < 0.05)
        ([2.0], True)
        """
        cells = self._cells(adata, indices, "critical_transitions")
        x, scale, order = self._reader.door(cells.adata)
        options: dict[str, Any] = {"n_genes": n_genes, "n_permutations": n_permutations, "off_path": off_path}
        tables, modules = [], {}
        for label, mine in self._by_condition(cells):
            rows = x[cells.at[mine]] if order is None else x[cells.at[mine]][:, order]
            found = _told(
                dynamics.critical_transitions, label, rows, cells.times[mine], scale=scale, seed=seed, **options
            )
            low, high = found.null
            table = pd.DataFrame({
                "condition": label, "time": found.times, "index": found.index, "null_low": low, "null_high": high,
                "prominence": found.prominence, "peak": np.arange(len(found.times)) == found.step, "p_value": found.p,
            })  # fmt: skip
            tables.append(table)
            modules[label] = dict(
                zip(np.asarray(self.var_names_, dtype=str)[found.module].tolist(), found.loadings.tolist(), strict=True)
            )
        table = pd.concat(tables, ignore_index=True)
        if self._setup["condition_key"] is None:
            table, module = table.drop(columns="condition"), next(iter(modules.values()))
        else:
            module = modules
        table.attrs = {"unit": self._known_times.units, "module": module}
        return table

    def stratify_samples(
        self,
        sample_key: str | None = None,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_groups: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Group samples (donors, animals) by their courses.

        A sample's course are its cells at each training time; at times at which it was not measured, its cells of the nearest
        one, moved along the course of the model. Courses are compared by :func:`scjepa.dynamics.course_distances`, and groups
        that are stable and apart (:func:`scjepa.pharma.responder_groups`) are reported, or none.

        Parameters
        ----------
        sample_key
            Column of ``obs``; by default the one of setup.
        adata, indices
            Cells of two times or more, by default all of the model's that were not held out.
        n_groups
            How many groups; by default as many as there is evidence for, possibly one.
        seed
            Of samples of cells, resamples and clusters.

        Returns
        -------
        A row per sample: ``sample``, ``group`` (``"1"`` the largest), ``medoid`` (the most central of its group),
        ``silhouette`` (NaN with one group), ``support`` (share of resamples that put it there), ``n_cells``, ``measured`` (times
        at which it was measured). ``attrs``: ``distances`` (rows of the table by rows), ``courses`` (per sample a list of time
        and place in the two main directions of all courses), ``unit``.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            Before training; without a column of samples, with fewer than two, and for a number of groups that is not possible.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_trajectory(60, times=[0, 1, 2], n_cells=20, n_donors=6, n_groups=2)
        >>> scjepa.TrajectoryJEPA.setup_anndata(adata, "time")
        >>> model = scjepa.TrajectoryJEPA(adata)
        >>> model.train(embed=False, enable_progress_bar=False)
        >>> model.stratify_samples("donor")["group"].tolist()
        ['2', '1', '2', '1', '2', '1']
        """
        cells = self._cells(adata, indices, "stratify_samples")
        key = self._setup["sample_key"] if sample_key is None else sample_key
        if key is None:
            raise ValueError("sample_key is missing: setup named none. Give the column of samples, sample_key='donor'.")
        labels = require_labels(cells.adata.obs, key, "sample_key").iloc[cells.at].astype(str).to_numpy()
        names = np.unique(labels)
        if len(names) < 2:
            raise ValueError(f"sample_key={key!r}: there is one sample ({names[0]}); groups need two or more.")
        if n_groups is not None and require_positive_int(n_groups, "n_groups") > len(names):
            raise ValueError(f"n_groups={n_groups}, but there are {len(names)} samples ({some(list(names))}).")
        z, times, samples = self._completed(cells, labels)
        found = dynamics.course_distances(z, times, samples, seed=seed)
        places = dynamics.embed_distances(found.distances)
        group, support = _grouped(places, n_groups, seed)
        apart = np.sqrt(np.maximum(found.distances, 0.0))
        silhouette = np.full(len(names), np.nan)
        if 1 < group.max() + 1 < len(names):
            silhouette = silhouette_samples(apart, group, metric="precomputed")
        medoid = np.zeros(len(names), dtype=bool)
        for g in range(group.max() + 1):
            mine = np.flatnonzero(group == g)
            medoid[mine[apart[np.ix_(mine, mine)].sum(1).argmin()]] = True
        seen = pd.DataFrame({"sample": labels, "time": cells.times})
        table = pd.DataFrame({
            "sample": names, "group": (group + 1).astype(str), "medoid": medoid, "silhouette": silhouette, "support": support,
            "n_cells": seen.groupby("sample").size().reindex(names).to_numpy(),
            "measured": [tuple(sorted(set(t))) for _, t in seen.groupby("sample")["time"]],
        })  # fmt: skip
        mean = pd.DataFrame(z).groupby([samples, times]).mean()
        centred = mean - mean.mean()
        axes = np.linalg.svd(centred.to_numpy(), full_matrices=False)[2][:2]
        mean = centred @ axes.T
        courses = {
            str(s): [[float(t), *map(float, row)] for t, row in zip(part.index, part.to_numpy(), strict=True)]
            for s in names
            for part in [mean.loc[s]]
        }
        table.attrs = {"distances": found.distances.tolist(), "courses": courses, "unit": self._known_times.units}
        return table

    def _completed(self, cells: Cells, labels: np.ndarray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Return coordinates, times and samples of cells, at every time of the given cells for every sample."""
        parts, levels = [(cells.z, cells.times, labels)], np.unique(cells.times)
        for name in np.unique(labels):
            mine = np.flatnonzero(labels == name)
            own = np.unique(cells.times[mine])
            for t in np.setdiff1d(levels, own):
                near = mine[cells.times[mine] == own[np.abs(own - t).argmin()]]
                shift, _ = moved(
                    self.anchor_, cells.z[near], cells.times[near], cells.conditions[near], t, residual=self.residual_
                )
                parts.append((cells.z[near] + shift, np.full(len(near), t), labels[near]))
        z, times, samples = (np.concatenate(part) for part in zip(*parts, strict=True))
        return z, times, samples

    def _by_condition(self, cells: Cells) -> list[tuple[str, np.ndarray]]:
        """Return conditions and their cells."""
        return [(str(label), np.flatnonzero(cells.conditions == label)) for label in np.unique(cells.conditions)]


def _told(what: Any, label: str, *cells: Any, **options: Any) -> Any:
    """Ask about cells of a condition; an error says which."""
    try:
        return what(*cells, **options)
    except ValueError as error:
        raise ValueError(f"{error} (Condition: {label}.)") from None


def _fate_names(found: dynamics.BranchPoints, labels: np.ndarray | None) -> list[str]:
    """Return names of fates: numbers, or the most frequent label of each, numbered where two share it."""
    n = found.probabilities.shape[1]
    if labels is None:
        return [str(f + 1) for f in range(n)]
    most = [pd.Series(labels[found.fates == f]).mode().iloc[0] for f in range(n)]
    return [name if most.count(name) == 1 else f"{name} ({most[: i + 1].count(name)})" for i, name in enumerate(most)]


def _grouped(places: FloatArray, n_groups: int | None, seed: int) -> tuple[np.ndarray, FloatArray]:
    """Return groups of samples, the largest first, and how sure each sample's is."""
    n = len(places)
    group: np.ndarray = np.zeros(n, dtype=np.int64)
    support: FloatArray = np.ones(n)
    if n_groups is not None and n_groups > 1:
        _, group = kmeans2(places, n_groups, minit="++", rng=np.random.default_rng(seed))
    elif n_groups is None and n >= GROUPED and places.shape[1]:
        # its test asks of any points whether they are one cloud
        found = responder_groups(places, seed=seed)
        group, support = found.labels, found.support
    order = np.argsort(-np.bincount(group), kind="stable")
    return np.argsort(order)[group], support
