"""Write the frozen models of a version: run once, by hand, when a version is released.

    python -m tests.frozen.make tests/frozen/X.Y.Z

Each model gets a folder: ``saved`` (by ``model.save``), ``exported`` (by ``model.export``), ``case.json`` (its class and
what it is asked) and ``expected.npz`` (what it answered when it was written). The cells are written beside the models, as
plain arrays, so that nothing here depends on a later simulator. Never write over the folder of a version that was
released: ``test_frozen.py`` loads all of them for as long as that version is supported.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch

import scjepa
from scjepa import ExpressionJEPA, PerturbJEPA
from tests.frozen.cases import CASE, EXPECTED, EXPORTED, SAVED, TRAIN, ask, part, read_cells, write_cells

SMALL = {"n_latent": 4, "n_hidden": 16, "n_layers": 1}
NETWORK = {"n_pcs": 8, "predictor_hidden": 16, "predictor_layers": 1}
COLUMNS = {"perturbation_key": "perturbation", "context_key": "context", "batch_key": "batch"}
FULL = {**COLUMNS, "dose_key": "dose", "kind_key": "kind"}
EMBEDDING = {"embedding": True}


def simulate() -> ad.AnnData:
    """Simulate about 300 shallow cells: combinations, three contexts, two batches, two kinds."""
    adata = scjepa.datasets.simulate_perturbseq(
        30, 8, 5, 4, n_cells=10, n_control=20, contexts=("state A", "state B", "state C"), depth=400
    )
    adata.obs["dose"] = np.where(
        adata.obs["perturbation"] == "control", 0.0, np.where(adata.obs["kind"] == "KD", 1.0, 2.5)
    )
    return adata


def trained(model: Any, **train: Any) -> Any:
    model.train(**{**TRAIN, **train})
    return model


def expression(adata: ad.AnnData, **init: Any) -> ExpressionJEPA:
    ExpressionJEPA.setup_anndata(adata, batch_key="batch")
    return trained(ExpressionJEPA(adata, **{**SMALL, **init}), max_epochs=2)


def perturb(adata: ad.AnnData, setup: dict[str, str], train: dict[str, Any] | None = None, **init: Any) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, **setup)
    return trained(PerturbJEPA(adata, **{**SMALL, **NETWORK, **init}), **(train or {}))


def pretrained(adata: ad.AnnData) -> PerturbJEPA:
    encoder = expression(adata[:, :24].copy())
    PerturbJEPA.setup_anndata(adata, **COLUMNS)
    return trained(PerturbJEPA.from_pretrained(encoder, adata, gate=0.4, **NETWORK))


def query(adata: ad.AnnData, everything: ad.AnnData) -> PerturbJEPA:
    reference = perturb(part(everything, "two contexts"), COLUMNS)
    return trained(PerturbJEPA.load_query_data(adata, reference))


def questions(adata: ad.AnnData) -> dict[str, dict[str, Any]]:
    """Return what there is to ask of trained, left-out and never measured perturbations."""
    labels = sorted(set(adata.obs["perturbation"].astype(str)) - {"control"})
    single, double = [x for x in labels if "+" not in x], [x for x in labels if "+" in x]
    new = next(f"{a}+{b}" for a in single for b in single if a < b and not {f"{a}+{b}", f"{b}+{a}"} & set(double))
    known = [single[0], double[0], double[-1], new]
    few = {"n_cells": 3, "include_control": True, "seed": 1}
    return {
        "known": {"known": {"perturbations": known, **few}},
        "all": {"all": {"perturbations": [*known, adata.var_names[-1]], **few}},
        "dose": {"dose": {"perturbations": known, "dose": [0.5, 1.0], "kind": "OE", **few}},
        "effects": {"effects": {"perturbations": [*known, adata.var_names[-1]], "level": 0.8}},
        "dose_effects": {"effects": {"perturbations": known, "context": "state B", "dose": 1.0, "kind": "KD"}},
        "additive": {"known": {"perturbations": known[:3], "context": ["state A", "state B"], **few}},
        "additive_effects": {"effects": {"perturbations": known[:3], "context": "state A"}},
    }


def cases(everything: ad.AnnData) -> dict[str, tuple[str, Callable[[ad.AnnData], Any], dict[str, Any]]]:
    """Return name -> the cells it holds (as :func:`part` names them), how the model is made, what it is asked."""
    q = questions(everything)
    left_out = {"holdout": [q["known"]["known"]["perturbations"][2], "state C"]}
    full = {**EMBEDDING, "cells": q["all"], "effects": q["effects"], "reliability": True}
    known = {**EMBEDDING, "cells": q["known"]}
    doses = {**EMBEDDING, "cells": q["dose"], "effects": q["dose_effects"], "reliability": True}
    joint = {"regularizer": "vicreg", "target_encoder": "ema"}
    return {
        "expression-batch-aware": ("all", lambda a: expression(a, batch_aware=True), EMBEDDING),
        "expression-modules": (
            "all",
            lambda a: expression(a, encoder="modules", n_modules=3),
            {**EMBEDDING, "tokens": True},
        ),
        "perturb": ("all", lambda a: perturb(a, COLUMNS, left_out), full),
        "perturb-additive": (
            "two contexts",
            lambda a: perturb(a, COLUMNS, anchor="additive"),
            {**EMBEDDING, "cells": q["additive"], "effects": q["additive_effects"]},
        ),
        "perturb-dose-kind": ("two contexts", lambda a: perturb(a, FULL, gate=0.4), doses),
        "perturb-joint": ("two contexts", lambda a: perturb(a, COLUMNS, {"joint": True}, **joint), known),
        "perturb-no-anchor": ("all", lambda a: perturb(a, COLUMNS, anchor=None, predictor_input="both"), known),
        "perturb-no-embedding": (
            "two contexts",
            lambda a: perturb(a, COLUMNS, {"embed": False}),
            {**full, "embedding": False},
        ),
        "perturb-pretrained": ("two contexts", pretrained, full),
        "perturb-query": ("query", lambda a: query(a, everything), full),
    }


def main(folder: Path) -> None:
    """Train, write and ask every model."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)  # a version's folder is never written over
    write_cells(simulate(), folder)
    versions = {name: version(name) for name in ("scjepa", "scvi-tools", "torch", "numpy", "anndata", "pandas")}
    for name, (cells, make, asked) in cases(read_cells(folder)).items():
        model = make(part(read_cells(folder), cells))
        model.save(str(folder / name / SAVED))
        model.export(folder / name / EXPORTED)
        np.savez_compressed(folder / name / EXPECTED, **ask(model, read_cells(folder), asked))
        record = {
            "class": type(model).__name__,
            "cells": cells,
            "questions": asked,
            "written_by": {**versions, "python": platform.python_version()},
        }
        (folder / name / CASE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.frozen.make FOLDER")
    main(Path(sys.argv[1]))
