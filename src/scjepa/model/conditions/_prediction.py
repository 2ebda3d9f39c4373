"""Counterfactual prediction: which controls are moved, by how much, and the AnnData that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.data import ExpressionMatrix, aligned, shift_cells
from scjepa.model.conditions._design import Design, Question
from scjepa.model.conditions._mover import Answers, Mover
from scjepa.model.core import Reader


@dataclass(frozen=True)
class Sources:
    """Control cells by context.

    Attributes
    ----------
    names
        ``obs_names`` of the AnnData that they come from.
    positions
        Context -> positions of its controls.
    matrices
        Context -> their expression.
    """

    names: pd.Index
    positions: Mapping[str, np.ndarray]
    matrices: Mapping[str, ExpressionMatrix]

    @classmethod
    def read(cls, adata: AnnData, reader: Reader, positions: Mapping[str, np.ndarray]) -> Self:
        """Read the controls at some positions of an AnnData."""
        return cls(adata.obs_names, positions, {place: reader.read(adata, at) for place, at in positions.items()})

    def profiles(self, questions: Sequence[Question]) -> FloatArray:
        """Return the mean control profile ``(m, genes)`` that each question starts from."""
        means = {p: np.asarray(m.values.mean(0), dtype=np.float64).ravel() for p, m in self.matrices.items()}
        return np.stack([means[q.context] for q in questions])

    def drawn(self, n_cells: int | None, seed: int) -> dict[str, np.ndarray]:
        """Return which controls of each context are moved: all, or ``n_cells`` of them (with replacement if few)."""
        rng = np.random.default_rng(seed)
        out = {}
        for place, at in self.positions.items():
            pick = np.arange(len(at))
            if n_cells is not None:
                pick = np.sort(rng.choice(pick, n_cells, replace=n_cells > len(pick)))
            out[place] = pick
        return out


def highest(controls: ExpressionMatrix, trained: FloatArray | None) -> FloatArray:
    """Return ``(genes,)`` bounds of the mean of ``controls`` under an action: what was measured is possible."""
    if trained is None:
        return np.full(controls.shape[1], np.inf)
    return np.maximum(trained, np.asarray(controls.values.max(0).todense()).ravel()).astype(np.float64)


def move_cells(
    mover: Mover,
    questions: Sequence[Question],
    answers: Answers,
    cells: Mapping[str, FloatArray],
    most: FloatArray | None,
    *,
    bounded: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """Move control cells under each question.

    Parameters
    ----------
    mover, questions, answers
        What moves cells, and by how much.
    cells
        Context -> ``(n, genes)`` controls.
    most
        ``(genes,)`` values that are not exceeded, or None.
    bounded
        Whether values are expression, which is never below zero.

    Returns
    -------
    Predicted cells of all questions, one behind the other; and ``(m, genes)`` how far their means moved.
    """
    ends = np.cumsum([0, *(len(cells[q.context]) for q in questions)])
    x = np.empty((ends[-1], answers.full.shape[1]), np.float32)
    moved = np.empty(answers.full.shape)
    with torch.inference_mode():
        for i, q in enumerate(questions):
            own = cells[q.context]
            start = aligned(own).to(mover.device)
            shift = mover.shift(start, q, answers.full[i], answers.base[i], float(answers.network[i])).cpu().numpy()
            x[ends[i] : ends[i + 1]] = shift_cells(own, shift, most) if bounded else own + shift
            moved[i] = x[ends[i] : ends[i + 1]].mean(0) - own.mean(0)
    return x, moved


def predicted_anndata(
    x: FloatArray,
    obs: pd.DataFrame,
    genes: Sequence[str],
    design: Design,
    *,
    latents: FloatArray | None,
    record: dict[str, Any],
) -> AnnData:
    """Put predicted expression and annotation into an AnnData with embeddings and provenance."""
    obs.index = pd.Index([f"prediction-{i}" for i in range(len(obs))])
    if design.dose_key is not None and obs[design.dose_key].map(type).eq(str).any():  # text in all rows, or in none
        obs[design.dose_key] = [d if isinstance(d, str) else f"{d:.12g}" for d in obs[design.dose_key]]
    for key in (design.label_key, design.context_key, design.kind_key, Keys.obs.kind):
        if key is not None:
            obs[key] = obs[key].astype("category")
    out = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    if latents is not None:
        out.obsm[Keys.obsm.latent] = latents
    out.uns[Keys.uns.root] = {Keys.uns.prediction: record}
    return out


def provenance(model: str, design: Design, conditions: pd.DataFrame, input_scale: str = "auto") -> dict[str, Any]:
    """Return what evaluation needs to know of a prediction: who made it, its columns, and what it was trained on."""
    return {
        "model": model,
        "perturbation_key": design.label_key,
        "control": design.control,
        "context_key": design.context_key or "",
        "dose_key": design.dose_key or "",
        "time_key": design.time_key or "",
        "separator": design.separator,
        "scale": "signature" if input_scale == "signature" else "lognorm",
        "train": conditions[["perturbation", "context"]].reset_index(drop=True).rename(index=str),
    }
