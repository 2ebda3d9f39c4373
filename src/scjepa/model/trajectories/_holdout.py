"""Which cells of a course train, by cell or by time with times held out; and what their batches can't tell from time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa.data import Split, split_cells
from scjepa.dynamics import Times


def split_course(
    obs: pd.DataFrame, times: Times, time_key: str, *, split_by: str, holdout: Sequence[Any] | None, **options: Any
) -> Split:
    """Split cells by cell, by whole times, or by the categories of a column; at least two times have to train.

    Parameters
    ----------
    obs
        Of all cells.
    times
        Of all cells.
    time_key
        The column of ``obs`` that times were read from: as ``split_by`` the same as ``"time"``.
    split_by
        ``"cell"``, ``"time"`` or a column.
    holdout
        Times, or categories of the column ``split_by``, whose cells nothing touches.
    **options
        ``train_size``, ``validation_size`` and ``seed`` of :func:`scjepa.data.split_cells`.

    Raises
    ------
    ValueError
        For times that can't be read or do not occur, and when fewer than two times train.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.dynamics import read_times
    >>> from scjepa.model.trajectories import split_course
    >>> obs = pd.DataFrame({"day": [0, 0, 1, 2], "donor": list("abab")})
    >>> split_course(obs, read_times(obs["day"]), "day", split_by="donor", holdout=["a"]).train.tolist()
    [1, 3]
    """
    if split_by in ("cell", "time", time_key):
        split = split_times(times, by_cell=split_by == "cell", holdout=holdout, **options)
    else:
        split = split_cells(obs, split_by=split_by, holdout=holdout, **options)
    left = np.unique(times.values[split.train])
    if len(left) < 2:
        raise ValueError(f"training cells are of {len(left)} time: a course needs at least two. Hold out less.")
    return split


def split_times(times: Times, *, by_cell: bool, holdout: Sequence[Any] | None, **options: Any) -> Split:
    """Split cells by cell, or by whole times.

    Parameters
    ----------
    times
        Of all cells.
    by_cell
        Whether validation cells are drawn from all cells that are not held out; else whole times validate.
    holdout
        Times whose cells nothing touches.
    **options
        ``train_size``, ``validation_size`` and ``seed`` of :func:`scjepa.data.split_cells`.

    Raises
    ------
    ValueError
        For times that can't be read or do not occur.

    Examples
    --------
    >>> from scjepa.dynamics import read_times
    >>> from scjepa.model.trajectories import split_times
    >>> split_times(read_times([0, 0, 1, 2]), by_cell=True, holdout=[1]).test.tolist()
    [2]
    """
    names = np.array(times.labels, dtype=object)[np.abs(times.values[:, None] - times.levels).argmin(1)]
    obs = pd.DataFrame({"time": names}, index=[str(i) for i in range(len(names))])
    out = _held_out(times, holdout)
    if not by_cell:
        return split_cells(obs, split_by="time", holdout=out or None, **options)
    test = obs["time"].isin(out).to_numpy()
    rest = np.flatnonzero(~test)
    if not len(rest):
        raise ValueError("holdout leaves no time to train on. Hold out fewer times.")
    part = split_cells(obs.iloc[rest], split_by="cell", **options)
    return Split(rest[part.train], rest[part.validation], np.sort(np.r_[np.flatnonzero(test), rest[part.test]]))


def _held_out(times: Times, holdout: Sequence[Any] | None) -> list[str]:
    """Return the labels of times that are held out."""
    try:
        wanted = [] if holdout is None else times.read(holdout).tolist()
    except ValueError as error:
        raise ValueError(f"holdout: {error}") from None
    out = []
    for value in wanted:
        near = np.flatnonzero(np.isclose(times.levels, value))
        if not len(near):
            raise ValueError(f"holdout={value:g} is not a time of the data. Found: {some(times.labels, 10)}.")
        out.append(times.labels[int(near[0])])
    return out


def note_confounding(batches: np.ndarray, times: Times, key: str) -> None:
    """Warn where every batch holds one time and there are several: batch and time can't be told apart then."""
    per_batch = pd.Series(times.values).groupby(batches).nunique()
    if len(per_batch) > 1 and (per_batch == 1).all():
        warnings.warn(
            f"batch_key={key!r}: each of the {len(per_batch)} batches holds cells of one time only. What differs between batches "
            "can't be told from what changes in time.",
            UserWarning,
            stacklevel=3,
        )
