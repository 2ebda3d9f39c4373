"""Fixtures of the demo: a file with counts, and a run without the real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from scjepa.datasets import simulate_perturbseq
from scjepa.demo import _run
from tests.demo.cases import FakeModel, FakePlots


@pytest.fixture
def counts(tmp_path) -> Path:
    adata = simulate_perturbseq(40, 6, 4, 2, n_cells=8, n_control=20, kinds=("KD",), contexts=("K562", "RPE1"))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(FakeModel, "fail", {})
    monkeypatch.setattr(FakePlots, "asked", [])
    monkeypatch.setattr(_run, "PerturbJEPA", FakeModel)
    monkeypatch.setattr(_run, "pl", FakePlots())
    return FakeModel
