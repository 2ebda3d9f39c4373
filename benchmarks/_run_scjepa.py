"""Trains PerturbJEPA on a task of ``peers/task.py`` with its defaults, predicts, and takes its time apart.

``leaderboard.py`` and ``speed.py`` start it. Beside what every runner measures it writes, where stage 1 was trained,

- seconds by part of the training (``part_*_seconds``: processor time, parts of one thread);
- ``stage1_cells``: cells visited in stage 1, and ``stage1_matmul_seconds``: what the matrix products of its steps take
  when nothing else is done;
- ``latent_seconds`` and ``latent_matmul_seconds``: embedding of all cells, and its matrix products alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "peers"))

from task import Clock, main, memory

PARTS = {
    "_prepare_encoder": "pca_encoder",
    "_fit_anchor": "anchor",
    "_train_encoder": "stage1",
    "_finish_encoder": "stage1_finish",
    "_train_predictor": "stage2",
}
LATENT_BATCH = 2048


def timed(model: Any, seconds: dict[str, float]) -> None:
    """Let the parts of ``model.train`` add the processor time that they take to ``seconds``."""
    for method, name in PARTS.items():
        inner = getattr(model, method, None)
        if inner is None:
            continue

        def outer(*args: Any, _inner: Callable = inner, _name: str = name, **kwargs: Any) -> Any:
            begin = time.process_time()
            try:
                return _inner(*args, **kwargs)
            finally:
                seconds[_name] = seconds.get(_name, 0.0) + time.process_time() - begin

        setattr(model, method, outer)


def fastest(what: Callable[[], Any], repeats: int) -> float:
    """Return the least processor time of ``repeats`` runs."""
    what()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        what()
        spent.append(time.process_time() - begin)
    return min(spent)


def layers(module: Any) -> list[tuple[int, int, bool]]:
    """Return (inputs, outputs, whether it reads the cells) of every linear layer of an encoder."""
    from torch import nn

    found = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [(layer.in_features, layer.out_features, layer.in_features == module.n_genes) for layer in found]


def forward_seconds(module: Any, rows: int) -> float:
    """Seconds of the matrix products of one encoder pass over ``rows`` cells."""
    import torch

    pairs = [(torch.rand(rows, i), torch.rand(o, i).T) for i, o, _ in layers(module)]
    return fastest(lambda: [a @ b for a, b in pairs], 10)


def step_seconds(module: Any, decoder: Any, rows: int) -> float:
    """Seconds of the matrix products of one step of stage 1: two views forward and backward, one reconstruction."""
    import torch

    products = []
    for i, o, reads_cells in [*layers(module) * 2, (decoder.in_features, decoder.out_features, False)]:
        x, w, g = torch.rand(rows, i), torch.rand(o, i), torch.rand(rows, o)
        products += [(x, w.T), (g.T, x)] + ([] if reads_cells else [(g, w)])
    hide = torch.rand(rows, module.n_modules), torch.rand(module.n_modules, module.n_genes)
    return fastest(lambda: [a @ b for a, b in [*products, hide, hide]], 10)


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, predict, and time the parts."""
    import logging

    import anndata
    import torch

    from scjepa import PerturbJEPA

    logging.getLogger("scjepa").setLevel(logging.ERROR)
    seconds: dict[str, float] = {}

    context_key = task["context_key"] if cells.obs[task["context_key"]].nunique() > 1 else None

    def train() -> PerturbJEPA:
        PerturbJEPA.setup_anndata(cells, task["perturbation_key"], task["control"], context_key=context_key)
        model = PerturbJEPA(cells)
        timed(model, seconds)
        model.train(max_epochs=task["max_epochs"], seed=task["seed"], enable_progress_bar=False)
        return model

    def predict() -> Any:
        asked: dict[str, list[str]] = {}
        for perturbation, context in task["predict"]:
            asked.setdefault(context, []).append(perturbation)
        parts = [
            model.predict_perturbation(perturbations, context=context if context_key else None, seed=task["seed"])
            for context, perturbations in asked.items()
        ]
        return parts[0] if len(parts) == 1 else anndata.concat(parts, uns_merge="same")

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    clock.measured["peak_mb"] = memory("HWM")
    if "encoder_train_loss" not in model.history:  # one profile per condition: no network
        return predicted, 0
    seconds["stage1"] = seconds.get("stage1", float("nan")) - seconds.get("stage1_finish", 0.0)
    seconds["rest"] = clock.measured["train_cpu_seconds"] - sum(seconds.values())
    epochs = len(model.history["encoder_train_loss"])
    batch = min(256, cells.n_obs)
    steps = epochs * max(cells.n_obs // batch, 1)
    encoder = model.module.encoder
    with torch.inference_mode():
        clock.measured |= {f"part_{name}_seconds": value for name, value in seconds.items()}
        clock.measured |= {
            "stage1_cells": steps * batch,
            "stage1_matmul_seconds": steps * step_seconds(encoder, model.module.decoder, batch),
            "latent_seconds": fastest(lambda: model.get_latent_representation(batch_size=LATENT_BATCH), 2),
            "latent_matmul_seconds": cells.n_obs / LATENT_BATCH * forward_seconds(encoder, LATENT_BATCH),
        }
    return predicted, epochs


if __name__ == "__main__":
    main(__doc__, ["scjepa"], run)
