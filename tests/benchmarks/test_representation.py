"""The representation benchmark: its cells, its scores, and which peers it trains."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa import tl

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("benchmarks/ is not part of this installation", allow_module_level=True)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("representation")


@pytest.fixture
def cells():
    """Two types of 20 cells that the first of 30 genes tells apart, and one cell of a third."""
    rng = np.random.default_rng(0)
    x = rng.poisson(3.0, (41, 30)).astype(np.float32)
    x[20:40, 0] += 30
    obs = pd.DataFrame({"kind": ["a"] * 20 + ["b"] * 20 + ["c"]}, index=[f"cell{i}" for i in range(41)])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(30)]))


def test_counts_of_pbmc68k_are_recovered(script):
    cells = script.pbmc68k()
    shipped = script.sc.datasets.pbmc68k_reduced()
    total = shipped.obs["n_counts"].to_numpy()
    assert cells.shape == (700, 766) and (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() > 0
    np.testing.assert_array_equal(np.asarray(cells.X.sum(1)).ravel(), total)
    again = np.log1p(cells.X.toarray()[:, :-1] * 1e4 / total[:, None])
    np.testing.assert_allclose(again, shipped.raw.X.toarray(), atol=6e-4)  # shipped with three decimals


def test_cells_are_thinned_before_anything_is_chosen(script, cells):
    full, held_out = script.prepare(cells, "kind", 1.0)
    order = np.random.default_rng(0).permutation(41)
    assert full.obs_names.tolist() == cells.obs_names[order].tolist()
    assert full.obs["type"].tolist() == cells.obs["kind"].iloc[order].tolist()
    assert held_out.shape == (41, 0)  # no other genes
    counts = full.layers["counts"].toarray()
    np.testing.assert_array_equal(counts, cells[order].X.toarray())
    library = counts.sum(1, keepdims=True)
    np.testing.assert_allclose(full.X.toarray(), np.log1p(counts / library * np.median(library)), rtol=1e-5)
    thin, _ = script.prepare(cells, "kind", 0.3)
    few, all_ = thin.layers["counts"], full[thin.obs_names, thin.var_names].layers["counts"]
    assert (few > all_).nnz == 0
    assert 0.25 < few.sum() / all_.sum() < 0.35


def test_other_counts_are_in_the_library_only(script, cells):
    more = ad.concat([cells, ad.AnnData(np.full((41, 1), 50.0), obs=cells.obs[[]], var=pd.DataFrame(index=[script.UNSEEN]))], axis=1)  # fmt: skip
    more.obs = cells.obs
    found, _ = script.prepare(more, "kind", 1.0)
    assert script.UNSEEN not in found.var_names and found.n_vars == 30
    counts = found.layers["counts"].toarray()
    library = counts.sum(1, keepdims=True) + 50
    np.testing.assert_allclose(found.X.toarray(), np.log1p(counts / library * np.median(library)), rtol=1e-5)


def test_scores_are_those_of_the_linear_probe(script, cells, monkeypatch):
    monkeypatch.setattr(script, "N_LATENT", 3)
    seen, _ = script.prepare(cells, "kind", 1.0)
    z = seen.X.toarray()[:, :3]
    found = script.probe(seen, z)
    two = seen[seen.obs["type"] != "c"].copy()  # one cell of a type: left out
    two.obsm["X_z"] = z[(seen.obs["type"] != "c").to_numpy()]
    table = tl.linear_probe(two, "type", obsm="X_z", compare="PCA")
    mean = table[table["metric"] == "balanced_accuracy"].groupby(["representation", "probe"])["value"].mean()
    assert found == pytest.approx({"linear": mean["X_z", "logistic"], "knn": mean["X_z", "knn"]})
    assert script.probe(seen, None) == pytest.approx(
        {"linear": mean["PCA (3)", "logistic"], "knn": mean["PCA (3)", "knn"]}
    )


def test_held_out_genes(script):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2))
    known, noise = z @ [[1.0], [2.0]], rng.normal(size=(200, 1))
    assert script.heldout_r2(z, np.hstack([known, known])) == pytest.approx(1, abs=1e-3)
    assert script.heldout_r2(z, np.hstack([known, noise])) == pytest.approx(0.5, abs=0.05)  # a mean over genes
    assert np.isnan(script.heldout_r2(z, np.zeros((200, 0))))


def test_absent_joint_embedding_is_said_in_one_line(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scvi.external", ModuleType("scvi.external"))
    assert list(script.find_peers(scvi=True, joint_embedding=True)) == ["SCVI"]
    said = capsys.readouterr().out.strip()
    assert said.startswith("JointEmbeddingSCVI left out") and said.endswith("1.5 has it.") and "\n" not in said


def test_peers_are_trained_once(script, cells, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "N_LATENT", 2)
    asked = []

    def fake(cells, seed):
        asked.append((cells.n_obs, seed))
        return cells.X.toarray()[:, :2]

    arguments = ("d", cells, "kind", [1.0], 0, {"SCVI": fake}, tmp_path)
    first, again = script.run(*arguments), script.run(*arguments)
    assert asked == [(41, 0)]
    pd.testing.assert_frame_equal(first, again, check_dtype=False, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["representation_d_peers.csv"]
    assert first["method"].tolist() == ["SCVI"] and first["linear"].item() > 0.9


def test_distance_from_pca(script):
    row = {"seed": 0, "heldout_r2": 0.0, "cpu_seconds": 1.0}
    table = pd.DataFrame(
        [
            {"data": d, "share": 1.0, "method": m, "linear": a, "knn": 0.5, **row}
            for d, m, a in (("x", "PCA", 0.5), ("x", "J", 0.6), ("y", "PCA", 0.5), ("y", "J", 0.7), ("y", "J", 0.8))
        ]
    )
    text = script.summary(table).splitlines()[-1]
    assert text == (
        "J above PCA in 2 settings: linear +0.175 on average, +0.100 at least; knn +0.000 on average, +0.000 at least"
    )
