"""Claim: `screen_drugs` reads a million fingerprints at half the speed of its bare matrix products or more, exactly, in bounded memory.

``speed``
    A model of simulated data (135 drugs, 2,000 genes, 200 vehicle cells a context) screens a library that is made block by block
    (each molecule mixes the bits of two drugs of training with random ones), by reversal of a signature. The bare products
    are those no exact screen can do without, timed in the same run on the same blocks: fingerprints (single
    precision, cast before the clock starts) with those of training; similarities with the weights of every part of the
    prediction that has any; coordinates with the signature. Every eighth block goes through them, between two blocks of the
    screen, so that both meet the same machine. Making the library is timed apart. ``exact`` compares scores
    and ranks of some molecules with those of the baseline asked one molecule after the other.
``smiles``
    Molecules a second of reading SMILES, on one thread: cleaning and fingerprints by RDKit.
``hits``
    OP3 (neurips23_op3_ranksig.h5ad): a drug's measured signature in a cell type, turned around, is to be reversed; how early in
    the ranking is that drug? Library: all drugs in a cell type never seen, or the drugs of one fold, never given (one
    library a fold: predictions of folds aren't pooled). ROC area, BEDROC and enrichment in the first 5 %, beside the mean
    (all drugs tie), random scores, the mean per drug over other cell types and the nearest drug by structure.

Example::

    OMP_NUM_THREADS=1 python benchmarks/drug_screen.py --molecules 1000000
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from _common import parser, save, start
from _drugs import drugs_of, group_folds, question

from scjepa import DrugJEPA, datasets
from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs import Screener
from scjepa.data import ConditionTable
from scjepa.pharma import bedroc, enrichment_factor, library_blocks, reversal, roc_auc

GENES, DRUGS, BLOCK = 2000, 135, 4096


# ------------------------------------------------------------------------------------------------- speed
def trained(cells: int, seed: int) -> DrugJEPA:
    """Train on simulated cells; new molecules are the anchor's, so that the network may be as short as can be."""
    adata = datasets.simulate_drug_screen(
        GENES, DRUGS, 8, doses=(0.0, 1.0), contexts=("a", "b"), n_combinations=0, n_cells=12, n_control=cells, seed=seed
    )
    adata.obs["smiles"] = adata.obs["smiles"].astype(str)
    DrugJEPA.setup_anndata(adata, "drug", smiles_key="smiles", dose_key="dose", context_key="context")
    model = DrugJEPA(adata)
    model.train(max_epochs=1, embed=False, enable_progress_bar=False, accelerator="cpu")
    return model


class Library:
    """Fingerprints in blocks, made when they are asked for; every eighth one goes through the bare products as well.

    ``seconds`` is what making them and the products took, ``products`` the time of the latter a molecule.
    """

    def __init__(self, known: np.ndarray, n: int, counts: bool, seed: int, made: Screener) -> None:
        self.known, self.n, self.counts, self.seed, self.made = known.astype(np.uint8), n, counts, seed, made
        self.table = np.ascontiguousarray(known.T, dtype=np.float32)
        rng = np.random.default_rng(seed)
        self.similar, self.along = rng.random((BLOCK, len(made.weights))), rng.normal(size=made.weights.shape[1])
        self.seconds = self.products_seconds = 0.0
        self.products_done = 0

    def block(self, i: int) -> np.ndarray:
        """Return the block that starts at molecule ``i``."""
        rng = np.random.default_rng([self.seed, i])
        m, bits = min(BLOCK, self.n - i), self.known.shape[1]
        at = rng.integers(0, len(self.known), (2, m))
        x = np.where(rng.integers(0, 2, (m, bits), dtype=np.uint8) > 0, self.known[at[0]], self.known[at[1]])
        x[np.repeat(np.arange(m), 20), rng.integers(0, bits, 20 * m)] = 1
        return x if self.counts else np.minimum(x, 1)

    def multiply(self, x: np.ndarray) -> None:
        """Time the bare products of a block."""
        single, similar = x.astype(np.float32), self.similar[: len(x)]
        begin = time.perf_counter()
        single @ self.table
        (similar @ self.made.weights) @ self.along
        self.products_seconds += time.perf_counter() - begin
        self.products_done += len(x)

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in range(0, self.n, BLOCK):
            begin = time.perf_counter()
            x = self.block(i)
            if i // BLOCK % 8 == 0:
                self.multiply(x)
            self.seconds += time.perf_counter() - begin
            yield x

    @property
    def products(self) -> str:
        """Say what is multiplied."""
        (bits, drugs), (terms, k) = self.table.shape, self.made.weights.shape
        return f"{bits} x {drugs} single, {terms} x {k} and {k} x 1 double"


