"""Claim: PerturbJEPA trains several times faster than scGen, biolord and scVI, in little more memory than its data need.

Data, one perturbation in one context left out, to be predicted:

``screens``
    perturbench_norman19_mcfaline23.h5ad (5,961 cells x 500 genes, log-normalised; four cell lines).
``simulated``
    100,000 cells x 2,000 genes of Poisson counts as CSR, 5 contexts, 40 perturbations (``--cells`` for fewer).

Every tool runs in a process (and, peers, in an environment) of its own on one thread, from set-up to prediction, with
reading the file and importing libraries left out. PerturbJEPA and scVI get counts where there are some, scGen and biolord
log-normalised values; scVI gives embeddings and predicts nothing. Each peer is trained twice:

``same passes``
    for as many passes over the cells as PerturbJEPA's encoder makes by default;
``own default``
    as its tutorial does. Where that would take more than ``--patience`` minutes it is not run: seconds are then those
    of the run before plus seconds per epoch (from a run of one epoch) times the *fewest* further epochs that the peer's
    early stopping allows, and marked ``~``.

Printed: seconds of wall clock and of processor, as multiples of PerturbJEPA's; memory above that of imported libraries,
against 1.5 times the data plus 1 GB; cells a second in stage 1, the share of stage 1 that is not matrix products, and
the speed of embedding relative to its matrix products alone. On a busy machine believe processor time. Example::

    python benchmarks/speed.py --datasets screens --peers scvi
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from _common import parser, read, save, start
from _peers import TITLES, add_peer_options, require_peers, run_peer

from scjepa.data import ExpressionMatrix

FEWEST_EPOCHS = {"scgen": 26, "biolord": 210, "scvi": None}
"""Epochs before which early stopping can't end a peer's default training; scVI has none and a rule for their number."""
KEYS = {"perturbation_key": "perturbation", "control": "control", "context_key": "context"}


@dataclass(frozen=True)
class Case:
    """Cells as counts and log-normalised, what is predicted, and the size of the data in MB as users hold them."""

    name: str
    counts: ad.AnnData
    lognorm: ad.AnnData
    question: tuple[str, str]
    own_input: str

    @property
    def megabytes(self) -> float:
        """Size of the matrix that PerturbJEPA is given."""
        x = getattr(self, self.own_input).X
        parts = (x.data, x.indices, x.indptr) if sp.issparse(x) else (x,)
        return sum(part.nbytes for part in parts) / 2**20

    def cells_for(self, tool: str) -> ad.AnnData:
        """Return the cells on the scale that a tool wants."""
        return {"scvi": self.counts, "scjepa": getattr(self, self.own_input)}.get(tool, self.lognorm)


def simulate(
    n_cells: int, n_genes: int = 2000, n_contexts: int = 5, n_perturbations: int = 40, seed: int = 0
) -> ad.AnnData:
    """Draw Poisson counts of a screen: contexts, cell states, multiplicative effects on a tenth of the genes.

    The model is that of :func:`scjepa.datasets.simulate_perturbseq` without its gene network; cells are drawn in blocks,
    so that the dense matrix never exists.
    """
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1.5, n_genes)
    places = base + rng.normal(0, 0.5, (n_contexts, n_genes))
    effects = rng.normal(0, 0.7, (n_perturbations + 1, n_genes)) * (rng.random((n_perturbations + 1, n_genes)) < 0.1)
    effects[0] = 0
    states = rng.normal(0, 0.15, (10, n_genes))
    place = rng.integers(n_contexts, size=n_cells)
    done = np.where(rng.random(n_cells) < 0.2, 0, rng.integers(1, n_perturbations + 1, n_cells))
    blocks = []
    for first in range(0, n_cells, 2000):
        rows = slice(first, min(first + 2000, n_cells))
        rate = places[place[rows]] + effects[done[rows]] + rng.normal(size=(len(place[rows]), 10)) @ states
        rate = np.exp(rate - rate.max(1, keepdims=True))
        depth = rng.lognormal(math.log(500), 0.4, (len(rate), 1))
        blocks.append(sp.csr_matrix(rng.poisson(rate / rate.sum(1, keepdims=True) * depth).astype(np.float32)))
    names = np.array(["control", *(f"G{i}" for i in range(n_perturbations))])
    obs = pd.DataFrame({"perturbation": names[done], "context": np.array([f"C{i}" for i in range(n_contexts)])[place]})
    cells = ad.AnnData(sp.vstack(blocks, format="csr"), obs=obs.set_index(obs.index.astype(str)))
    cells.var_names = [f"G{i}" for i in range(n_genes)]
    cells = cells[np.asarray(cells.X.sum(1)).ravel() > 0].copy()
    return cells


def without(cells: ad.AnnData, question: tuple[str, str]) -> ad.AnnData:
    """Drop the cells that are to be predicted."""
    held = (cells.obs["perturbation"] == question[0]) & (cells.obs["context"] == question[1])
    return cells[~held.to_numpy()].copy()


def simulated(n_cells: int) -> Case:
    """Return the simulated screen as counts and log-normalised."""
    question = ("G0", "C0")
    counts = without(simulate(n_cells), question)
    lognorm = counts.copy()
    sc.pp.normalize_total(lognorm, target_sum=1e4)
    sc.pp.log1p(lognorm)
    return Case(f"simulated, {counts.n_obs:,} x {counts.n_vars:,}", counts, lognorm, question, "counts")


def screens(cells: ad.AnnData) -> Case:
    """Return the real screens; their counts are recovered from the log-normalised values for scVI."""
    cells.obs = pd.DataFrame(
        {"perturbation": cells.obs["condition"].astype(str), "context": cells.obs["cell_type"].astype(str)}
    )
    place = sorted(set(cells.obs["context"]) - {"K562"})[0]
    label = sorted(set(cells.obs.loc[cells.obs["context"] == place, "perturbation"]) - {"control"})[0]
    lognorm = without(cells, (label, place))
    counts = lognorm.copy()
    matrix = ExpressionMatrix(lognorm.X, "lognorm")
    unit = np.ones(lognorm.n_obs) if matrix.unit is None else np.where(matrix.unit > 0, matrix.unit, 1)
    x = sp.csr_matrix(matrix.values.expm1().multiply(1 / unit[:, None]))
    x.data = np.rint(x.data).astype(np.float32)
    counts.X = x
    return Case(
        f"Norman and McFaline, {lognorm.n_obs:,} x {lognorm.n_vars}", counts, lognorm, (label, place), "lognorm"
    )


def total(measured: dict, clock: str) -> float:
    """Return seconds from set-up to prediction."""
    return measured[f"train_{clock}_seconds"] + measured[f"predict_{clock}_seconds"]


def race(case: Case, tool: str, envs: object, epochs: int | None) -> dict:
    """Run one tool on one case in a process of its own."""
    question = [] if tool == "scvi" else [case.question]
    return run_peer(tool, envs, case.cells_for(tool), **KEYS, predict=question, max_epochs=epochs)[1]


def own_default(case: Case, peer: str, envs: object, same: dict, patience: float) -> dict:
    """Return what a peer's default training takes: measured, or scaled up where it would take too long."""
    epochs = FEWEST_EPOCHS[peer] or min(round(20000 / case.counts.n_obs * 400), 400)
    once = same if same["epochs"] <= 1 else race(case, peer, envs, 1)
    steps = max(same["epochs"] - once["epochs"], 1)
    scaled = dict(same)
    for clock in ("wall", "cpu"):
        if steps > 0 and same is not once:
            each = max(same[f"train_{clock}_seconds"] - once[f"train_{clock}_seconds"], 0) / steps
        else:
            each = same[f"train_{clock}_seconds"]
        scaled[f"train_{clock}_seconds"] = same[f"train_{clock}_seconds"] + each * max(epochs - same["epochs"], 0)
    if scaled["train_wall_seconds"] <= patience * 60:
        return race(case, peer, envs, None) | {"scaled": False}
    return scaled | {"epochs": epochs, "scaled": True}


