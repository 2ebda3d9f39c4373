"""Cells at a time between or beyond snapshots, in closed form: smoothed transport, overlap, mean path; the anchor of TrajectoryJEPA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines.times._snapshots import Cloud, Snapshots, copied, systematic
from scjepa.dynamics import displacements, nearest, overlap, transport_plan, wasserstein

SHIFTS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
"""Candidates of the shift of the share of the way."""
POWERS = (1.0, 1.5)
"""Candidates of the power of the overlap."""
SINGLE = (0.0, 1.0)
"""Candidates of the share of single cells' displacements, against those averaged over neighbours."""
SHRUNK, TEMPERATURE = 0.7, 0.03
"""What is kept of the shift found, and how sharply candidates are weighed by log error."""
BAND = 0.4
"""Width of the kernel over time of the mean path, of the whole course."""
MOST, PER_TIME = 0.5, 8
"""The mean path counts for ``(times - 3) / PER_TIME``, at most ``MOST``."""
AMPLITUDES, DAMPED = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0), 0.3
"""Candidates of the trend's amplitude beyond the last snapshot, and what is kept of the least one found."""
JUDGED, AXES = 400, 5
"""Cells and coordinates that candidates are compared by."""
INNER = 30
"""Times that are left out at most, evenly spread over the course: more tell little and cost as much each."""


@dataclass(frozen=True)
class _Pair:
    first: np.ndarray
    second: np.ndarray
    forward: FloatArray
    backward: FloatArray
    overlap: float
    single: tuple[FloatArray, FloatArray]
    """Displacements of single cells, not averaged over neighbours."""


