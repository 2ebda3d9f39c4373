"""What the tests of the demo share: a small screen, and stand-ins for the model and the figures."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scjepa.demo import Screen

ARGS = ["--perturbation-key", "perturbation", "--context-key", "context"]


def make_screen(labels: list[str], contexts: list[str] | None = None, genes: tuple[str, ...] = ("A", "B", "g1", "g2")):
    """Cells with the given labels and arbitrary values."""
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
    if contexts is not None:
        obs["line"] = contexts
    x = np.random.default_rng(0).uniform(0.1, 2.0, (len(labels), len(genes))).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=list(genes)))
    return Screen(adata, "p", "control", None if contexts is None else "line", None)


class FakeModel:
    """Stands in for PerturbJEPA: predicts the controls of the context, remembers what it was asked."""

    calls: dict = {}
    fail: dict[str, BaseException] = {}

    @classmethod
    def setup_anndata(cls, adata, perturbation_key, control="control", **kwargs):
        cls.calls = {"setup": {"perturbation_key": perturbation_key, "control": control, **kwargs}}
        cls.data = adata

    def __init__(self, adata):
        self._step("init")

    def _step(self, name):
        if name in self.fail:
            raise self.fail[name]

    def train(self, **kwargs):
        self.calls["train"] = kwargs
        self._step("train")

    def save(self, path, **kwargs):
        Path(path).mkdir()
        (Path(path) / "model.pt").write_text("weights")
        self._step("save")

    def predict_perturbation(self, perturbations, context=None, seed=0):
        self._step("predict")
        setup = self.calls["setup"]
        obs = self.data.obs
        source = (obs[setup["perturbation_key"]] == setup["control"]).to_numpy()
        if context is not None:
            source = source & (obs[setup["context_key"]] == context).to_numpy()
        parts = []
        for name in perturbations:
            part = self.data[source].copy()
            part.obs[setup["perturbation_key"]] = name
            parts.append(part)
        out = ad.concat(parts)
        out.obs_names_make_unique()
        said = {"perturbation": perturbations, "context": context or "all", "basis": "left out", "support": "near"}
        out.uns = {"jepa": {"prediction": {"by": "fake", "conditions": pd.DataFrame(said | {"abstain": False})}}}
        return out


class FakePlots:
    """Writes a file for each figure."""

    asked: list = []

    def history(self, model, save):
        Path(save).write_bytes(b"png")

    def scores(self, scores, save):
        Path(save).write_bytes(b"png")

    def predicted_vs_true(self, pred, real, perturbation, save, context, **kwargs):
        self.asked.append((perturbation, context))
        Path(save).write_bytes(b"png")
