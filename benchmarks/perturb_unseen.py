"""Claim: 90 % intervals of `predict_effect` cover 85 to 95 % of held-out effects, and unseen genes beat "no change".

Coverage over the expressed genes, those detected in the condition or its controls (others have no effect and are covered
for nothing), over all genes, and over the 20 genes with the largest measured effect of each condition. Beside it stands
how wide the intervals are, by half-widths of expressed genes: ``rms / effect`` and ``median / effect`` are their root
mean square and their median over the root mean square of the measured effects (geometric means over conditions; at one
the interval is as wide as the effects are large), ``rms / error`` is the former over the root mean squared error, and
``top / effect`` the median of half-width over absolute effect of the 20 genes.

``unseen``
    Norman 2019 part of perturbench_norman19_mcfaline23.h5ad (K562, 500 genes): each of the 18 single perturbations is
    left out with every double that holds its gene. Genes are described by priors/go_svd128_human.npz (128 components
    of Gene Ontology annotations; zeros for a gene without any). L2 beside the mean effect of training and no change.
``norman-13``
    Norman, 13 of its 33 conditions left out at once, ten random draws: singles, and doubles of which no, one or both
    genes are still perturbed in training; genes described as in ``unseen``.
``norman``, ``carpool``
    Doubles with both singles measured, splits of perturb_doubles.py.
``kang``, ``mcfaline``
    Unseen contexts, splits of perturb_context.py. McFaline has hardly any signal: its "top" genes are mostly chosen by
    the noise of the very measurement that is to be covered.
``simulated``
    scjepa.datasets.simulate_perturbseq, half of the doubles, and one of five contexts left out, coverage at several levels.

Defaults everywhere; with ``--quick`` the anchor predicts alone. Example::

    python benchmarks/perturb_unseen.py --quick
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from _common import Columns, Run, parser, read, save, start
from perturb_context import kang, mcfaline
from perturb_doubles import carpool, norman

from scjepa import PerturbJEPA, datasets, metrics
from scjepa.data import ConditionTable, condition_table

LEVELS = (0.5, 0.8, 0.9, 0.95)
TOP = 20
WIDTHS = {"rms": "rms / effect", "median": "median / effect", "rms_error": "rms / error"}


def unseen(folder: Path) -> Iterator[tuple[Run, list[str]]]:
    """Leave out every single of Norman with the doubles that hold its gene; yields the scored single, all left out."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    labels = sorted(cells.obs["condition"].astype(str).unique())
    for gene in (p for p in labels if "+" not in p and p != "control"):
        yield Run(gene, cells, [gene]), [p for p in labels if gene in p.split("+")]