class Interpolant(Snapshots):
    r"""Cells at any time from snapshots at other times, without a parameter that is learned by gradient.

    Between snapshots P (time a) and N (time b), at the share :math:`w = (t - a) / (b - a)` of the way:

    1. exact optimal transport between them; each cell's displacement is averaged over its 5 nearest neighbours, and both
       snapshots are moved, P forward by w and N backward by :math:`1 - w`, with weights :math:`1 - w` and :math:`w`, so that
       each cell keeps its own residual;
    2. snapshots that overlap (o from 0 to 1 by how their neighbours mix) are pooled instead, with weight
       :math:`h = o^p`: asynchronous cells at a time in between are the cells of both sides;
    3. from four training times on, the cloud's mean is pulled to a local quadratic of the snapshots' means;
    4. where there are inner training times, a shift of w, the power p and how far cells keep the displacement of their own match
       instead of their neighbours' mean are found by leaving each of them out, averaged over candidates by their error rather
       than chosen.

    Beyond the last snapshot (before the first) the prediction is a copy of it: linear trends are bad on real data, and nothing
    reliably beats the copy. ``trend=True`` moves the copy as a whole along the means' slope, by an amplitude that every later
    training time, left out, would have wanted at least; it may be 0.

    Parameters
    ----------
    trend
        Whether predictions beyond the observed times may leave the copy.
    n_neighbors
        Over how many cells displacements are averaged.
    seed
        Of subsamples.

    Attributes
    ----------
    times_
        Distinct training times, ascending.
    shift_, power_, single_
        What was found by leaving times out (0, 1 and 0 without inner times).
    amplitude_
        Of the trend, forward.

    References
    ----------
    McCann 1997, *Advances in Mathematics* 128 (displacement interpolation); Schiebinger et al. 2019, *Cell* 176 (optimal
    transport between snapshots). The rest is this project's own recipe.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines.times import Interpolant
    >>> z = np.random.default_rng(0).normal(size=(60, 2))
    >>> z[30:, 0] += 10
    >>> cloud = Interpolant().fit(z, np.repeat([0.0, 2.0], 30)).predict(1.0)
    >>> points = z[cloud.cells] + cloud.shift
    >>> bool(abs((cloud.mass @ points)[0] - 5) < 0.5)
    True
    """

    name = "interpolant"

    def __init__(self, *, trend: bool = False, n_neighbors: int = 5, seed: int = 0) -> None:
        self.trend, self.n_neighbors, self.seed = trend, n_neighbors, seed

    def fit(self, z: FloatArray, times: FloatArray, growth: FloatArray | None = None) -> Interpolant:
        """Match neighbouring snapshots and find what is found by leaving times out.

        Parameters
        ----------
        z
            ``(n, d)`` cells in coordinates of one common scale.
        times
            ``(n,)``.
        growth
            ``(n,)`` descendants of each cell after one unit of time (1: neither growth nor death), or None.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            For shapes that don't fit, missing values, and fewer than two times.
        """
        self._keep(z, times, growth)
        if len(self.times_) < 2:
            raise ValueError(f"all cells are of one time ({self.times_.tolist()}): a course needs at least two.")
        everything = tuple(range(len(self.times_)))
        self.shift_, self.power_, self.single_ = self._tuned(everything)
        self.amplitude_ = self._amplitude(everything) if self.trend else 0.0
        return self

    def _keep(self, z: FloatArray, times: FloatArray, growth: FloatArray | None) -> None:
        self._hold(z, times)
        if growth is not None:
            growth = np.asarray(growth, dtype=np.float64)
            if growth.shape != (len(self.z_),) or not np.isfinite(growth).all() or (growth < 0).any():
                raise ValueError(f"growth has shape {growth.shape}: expected ({len(self.z_)},) numbers of at least 0.")
        self.growth_ = growth
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._centres = np.array([self.z_[cells].mean(0) for cells in self._members])

    def state(self) -> dict[str, Any]:
        """Return options, cells and what was found as plain data; plans are solved anew when they are needed."""
        out: dict[str, Any] = {"trend": self.trend, "n_neighbors": self.n_neighbors, "seed": self.seed}
        if hasattr(self, "z_"):
            out |= {"z": self.z_, "times": self._time_of, "growth": self.growth_}
            out |= {"shift": self.shift_, "power": self.power_, "single": self.single_, "amplitude": self.amplitude_}
        return out

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Interpolant:
        """Rebuild from :meth:`state`."""
        new = cls(**{name: state[name] for name in ("trend", "n_neighbors", "seed")})
        if "z" in state:
            new._keep(np.asarray(state["z"]), np.asarray(state["times"]), state["growth"])
            new.shift_, new.power_ = float(state["shift"]), float(state["power"])
            new.single_ = float(state.get("single", 0.0))
            new.amplitude_ = float(state["amplitude"])
        return new

    # ---------------------------------------------------------------- predictions
    def move(
        self,
        z: FloatArray,
        start: float,
        end: float,
        *,
        neighbor: np.ndarray | None = None,
        correct: Callable[[FloatArray, float, float], FloatArray] | None = None,
    ) -> FloatArray:
        """Return how far given cells move from one time to another ``(m, d)``, through the snapshots in between.

        In each interval a cell is displaced as its neighbours among the training cells are, at their place of that time; before
        the first and beyond the last snapshot nothing moves. The result is a likely course for a group of such cells, not the
        fate of each: unpaired snapshots do not tell which cell became which.

        Parameters
        ----------
        z
            ``(m, d)`` cells.
        start, end
            Times; ``end`` may be earlier.
        neighbor
            ``(intervals, m)`` whole numbers: which neighbour's own displacement each cell takes in each interval between
            snapshots, instead of the mean over all. Different numbers give different paths.
        correct
            Asked in each interval, with cells, time and the time to come, how much farther they move.
        """
        at, levels = np.asarray(z, dtype=np.float64), self.times_
        now, goal = (float(np.clip(t, levels[0], levels[-1])) for t in (start, end))
        while not np.isclose(now, goal, rtol=0, atol=1e-12):
            forward = goal > now
            edge = int(np.searchsorted(levels, now, side="right" if forward else "left"))
            i, j = edge - 1, edge
            a, b = levels[i], levels[j]
            stop = min(goal, b) if forward else max(goal, a)
            pair, w = self._pair(i, j), (now - a) / (b - a)
            places = np.vstack([self.z_[pair.first] + w * pair.forward, self.z_[pair.second] - (1 - w) * pair.backward])
            near = nearest(at, places, self.n_neighbors)
            if neighbor is None:
                step = np.vstack([pair.forward, pair.backward])[near].mean(1)
            else:
                drawn = near[np.arange(len(at)), neighbor[i] % near.shape[1]]
                step = np.vstack(pair.single)[drawn]
            step = (stop - now) / (b - a) * step
            at = at + step + (0.0 if correct is None else correct(at, now, stop))
            now = stop
        return at - np.asarray(z, dtype=np.float64)

    def predict(self, time: float) -> Cloud:
        """Return the cells at a time."""
        t, levels = float(time), self.times_
        at = np.flatnonzero(np.isclose(levels, t, rtol=1e-9, atol=1e-12))
        everything = tuple(range(len(levels)))
        if len(at):
            return copied(self._members[int(at[0])], self.z_.shape[1])
        if levels[0] < t < levels[-1]:
            return self._between(t, everything, self.shift_, self.power_, self.single_)
        return self._beyond(t, everything, self.amplitude_)

    def kind(self, time: float) -> str:
        """Return what a prediction is: ``"measured"``, ``"between"``, ``"copy"`` or ``"trend"``."""
        t, levels = float(time), self.times_
        if np.isclose(levels, t, rtol=1e-9, atol=1e-12).any():
            return "measured"
        if levels[0] < t < levels[-1]:
            return "between"
        return "trend" if self.amplitude_ > 0 and t > levels[-1] else "copy"

    def left_out(self, k: int, *, tuned: bool = True) -> Cloud:
        """Return the cells at training time ``k`` as predicted from the others.

        Times before the last but one are left out as inner ones; the last one is predicted from those before it.

        Parameters
        ----------
        k
            Position in ``times_``.
        tuned
            Find shift and power anew without it; else those of all times count, which know it a little and cost nothing.
        """
        rest = tuple(i for i in range(len(self.times_)) if i != k)
        t = float(self.times_[k])
        if 0 < k < len(self.times_) - 1:
            return self._between(t, rest, *(self._tuned(rest) if tuned else (self.shift_, self.power_, self.single_)))
        if k == 0:
            return self._beyond(t, rest, 0.0)
        return self._beyond(t, rest, self._amplitude(rest) if self.trend else 0.0)

    def _between(self, t: float, used: Sequence[int], shift: float, power: float, single: float) -> Cloud:
        levels = self.times_
        i, j = max(k for k in used if levels[k] < t), min(k for k in used if levels[k] > t)
        pair, a, b = self._pair(i, j), levels[i], levels[j]
        n, m = len(pair.first), len(pair.second)
        h = pair.overlap**power
        w = float(np.clip((t - a) / (b - a) + shift, 0.0, 1.0))
        w = (1 - h) * w + h * m * w / (m * w + n * (1 - w))  # pooled cells count as they were sampled
        forward, backward = (
            (1 - single) * mean + single * own
            for mean, own in zip((pair.forward, pair.backward), pair.single, strict=True)
        )
        moved = np.vstack([w * forward, -(1 - w) * backward])
        if len(used) > 3:
            mean = (1 - w) * self.z_[pair.first].mean(0) + w * self.z_[pair.second].mean(0)
            moved += min(MOST, (len(used) - 3) / PER_TIME) * (1 - h) * (self._mean_path(t, used) - mean)
        both = np.concatenate([pair.first, pair.second])
        mass = np.concatenate(
            [np.full(n, (1 - h) * (1 - w) / n), np.full(m, (1 - h) * w / m), np.full(n + m, h / (n + m))]
        )
        return Cloud(np.concatenate([both, both]), np.vstack([moved, np.zeros_like(moved)]), mass)

    def _beyond(self, t: float, used: Sequence[int], amplitude: float) -> Cloud:
        levels = self.times_
        late = t > levels[used[-1]]
        last = used[-1] if late else used[0]
        shift: Any = 0.0
        if amplitude and late and len(used) > 1:
            step = levels[used[-1]] - levels[used[-2]]
            ahead = step * (1 - np.exp(-(t - levels[last]) / step)) / (1 - np.exp(-1.0))  # long steps are damped
            shift = amplitude * ahead * self._slope(used)
        return copied(self._members[last], self.z_.shape[1], shift)

    # ---------------------------------------------------------------- parts
    def _pair(self, i: int, j: int) -> _Pair:
        if (i, j) not in self._pairs:
            first, second = self._members[i], self._members[j]
            p, q = self.z_[first], self.z_[second]
            mass = None
            if self.growth_ is not None:
                mass = self.growth_[first] ** (self.times_[j] - self.times_[i])
                mass = mass if mass.sum() > 0 else None
            plan = transport_plan(p, q, source_mass=mass, seed=self.seed)
            forward, backward = displacements(p, q, plan, n_neighbors=self.n_neighbors)
            single = displacements(p, q, plan, n_neighbors=1)
            self._pairs[i, j] = _Pair(first, second, forward, backward, overlap(p, q), single)
        return self._pairs[i, j]

    def _means(self, used: Sequence[int]) -> FloatArray:
        return self._centres[list(used)]

    def _mean_path(self, t: float, used: Sequence[int]) -> FloatArray:
        """Return a local quadratic in time of the snapshots' means."""
        levels = self.times_[list(used)]
        x = (levels - t) / (levels[-1] - levels[0])
        weight = np.sqrt(np.exp(-0.5 * (x / BAND) ** 2))[:, None]
        return np.asarray(np.linalg.lstsq(np.vander(x, 3) * weight, self._means(used) * weight, rcond=None)[0][-1])

    def _slope(self, used: Sequence[int]) -> FloatArray:
        last = list(used)[-3:]
        x, mean = self.times_[last] - self.times_[last].mean(), self._means(last)
        return np.asarray((x @ (mean - mean.mean(0))) / (x @ x))

    def _tuned(self, used: Sequence[int]) -> tuple[float, float, float]:
        """Return shift, power and share of single displacements, averaged over candidates by the error of inner times left out."""
        candidates = [(shift, power, single) for single in SINGLE for power in POWERS for shift in SHIFTS]
        errors = []
        for k in _spread(used[1:-1]):
            rest = tuple(i for i in used if i != k)
            true = self._subsample(self._members[k])
            errors.append([self._distance(self._between(self.times_[k], rest, *c), true) for c in candidates])
        if not errors:
            return 0.0, POWERS[0], SINGLE[0]
        mean = np.log(np.maximum(errors, 1e-12)).mean(0)
        weight = np.exp(-(mean - mean.min()) / TEMPERATURE)
        shift, power, single = (weight / weight.sum()) @ np.array(candidates)
        return float(SHRUNK * shift), float(power), float(single)

    def _amplitude(self, used: Sequence[int]) -> float:
        """Return what all later times, left out, would have wanted at least of the trend, and some of that."""
        best = []
        for k in _spread(range(2, len(used))):
            true = self._subsample(self._members[used[k]])
            errors = [self._distance(self._beyond(self.times_[used[k]], used[:k], a), true) for a in AMPLITUDES]
            best.append(AMPLITUDES[int(np.argmin(errors))])
        return DAMPED * min(best) if best else 0.0

    def _subsample(self, cells: np.ndarray) -> FloatArray:
        kept = cells[((np.arange(min(JUDGED, len(cells))) + 0.5) * len(cells) / min(JUDGED, len(cells))).astype(int)]
        return self.z_[kept, :AXES]

    def _distance(self, cloud: Cloud, true: FloatArray) -> float:
        index = systematic(cloud.mass, JUDGED) if len(cloud.mass) > JUDGED else np.arange(len(cloud.mass))
        mass = None if len(cloud.mass) > JUDGED else cloud.mass
        points = self.z_[cloud.cells[index], :AXES] + cloud.shift[index, :AXES]
        return wasserstein(points, true, source_mass=mass)


def _spread(times: Sequence[int]) -> list[int]:
    """Return at most :data:`INNER` of some times, evenly spread, the first and the last among them."""
    if len(times) <= INNER:
        return list(times)
    return [times[int(i)] for i in np.linspace(0, len(times) - 1, INNER).round()]
