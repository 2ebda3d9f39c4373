"""Simulated modalities: links that are really there, what cells lack, batches, seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.datasets import simulate_multiomics
from scjepa.omics import CLR, LogNormalize, feature_links

pytest.importorskip("mudata")


def test_linked_peaks_and_genes_go_together_and_have_their_sign():
    mdata = simulate_multiomics(800, 80, 10, 160, seed=1)
    truth = mdata.uns["jepa"]["simulation"]["peak_gene"]
    rna, atac = mdata["rna"], mdata["atac"]
    logged = LogNormalize().fit(rna.X).transform(rna.X)
    links = feature_links(
        (atac.X > 0).astype(float), logged, source_names=atac.var_names, target_names=rna.var_names,
        source_positions=atac.var, target_positions=rna.var, window=10_000, groups=rna.obs["cell_type"],
    )  # fmt: skip
    found = links.merge(truth, on=["source", "target"])
    assert len(found) == len(truth) > 20
    sure = found["fdr"] < 0.05
    assert sure.mean() > 0.7 and (np.sign(found["correlation"]) == found["sign"])[sure].mean() > 0.98
    assert (links["distance"].abs() <= 10_000).all()


def test_proteins_follow_their_genes_less_with_delay():
    def strength(delay):
        mdata = simulate_multiomics(600, 60, 15, 60, delay=delay, state_effect=1.0, seed=2)
        a = LogNormalize().fit(mdata["rna"].X).transform(mdata["rna"].X).toarray()[:, :15]
        b = CLR().fit(mdata["protein"].X).transform(mdata["protein"].X)
        return np.mean([np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(15)])

    assert strength(0.0) > strength(1.0) + 0.1 > 0.2


def test_cells_lack_what_they_are_said_to_and_batches_shift():
    mdata = simulate_multiomics(200, 40, 5, 50, missing={"rna": 0.3, "protein": 0.1}, n_batches=2, seed=0)
    assert (
        mdata.n_obs == 200
        and mdata["rna"].n_obs == 140
        and mdata["protein"].n_obs == 180
        and mdata["atac"].n_obs == 200
    )
    assert set(mdata["rna"].obs["batch"]) == {"batch 1", "batch 2"}
    assert set(simulate_multiomics(50, 20, 3, 20, modalities=("rna", "protein")).mod) == {"rna", "protein"}


def test_same_seed_same_cells():
    a, b, c = (simulate_multiomics(60, 30, 5, 40, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(a["rna"].X.toarray(), b["rna"].X.toarray())
    np.testing.assert_array_equal(a["protein"].X, b["protein"].X)
    pd.testing.assert_frame_equal(a["atac"].var, b["atac"].var)
    assert (a["rna"].X != c["rna"].X).nnz > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cells": 0}, "n_cells"),
        ({"n_proteins": 300}, "a protein needs a gene"),
        ({"modalities": ("rna", "dna")}, "dna"),
        ({"modalities": ()}, "modalities is empty"),
        ({"missing": {"rna": 1.0}}, "missing\\['rna'\\]=1.0"),
        ({"missing": {"spatial": 0.1}}, "spatial"),
        ({"delay": 2}, "delay=2"),
        ({"openness": -1}, "openness=-1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_multiomics(**options)
