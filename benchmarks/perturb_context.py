"""Claim: PerturbJEPA predicts a perturbation in an unseen cell type better than context transfer, and does not invent.

``kang``
    kang18_combined.h5ad (PBMC, interferon beta): library-normalised to 10,000, log1p, 2,000 variable genes chosen on
    the training cells of each split; the stimulated cells of each of the five cell types are left out in turn.
``mcfaline``
    The McFaline-Figueroa 2023 part of perturbench_norman19_mcfaline23.h5ad (three glioblastoma lines, CRISPR
    interference of nine genes, 500 genes, log-normalised): the perturbed cells of each line are left out in turn.
    There is hardly any signal: the claim is to be no worse than no change and context transfer in L2.

Defaults everywhere, nothing is tuned to a data set. Example::

    python benchmarks/perturb_context.py --seeds 1
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import scanpy as sc
from _common import Columns, Run, benchmark, parser, read, start


def kang(folder: Path) -> Iterator[Run]:
    """Leave out the stimulated cells of one type; genes are chosen without them."""
    cells = read(folder, "kang18_combined.h5ad")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    for place in sorted(cells.obs["cell_type"].astype(str).unique()):
        held = (cells.obs["cell_type"] == place) & (cells.obs["condition"] == "stimulated")
        genes = sc.pp.highly_variable_genes(cells[~held].copy(), n_top_genes=2000, inplace=False)
        yield Run(place, cells[:, genes["highly_variable"].to_numpy()].copy(), ["stimulated"], place)


def mcfaline(folder: Path) -> Iterator[Run]:
    """Leave out all perturbed cells of one line."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "mcfaline23"].copy()
    for place in sorted(cells.obs["cell_type"].astype(str).unique()):
        here = cells.obs.loc[cells.obs["cell_type"] == place, "condition"].astype(str)
        yield Run(place, cells, sorted(set(here) - {"control"}), place)


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=["kang", "mcfaline"], default=["kang", "mcfaline"])
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3)")
    args = options.parse_args()
    start(args)
    titles = {"kang": "Kang 2018, one cell type left out", "mcfaline": "McFaline-Figueroa 2023, one line left out"}
    for name in args.datasets:
        runs = {"kang": kang, "mcfaline": mcfaline}[name](args.data)
        columns = Columns("condition", context="cell_type")
        benchmark(titles[name], runs, columns, seeds=args.seeds, out=args.out, csv=f"perturb_context_{name}.csv")


if __name__ == "__main__":
    main()
