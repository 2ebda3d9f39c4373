"""Plain predictions of cells at a time: copies of the snapshot before or after, both pooled, interpolation by transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.times._snapshots import Cloud, Snapshots, copied
from scjepa.dynamics import Plan, transport_plan


class _Around(Snapshots, ABC):
    """``predict`` finds the snapshots around a time."""

    name = ""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, z: FloatArray, times: FloatArray) -> Self:
        """Keep the snapshots.

        Parameters
        ----------
        z
            ``(n, d)`` cells in coordinates of one common scale.
        times
            ``(n,)``.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            For shapes that don't fit, and missing values.
        """
        self._hold(z, times)
        self._plans: dict[int, Plan] = {}
        return self

    def predict(self, time: float) -> Cloud:
        """Return the cells at a time: those measured then, between two snapshots the row's own answer, else the nearest one.

        Parameters
        ----------
        time
            In the unit of training.
        """
        t, levels = float(time), self.times_
        at = np.flatnonzero(np.isclose(levels, t, rtol=1e-9, atol=1e-12))
        if len(at):
            return self._copy(self._members[int(at[0])])
        after = int(np.searchsorted(levels, t))
        if 0 < after < len(levels):
            share = float((t - levels[after - 1]) / (levels[after] - levels[after - 1]))
            return self._between(after - 1, share)
        return self._copy(self._members[0 if after == 0 else -1])

    @abstractmethod
    def _between(self, i: int, share: float) -> Cloud:
        """Return the cells at a share of the way from training time ``i`` to the next one."""

    def _copy(self, cells: np.ndarray, shift: Any = 0.0, mass: FloatArray | None = None) -> Cloud:
        return copied(cells, self.z_.shape[1], shift, mass)


class PreviousCopy(_Around):
    """The snapshot before.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import PreviousCopy
    >>> PreviousCopy().fit(np.array([[0.0], [1.0], [4.0]]), np.array([0, 0, 2])).predict(1).cells.tolist()
    [0, 1]
    """

    name = "previous copy"

    def _between(self, i: int, share: float) -> Cloud:
        return self._copy(self._members[i])


class NextCopy(_Around):
    """The snapshot after; beyond the last time, that one.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import NextCopy
    >>> NextCopy().fit(np.array([[0.0], [1.0], [4.0]]), np.array([0, 0, 2])).predict(1).cells.tolist()
    [2]
    """

    name = "next copy"

    def _between(self, i: int, share: float) -> Cloud:
        return self._copy(self._members[i + 1])


class Union(_Around):
    """The cells of the snapshots before and after, pooled as they were sampled.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import Union
    >>> Union().fit(np.array([[0.0], [1.0], [4.0]]), np.array([0, 0, 2])).predict(1).cells.tolist()
    [0, 1, 2]
    """

    name = "union"

    def _between(self, i: int, share: float) -> Cloud:
        return self._copy(np.concatenate([self._members[i], self._members[i + 1]]))


class TransportInterpolation(_Around):
    """Displacement interpolation: matched cells of exact optimal transport, moved along straight lines.

    References
    ----------
    McCann 1997, *Advances in Mathematics* 128; Schiebinger et al. 2019, *Cell* 176.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import TransportInterpolation
    >>> z = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> cloud = TransportInterpolation().fit(z, np.array([0, 0, 2, 2])).predict(0.5)
    >>> (z[cloud.cells] + cloud.shift).ravel().tolist(), cloud.mass.tolist()
    ([1.0, 2.0], [0.5, 0.5])
    """

    name = "OT interpolation"

    def _between(self, i: int, share: float) -> Cloud:
        first, second = self._members[i], self._members[i + 1]
        if i not in self._plans:
            self._plans[i] = transport_plan(self.z_[first], self.z_[second], seed=self.seed)
        source, target, mass = self._plans[i]
        start, end = first[source], second[target]
        return self._copy(start, share * (self.z_[end] - self.z_[start]), mass)
