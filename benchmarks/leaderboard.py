"""Claim: PerturbJEPA comes first among published tools, on the same data, splits and scores.

Each tool is trained in a process (and, peers, in an environment) of its own, on one thread, on the same cells, and its
predictions are scored by the same :func:`scjepa.tl.evaluate`, beside every baseline that applies and the replicate
ceiling:

``kang``
    Stimulated cells of each of five cell types left out in turn (``perturb_context.py``).
``norman``
    The five doubles with both singles measured, all left out together, so that each tool trains once
    (``perturb_doubles.py --together``).
``carpool``
    A random half of 158 doubles, one mean profile per condition (first split of ``perturb_doubles.py``).

PerturbJEPA runs with package defaults, a peer as its authors publish it (``peers/run_*.py``), but for no more epochs than
its data set says (``Dataset.epochs``): there is one thread, and no GPU. ``Dataset.impossible`` says which tool can't
take which data, and why.

Peers take hours, so what they scored is kept in ``leaderboard_<data>_peers.csv``, and taken from there the next time.
The table goes to ``leaderboard.csv`` (rows of data sets that are not run again stay), the figure to ``--figure``.
Examples::

    python benchmarks/peers/make_env.py && python benchmarks/leaderboard.py
    python benchmarks/leaderboard.py --datasets kang --peers scgen scvi
    python benchmarks/leaderboard.py --datasets --figure leaderboard.png    # tables and figure of what is there
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from _common import ROOT, Columns, Run, parser, save, start
from _peers import METRICS, TITLES, add_peer_options, require_peers, run_peer, score_peers
from perturb_context import kang
from perturb_doubles import carpool, norman, split_halves

from scjepa import tl

CSV = "leaderboard.csv"
COSTS = ("wall_seconds", "cpu_seconds", "peak_mb")
GENE_SETS = Path("priors") / "go_human_5_500.gmt.gz"


@dataclass(frozen=True)
class Dataset:
    """What is left out of a data set, and what each peer is given.

    Attributes
    ----------
    title
        Title of the table.
    runs
        Makes the splits from the folder with the data.
    columns
        Columns of labels.
    epochs
        Peers that can take these data, with the most epochs that they train (None: their own default).
    impossible
        Peers that can't, with the reason.
    ceiling
        Scores replicates where :func:`scjepa.tl.evaluate` can't.
    """

    title: str
    runs: Callable[[Path], Iterable[Run]]
    columns: Columns
    epochs: dict[str, int | None]
    impossible: dict[str, str] = field(default_factory=dict)
    ceiling: Callable[[Run, Columns], pd.DataFrame] | None = None


DATASETS = {
    "norman": Dataset(
        "Norman 2019, five doubles left out together",
        lambda folder: norman(folder, together=True),
        Columns("condition"),
        {"scgen": 15, "biolord": None, "gears": 5, "cellflow": 50},
        {"scvi": "decodes only perturbations that it has seen in some context"},
    ),
    "kang": Dataset(
        "Kang 2018, one cell type left out",
        kang,
        Columns("condition", context="cell_type"),
        {"scgen": None, "biolord": 75, "scvi": 60, "cellflow": 4},
        {"gears": "predicts perturbed genes, in one cell type"},
    ),
    "carpool": Dataset(
        "CaRPool-seq, half of the doubles left out",
        lambda folder: [next(carpool(folder))],
        Columns("perturbation"),
        {"scgen": 60, "biolord": None, "gears": 10, "cellflow": 5},
        {"scvi": "needs counts of single cells"},
        split_halves,
    ),
}


def gene_terms(folder: Path, run: Run, columns: Columns) -> dict[str, list[str]]:
    """Return the Gene Ontology terms of each perturbed gene, or nothing where the file is absent."""
    genes = set("+".join(run.cells.obs[columns.perturbation].astype(str)).split("+"))
    terms: dict[str, list[str]] = {gene: [] for gene in sorted(genes - {columns.control})}
    if not (folder / GENE_SETS).is_file():
        print(f"{folder / GENE_SETS}: no such file, so GEARS gets no Gene Ontology terms", flush=True)
        return terms
    with gzip.open(folder / GENE_SETS, "rt") as file:
        for line in file:
            term, *members = line.rstrip("\n").split("\t")
            for gene in terms.keys() & set(members):
                terms[gene].append(term)
    return terms


def score_own(run: Run, dataset: Dataset, envs: Path) -> pd.DataFrame:
    """Train PerturbJEPA in its own process; score it with baselines and ceiling."""
    columns = dataset.columns
    held = run.held_out(columns)
    predicted, measured = run_peer(
        "scjepa",
        envs,
        run.cells[~held].copy(),
        perturbation_key=columns.perturbation,
        control=columns.control,
        context_key=columns.context or "",
        predict=[(p, run.context or "") for p in run.perturbations],
    )
    assert predicted is not None
    name = TITLES["scjepa"]
    scores = tl.evaluate(predicted, run.cells, **columns.for_evaluate(), metrics=METRICS, method=name)
    if dataset.ceiling is not None:
        ceiling = dataset.ceiling(run, columns)
        scores = pd.concat([scores, ceiling[ceiling["metric"].isin(METRICS)]])
    spent = {f"{k}_seconds": sum(measured[f"{p}_{k}_seconds"] for p in ("train", "predict")) for k in ("cpu", "wall")}
    costs = pd.DataFrame([spent | {"epochs": measured["epochs"], "peak_mb": measured["peak_mb"]}])
    own = scores["method"] == name
    error = scores.loc[own & (scores["metric"] == "l2"), "value"].mean()
    print(f"   {run.name}, {name}: l2 {error:.3f}, {spent['cpu_seconds']:.0f} CPU s", flush=True)
    for column in costs:
        scores[column] = np.where(own, costs[column].iloc[0], np.nan)
    return scores.assign(run=run.name, context=run.name, seed=0)


def widen(scores: pd.DataFrame, name: str) -> pd.DataFrame:
    """Average over the conditions of a run: one row per run and method, one column per metric and cost."""
    index = ["run", "seed", "kind", "method"]
    wide = scores.pivot_table(index=index, columns="metric", values="value", aggfunc="mean", sort=False)
    grouped = scores.groupby(index)
    wide = wide.reindex(columns=list(METRICS))
    wide["n_conditions"] = grouped["perturbation"].nunique()
    for column in (*COSTS, "epochs"):
        wide[column] = grouped[column].first()
    return wide.reset_index().assign(dataset=name)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of a data set over its runs; the ceiling last, the others from low to high L2.

    A method that scores fewer conditions than PerturbJEPA comes after the ones that can be compared with it.
    """
    wide = table.groupby(["kind", "method"]).agg(
        dict.fromkeys((*METRICS, *COSTS, "epochs"), "mean") | {"n_conditions": "sum"}
    )
    wide = wide.reset_index("kind")
    fewer = wide["n_conditions"] < wide.loc[wide["kind"] == "model", "n_conditions"].max()
    wide["place"] = np.where(wide["kind"] == "ceiling", 2, np.where(fewer, 1, 0))
    wide["own"] = wide["kind"] != "model"  # where it equals its anchor it stands before it
    return wide.sort_values(["place", "l2", "own"]).drop(columns="own")