def speed(args: object, out: Path) -> None:
    """Time the screen and its bare products."""
    n, cells, top, seed = args.molecules, args.cells, args.top_k, args.seed  # type: ignore[attr-defined]
    model = trained(cells, seed)
    table = model.structures_.tables()["structure"]
    known = table.to_numpy()
    if args.bits != known.shape[1]:  # type: ignore[attr-defined]
        raise SystemExit(f"--bits: the model's fingerprints have {known.shape[1]}.")
    signature = pd.Series(np.random.default_rng(seed).normal(size=GENES), index=model.var_names)
    options = {"context": "a", "dose": 1.0, "signature": signature, "top_k": top, "batch_size": BLOCK}
    rows = []
    for kind in args.kinds:  # type: ignore[attr-defined]
        library = Library(known, n, kind == "counts", seed, model.anchor_.screener("a", dose=1.0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        found = model.screen_drugs(iter(library), **options, enable_progress_bar=False)
        total = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, product = total - library.seconds, library.products_seconds / library.products_done * n
        rows.append({
            "library": kind, "molecules": n, "molecules a second": n / seconds, "bare products": n / product,
            "share": product / seconds, "peak MB": peak / 1024,
            "above start MB": (peak - before) / 1024,
        })  # fmt: skip
        print(
            f"== {kind}: {n} molecules, {cells} vehicle cells, best {len(found)} kept; bare products {library.products}"
        )
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False))
        exact(model, library, options)
    save(pd.DataFrame(rows), out, "drug_screen.csv")


def exact(model: DrugJEPA, library: Library, options: dict, n: int = 256) -> None:
    """Print how far scores and ranks are from those of molecules asked one after the other, as names that are new."""
    x = library.block(0)[:n]
    names = [f"molecule {i}" for i in range(len(x))]
    columns = model.structures_.tables()["structure"].columns
    begin = time.perf_counter()
    more = model.anchor_.also(features={"structure": pd.DataFrame(x, index=names, columns=columns)})
    none = np.zeros((len(x), GENES))
    asked = ConditionTable(
        tuple((q,) for q in names), np.array(["a"] * len(x)), none, dose=np.full(len(x), options["dose"])
    )
    slow = more.effects(asked)
    seconds = time.perf_counter() - begin
    control = ((model.adata.obs["drug"] == "DMSO") & (model.adata.obs["context"] == "a")).to_numpy()
    cells = model._read(model.adata)
    start = np.asarray(cells.values[control].mean(0), dtype=float).ravel()
    most = np.maximum(model.max_expression_, cells.values[control].max(0).toarray().ravel())
    inside = np.clip(start + slow, 0, most) - start
    expected = reversal(options["signature"].to_numpy(), inside)
    got = model.screen_drugs(x, **{**options, "top_k": None}, enable_progress_bar=False)
    score = got.set_index("name")["score"].loc[[str(i) for i in range(len(x))]].to_numpy()
    order = got["name"].astype(int).to_numpy()
    print(
        f"   {len(x)} molecules one after the other: {len(x) / seconds:.0f} a second; largest difference of scores "
        f"{np.abs(score - expected).max():.1g}, ranks that differ {(order != np.argsort(-expected, kind='stable')).sum()}; "
        f"means that a bound stopped {100 * (np.abs(inside - slow) > 1e-9).mean():.2f} %\n",
        flush=True,
    )


# ------------------------------------------------------------------------------------------------- SMILES
def smiles(n: int) -> list[str]:
    """Return distinct molecules of about 25 heavy atoms."""
    first = ["CC(=O)N", "CN", "COC", "FC(F)(F)", "CCS", "N#C", "CCCN", "OC(=O)C", "CC(C)", "ClC", "CCO", "C1CC1"]
    middle = ["c1ccc(cc1)", "c1ccnc(c1)", "C1CCN(CC1)", "c1cc(F)cc(c1)", "c1cnc(nc1)", "c1sc(cn1)"]
    link = ["C(=O)N", "OC", "S(=O)(=O)N", "CC", "NC(=O)N", "C=C", "CN", "C(=O)O"]
    last = ["c1ccccc1", "C1CCCCC1", "c1ccsc1", "CCO", "c1cccnc1", "c1ccc2ccccc2c1", "C(C)(C)C", "c1ccc(Cl)cc1"]
    every = ["".join(parts) for parts in itertools.product(first, middle, link, middle, link, last)]
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:n]]


