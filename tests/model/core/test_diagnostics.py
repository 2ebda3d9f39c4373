"""Diagnostics of embeddings without a model: a healthy one, and collapsed ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.modules import jepa

from scjepa.data import ExpressionMatrix
from scjepa.metrics import rankme
from scjepa.model.core._diagnostics import Diagnostic, embedding_diagnostics
from scjepa.model.core._encoder import EncoderStage, encode
from scjepa.module import JEPAModule

GENES, LATENT = 40, 8
ALL = np.arange(300)


@pytest.fixture(scope="module")
def cells() -> ExpressionMatrix:
    """Eight clear factors, counts deep enough for two views of a cell to agree."""
    rng = np.random.default_rng(0)
    rate = 20 * np.exp(0.5 * rng.normal(size=(300, LATENT)) @ rng.normal(size=(LATENT, GENES)) / np.sqrt(LATENT))
    return ExpressionMatrix(sp.csr_matrix(rng.poisson(rate)), "counts", target_sum=800)


def made(cells: ExpressionMatrix, codes: np.ndarray | None = None, **options) -> JEPAModule:
    module = jepa(GENES, n_latent=LATENT, **options).eval()
    stage = EncoderStage(cells, codes=codes)
    stage.start(module, ALL)
    stage.finish(module, ALL)
    return module


def judged(
    module: JEPAModule, cells: ExpressionMatrix, codes: np.ndarray | None = None, *, seed: int = 0
) -> dict[str, Diagnostic]:
    h = np.concatenate(list(encode(module, cells, 1.0, codes)))
    with torch.no_grad():
        readout = module.readout(torch.tensor(h)).numpy()
    rows = embedding_diagnostics(module, cells, codes, 1.0, latents=h, readout=readout, rng=np.random.default_rng(seed))
    return {row.diagnostic: row for row in rows}


def test_a_healthy_embedding_is_ok(cells: ExpressionMatrix) -> None:
    module = made(cells)
    rows = judged(module, cells)
    assert list(rows) == ["mean std", "RankMe", "LiDAR", "probe R2"]
    assert {row.verdict for row in rows.values()} == {"ok"}
    assert rows["mean std"].value == pytest.approx(1, abs=0.01)
    h = np.concatenate(list(encode(module, cells, 1.0)))
    assert rows["RankMe"].value == pytest.approx(rankme(h)) and rows["RankMe"].value > 7
    x = cells.rows(slice(None))
    with torch.no_grad():
        left = ((x - module.readout(torch.tensor(h)).numpy()) ** 2).sum()
    assert rows["probe R2"].value == pytest.approx(1 - left / ((x - x.mean(0)) ** 2).sum(), rel=1e-5)


def test_copies_of_one_dimension_have_no_rank(cells: ExpressionMatrix) -> None:
    module = made(cells)
    module.encoder.skip.weight.data[:] = module.encoder.skip.weight.data[:1].clone()
    EncoderStage(cells).finish(module, ALL)
    rows = judged(module, cells)
    assert rows["mean std"].verdict == "ok"  # the batch norm hides it here, the ranks tell
    assert (rows["RankMe"].verdict, rows["LiDAR"].verdict) == ("check", "check")
    assert rows["RankMe"].value == pytest.approx(1, abs=0.1)


def test_one_point_for_all_cells_is_seen_everywhere(cells: ExpressionMatrix) -> None:
    module = made(cells)
    module.encoder.skip.weight.data.zero_()
    EncoderStage(cells).finish(module, ALL)
    rows = judged(module, cells)
    assert {row.verdict for row in rows.values()} == {"check"}
    assert rows["mean std"].value < 1e-3 and rows["probe R2"].value == pytest.approx(0, abs=1e-4)
    assert not any(rows[name].value > 1 for name in ("RankMe", "LiDAR"))  # not a number: there is no spread at all


def test_views_are_drawn_from_the_generator(cells: ExpressionMatrix) -> None:
    module = made(cells)
    one, same, other = (judged(module, cells, seed=s) for s in (0, 0, 1))
    assert one == same and one["LiDAR"].value != other["LiDAR"].value
    assert one["LiDAR"].value == pytest.approx(other["LiDAR"].value, rel=0.1)
    assert one["RankMe"] == other["RankMe"]


def test_batches_reach_the_encoder_of_the_views(cells: ExpressionMatrix) -> None:
    """Where a batch effect is taken out by the offsets, nothing changes but rounding."""
    codes = np.arange(300) % 2
    module = made(cells, codes, n_batch=2)
    module.encoder.offset.weight.data.zero_()
    plain = judged(module, cells, codes)
    module.encoder.offset.weight.data[1] = 100.0  # codes that were lost would now be seen
    assert judged(module, cells, codes)["RankMe"].value < plain["RankMe"].value