def at_once(folder: Path, n: int = 13, n_draws: int = 10) -> Iterator[Run]:
    """Leave ``n`` conditions of Norman out together."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    cells = cells[cells.obs["dataset"] == "norman19"].copy()
    labels = sorted(set(cells.obs["condition"].astype(str)) - {"control"})
    for seed in range(n_draws):
        yield Run(f"draw {seed}", cells, sorted(np.random.default_rng(seed).permutation(labels)[:n].tolist()))


def gene_ontology(folder: Path, cells: object) -> pd.DataFrame:
    """Return a description of every perturbed gene, zeros where Gene Ontology has none."""
    with np.load(folder / "priors" / "go_svd128_human.npz", allow_pickle=True) as file:
        table = pd.DataFrame(file["emb"].astype(np.float64), index=file["genes"].astype(str))
    genes = {g for label in cells.obs["condition"].astype(str).unique() for g in label.split("+")}
    return table.reindex(sorted(genes - {"control"}), fill_value=0.0)


def simulated(n_screens: int = 6) -> Iterator[tuple[str, Run]]:
    """Simulated screens: doubles left out, and one of five contexts left out."""
    for seed in range(n_screens):
        places = [f"state {letter}" for letter in "ABCDE"]
        cells = datasets.simulate_perturbseq(300, 30, 15, 15, n_cells=30, n_control=200, contexts=places, seed=seed)
        labels = sorted(set(cells.obs["perturbation"].astype(str)) - {"control"})
        doubles = [p for p in labels if "+" in p]
        yield "simulated doubles", Run(f"screen {seed}", cells, doubles[::2])
        yield "simulated context", Run(f"screen {seed}", cells, labels, places[-1])


def score(
    run: Run, columns: Columns, held: list, quick: bool, features: pd.DataFrame | None = None
) -> list[dict[str, object]]:
    """Train without ``held``, predict the conditions of the run, and compare intervals with measured effects."""
    PerturbJEPA.setup_anndata(run.cells, columns.perturbation, columns.control, context_key=columns.context)
    model = PerturbJEPA(run.cells, gene_embeddings=features, residual=False if quick else "auto")
    model.train(holdout=held, enable_progress_bar=False, **({"max_epochs": 1} if quick else {}))
    truth = condition_table(run.cells, columns.perturbation, columns.control, context_key=columns.context)
    trained = model.anchor_.table_
    wanted = {tuple(sorted(p.split("+"))): p for p in run.perturbations}
    rows = [i for i, a in enumerate(truth.actions) if a in wanted and _is_asked(truth, i, run)]
    out: list[dict[str, object]] = []
    frames = {level: model.predict_effect(list(wanted.values()), context=run.context, level=level) for level in LEVELS}
    where = columns.context
    for i in rows:
        true = truth.effects[i]
        expressed = (truth.control[i] > 0) | (truth.perturbed[i] > 0)
        effect_size = max(float(np.sqrt((true[expressed] ** 2).mean())), 1e-12)
        top = np.argsort(-np.abs(true), kind="stable")[:TOP]
        for level, frame in frames.items():
            mine = frame["perturbation"] == wanted[truth.actions[i]]
            if where is not None:
                mine &= frame[where] == str(truth.contexts[i])
            found = frame[mine]
            low, high, effect = (found[c].to_numpy() for c in ("lower", "upper", "effect"))
            half, error = (high - low)[expressed] / 2, (effect - true)[expressed]
            rms = float(np.sqrt((half**2).mean()))
            out.append(
                {
                    "run": run.name,
                    "perturbation": wanted[truth.actions[i]],
                    "context": str(truth.contexts[i]),
                    "level": level,
                    "expressed": metrics.interval_coverage(true[expressed], low[expressed], high[expressed]),
                    "all": metrics.interval_coverage(true, low, high),
                    "top": metrics.interval_coverage(true[top], low[top], high[top]),
                    "rms": rms / effect_size,
                    "median": float(np.median(half)) / effect_size,
                    "rms_error": rms / max(float(np.sqrt((error**2).mean())), 1e-12),
                    "top_width": float(np.median((high - low)[top] / 2 / np.maximum(np.abs(true[top]), 1e-12))),
                    "far": float((found["support"] == "far").iloc[0]),
                    "abstain": float(found["abstain"].iloc[0]),
                    "l2": metrics.l2(effect, true),
                    "l2_mean": metrics.l2(trained.effects.mean(0), true),
                    "l2_no_change": metrics.l2(np.zeros_like(true), true),
                }
            )
    return out


def _is_asked(truth: ConditionTable, i: int, run: Run) -> bool:
    return run.context is None or str(truth.contexts[i]) == run.context


def main() -> None:
    """Run the benchmark."""
    names = ["unseen", "norman-13", "norman", "carpool", "kang", "mcfaline", "simulated"]
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="+", choices=names, default=names)
    options.add_argument("--quick", action="store_true", help="no network, one epoch for the encoder")
    args = options.parse_args()
    start(args)
    parts: list[pd.DataFrame] = []

    def keep(name: str, rows: list[dict[str, object]]) -> None:
        parts.append(pd.DataFrame(rows).assign(data=name))
        save(pd.concat(parts), args.out, f"perturb_unseen{'_quick' * args.quick}.csv")

    for name in args.datasets:
        if name == "unseen":
            for run, held in unseen(args.data):
                features = gene_ontology(args.data, run.cells)
                keep(name, score(run, Columns("condition"), held, args.quick, features))
        elif name == "norman-13":
            for run in at_once(args.data):
                features = gene_ontology(args.data, run.cells)
                keep(name, score(run, Columns("condition"), list(run.perturbations), args.quick, features))
        elif name == "simulated":
            for part, run in simulated():
                held = [p if run.context is None else (p, run.context) for p in run.perturbations]
                keep(part, score(run, Columns("perturbation", context="context"), held, args.quick))
        else:
            runs = {
                "norman": lambda: norman(args.data, together=False),
                "carpool": lambda: carpool(args.data),
                "kang": lambda: kang(args.data),
                "mcfaline": lambda: mcfaline(args.data),
            }[name]()
            key = "perturbation" if name == "carpool" else "condition"
            columns = Columns(key, context="cell_type" if name in ("kang", "mcfaline") else None)
            for run in runs:
                held = [p if run.context is None else (p, run.context) for p in run.perturbations]
                keep(name, score(run, columns, held, args.quick))
        show(pd.concat(parts), name)


def show(table: pd.DataFrame, name: str) -> None:
    """Print coverage, width and error of a data set; runs weigh the same."""
    mine = table[(table["data"] == name) | table["data"].str.startswith(f"{name} ")]
    for data, part in mine.groupby("data", sort=False):
        part = part.assign(**{column: np.log(part[column]) for column in WIDTHS})
        shown = ["expressed", "all", "top", *WIDTHS, "top_width", "far", "abstain"]
        values = part.groupby(["level", "run"])[shown].mean().groupby("level").mean()
        values[list(WIDTHS)] = np.exp(values[list(WIDTHS)])
        values["top_width"] = part.groupby("level")["top_width"].median()
        print(f"== {data}: {part['run'].nunique()} runs, {len(part) // len(LEVELS)} conditions")
        print(values.rename(columns={**WIDTHS, "top_width": "top / effect"}).round(3).to_string())
        error = part[part["level"] == 0.9].groupby("run")[["l2", "l2_mean", "l2_no_change"]].mean().mean()
        print(
            f"   L2 {error['l2']:.3f}, mean effect {error['l2_mean']:.3f}, no change {error['l2_no_change']:.3f}\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
