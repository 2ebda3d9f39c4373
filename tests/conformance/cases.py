"""The model classes under conformance: how each is set up, made and trained on a small screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np

import scjepa

TRAIN = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def screen(seed: int = 0) -> ad.AnnData:
    """A screen of about 500 cells x 60 genes with combinations, two contexts and two batches; shallow, as cells are."""
    adata = scjepa.datasets.simulate_perturbseq(
        60, 8, 4, 2, n_cells=30, n_control=60, contexts=("state A", "state B"), depth=300, seed=seed
    )
    adata.obs["amount"] = np.where(adata.obs["perturbation"] == "control", 0.0, 3.0)
    return adata


@dataclass(frozen=True)
class Case:
    """One model class and the arguments that exercise it."""

    cls: type
    setup: dict[str, Any]
    init: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    label_key: str | None = None
    predict: Callable[[Any], np.ndarray] | None = None

    def make(self, adata: ad.AnnData, *, train: bool = True, **changes: Any) -> Any:
        """Set up ``adata``, make the model and train it for one epoch."""
        self.cls.setup_anndata(adata, **self.setup)
        model = self.cls(adata, **self.init)
        if train:
            model.train(**{**TRAIN, **self.train, **changes})
        return model


def predict_pair(model: Any) -> np.ndarray:
    """Predict one combination in all contexts."""
    labels = model.adata.obs["perturbation"].astype(str) if model.adata is not None else None
    label = model.trained_on_["perturbation"].iloc[-1] if labels is None else sorted({x for x in labels if "+" in x})[0]
    return model.predict_perturbation(label, n_cells=7).X


CASES = {
    "ExpressionJEPA": Case(scjepa.ExpressionJEPA, {"batch_key": "batch"}, {"n_latent": 6}),
    "ExpressionJEPA tokens": Case(
        scjepa.ExpressionJEPA, {"batch_key": "batch"}, {"n_latent": 6, "encoder": "modules", "n_modules": 4}
    ),
    "ExpressionJEPA batch-aware": Case(
        scjepa.ExpressionJEPA, {"batch_key": "batch"}, {"n_latent": 6, "batch_aware": True}
    ),
    "ExpressionJEPA ema": Case(scjepa.ExpressionJEPA, {}, {"n_latent": 6, "regularizer": "ema"}),
    "PerturbJEPA": Case(
        scjepa.PerturbJEPA,
        {"perturbation_key": "perturbation", "context_key": "context", "batch_key": "batch", "kind_key": "kind"},
        {"n_latent": 6, "n_pcs": 10},
        label_key="perturbation",
        predict=predict_pair,
    ),
    "PerturbJEPA both": Case(
        scjepa.PerturbJEPA,
        {"perturbation_key": "perturbation", "context_key": "context", "dose_key": "amount"},
        {"n_latent": 6, "n_pcs": 10, "predictor_input": "both", "set_loss": "energy"},
        label_key="perturbation",
        predict=predict_pair,
    ),
    "PerturbJEPA joint": Case(
        scjepa.PerturbJEPA,
        {"perturbation_key": "perturbation", "context_key": "context"},
        {"n_latent": 6, "n_pcs": 10, "regularizer": "vicreg", "set_loss": "random_pair", "target_encoder": "ema"},
        {"joint": True},
        label_key="perturbation",
        predict=predict_pair,
    ),
}
