"""The stages of the demo: data, train, predict, evaluate, figures."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch

from scjepa import pl, tl
from scjepa._checks import some
from scjepa._keys import Keys
from scjepa.demo._drugs import (
    Arguments,
    ask,
    default_drug_holdout,
    new_model,
    predict_cells,
    read_drugs,
    simulated_drugs,
)
from scjepa.demo._holdout import default_holdout, resolve_holdout
from scjepa.demo._messages import UserError, say
from scjepa.demo._results import Results
from scjepa.demo._screen import Condition, Screen, read_screen, select_genes, simulated_screen
from scjepa.model import PerturbJEPA

MAX_SCATTERS = 6


def run(args: argparse.Namespace, results: Results) -> None:
    """Run all stages; each result is on disk before the next stage starts."""
    start = time.monotonic()
    drug = args.model == "drug"
    if args.data is None:
        say(f"[1/5] data: simulated {'screen of drugs' if drug else 'Perturb-seq screen'}")
        screen = simulated_drugs(args.seed) if drug else simulated_screen(args.seed)
    elif drug:
        say(f"[1/5] data: {args.data}")
        screen = read_drugs(args.data, Arguments.of(args))
    else:
        say(f"[1/5] data: {args.data}")
        screen = read_screen(
            args.data, args.perturbation_key, args.control, args.context_key, args.batch_key, args.layer
        )
    conditions = screen.conditions()
    if conditions.empty:
        raise UserError("the screen holds control cells only: there is nothing to learn.")
    if args.holdout:
        held, reason = resolve_holdout(args.holdout, screen), "as asked"
    else:
        held, reason = (default_drug_holdout if drug else default_holdout)(screen, args.seed)
    n_genes = screen.adata.n_vars
    screen = select_genes(screen, ~screen.cells().isin(held), args.n_top_genes)
    names, contexts = conditions.index.get_level_values("p"), conditions.index.get_level_values("c").unique()
    say(
        f"      {screen.adata.n_obs:,} cells, {names.nunique()} {'drugs at doses' if drug else 'perturbations'}, {len(contexts)} "
        f"context{'s' * (len(contexts) > 1)}, {screen.adata.n_vars:,} of {n_genes:,} genes"
    )
    say(f"      held out: {reason}: {some([f'{c}: {p}' if c else p for p, c in held], 10)}")

    say("[2/5] train")
    model = new_model(screen) if drug else _new_model(screen)
    # networks this small wait for their threads longer than they compute, above all on a busy machine; set here
    # because scanpy's compiled functions raise the number for all of OpenMP
    torch.set_num_threads(1)
    model.train(
        max_epochs=args.max_epochs,
        **_what_trains(screen, held),
        seed=args.seed,
        enable_progress_bar=sys.stderr.isatty(),  # in a log file a bar is thousands of lines
    )
    with results.write("model") as path:
        model.save(str(path))
    with results.write("history.png") as path:
        pl.history(model, save=path)

    say("[3/5] predict")
    predicted = joined(predict_cells(model, screen, held, args.seed) if drug else predict(model, held, args.seed))
    with results.write("predictions.h5ad") as path:
        predicted.write_h5ad(path, compression="gzip")

    say("[4/5] evaluate")
    columns: dict[str, Any] = {
        "perturbation_key": screen.perturbation_key, "control": screen.control, "context_key": screen.context_key or ""
    }  # fmt: skip
    scores = tl.evaluate(predicted, screen.adata, **columns, seed=args.seed)
    with results.write("scores.csv") as path:
        scores.to_csv(path, index=False)
    say(tl.format_scores(scores))

    say("[5/5] figures")
    if drug:
        ask(model, screen, held, results)
    with results.write("scores.png") as path:
        pl.scores(scores, save=path)
    for perturbation, context in held[:MAX_SCATTERS]:
        label = re.sub(r"[^\w.+-]+", "_", f"{context}_{perturbation}".strip("_"))
        with results.write(f"predicted_vs_true_{label}.png") as path:
            pl.predicted_vs_true(predicted, screen.adata, perturbation, context=context or None, **columns, save=path)
    results.remove_stale("predicted_vs_true_*.png")
    say(f"done in {time.monotonic() - start:.0f} s; {results.directory}: {', '.join(results.written)}")


def _new_model(screen: Screen) -> PerturbJEPA:
    """Set the model up and make it."""
    PerturbJEPA.setup_anndata(
        screen.adata,
        screen.perturbation_key,
        control=screen.control,
        context_key=screen.context_key,
        batch_key=screen.batch_key,
    )
    return PerturbJEPA(screen.adata)


def _what_trains(screen: Screen, held: Sequence[Condition]) -> dict[str, Any]:
    """Return the arguments of a training that never sees what is held out."""
    if screen.drugs is None:  # without contexts a condition is named by its perturbation alone
        return {"holdout": [c if c[1] else c[0] for c in held]}
    # a drug is held out at some doses only: cell by cell
    screen.adata.obs[Keys.obs.split] = np.where(screen.cells().isin(list(held)), "test", "train")
    return {"split_by": Keys.obs.split}


def predict(model: PerturbJEPA, held: Sequence[Condition], seed: int) -> list[anndata.AnnData]:
    """Predict cells of the held-out conditions from the controls of their contexts."""
    return [
        model.predict_perturbation([p for p, c in held if c == context], context=context or None, seed=seed)
        for context in dict.fromkeys(c for _, c in held)
    ]


def joined(parts: Sequence[anndata.AnnData]) -> anndata.AnnData:
    """Put predictions of one model into one AnnData, with its record of all of them."""
    predicted = parts[0]
    if len(parts) > 1:
        predicted = anndata.concat(parts, merge="same")
        predicted.obs_names_make_unique()
        predicted.uns = parts[
            0
        ].uns  # the model's record: the same for all contexts, but for what it says of conditions
        records = [part.uns[Keys.uns.root][Keys.uns.prediction] for part in parts]
        if all("conditions" in record for record in records):
            records[0]["conditions"] = pd.concat([r["conditions"] for r in records], ignore_index=True).rename(
                index=str
            )
    return predicted
