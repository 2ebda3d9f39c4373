"""Claim: PerturbJEPA predicts unseen double perturbations better than every closed-form baseline.

Data, both with all singles of the left-out doubles in training:

``norman``
    The Norman 2019 part of perturbench_norman19_mcfaline23.h5ad (K562, CRISPR activation, 500 genes, log-normalised
    cells). Each of the five doubles whose two singles are measured is left out in turn; with ``--together`` all five
    at once.
``carpool``
    wessel23_carpool_thp1_pseudobulk.h5ad (THP-1, Cas13d knock-down, 2,000 genes, one mean profile per condition):
    158 doubles, a random half is left out, five times. With one profile per condition PerturbJEPA trains no network
    and predicts with its anchor, so its seed changes nothing and one is run. The ceiling comes from the two
    split halves of every double that the file holds.

Defaults everywhere, nothing is tuned to a data set. Example::

    python benchmarks/perturb_doubles.py --seeds 1
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from _common import Columns, Run, benchmark, parser, read, start

from scjepa import tl


def norman(folder: Path, together: bool) -> list[Run]:
    """Leave out the doubles with both singles measured, one by one or all together."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    labels = set(cells.obs["condition"].astype(str))
    doubles = sorted(p for p in labels if "+" in p and labels.issuperset(p.split("+")))
    if together:
        return [Run("all five", cells, doubles)]
    return [Run(double, cells, [double]) for double in doubles]


def carpool(folder: Path, n_splits: int = 5) -> Iterator[Run]:
    """Leave out a random half of the doubles, ``n_splits`` times."""
    profiles = read(folder, "wessel23_carpool_thp1_pseudobulk.h5ad")
    doubles = profiles.obs["perturbation"].astype(str).to_numpy()[profiles.obs["nperts"] == 2]
    rng = np.random.default_rng(0)
    for split in range(n_splits):
        yield Run(f"split {split}", profiles, rng.permutation(doubles)[: len(doubles) // 2])


def split_halves(run: Run, columns: Columns) -> pd.DataFrame:
    """Score replicate half 1 as a prediction of half 2, corrected for their size as in :func:`scjepa.tl.evaluate`."""
    held = run.cells.obs[columns.perturbation].isin(run.perturbations).to_numpy()
    first, second = run.cells[held].copy(), run.cells.copy()
    first.X, second.X[held] = first.layers["splithalf1"], first.layers["splithalf2"]
    scores = tl.evaluate(first, second, **columns.for_evaluate(), baselines=None, method="half")
    scores = scores[scores["method"] == "half"].assign(method="replicate ceiling", kind="ceiling")
    r = scores["value"]
    corrected = np.select(
        [scores["metric"] == "l2", scores["metric"].str.startswith("pearson")], [r / 2, 2 * r / (1 + r)], r
    )
    return scores.assign(value=corrected)


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=["norman", "carpool"], default=["norman", "carpool"])
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3)")
    options.add_argument("--together", action="store_true", help="Norman: leave out all five doubles at once")
    args = options.parse_args()
    start(args)
    if "norman" in args.datasets:
        how = "together" if args.together else "in turn"
        benchmark(
            f"Norman 2019, five doubles left out {how}",
            norman(args.data, args.together),
            Columns("condition"),
            seeds=args.seeds,
            out=args.out,
            csv=f"perturb_doubles_norman{'_together' * args.together}.csv",
        )
    if "carpool" in args.datasets:
        benchmark(
            "CaRPool-seq, half of the doubles left out, five random splits",
            carpool(args.data),
            Columns("perturbation"),
            seeds=1,
            ceiling=split_halves,
            out=args.out,
            csv="perturb_doubles_carpool.csv",
        )


if __name__ == "__main__":
    main()
