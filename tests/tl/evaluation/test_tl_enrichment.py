"""Enrichment of gene sets: agreement with gseapy, and gene set files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.tl.evaluation._enrichment import OverRepresentation, read_gene_sets

GENES = [f"g{i}" for i in range(60)]


def test_over_representation_agrees_with_gseapy():
    gseapy = pytest.importorskip("gseapy")
    rng = np.random.default_rng(0)
    sets = {f"s{i}": list(rng.choice(GENES, rng.integers(5, 30), replace=False)) for i in range(20)}
    called = np.zeros(60, bool)
    called[rng.choice(60, 14, replace=False)] = True
    (found,) = OverRepresentation(sets, pd.Index(GENES))(called[None])
    expected = gseapy.enrich(list(np.array(GENES)[called]), sets, background=GENES, outdir=None, no_plot=True).results
    expected = expected.set_index("Term")
    np.testing.assert_allclose(10 ** -found.loc[expected.index, "score"], expected["P-value"].astype(float))
    assert (found.loc[found.index.difference(expected.index), ["score", "fdr"]] == [0, 1]).all(axis=None)
    np.testing.assert_allclose(found.loc[expected.index, "fdr"], expected["Adjusted P-value"].astype(float), rtol=1e-9)


def test_real_hallmark_sets(shared_data):
    path = shared_data / "priors" / "h.all.v7.5.1.symbols.gmt"
    if not path.is_file():
        pytest.skip("no Hallmark file")
    sets = read_gene_sets(path)
    assert len(sets) == 50 and "IRF1" in sets["HALLMARK_INTERFERON_GAMMA_RESPONSE"]


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "sets.gmt").write_text("gene,score\n")
    with pytest.raises(ValueError, match="'sets.gmt' is no GMT file"):
        read_gene_sets(tmp_path / "sets.gmt")
