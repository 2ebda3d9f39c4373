"""What writer and test of frozen models share: reading of the stored cells, and what a model is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import scjepa

CELLS, CASE, EXPECTED = "cells.npz", "case.json", "expected.npz"
SAVED, EXPORTED = "saved", "exported"
TRAIN = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def write_cells(adata: ad.AnnData, folder: Path) -> None:
    """Write counts and labels as plain arrays: they outlive the formats of AnnData."""
    counts = np.asarray(adata.X.todense())
    assert (counts == counts.astype(np.uint16)).all()
    columns = {
        f"obs/{name}": values.to_numpy(None if values.dtype.kind == "f" else str) for name, values in adata.obs.items()
    }
    np.savez_compressed(
        folder / CELLS, counts=counts.astype(np.uint16), genes=adata.var_names.to_numpy(str),
        cells=adata.obs_names.to_numpy(str), **columns,
    )  # fmt: skip


def read_cells(folder: Path) -> ad.AnnData:
    """Read what :func:`write_cells` wrote."""
    with np.load(folder / CELLS) as held:
        obs = {name.removeprefix("obs/"): held[name] for name in held.files if name.startswith("obs/")}
        return ad.AnnData(
            held["counts"].astype(np.float32),
            obs=pd.DataFrame(obs, index=held["cells"].astype(object)),
            var=pd.DataFrame(index=held["genes"].astype(object)),
        )


def part(adata: ad.AnnData, name: str) -> ad.AnnData:
    """Return the cells that a model holds: ``"all"``, ``"two contexts"``, or ``"query"``.

    Those of a query are cells of one context as if of a new context and batch, with a perturbation that is new.
    """
    if name == "all":
        return adata
    if name == "two contexts":
        return adata[adata.obs["context"] != "state C"].copy()
    assert name == "query", name
    adata = adata[adata.obs["context"] == "state A"].copy()
    labels = adata.obs["perturbation"]
    renamed = min(x for x in set(labels) if x != "control" and "+" not in x)
    adata.obs["perturbation"] = labels.replace(renamed, adata.var_names[-1])
    adata.obs["context"] = "new context"
    adata.obs["batch"] = adata.obs["batch"].replace(adata.obs["batch"].iloc[0], "new batch")
    return adata


def load(folder: Path, adata: ad.AnnData | bool | None = False) -> Any:
    """Load a saved or exported model by the class that ``case.json`` names."""
    return getattr(scjepa, read_case(folder.parent)["class"]).load(str(folder), adata, accelerator="cpu")


def read_case(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CASE).read_text(encoding="utf-8"))


def ask(model: Any, adata: ad.AnnData | None, questions: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a model's answers as named arrays; ``questions`` maps kinds of answers to what exactly is asked."""
    out: dict[str, np.ndarray] = {}
    few = np.arange(0, 300, 7)
    if questions.get("embedding"):
        out["latent"] = model.get_latent_representation(adata, few)
        out["normalized"] = model.get_normalized_expression(adata, few, return_numpy=True)
    if questions.get("tokens"):
        out["tokens"] = model.get_latent_representation(adata, few, give_tokens=True)
    for name, arguments in questions.get("cells", {}).items():
        predicted = model.predict_perturbation(adata=adata, **arguments)
        out[f"{name}/X"] = np.asarray(predicted.X)
        out[f"{name}/labels"] = predicted.obs["perturbation"].to_numpy(str)
        if "X_jepa" in predicted.obsm:
            out[f"{name}/X_jepa"] = np.asarray(predicted.obsm["X_jepa"])
    for name, arguments in questions.get("effects", {}).items():
        table = model.predict_effect(adata=adata, **arguments)
        for column, values in table.items():
            out[f"{name}/{column}"] = values.to_numpy(str if values.dtype.kind not in "fb" else None)
    if questions.get("reliability"):
        table = model.get_reliability(adata)
        for column, values in table.sort_values(["context", "perturbation"]).items():
            out[f"reliability/{column}"] = values.to_numpy(str if values.dtype.kind not in "fbi" else None)
    return out
