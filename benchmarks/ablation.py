"""Claim: every part of PerturbJEPA's design pays; each is switched off in turn, all else at its default.

Sets, none of which any variant has seen the left-out conditions of:

``norman``
    Norman 2019, the five doubles whose singles are measured, left out together.
``carpool``
    CaRPool-seq, the first of the random halves of the doubles (one profile per condition: no network is trained, so only
    the variants of the anchor and the link say something here, and only they are run).
``kang``
    Kang 2018, stimulated CD14 monocytes and stimulated CD4 T cells left out in turn (means over both).

Printed and saved (``ablation.csv``, and ``ablation.md`` for the documentation): L2 and Pearson correlation of effects,
E-distance, ratio of predicted to true cell variance and of shift magnitudes; means over conditions, splits and seeds. The
first row is the default. Variants whose predictor reads the coordinates alone skip stage 1, which they don't depend on.
Example::

    python benchmarks/ablation.py --quick
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import perturb_context
import perturb_doubles
import torch
from _common import Columns, Run, parser, save, start

from scjepa import PerturbJEPA, tl
from scjepa.baselines import KernelEffect

METRICS = {
    "l2": "L2",
    "pearson_delta": "Pearson delta",
    "e_distance": "E-distance",
    "variance_ratio": "variance ratio",
    "shift_ratio": "shift ratio",
}


@dataclass(frozen=True)
class Variant:
    """One change to the default model.

    Attributes
    ----------
    part
        What is changed.
    value
        What it is changed to.
    model, train
        Arguments of PerturbJEPA and of its ``train``.
    closed_form
        Whether it changes something where no network is trained.
    """

    part: str
    value: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    closed_form: bool = False

    @property
    def reads_embedding(self) -> bool:
        """Whether predictions depend on the encoder; stage 1 is skipped where they don't."""
        return bool(self.train) or self.model.get("predictor_input", "z") != "z"

    @property
    def name(self) -> str:
        """Part and value."""
        return f"{self.part}: {self.value}"


def identity_link() -> KernelEffect:
    """Return the anchor without links: effects add up on the log-normalised scale."""
    return KernelEffect(links=(None,))


DEFAULT = Variant("default", "", closed_form=True)


def variants() -> list[Variant]:
    """Return all changes, without those that are the default; the default comes first."""
    change = lambda part, value, **model: Variant(part, value, model)
    defaults = {name: p.default for name, p in inspect.signature(PerturbJEPA).parameters.items()}
    changes = [
        Variant("anchor", "none", {"anchor": None, "residual": True}),
        Variant("anchor", "ridge", {"anchor": "ridge"}, closed_form=True),
        Variant("link", "none", {"anchor": identity_link()}, closed_form=True),
        change("network", "off", residual=False),
        change("network", "on", residual=True),
        change("gate", "0 (off)", gate=0.0),
        change("gate", "1 (full)", gate=1.0),
        change("set loss", "MMD", set_loss="mmd"),
        change("set loss", "energy", set_loss="energy"),
        change("set loss", "random pairs", set_loss="random_pair"),
        change("predictor input", "z", predictor_input="z"),
        change("predictor input", "h", predictor_input="h"),
        change("predictor input", "z and h", predictor_input="both"),
        # z is read by default, so what the encoder does matters to predictions only where h is read
        change("collapse control (z and h)", "SIGReg", predictor_input="both", regularizer="sigreg"),
        change("collapse control (z and h)", "VICReg", predictor_input="both", regularizer="vicreg"),
        change("collapse control (z and h)", "EMA", predictor_input="both", regularizer="ema"),
        change("ensemble", "1", n_ensemble=1),
        change("ensemble", "2", n_ensemble=2),
        Variant("stages", "joint", train={"joint": True}),
        Variant("stages", "joint, no inverse dynamics", {"inverse_dynamics": 0.0}, {"joint": True}),
        Variant("stages", "joint, VICReg", {"regularizer": "vicreg"}, {"joint": True}),
        Variant("stages", "joint, random pairs", {"set_loss": "random_pair"}, {"joint": True}),
    ]
    new = lambda v: v.train or any(defaults[name] != value for name, value in v.model.items())
    return [DEFAULT, *filter(new, changes)]


def runs(name: str, folder: Path) -> Iterator[Run]:
    """Return the splits of a set."""
    if name == "norman":
        return iter(perturb_doubles.norman(folder, together=True))
    if name == "carpool":
        return perturb_doubles.carpool(folder, n_splits=1)
    wanted = ("CD14 Mono", "CD4 T")
    return (run for run in perturb_context.kang(folder) if run.context in wanted)


