"""The model classes under conformance: how each is set up, made and trained on a small screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import scjepa
from tests.conformance.stimulus import StimulusJEPA

TRAIN = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def screen(seed: int = 0) -> ad.AnnData:
    """A screen of about 500 cells x 60 genes with combinations, two contexts and two batches; shallow, as cells are."""
    adata = scjepa.datasets.simulate_perturbseq(
        60, 8, 4, 2, n_cells=30, n_control=60, contexts=("state A", "state B"), depth=300, seed=seed
    )
    control = adata.obs["perturbation"] == "control"
    adata.obs["amount"] = np.where(control, 0.0, 3.0)
    adata.obs["hours"] = np.where(control, 0.0, np.where(np.arange(adata.n_obs) % 2, 6.0, 24.0))
    return adata


def features() -> pd.DataFrame:
    """Feature vectors of everything that is perturbed in the screen, and of something more."""
    names = {name for label in screen().obs["perturbation"].unique() for name in label.split("+")}
    rows = sorted(names - {"control"} | {"another"})
    return pd.DataFrame(np.random.default_rng(0).normal(size=(len(rows), 3)), index=rows)


@dataclass(frozen=True)
class Case:
    """One model class and the arguments that exercise it."""

    cls: type
    setup: dict[str, Any]
    init: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    label_key: str | None = None
    asks: str | None = None

    @property
    def predicts(self) -> bool:
        """Whether this class predicts cells under labels."""
        return self.asks is not None and self.label_key is not None

    def ask(self, model: Any, labels: str | list[str], *args: Any, **options: Any) -> np.ndarray:
        """Predict cells under some labels."""
        return getattr(model, self.asks)(labels, *args, **options).X

    def predict(self, model: Any) -> np.ndarray:
        """Predict one combination (or what was trained last, for a model without data) in all contexts."""
        if self.label_key is None:  # cells on their way to another time
            return self.ask(model, 12.0, model.adata, n_cells=7)
        if model.adata is None:
            label = model.trained_on_["perturbation"].iloc[-1]
        else:
            label = sorted({x for x in model.adata.obs["perturbation"].astype(str) if "+" in x})[0]
        return self.ask(model, label, n_cells=7)

    def make(self, adata: ad.AnnData, *, train: bool = True, **changes: Any) -> Any:
        """Set up ``adata``, make the model and train it for one epoch."""
        self.cls.setup_anndata(adata, **self.setup)
        model = self.cls(adata, **self.init)
        if train:
            model.train(**{**TRAIN, **self.train, **changes})
        return model


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
        asks="predict_perturbation",
    ),
    "PerturbJEPA both": Case(
        scjepa.PerturbJEPA,
        {"perturbation_key": "perturbation", "context_key": "context", "dose_key": "amount"},
        {"n_latent": 6, "n_pcs": 10, "predictor_input": "both", "set_loss": "energy"},
        label_key="perturbation",
        asks="predict_perturbation",
    ),
    "PerturbJEPA joint": Case(
        scjepa.PerturbJEPA,
        {"perturbation_key": "perturbation", "context_key": "context"},
        {"n_latent": 6, "n_pcs": 10, "regularizer": "vicreg", "set_loss": "random_pair", "target_encoder": "ema"},
        {"joint": True},
        label_key="perturbation",
        asks="predict_perturbation",
    ),
    "TrajectoryJEPA": Case(
        scjepa.TrajectoryJEPA,
        {"time_key": "hours", "batch_key": "batch"},
        {"n_latent": 6, "n_pcs": 10},
        asks="predict_trajectory",
    ),
    "DrugJEPA": Case(
        scjepa.DrugJEPA,
        {
            "drug_key": "perturbation",
            "control": "control",
            "context_key": "context",
            "batch_key": "batch",
            "dose_key": "amount",
            "time_key": "hours",
        },
        {"drug_features": features(), "n_latent": 6, "n_pcs": 10},
        label_key="perturbation",
        asks="predict_drug_response",
    ),
    "third model": Case(
        StimulusJEPA,
        {"stimulus_key": "perturbation", "hours_key": "hours", "context_key": "context", "batch_key": "batch"},
        {"stimulus_features": features(), "n_latent": 6, "n_pcs": 10},
        label_key="perturbation",
        asks="predict_stimulus",
    ),
}
