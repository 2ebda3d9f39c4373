"""Cells at an inner time that was left out, from the snapshots around it.

Claim: the interpolant (anchor of TrajectoryJEPA) is never above the best plain row on the measured courses and the branch in coordinates, and at least
6 % below it there on average: on LARRY (day 4), C. elegans (6 inner bins), dendritic cells and two simulated courses that branch, whole, thinned to 30,
60 and 150 cells a time, with three times only, unequally spaced, and with a batch shift per time.

W1 in 5 principal components of one scale, fitted on training times only; lower is better. "ratio" is the interpolant over the plain
row that is best in that setting, chosen after the fact.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _common import parser, save, start
from _courses import DEFAULT, FLOOR, Corrected, courses, questions, score, summary
from _flows import FLOWS, flows
from _peers import default_envs

from scjepa.baselines.times import PLAIN

WORST, MEAN = 1.01, 0.94


def main() -> None:
    """Ask every question, print the table, and write it."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, default=3, help="of thinning and shifts")
    arguments.add_argument("--flows", action="store_true", help="train torchcfm's flows too, on whole courses (peers/)")
    arguments.add_argument(
        "--peer-envs", type=Path, default=default_envs(), metavar="DIR", help="see peers/make_env.py"
    )
    arguments.add_argument("--courses", nargs="+", help="only these")
    arguments.add_argument(
        "--network", action="store_true", help="ask the network on top too (five times or more; slow)"
    )
    args = arguments.parse_args()
    models = DEFAULT | ({Corrected.name: Corrected} if args.network else {})
    start(args)
    rows = []
    for course in courses(args.data):
        if args.courses and course.name not in args.courses:
            continue
        asked = list(questions(course, args.seeds))
        if args.flows:
            whole = [q for q in asked if q.setting == "all cells"]
            for method, question, value in flows(whole, args.peer_envs):
                rows.append((course.name, question.setting, question.seed, question.time, method, "peer", value))
        for question in asked:
            for method, kind, value in score(question, models):
                rows.append((course.name, question.setting, question.seed, question.time, method, kind, value))
        table = pd.DataFrame(rows, columns=["course", "setting", "seed", "time", "method", "kind", "w1"])
        save(table, args.out, "trajectory_heldout.csv")
        part = summary(table[table["course"] == course.name], "interpolant")
        columns = [
            "setting",
            "ratio",
            "best plain row",
            *models,
            *(p.name for p in PLAIN),
            *(FLOWS.values() if args.flows else ()),
            FLOOR,
        ]
        print(f"== {course.name}\n{part[columns].to_string(index=False, float_format='{:.3f}'.format)}\n", flush=True)
    ratio = summary(table, "interpolant")["ratio"]
    print(
        f"{len(ratio)} settings: mean ratio {ratio.mean():.3f} (claim: at most {MEAN}), worst {ratio.max():.3f} (at most {WORST})."
    )


if __name__ == "__main__":
    main()