def compare(case: Case, peers: list[str], envs: object, patience: float) -> pd.DataFrame:
    """Run PerturbJEPA and the peers on one case, print, and return one row per run."""
    print(f"== {case.name} cells x genes, {case.megabytes:.0f} MB; {case.question[0]} in {case.question[1]} left out")
    ours = race(case, "scjepa", envs, None)
    rows = [{"tool": "PerturbJEPA", "run": "default", **ours, "scaled": False}]
    show_own(case, ours)
    for peer in peers:
        same = race(case, peer, envs, int(ours["epochs"]))
        rows.append({"tool": TITLES[peer], "run": "same passes", **same, "scaled": False})
        show_peer(rows[-1], ours)
        rows.append({"tool": TITLES[peer], "run": "own default", **own_default(case, peer, envs, same, patience)})
        show_peer(rows[-1], ours)
    table = pd.DataFrame(rows).drop(columns="versions")
    for clock in ("wall", "cpu"):
        table[f"{clock}_seconds"] = [total(row, clock) for row in rows]
        table[f"{clock}_ratio"] = table[f"{clock}_seconds"] / total(ours, clock)
    for run in ("same passes", "own default"):
        part = table[table["run"] == run]
        if len(part):
            line = part.loc[part["cpu_seconds"].idxmin()]
            print(
                f"   fastest peer, {run}: {line['tool']}, {line['wall_ratio']:.1f} x wall, {line['cpu_ratio']:.1f} x CPU"
            )
    print(flush=True)
    return table.assign(data=case.name, data_mb=case.megabytes)


