"""Claim: PerturbJEPA predicts a perturbation in an unseen cell type better than context transfer, and does not invent.

``kang``
    kang18_combined.h5ad (PBMC, interferon beta): library-normalised to 10,000, log1p, 2,000 variable genes chosen on
    the training cells of each split; the stimulated cells of each of the five cell types are left out in turn.
``mcfaline``
    The McFaline-Figueroa 2023 part of perturbench_norman19_mcfaline23.h5ad (three glioblastoma lines, CRISPR
    interference of nine genes, 500 genes, log-normalised): the perturbed cells of each line are left out in turn.
    There is hardly any signal: the claim is to be no worse than no change and context transfer in L2.

Defaults everywhere, nothing is tuned to a data set. ``--peers`` trains other tools on the same splits, with the
settings of their own tutorials (``peers/``), and puts their rows into the same table. They take hours, so what they
scored is kept in ``perturb_context_<data>_peers.csv`` and taken from there the next time; ``--seeds 0`` runs them alone.
Examples::

    python benchmarks/perturb_context.py --seeds 1
    python benchmarks/peers/make_env.py scgen biolord && python benchmarks/perturb_context.py --peers scgen biolord
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import scanpy as sc
from _common import Columns, Run, benchmark, parser, read, start
from _peers import add_peer_options, require_peers, score_peers


def kang(folder: Path) -> Iterator[Run]:
    """Leave out the stimulated cells of one type; genes are chosen without them."""
    cells = read(folder, "kang18_combined.h5ad")
    cells.layers["counts"] = cells.X.copy()  # scVI reads counts
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
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3; 0: peers alone)")
    add_peer_options(options, ["scgen", "biolord"])
    options.add_argument("--peer-seeds", type=int, default=1, help="training seeds of peers (default: 1)")
    args = options.parse_args()
    if not (args.seeds or args.peers):
        options.error("--seeds 0 runs nothing without --peers")
    require_peers(args.peer_envs, args.peers)
    start(args)
    titles = {"kang": "Kang 2018, one cell type left out", "mcfaline": "McFaline-Figueroa 2023, one line left out"}
    for name in args.datasets:
        runs = {"kang": kang, "mcfaline": mcfaline}[name](args.data)
        columns = Columns("condition", context="cell_type")
        peers = None
        if args.peers:
            file = args.out / f"perturb_context_{name}_peers.csv"
            peers = partial(score_peers, peers=args.peers, envs=args.peer_envs, seeds=args.peer_seeds, file=file)
        csv = f"perturb_context_{name}.csv"
        benchmark(titles[name], runs, columns, seeds=args.seeds, out=args.out, csv=csv, peers=peers)


if __name__ == "__main__":
    main()
