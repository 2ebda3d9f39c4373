"""The network that corrects the courses, and how far it is trusted: weighed on times that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.baselines.times import Cloud, Interpolant, systematic
from scjepa.data import Chain, ChainBatches
from scjepa.dynamics import wasserstein
from scjepa.model.trajectories._courses import Courses
from scjepa.module import COURSES, CourseModule
from scjepa.nn import ElapsedPredictor
from scjepa.train import PlanConfig, seeded, train_side_by_side

logger = logging.getLogger(__name__)

TIME, CONDITION = "time", "condition"
"""Classes of questions: a time at which no cells train, and one at which only those of other conditions do."""
SHARES = (0.25, 0.5, 0.75)
"""Of the correction, that are tried."""
LEAST_JUDGED, LEAST_GAIN = 3, 0.01
"""Left-out snapshots without which nothing is known of a class, and the gain below which the network is not asked."""
FOLDS = 4
"""Networks that judge, at most, of each class."""
CELLS, JUDGED, AXES = 300, 400, 5
"""Cells of a snapshot that judges train on; points and coordinates by which they are compared."""
STEPS, STEPS_PER_EPOCH = 160, 20
PLAN = PlanConfig(lr=2e-3, weight_decay=0.05, betas=(0.9, 0.999), schedule="onecycle", gradient_clip=1.0)


class Snapshots(NamedTuple):
    """Training cells of all conditions."""

    z: FloatArray
    """``(n, d)``."""
    times: FloatArray
    labels: np.ndarray
    growth: FloatArray | None

    def rows(self, kept: np.ndarray) -> Snapshots:
        """Return some of the cells."""
        return Snapshots(
            self.z[kept], self.times[kept], self.labels[kept], None if self.growth is None else self.growth[kept]
        )


class Fold(NamedTuple):
    """One way of leaving snapshots out."""

    cls: str
    left: list[tuple[str, float]]


class Residual:
    """What a network adds to the courses' displacements, weighed by left-out snapshots.

    Parameters
    ----------
    seed
        Of weights and draws.

    Attributes
    ----------
    shares
        Class of question -> share of the correction that counts; 0, the courses alone, where nothing speaks for more.
    gains
        Class -> share of the courses' W1 at left-out snapshots that this takes off.
    judged
        Class -> snapshots that were left out.
    codes
        Condition -> its code.

    Notes
    -----
    Classes are ``"time"`` (a time at which no condition trains) and ``"condition"`` (one at which another one does). A share opens
    when the mean log ratio of W1 with the correction to W1 without, over the left-out snapshots of its class and one standard
    error added, is below -.01. Beyond the measured times there is no correction.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.shares: dict[str, float] = {}
        self.gains: dict[str, float] = {}
        self.judged: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        self._weights: list[dict[str, torch.Tensor]] = []
        self._predictors: list[ElapsedPredictor] = []
        self._levels: dict[str, FloatArray] = {}

    def __bool__(self) -> bool:
        return bool(self._predictors)

    @staticmethod
    def judges(courses: Courses) -> bool:
        """Return whether enough inner snapshots can be left out to judge a network."""
        return sum(max(len(course.times_) - 2, 0) for course in courses.of.values()) >= LEAST_JUDGED

    def fit(self, cells: Snapshots, courses: Courses, share: float | str = "auto") -> Self:
        """Judge networks on left-out snapshots, and train one on all where it counts.

        Parameters
        ----------
        cells
            Training cells.
        courses
            Fitted to them.
        share
            ``"auto"``, or a number for all classes.
        """
        self.codes = {label: i for i, label in enumerate(courses.of)}
        self._levels = {label: courses.levels(label) for label in courses.of}
        if share == "auto":
            self._judge(cells)
        else:
            self.shares = {TIME: float(share), CONDITION: float(share)}
        if any(self.shares.values()):
            batches = [ChainBatches(self._chains(courses), steps=STEPS_PER_EPOCH, seed=self.seed + i) for i in (0, 1)]
            self._load(self._train(batches, cells.z.shape[1]))
        return self

    def share(self, label: str, time: float) -> float:
        """Return the share of the correction at a time between the measured ones of a condition, else 0."""
        levels = self._levels.get(label)
        if not self or levels is None or not levels[0] < time < levels[-1]:
            return 0.0
        i = int(np.searchsorted(levels, time))
        low, high = levels[i - 1], levels[i]
        others = (o for name, o in self._levels.items() if name != label)
        return self.shares.get(CONDITION if any(((o > low) & (o < high)).any() for o in others) else TIME, 0.0)

    def shift(self, z: FloatArray, start: FloatArray, elapsed: FloatArray, label: str) -> FloatArray:
        """Return the correction ``(n, d)`` in full of cells of a condition."""
        return _asked(self._predictors, z, start, elapsed, self.codes[label])

    def step(self, label: str, z: FloatArray, start: float, end: float) -> FloatArray:
        """Return how much farther cells of a condition move from one time to another of an interval between snapshots."""
        share = self.share(label, (start + end) / 2)
        if not share:
            return np.zeros_like(z)
        return share * self.shift(z, np.full(len(z), start), np.full(len(z), end - start), label)

    def corrected(self, course: Interpolant, label: str, cloud: Cloud, time: float) -> Cloud:
        """Return a course's cells at a time, moved on by the share of the correction."""
        share = self.share(label, time)
        if not share:
            return cloud
        start = course.cell_times[cloud.cells]
        return cloud._replace(
            shift=cloud.shift + share * self.shift(course.z_[cloud.cells], start, time - start, label)
        )

    # ---------------------------------------------------------------- judging
    def _judge(self, cells: Snapshots) -> None:
        """Find the shares from snapshots that are left out."""
        small = cells.rows(_thinned(cells, self.seed))
        tried: list[tuple[Fold, Courses]] = []
        for fold in folds(self._levels):
            out = np.zeros(len(small.z), dtype=bool)
            for label, time in fold.left:
                out |= (small.labels == label) & (small.times == time)
            rest = small.rows(~out)
            tried.append((fold, Courses(seed=self.seed).fit(*rest[:3], np.arange(len(rest.z)), rest.growth)))
        found: dict[str, list[list[float]]] = {}
        if tried:
            batches = [ChainBatches(self._chains(c), steps=STEPS_PER_EPOCH, seed=self.seed) for _, c in tried]
            for (fold, courses), weights in zip(tried, self._train(batches, cells.z.shape[1]), strict=True):
                predictor = _predictor(weights, cells.z.shape[1], len(self.codes))
                for label, time in fold.left:
                    course = courses.of[label]
                    true = small.z[(small.labels == label) & (small.times == time)]
                    cloud = course.predict(time)
                    start = course.cell_times[cloud.cells]
                    added = _asked([predictor], course.z_[cloud.cells], start, time - start, self.codes[label])
                    plain, *with_it = (
                        _distance(course.z_, cloud._replace(shift=cloud.shift + s * added), true)
                        for s in (0.0, *SHARES)
                    )
                    found.setdefault(fold.cls, []).append([np.log(max(w, 1e-12) / max(plain, 1e-12)) for w in with_it])
        for cls in (TIME, CONDITION):
            ratios = np.array(found.get(cls, np.empty((0, len(SHARES)))))
            self.shares[cls], self.gains[cls] = weigh(ratios)
            self.judged[cls] = len(ratios)
        if tried:
            logger.info(
                "share of the network's correction that counts, and what it takes off the distance to left-out snapshots: %s.",
                "; ".join(
                    f"{cls} {self.shares[cls]:.2f} ({self.judged[cls]} left out, {self.gains[cls]:.1%} off)"
                    if self.shares[cls]
                    else f"{cls} 0 ({self.judged[cls]} left out)"
                    for cls in (TIME, CONDITION)
                ),
            )

    def _chains(self, courses: Courses) -> list[Chain]:
        """Return what a network learns from: left-out inner times, single steps and steps of two."""
        out = []
        rng = np.random.default_rng(self.seed)
        for label, course in courses.of.items():
            code, levels = self.codes[label], course.times_
            for k in range(1, len(levels) - 1):
                cloud = course.left_out(k, tuned=False)  # judges never see what is left out of their own
                start = course.cell_times[cloud.cells]
                out.append(
                    Chain(
                        course.z_[cloud.cells],
                        cloud.shift,
                        start,
                        levels[k] - start,
                        cloud.mass,
                        course.z_[course.members(k)],
                        code,
                    )
                )
            for k in range(len(levels) - 1):
                z = course.z_[rng.permutation(course.members(k))[:JUDGED]]
                one = np.ones(len(z))
                shift = course.move(z, levels[k], levels[k + 1])
                step = Chain(
                    z,
                    shift,
                    levels[k] * one,
                    (levels[k + 1] - levels[k]) * one,
                    one,
                    course.z_[course.members(k + 1)],
                    code,
                )
                out.append(step)
                if k + 2 < len(levels):
                    out.append(
                        step._replace(
                            target=course.z_[course.members(k + 2)],
                            next_shift=course.move(z + shift, levels[k + 1], levels[k + 2]),
                            next_elapsed=float(levels[k + 2] - levels[k + 1]),
                        )
                    )
        return out

    def _train(self, batches: Sequence[ChainBatches], d: int) -> list[dict[str, torch.Tensor]]:
        """Train a network on each stream of batches."""
        levels = np.unique(np.concatenate(list(self._levels.values())))
        steps = np.concatenate([np.diff(held) for held in self._levels.values()])
        with seeded(self.seed):
            predictor = ElapsedPredictor(d, len(self.codes))
            predictor.set_clock(float(levels[0]), float(levels[-1] - levels[0]), float(np.median(steps)))
            trained = train_side_by_side(CourseModule(predictor), COURSES, PLAN, batches, STEPS // STEPS_PER_EPOCH)
        clock = {"clock": predictor.clock.clone()}
        return [{name.removeprefix("predictors.0."): w for name, w in held.items()} | clock for held in trained]

    def _load(self, weights: list[dict[str, torch.Tensor]]) -> None:
        self._weights = weights
        d = next(w for name, w in weights[0].items() if name == "predictor.output.bias").shape[0]
        self._predictors = [_predictor(held, d, len(self.codes)) for held in weights]

    # ---------------------------------------------------------------- on disk
    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "seed": self.seed,
            "shares": dict(self.shares),
            "gains": dict(self.gains),
            "judged": dict(self.judged),
            "codes": dict(self.codes),
            "levels": dict(self._levels),
            "weights": [{name: w.cpu().numpy() for name, w in held.items()} for held in self._weights],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`state`."""
        new = cls(seed=int(state["seed"]))
        new.shares, new.gains = dict(state["shares"]), dict(state["gains"])
        new.judged = {name: int(n) for name, n in state["judged"].items()}
        new.codes = {name: int(code) for name, code in state["codes"].items()}
        new._levels = {name: np.asarray(levels) for name, levels in state["levels"].items()}
        if len(state["weights"]):
            new._load([{name: torch.from_numpy(np.array(w)) for name, w in held.items()} for held in state["weights"]])
        return new


def weigh(ratios: FloatArray) -> tuple[float, float]:
    """Return the share of the correction that counts, and what it takes off.

    Parameters
    ----------
    ratios
        ``(left out, SHARES)`` log ratios of the distance with a share of the correction to that without.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model.trajectories._residual import weigh
    >>> better = np.log([[0.95, 0.9, 0.97]] * 4)
    >>> share, gain = weigh(better)
    >>> share, round(gain, 2), weigh(-better)[0], weigh(better[:2])[0]
    (0.5, 0.1, 0.0, 0.0)
    """
    if len(ratios) < LEAST_JUDGED:
        return 0.0, 0.0
    sure = ratios.mean(0) + ratios.std(0, ddof=1) / np.sqrt(len(ratios))
    best = int(sure.argmin())
    if sure[best] > -LEAST_GAIN:
        return 0.0, 0.0
    return SHARES[best], float(1 - np.exp(ratios.mean(0)[best]))


def folds(levels: Mapping[str, FloatArray]) -> list[Fold]:
    """Return which inner snapshots are left out together: never neighbours in time.

    For the class ``"time"`` in all conditions, for the class ``"condition"`` in one of those that have it.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.model.trajectories._residual import folds
    >>> [fold.left for fold in folds({"all": np.arange(5.0)})]
    [[('all', 1.0)], [('all', 2.0)], [('all', 3.0)]]
    >>> [fold.left for fold in folds({"a": np.arange(4.0), "b": np.arange(4.0)}) if fold.cls == "condition"]
    [[('a', 1.0)], [('a', 2.0)], [('b', 1.0)], [('b', 2.0)]]
    """
    inner = np.unique(np.concatenate([held[1:-1] for held in levels.values()]))
    out = []
    n = min(FOLDS, max(2, len(inner)))
    for i in range(n):
        times = inner[i::n]
        left = [(label, float(t)) for t in times for label, held in levels.items() if t in held[1:-1]]
        if left:
            out.append(Fold(TIME, left))
    if len(levels) > 1:
        parts: dict[int, list[tuple[str, float]]] = {}
        for c, (label, held) in enumerate(levels.items()):
            elsewhere = np.concatenate([o for name, o in levels.items() if name != label])
            for i, t in enumerate(inner):
                if t in held[1:-1] and t in elsewhere:
                    parts.setdefault((2 * c + i % 2) % FOLDS, []).append((label, float(t)))
        for left in parts.values():
            # of more conditions than folds have room for, a time is left out in one only
            once = {t: (label, t) for label, t in reversed(left)}
            out.append(Fold(CONDITION, sorted(once.values(), key=lambda pair: pair[1])))
    return out


def _thinned(cells: Snapshots, seed: int) -> np.ndarray:
    """Return indices of at most :data:`CELLS` cells of each snapshot."""
    rng = np.random.default_rng(seed)
    keys = np.unique(
        np.column_stack([np.unique(cells.labels, return_inverse=True)[1], cells.times]), axis=0, return_inverse=True
    )[1].ravel()
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(keys == k))[:CELLS] for k in range(keys.max() + 1)]))


def _predictor(weights: Mapping[str, torch.Tensor], d: int, n_conditions: int) -> ElapsedPredictor:
    predictor = ElapsedPredictor(d, n_conditions)
    predictor.load_state_dict(dict(weights))
    return predictor.eval()


def _asked(
    predictors: Iterable[ElapsedPredictor], z: FloatArray, start: FloatArray, elapsed: FloatArray, code: int
) -> FloatArray:
    """Return the mean shift of cells by some networks."""
    tensors = [torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (z, start, elapsed)]
    kind = torch.full((len(z),), code)
    with torch.inference_mode():
        return np.mean([p(*tensors, kind).numpy() for p in predictors], axis=0).astype(np.float64)


def _distance(z: FloatArray, cloud: Cloud, true: FloatArray) -> float:
    """Return W1 of a weighted cloud from cells."""
    points = z[cloud.cells, :AXES] + cloud.shift[:, :AXES]
    if len(points) > JUDGED:
        return wasserstein(points[systematic(cloud.mass, JUDGED)], true[:, :AXES])
    return wasserstein(points, true[:, :AXES], source_mass=cloud.mass)