def reading(n: int) -> None:
    """Print how fast SMILES are read."""
    library = smiles(n)
    begin = time.perf_counter()
    read = sum(len(block.names) for block in library_blocks(library, counts=True))
    print(f"== SMILES: {n / (time.perf_counter() - begin):.0f} a second read ({read} of {n}), one thread\n", flush=True)


# ------------------------------------------------------------------------------------------------- hits
def hits(folder: Path, out: Path, seeds: int) -> None:
    """Score screens by reversal on OP3."""
    from drug_unseen import op3

    table, found = op3(folder)
    drug, where, y = drugs_of(table), table.contexts.astype(str), table.effects
    rows: list[pd.DataFrame] = []

    def score(title: str, test: np.ndarray, said: dict[str, np.ndarray]) -> None:
        active = np.eye(len(test), dtype=bool)
        for method, library in said.items():
            ranks = library if method == "random" else reversal(-y[test], library)
            found = {"AUROC": roc_auc(ranks, active), "BEDROC": bedroc(ranks, active)}
            found["EF 5 %"] = enrichment_factor(ranks, active, 0.05)
            rows.append(pd.DataFrame({"library": title, "method": method, **found}))

    for context in np.unique(where):
        train, test = np.flatnonzero(where != context), np.flatnonzero(where == context)
        own = [train[drug[train] == d] for d in drug[test]]
        rng = np.random.default_rng(0)
        score("context unseen", test, {
            "drug anchor": DrugEffect(similarity=found.similarity).fit(table.rows(train)).effects(question(table, test)),
            "mean per drug": np.array([y[r].mean(0) if len(r) else y[train].mean(0) for r in own]),
            "mean": np.tile(y[train].mean(0), (len(test), 1)),
            "random": rng.random((len(test), len(test))),
        })  # fmt: skip
    for seed in range(seeds):
        fold = group_folds(drug, 5, seed)
        for k in range(5):
            train = np.flatnonzero(fold != k)
            model = DrugEffect(similarity=found.similarity).fit(table.rows(train))
            for context in np.unique(where):
                test = np.flatnonzero((fold == k) & (where == context))
                here = train[where[train] == context]
                near = found.similarity["morgan"].loc[drug[test], drug[here]].to_numpy()
                rng = np.random.default_rng([seed, k])
                score("molecule unseen", test, {
                    "drug anchor": model.effects(question(table, test)),
                    "nearest drug by Tanimoto": y[here][near.argmax(1)],
                    "mean": np.tile(y[here].mean(0), (len(test), 1)),
                    "random": rng.random((len(test), len(test))),
                })  # fmt: skip
    parts = pd.concat(rows).groupby(["library", "method"], sort=False)
    means = parts.mean().assign(n=parts.size())
    print("== OP3, screens by reversal of a measured signature")
    print(means.round(3).to_string(), flush=True)
    save(means.reset_index(), out, "drug_screen_hits.csv")


def main() -> None:
    """Run the benchmark."""
    names = ["speed", "smiles", "hits"]
    options = parser(__doc__)
    options.add_argument("--molecules", type=int, default=1_000_000)
    options.add_argument("--bits", type=int, default=2048)
    options.add_argument("--cells", type=int, default=200, help="vehicle cells a context")
    options.add_argument("--top-k", type=int, default=100)
    options.add_argument("--kinds", nargs="+", choices=["bits", "counts"], default=["bits", "counts"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seeds", type=int, default=3, help="of the folds of hits")
    options.add_argument("--questions", nargs="+", choices=names, default=names)
    options.add_argument("--quick", action="store_true", help="50,000 molecules, one seed")
    args = options.parse_args()
    if args.quick:
        args.molecules, args.seeds = min(args.molecules, 50_000), 1
    start(args)
    if "speed" in args.questions:
        speed(args, args.out)
    if "smiles" in args.questions:
        reading(2000)
    if "hits" in args.questions:
        hits(args.data, args.out, args.seeds)


if __name__ == "__main__":
    main()
