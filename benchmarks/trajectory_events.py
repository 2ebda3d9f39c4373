"""Claim: branch points and tipping points of simulated systems are found at the right time, and none are where there are none.

``branch``
    dynamics.branch_points on ten principal components. With branches: two fates early, in the middle and late, a fate of 15 %
    and one of 10 %, three at once, three one after another (both branch points count); right is within one time step
    of the truth, and nothing else found. Without: linear, static, asynchronous, a fast switch, populations separate from the start
    (also a small one), batch shifts, unequal depth, fluctuations. Any branch point is false there.
``tipping``
    dynamics.critical_transitions on counts. With a tipping point: alone, and in a branching system; right is the true time
    ranked first. Without: as above, and a steady rise. p <= .03 is false there.

Targets: right in 9 of 10; false in at most 5 %. The README says where they are missed.

Example::

    python benchmarks/trajectory_events.py --seeds 100 --questions branch
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from _common import parser, save, start

from scjepa._scale import lognormalise
from scjepa.datasets import simulate_trajectory
from scjepa.dynamics import branch_points, critical_transitions

ALPHA = 0.03
"""p-value from which on a tipping point counts as found: at .05 systems without one are reported in 6 % of 1,000."""
UNEQUAL = (1500, 500, 1500, 300, 1500, 1500, 700)
BRANCHING = {
    "two fates": {},
    "early": {"branch_times": 0.25},
    "late": {"branch_times": 0.7},
    "one of 15 %": {"fate_proportions": (0.85, 0.15)},
    "one of 10 %": {"fate_proportions": (0.9, 0.1)},
    "three at once": {"n_fates": 3},
    "nested": {"n_fates": 3, "branch_times": (0.3, 0.6)},
}
PLAIN = {
    "linear": {"n_fates": 0},
    "static": {"n_fates": 0, "static": True},
    "asynchronous": {"n_fates": 0, "asynchrony": 0.2},
    "switch": {"n_fates": 0, "switch": True, "asynchrony": 0.08},
    "separate": {"priming": 1.0},
    "separate, 15 %": {"priming": 1.0, "fate_proportions": (0.85, 0.15)},
    "batch shift": {"n_fates": 0, "batch_effect": 0.4},
    "unequal depth": {"n_fates": 0, "depth": UNEQUAL},
    "rise": {"n_fates": 0, "tipping": "rise"},
}
TIP = {"tip": {"n_fates": 0, "tipping": "peak"}, "tip and branch": {"tipping": "peak"}}
SYSTEMS = {
    "branch": BRANCHING | PLAIN | {"tip": TIP["tip"]},
    "tipping": TIP | PLAIN | {"two fates": {}},
}
EVENT = {"branch": set(BRANCHING), "tipping": set(TIP)}


def branch(system: str, seed: int) -> dict[str, object]:
    """Return whether branch points were found in a simulated system, and whether all are right."""
    adata = simulate_trajectory(seed=seed, sparse=False, **SYSTEMS["branch"][system])
    truth = adata.uns["jepa"]["simulation"]
    values = lognormalise(adata.X, target_sum=1e3)
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    times = adata.obs["time"].to_numpy()
    answer = branch_points(u[:, :10] * s[:10], times, n_runs=8, seed=seed)
    found = answer.points
    levels = np.unique(times)
    true = np.searchsorted(levels, np.unique(truth["splits"]["time"])) if system in BRANCHING else np.empty(0)
    steps = np.array([p.step for p in found])
    right = len(steps) == len(true) and bool(len(steps)) and bool((np.abs(np.sort(steps) - true) <= 1).all())
    return {
        "found": len(steps) > 0,
        "right": right,
        "at": " ".join(f"{levels[s - 1]:.2f}-{levels[s]:.2f}" for s in steps),
        "share_error": share_error(answer.fates, adata.obs["fate"].astype(str).to_numpy()),
    }


def share_error(fates: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest error of a fate's share among the cells of the last snapshot, NaN where their number is wrong."""
    last = fates >= 0
    found = np.sort(np.bincount(fates[last]))
    true = np.sort(np.unique(truth[last], return_counts=True)[1])
    return float(np.abs(found - true).max() / last.sum()) if len(found) == len(true) else np.nan


def tipping(system: str, seed: int) -> dict[str, object]:
    """Return whether a tipping point was found, and whether the true time is ranked first."""
    adata = simulate_trajectory(seed=seed, **SYSTEMS["tipping"][system])
    found = critical_transitions(adata.X, adata.obs["time"].to_numpy(), n_permutations=199, seed=seed)
    tip = adata.uns["jepa"]["simulation"]["tip_time"]
    return {
        "found": found.p <= ALPHA,
        "right": bool(np.isclose(found.time, tip)),
        "at": f"{found.time:.2f}",
        "p": found.p,
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the shares that targets are about, a row a system."""
    rows = []
    for (question, system), part in table.groupby(["question", "system"], sort=False):
        event = system in EVENT[question]
        right = part["right"].mean() if event else np.nan
        close = (part["share_error"] <= 0.05).mean() if event and question == "branch" else np.nan
        target = ">= .9 right" if event else "<= .05 found"
        rows.append((question, system, len(part), part["found"].mean(), right, close, target))
    return pd.DataFrame(rows, columns=["question", "system", "seeds", "found", "right", "shares within .05", "target"])


def main() -> None:
    """Run what was asked for."""
    options = parser(__doc__ or "")
    options.add_argument("--questions", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    options.add_argument("--seeds", type=int, default=2, help="of every system")
    options.add_argument("--systems", nargs="+", help="only these")
    options.add_argument("--csv", default="trajectory_events.csv")
    args = options.parse_args()
    start(args)
    run, rows = {"branch": branch, "tipping": tipping}, []
    for seed in range(args.seeds):
        for question in args.questions:
            for system in SYSTEMS[question]:
                if args.systems is None or system in args.systems:
                    rows.append({"question": question, "system": system, "seed": seed, **run[question](system, seed)})
        save(pd.DataFrame(rows), args.out, args.csv)  # a long run may be interrupted
    print(summary(pd.DataFrame(rows)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
