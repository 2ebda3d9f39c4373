"""Is an embedding healthy? Spread, effective rank, cells against their views, and what can be read out of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.data import ExpressionMatrix, aligned
from scjepa.metrics import lidar, rankme
from scjepa.module import JEPAModule


class Diagnostic(NamedTuple):
    """One row of ``get_diagnostics``: what was found, what a healthy model shows, and ``"ok"`` or ``"check"``."""

    diagnostic: str
    value: float
    expected: str
    verdict: str


def embedding_diagnostics(
    module: JEPAModule,
    matrix: ExpressionMatrix,
    codes: np.ndarray | None,
    unit: float,
    *,
    latents: FloatArray,
    readout: FloatArray,
    rng: np.random.Generator,
) -> list[Diagnostic]:
    """Judge the embedding of some cells.

    Parameters
    ----------
    module
        Whose encoder made it.
    matrix, codes
        The cells, and their batch codes for a batch-aware encoder.
    unit
        Depth of the encoder.
    latents
        ``(n, latent)`` their embeddings.
    readout
        ``(n, genes)`` expression read out of these.
    rng
        Draws the views of the first 100 cells.

    Returns
    -------
    Mean standard deviation, RankMe (Garrido et al. 2023), LiDAR of cells against their views (Thilak et al. 2024) and the
    R² of the readout.
    """
    truth = matrix.rows(slice(None))
    spread = ((truth - truth.mean(0)) ** 2).sum()
    r2 = float(1 - ((truth - readout) ** 2).sum() / max(spread, 1e-12))
    few = np.arange(min(100, len(latents)))
    device = module.encoder.mean.device
    batch = None if codes is None else torch.from_numpy(codes[few]).to(device)
    views = []
    with torch.inference_mode():
        for _ in range(4):
            for view in matrix.views(few, rng, reference=unit):
                views.append(module.encoder(aligned(view).to(device), batch=batch).cpu().numpy())
    d = latents.shape[1]
    std, rank = float(latents.std(0).mean()), rankme(latents)
    between = lidar(np.concatenate(views), np.tile(few, len(views)))
    return [
        Diagnostic("mean std", std, "about 1; collapse below 0.1", "ok" if std > 0.1 else "check"),
        Diagnostic("RankMe", rank, f"well above {0.25 * d:.0f} of {d}", "ok" if rank > 0.25 * d else "check"),
        Diagnostic(
            "LiDAR", between, f"well above 2 of {d} (cells against their views)", "ok" if between > 2 else "check"
        ),
        Diagnostic("probe R2", r2, "above 0: the embedding tells expression", "ok" if r2 > 0.02 else "check"),
    ]
