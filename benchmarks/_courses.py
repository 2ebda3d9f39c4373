"""Time courses of the trajectory benchmarks, whole and under stress, and the scores of cells at a left-out time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from _common import read

from scjepa._scale import lognormalise
from scjepa.baselines.times import PLAIN, Cloud, Interpolant, systematic
from scjepa.data import fit_components
from scjepa.datasets import simulate_trajectory
from scjepa.dynamics import read_times, wasserstein
from scjepa.model.trajectories import ONLY, Courses, Residual, Snapshots

LARRY, WORM, DENDRITIC = "weinreb20_larry_cospar.h5ad", "packer19_celegans_embryo.h5ad", "schlitzer15_dc_ginhoux.h5ad"
COORDINATES, JUDGED = 10, 5
"""Components that cells move in, and those that they are compared in."""
POINTS = 2000
FLOOR = "half against half"


class Course(NamedTuple):
    """Cells of one time course, log-normalised."""

    name: str
    x: np.ndarray
    times: np.ndarray


class Question(NamedTuple):
    """Predict the cells ``held`` from the cells ``kept``."""

    setting: str
    seed: int
    time: float
    x: np.ndarray
    times: np.ndarray
    kept: np.ndarray
    held: np.ndarray


def courses(folder: Path) -> list[Course]:
    """Read the three measured courses, and simulate two that branch, in coordinates and in counts."""
    larry, worm, cells = (read(folder, name) for name in (LARRY, WORM, DENDRITIC))
    sc.pp.log1p(larry)
    sc.pp.normalize_total(worm, target_sum=1e4)
    sc.pp.log1p(worm)
    sc.pp.highly_variable_genes(worm, n_top_genes=2000)
    worm = worm[:, worm.var["highly_variable"]]
    stage = cells.obs["group_name"].map({"MDP": 1.0, "CDP": 2.0, "PreDC": 3.0}).to_numpy(dtype=float)
    return [
        Course("LARRY", dense(larry.X), larry.obs["time_info"].astype(float).to_numpy()),
        Course("C. elegans", dense(worm.X), read_times(worm.obs["embryo.time.bin"]).values),
        Course("dendritic cells", dense(cells.X), stage),
        branching(),
        counted(),
    ]


def dense(x: Any) -> np.ndarray:
    """Return an array; these sets are small."""
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)


def branching(n: int = 150, genes: int = 60, seed: int = 0) -> Course:
    """Simulate 7 snapshots of cells that set out together, part into two fates after the third, and are a little asynchronous."""
    rng = np.random.default_rng(seed)
    start, along, apart = rng.normal(size=(3, genes))
    times = np.repeat(np.arange(7.0), n)
    age = np.maximum(times + rng.normal(0, 0.3, len(times)), 0)
    fate = np.where(rng.random(len(times)) < 0.6, 1.0, -1.0)
    bend = np.sin(age / 6 * np.pi)[:, None] * rng.normal(size=genes)
    way = 0.5 * age[:, None] * along + fate[:, None] * 0.7 * np.maximum(age - 2.5, 0)[:, None] * apart
    return Course("simulated branch", start + way + bend + rng.normal(0, 0.8, (len(times), genes)), times)


def counted() -> Course:
    """Simulate 7 snapshots of counts of cells that part into two fates within a step."""
    adata = simulate_trajectory(seed=0, sparse=False)
    return Course("simulated counts", lognormalise(adata.X, target_sum=1e4), adata.obs["time"].to_numpy())


def questions(course: Course, seeds: int) -> Iterator[Question]:
    """Yield every inner time left out, of the whole course and of courses made hard."""
    levels = np.unique(course.times)
    everything = np.arange(len(course.times))
    whole = lambda times, x=course.x, kept=everything, setting="all cells", seed=0: _inner(
        setting, seed, x, course.times, kept, times
    )
    yield from whole(levels)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 7])
        for n in (150, 60, 30):
            yield from whole(levels, kept=_thinned(course.times, n, rng), setting=f"{n} cells a time", seed=seed)
        yield from whole(levels, x=course.x + _shifts(course, rng), setting="batch shift per time", seed=seed)
    if len(levels) > 4:
        for t in levels[1:-1]:
            yield from whole(np.array([levels[0], t, levels[-1]]), setting="3 times, the ends kept")
        for i in range(1, len(levels) - 1):
            yield from whole(levels[i - 1 : i + 2], setting="3 times, neighbours kept")
        kept = levels[[i for i in range(len(levels)) if i in (0, 1, 4, 5, len(levels) - 1)]]
        yield from whole(kept, setting="unequal spacing")


def _inner(
    setting: str, seed: int, x: np.ndarray, times: np.ndarray, kept: np.ndarray, levels: np.ndarray
) -> Iterator[Question]:
    for t in levels[1:-1]:
        training = kept[np.isin(times[kept], levels) & (times[kept] != t)]
        yield Question(setting, seed, float(t), x, times, training, np.flatnonzero(times == t))


def _thinned(times: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.permutation(np.flatnonzero(times == t))[:n] for t in np.unique(times)])


def _shifts(course: Course, rng: np.random.Generator) -> np.ndarray:
    """Return one random shift of all genes for each time, half as long as neighbouring means are apart."""
    levels, of = np.unique(course.times, return_inverse=True)
    means = np.array([course.x[course.times == t].mean(0) for t in levels])
    size = 0.5 * np.linalg.norm(np.diff(means, axis=0), axis=1).mean()
    shift = rng.normal(size=means.shape)
    return (size * shift / np.linalg.norm(shift, axis=1, keepdims=True))[of]


class Answered(NamedTuple):
    """Training cells, their times, and held-out cells, in components of the training cells."""

    z: np.ndarray
    times: np.ndarray
    true: np.ndarray


def project(question: Question) -> Answered:
    """Fit components on training cells; one scale, that of the components which count."""
    x = question.x[question.kept]
    mean, loadings, _ = (part.astype(np.float64) for part in fit_components(x, COORDINATES))
    scale = ((x - mean) @ loadings[:JUDGED].T).std(0).mean()
    to = lambda cells: (cells - mean) @ loadings.T / scale
    return Answered(to(x), question.times[question.kept], to(question.x[question.held]))


def w1(z: np.ndarray, cloud: Cloud, true: np.ndarray) -> float:
    """Return the Wasserstein distance of a weighted cloud from held-out cells."""
    points, mass = z[cloud.cells, :JUDGED] + cloud.shift[:, :JUDGED], cloud.mass
    if len(points) > POINTS:
        points, mass = points[systematic(mass, POINTS)], None
    return wasserstein(points, true[:, :JUDGED], source_mass=mass)


def score(question: Question, models: dict[str, Callable[[], Any]]) -> list[tuple[str, str, float]]:
    """Return method, kind and W1 of the models, the plain rows, and halves of the held-out cells."""
    z, times, true = project(question)
    out = [(name, "model", w1(z, make().fit(z, times).predict(question.time), true)) for name, make in models.items()]
    # plain rows only need the components in which they are compared
    for make in PLAIN:
        cloud = make().fit(z[:, :JUDGED], times).predict(question.time)
        out.append((make.name, "baseline", w1(z[:, :JUDGED], cloud, true)))
    order = np.random.default_rng(0).permutation(len(true))
    half = len(true) // 2
    out.append((FLOOR, "ceiling", wasserstein(true[order[:half], :JUDGED], true[order[half:], :JUDGED])))
    return out


def summary(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Average W1 over times and seeds of each setting, and divide the model's by that of the best plain row there."""
    mean = rows.groupby(["course", "setting", "method"], sort=False)["w1"].mean().unstack("method")
    plain = [make.name for make in PLAIN]
    mean.insert(0, "ratio", mean[model] / mean[plain].min(1))
    mean.insert(1, "best plain row", mean[plain].idxmin(1))
    return mean.reset_index()


class Corrected:
    """The interpolant with the network that TrajectoryJEPA puts on it, as far as times left out bear it out."""

    name = "with network"

    def fit(self, z: np.ndarray, times: np.ndarray) -> Corrected:
        """Fit the course, judge the network and train it where it counts."""
        cells = Snapshots(z, times, np.full(len(z), ONLY), None)
        self.courses = Courses().fit(*cells[:3], np.arange(len(z)))
        self.residual = Residual()
        if self.residual.judges(self.courses):
            self.residual.fit(cells, self.courses)
        return self

    def predict(self, time: float) -> Cloud:
        """Return the cells at a time."""
        course = self.courses.of[ONLY]
        return self.residual.corrected(course, ONLY, course.predict(time), time)


DEFAULT: dict[str, Callable[[], Any]] = {Interpolant.name: Interpolant}