def format_table(summary: pd.DataFrame) -> str:
    """Return a Markdown table; the best value of each metric among comparable methods is bold."""
    heads = ["L2 ↓", "Pearson Δ ↑", "Pearson Δ, training mean ↑", "E-distance ↓", "variance ratio →1", "shift ratio →1"]
    goals = dict(zip(METRICS, "-++-11", strict=True))
    turned = {"-": lambda v: v, "+": lambda v: -v, "1": lambda v: (v - 1).abs()}
    contenders = summary[summary["place"] == 0]
    best = {}
    for metric in METRICS[:4]:
        values = turned[goals[metric]](contenders[metric].round(3))
        best[metric] = set(values.index[values == values.min()])
    lines = [f"| | {' | '.join(heads)} | CPU s | wall s | peak MB |", "|---|" + "---|" * (len(heads) + 3)]
    whole = contenders["n_conditions"].max()
    for method, row in summary.iterrows():
        name = {"model": f"**{method}**", "peer": f"**{method}**"}.get(row["kind"], method)
        if row["place"] == 1 or (row["place"] == 2 and row["n_conditions"] < whole):
            name += f" ({row['n_conditions']:.0f} of {whole:.0f})"
        cells = []
        for metric in METRICS:
            value = "" if pd.isna(row[metric]) else f"{row[metric]:.3f}"
            cells.append(f"**{value}**" if value and method in best.get(metric, ()) else value)
        cells += ["" if pd.isna(row[c]) else f"{row[c]:.0f}" for c in ("cpu_seconds", "wall_seconds", "peak_mb")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw one row of panels per data set: a dot for each method, the ceiling as a line."""
    from matplotlib.figure import Figure

    panels = {
        "l2": "L2 of mean profiles (lower is better)",
        "pearson_delta_systema": "Pearson Δ, training mean as reference (higher)",
        "e_distance": "E-distance of cells (lower)",
    }
    looks = {"model": ("#c2410c", "o", 9), "peer": ("#1d4ed8", "o", 7), "baseline": ("#8a8f98", "D", 5)}
    names = [name for name in DATASETS if name in set(table["dataset"])]
    summaries = [summarize(table[table["dataset"] == name]) for name in names]
    shown = [s[s["place"] == 0].iloc[::-1] for s in summaries]
    figure = Figure(figsize=(12, 0.7 + sum(0.8 + 0.23 * len(s) for s in shown)), layout="constrained")
    grid = figure.subplots(
        len(names), 3, squeeze=False, gridspec_kw={"height_ratios": [2 + len(s) for s in shown]}, sharey="row"
    )
    for axes, name, summary, rows in zip(grid, names, summaries, shown, strict=True):
        ceiling = summary[summary["kind"] == "ceiling"]
        for ax, (metric, title) in zip(axes, panels.items(), strict=True):
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_title(title if ax is not axes[0] else f"{DATASETS[name].title}\n{title}", loc="left", fontsize=9)
            ax.grid(axis="y", color="#e5e7eb", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="both", labelsize=8, length=2)
            if rows[metric].isna().all():
                ax.text(0.5, 0.5, "one profile per condition:\nundefined", ha="center", va="center",
                        transform=ax.transAxes, color="#8a8f98", fontsize=9)  # fmt: skip
                ax.set_xticks([])
                ax.grid(visible=False)
            for i, (_, row) in enumerate(rows.iterrows()):
                color, marker, size = looks[row["kind"]]
                ax.plot(row[metric], i, marker, color=color, markersize=size)
            if len(ceiling) and ceiling[metric].notna().all():
                ax.axvline(ceiling[metric].iloc[0], color="#111827", linestyle=":", linewidth=1.2)
        axes[0].set_yticks(range(len(rows)), rows.index, fontsize=8)
        for label, kind in zip(axes[0].get_yticklabels(), rows["kind"], strict=True):
            label.set_color(looks[kind][0])
            label.set_fontweight("normal" if kind == "baseline" else "bold")
    for kind, text in {"model": "PerturbJEPA", "peer": "other tools", "baseline": "baselines"}.items():
        color, marker, size = looks[kind]
        figure.axes[0].plot([], [], marker, color=color, markersize=size, label=text)
    figure.axes[0].plot([], [], ":", color="#111827", label="replicate ceiling")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def measure(name: str, data: Path, peers: Sequence[str], envs: Path, out: Path) -> pd.DataFrame:
    """Train and score everything on one data set."""
    dataset = DATASETS[name]
    print(f"== {dataset.title}", flush=True)
    taking = [peer for peer in peers if peer in dataset.epochs]
    require_peers(envs, [p for p in taking if not (out / f"leaderboard_{name}_peers.csv").is_file()])
    epochs = {peer: most for peer, most in dataset.epochs.items() if most is not None}
    parts = []
    for run in dataset.runs(data):
        scores = [score_own(run, dataset, envs)]
        if taking:
            terms = gene_terms(data, run, dataset.columns) if "gears" in taking else None
            file = out / f"leaderboard_{name}_peers.csv"
            scores.append(
                score_peers(
                    run, dataset.columns, peers=taking, envs=envs, seeds=1, file=file, epochs=epochs, gene_sets=terms
                )
            )
        parts.append(widen(pd.concat(scores), name))
    return pd.concat(parts)


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--datasets", nargs="*", choices=list(DATASETS), default=list(DATASETS))
    add_peer_options(options, [peer for peer in TITLES if peer != "scjepa"])
    options.set_defaults(peers=[peer for peer in TITLES if peer != "scjepa"])
    options.add_argument(
        "--figure", type=Path, default=ROOT / "docs" / "_static" / "leaderboard.png", help="where the figure goes"
    )
    args = options.parse_args()
    start(args)
    known = pd.read_csv(args.out / CSV) if (args.out / CSV).is_file() else pd.DataFrame({"dataset": []})
    for name in args.datasets:
        found = measure(name, args.data, args.peers, args.peer_envs, args.out)
        known = pd.concat([known[known["dataset"] != name], found])
        save(known, args.out, CSV)  # after every data set: a long run may be interrupted
    if not len(known):
        options.error(f"--datasets names none, and {args.out / CSV} is not there")
    for name, dataset in DATASETS.items():
        if name in set(known["dataset"]):
            print(f"\n{dataset.title}\n\n{format_table(summarize(known[known['dataset'] == name]))}")
            print("".join(f"\nnot possible: {TITLES[peer]}, which {why}" for peer, why in dataset.impossible.items()))
    draw(known, args.figure)


if __name__ == "__main__":
    main()