def columns_of(name: str) -> Columns:
    """Return where labels are."""
    return {
        "norman": Columns("condition"),
        "carpool": Columns("perturbation"),
        "kang": Columns("condition", context="cell_type"),
    }[name]


def score(variant: Variant, run: Run, columns: Columns, seed: int, max_epochs: int | None) -> dict[str, float]:
    """Train a variant without the left-out conditions and return its mean scores."""
    torch.set_num_threads(1)  # again: scanpy's choice of variable genes raises the number
    begin = time.process_time()
    PerturbJEPA.setup_anndata(run.cells, columns.perturbation, columns.control, context_key=columns.context)
    model = PerturbJEPA(run.cells, **variant.model)
    held = [p if run.context is None else (p, run.context) for p in run.perturbations]
    model.train(
        max_epochs, holdout=held, seed=seed, embed=variant.reads_embedding, enable_progress_bar=False, **variant.train
    )
    predicted = model.predict_perturbation(list(run.perturbations), context=run.context, seed=seed)
    seconds = time.process_time() - begin
    scores = tl.evaluate(
        predicted, run.cells, **columns.for_evaluate(), metrics=list(METRICS), baselines=None, ceiling=False
    )
    return scores.groupby("metric")["value"].mean().to_dict() | {"cpu_seconds": seconds}


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Average over splits and seeds: one row a variant, in the order they were run, one column a metric."""
    table = pd.DataFrame(rows)
    keep = [m for m in METRICS if m in table and table[m].notna().any()]
    return table.groupby("variant", sort=False)[[*keep, "cpu_seconds"]].mean()


def format_table(means: pd.DataFrame) -> str:
    """Lay out as markdown; the difference to the default in L2 stands beside it."""
    shown = means.rename(columns=METRICS | {"cpu_seconds": "CPU s"})
    names = [name.removesuffix(": ") for name in means.index]
    header = ["variant", "L2, against the default", *[c for c in shown.columns if c != "L2"]]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    first = means["l2"].iloc[0]
    for name, (_, row) in zip(names, shown.iterrows(), strict=True):
        change = "" if name == "default" else f"{row['L2'] / first - 1:+.1%}"
        rest = [f"{v:.0f}" if c == "CPU s" else ("–" if np.isnan(v) else f"{v:.3f}") for c, v in row.drop("L2").items()]
        lines.append("| " + " | ".join([name, f"{row['L2']:.3f} {change}".strip(), *rest]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    sets = ["norman", "carpool", "kang"]
    options.add_argument("--datasets", nargs="+", choices=sets, default=sets)
    options.add_argument("--parts", nargs="+", metavar="PART", help="parts to change, e.g. anchor link (default: all)")
    options.add_argument("--seeds", type=int, default=3, help="training seeds (default: 3)")
    options.add_argument("--quick", action="store_true", help="one epoch a stage and one seed: does it run?")
    args = options.parse_args()
    wanted = [v for v in variants() if v is DEFAULT or not args.parts or v.part in args.parts]
    if len(wanted) == 1:
        options.error(f"--parts: expected some of {', '.join(dict.fromkeys(v.part for v in variants()[1:]))}")
    start(args)
    seeds, epochs = (1, 1) if args.quick else (args.seeds, None)
    stem = "ablation_quick" if args.quick else "ablation"
    everything: list[dict[str, Any]] = []
    pages = []
    for name in args.datasets:
        print(f"== {name}", flush=True)
        rows: list[dict[str, Any]] = []
        for run in runs(name, args.data):
            for variant in wanted:
                if name == "carpool" and not variant.closed_form:
                    continue
                for seed in range(1 if name == "carpool" else seeds):  # closed forms have no seed
                    found = score(variant, run, columns_of(name), seed, epochs)
                    rows.append({"data": name, "run": run.name, "variant": variant.name, "seed": seed, **found})
                    print(f"   {run.name}, {variant.name}, seed {seed}: l2 {found['l2']:.3f}, "
                          f"{found['cpu_seconds']:.0f} CPU s", flush=True)  # fmt: skip
                    save(pd.DataFrame(everything + rows), args.out, f"{stem}.csv")
        everything += rows
        table = format_table(summary(rows))
        print(f"\n{table}\n", flush=True)
        pages.append(f"### {name}\n\n{table}\n")
        (args.out / f"{stem}.md").write_text("\n".join(pages))


if __name__ == "__main__":
    main()