def show_own(case: Case, m: dict) -> None:
    """Print what was measured of PerturbJEPA."""
    used, allowed = m["peak_mb"] - m["imports_mb"], 1.5 * case.megabytes + 1024
    stage1, products = m["part_stage1_seconds"], m["stage1_matmul_seconds"]
    parts = ", ".join(f"{k[5:-8]} {v:.1f}" for k, v in m.items() if k.startswith("part_"))
    print(
        f"   PerturbJEPA: {total(m, 'wall'):.1f} s wall, {total(m, 'cpu'):.1f} s CPU, {m['epochs']} passes of stage 1"
    )
    print(f"     CPU seconds of its parts: {parts}, prediction {m['predict_cpu_seconds']:.1f}")
    print(f"     memory {used:.0f} MB above imports; 1.5 x data + 1 GB is {allowed:.0f} MB")
    print(
        f"     stage 1: {m['stage1_cells'] / stage1:,.0f} cells/s, {1 - products / stage1:.0%} of it not matrix products"
    )
    rate = m["latent_matmul_seconds"] / m["latent_seconds"]
    each = case.counts.n_obs / m["latent_seconds"]
    print(f"     embedding: {each:,.0f} cells/s, {rate:.2f} x the speed of its matrix products alone", flush=True)


def show_peer(m: dict, ours: dict) -> None:
    """Print what was measured of a peer."""
    wall, cpu = (total(m, clock) for clock in ("wall", "cpu"))
    about = "~" if m["scaled"] else ""
    print(
        f"   {m['tool']}, {m['run']} ({m['epochs']} epochs): {about}{wall:.1f} s wall = {about}{wall / total(ours, 'wall'):.1f} x, "
        f"{about}{cpu:.1f} s CPU = {about}{cpu / total(ours, 'cpu'):.1f} x, memory {m['peak_mb'] - m['imports_mb']:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=["screens", "simulated"], default=["screens", "simulated"])
    options.add_argument("--cells", type=int, default=100_000, help="cells of the simulated screen (default: 100,000)")
    options.add_argument(
        "--patience", type=float, default=10, help="minutes for a peer's default training (default: 10)"
    )
    add_peer_options(options, ["scgen", "biolord", "scvi"])
    args = options.parse_args()
    require_peers(args.peer_envs, args.peers)
    start(args)
    tables = []
    for name in args.datasets:
        if name == "screens":
            case = screens(read(args.data, "perturbench_norman19_mcfaline23.h5ad"))
        else:
            case = simulated(args.cells)
        tables.append(compare(case, args.peers, args.peer_envs, args.patience))
        save(pd.concat(tables), args.out, "speed.csv")


if __name__ == "__main__":
    main()
