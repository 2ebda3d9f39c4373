"""The screen of the demo: what is read, and which genes are kept."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scjepa.demo import Screen, read_screen, select_genes


def test_counts_are_normalised_over_all_genes_before_the_choice_of_genes(tmp_path):
    x = np.array([[1, 3, 0, 6], [2, 2, 4, 2], [5, 1, 2, 2]], dtype=np.float32)
    cells = ad.AnnData(sp.csc_matrix(x), obs=pd.DataFrame({"p": ["control", "A", "A"]}, index=list("abc")))
    cells.write_h5ad(tmp_path / "x.h5ad")
    screen = read_screen(tmp_path / "x.h5ad", "p")
    np.testing.assert_allclose(screen.adata.X.toarray(), np.log1p(x / 10 * 1e4), rtol=1e-6)
    part = select_genes(screen, np.ones(3, bool), 2)
    kept = screen.adata.var_names.get_indexer(part.adata.var_names)
    assert len(kept) == 2
    np.testing.assert_allclose(part.adata.X.toarray(), np.log1p(x / 10 * 1e4)[:, kept], rtol=1e-6)


def test_lognormalised_values_and_layers_are_kept(tmp_path):
    x = np.log1p(np.array([[0.5, 1.5], [2.5, 0.0]], dtype=np.float32))
    cells = ad.AnnData(np.zeros((2, 2)), obs=pd.DataFrame({"p": ["control", "A"]}, index=list("ab")), layers={"log": x})
    cells.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(read_screen(tmp_path / "x.h5ad", "p", layer="log").adata.X, x)


def test_labels_are_written_one_way_and_empty_cells_are_counted(tmp_path, capsys):
    x = np.array([[1, 2], [3, 1], [1, 1], [0, 0], [2, 5]], dtype=np.float32)
    obs = pd.DataFrame({"p": ["NT", "B+A", "A+ctrl", "A", "A+B"]}, index=list("abcde"))
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=["g", "g"])).write_h5ad(tmp_path / "x.h5ad")
    screen = read_screen(tmp_path / "x.h5ad", "p", "NT")
    assert screen.adata.obs["p"].tolist() == ["NT", "A+B", "A", "A+B"]
    assert screen.adata.var_names.tolist() == ["g", "g-1"]
    assert "left out: 1 cells without any count" in capsys.readouterr().out
    assert screen.conditions().to_dict() == {("A", ""): 1, ("A+B", ""): 2}


def test_held_out_cells_have_no_say_in_the_choice_of_genes():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.uniform(5, 50, 300), (60, 300)).astype(float)  # many genes of each mean, so that bins are full
    on_off = 60 * (np.arange(60) % 2)
    x[40:, 3] = on_off[40:]  # varies in held-out cells only
    x[:40, 7] = on_off[:40]  # varies in training cells
    x[:40, 9] = 0  # never seen in training
    labels = ["control"] * 20 + ["A"] * 20 + ["g29"] * 20
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(60)])
    adata = ad.AnnData(sp.csr_matrix(np.log1p(x)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    screen, train = Screen(adata, "p", "control", None, None), np.arange(60) < 40
    chosen = select_genes(screen, train, 5).adata.var_names
    assert "g7" in chosen and "g3" not in chosen and "g9" not in chosen
    assert "g29" in chosen  # a perturbed gene that is measured
    other = adata.copy()
    other.X[40:] = sp.csr_matrix(np.log1p(rng.poisson(20, (20, 300))))
    assert select_genes(screen._replace(adata=other), train, 5).adata.var_names.tolist() == chosen.tolist()
    assert "g3" in select_genes(screen, np.ones(60, bool), 5).adata.var_names
    assert select_genes(screen, train, 300).adata.n_vars == 300  # no more genes than asked for: all stay
    assert select_genes(screen, train, 299).adata.var_names.tolist() == [g for g in adata.var_names if g != "g9"]
