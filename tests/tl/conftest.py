"""Small screens whose effects are known exactly."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

GENES = ["g1", "g2", "g3", "g4", "g5", "g6"]
EFFECT = {
    "control": [0, 0, 0, 0, 0, 0],
    "A": [1, 0, 0, 0.5, 0, 0],
    "B": [0, -1, 0, 0, 0.5, 0],
    "C": [0, 0, 1.5, 0, 0, -0.5],
    "A+B": [1, -1, 0, 0.5, 0.5, 0],
    "A+C": [1, 0, 1.5, 0.5, 0, 1],
}


def _make_screen(contexts=("x",), n: int = 30, seed: int = 0) -> ad.AnnData:
    """Log-normalised cells: a base of 4 (5 in the second context), the effect, noise whose mean is exactly zero."""
    rng = np.random.default_rng(seed)
    blocks, obs = [], []
    for j, context in enumerate(contexts):
        for label, effect in EFFECT.items():
            noise = rng.uniform(-0.5, 0.5, size=(n, len(GENES)))
            blocks.append(4.0 + j + np.array(effect) + noise - noise.mean(0))
            obs += [(label, context)] * n
    frame = pd.DataFrame(obs, columns=["perturbation", "cell_type"], index=[f"cell{i}" for i in range(len(obs))])
    return ad.AnnData(np.vstack(blocks), obs=frame, var=pd.DataFrame(index=GENES))


@pytest.fixture(name="effect")
def _effect() -> dict[str, list[float]]:
    return EFFECT


@pytest.fixture(name="make_screen")
def _make():
    return _make_screen


@pytest.fixture
def screen() -> ad.AnnData:
    return _make_screen()


@pytest.fixture
def prediction(screen) -> ad.AnnData:
    """A+B predicted 0.3 too high in one gene, A+C predicted perfectly."""
    pred = screen[screen.obs["perturbation"].isin(["A+B", "A+C"])].copy()
    pred.X[(pred.obs["perturbation"] == "A+B").to_numpy(), 2] += 0.3
    return pred


@pytest.fixture
def value():
    """Look up one value of a score table."""

    def get(scores: pd.DataFrame, method: str, metric: str, perturbation: str = "A+B", context: str | None = None):
        rows = scores[(scores.method == method) & (scores.metric == metric) & (scores.perturbation == perturbation)]
        rows = rows if context is None else rows[rows.context == context]
        assert len(rows) == 1, f"{len(rows)} rows for {method}, {metric}, {perturbation}"
        return rows["value"].item()

    return get
