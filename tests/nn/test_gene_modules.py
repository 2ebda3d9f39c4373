"""Gene modules from user sets and from k-means."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.nn import gene_set_modules, kmeans_modules

GENES = ["STAT1", "IRF7", "MX1", "CD3E", "CD8A", "ACTB"]


def test_sets_may_overlap_and_the_rest_is_kept():
    names, membership = gene_set_modules(GENES, {"IFN": ["MX1", "STAT1", "ABSENT"], "TF": ["STAT1", "IRF7"]})
    assert names == ["IFN", "TF", "remainder"]
    assert membership.dtype == bool
    assert membership.astype(int).tolist() == [[1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert membership.any(0).all()


def test_no_remainder_when_all_genes_are_in_sets():
    names, membership = gene_set_modules(np.array(GENES), {"all": tuple(GENES)})
    assert names == ["all"] and membership.all()


@pytest.mark.parametrize(
    ("genes", "sets", "message"),
    [
        (
            GENES,
            {"a": ["mx1"], "b": ["MX1"], "c": ["X"]},
            r"2 of 3 gene sets have no measured gene: 'a', 'c'\. Genes of",
        ),
        (GENES, {"a": []}, "1 of 1 gene sets have no measured gene: 'a'. Genes of 'a': none"),
        (GENES, {}, "gene_sets is empty"),
        (GENES, {"remainder": ["MX1"]}, "a set named 'remainder'"),
        (GENES, {"a": "MX1"}, "is the string 'MX1': expected a list of gene names"),
        (["A", "B", "A"], {"a": ["A"]}, "gene_names has repeated names: 'A'"),
    ],
)
def test_refuses_bad_sets(genes, sets, message):
    with pytest.raises(ValueError, match=message):
        gene_set_modules(genes, sets)


def test_kmeans_finds_directions_whatever_their_length():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 25)
    loadings = (np.eye(4)[truth] + 0.05 * rng.normal(size=(100, 4))) * rng.uniform(0.1, 10, size=(100, 1))
    membership = kmeans_modules(loadings.T, 4, seed=0)
    assert membership.shape == (4, 100) and membership.dtype == bool
    assert (membership.sum(0) == 1).all()
    labels = membership.argmax(0)
    assert len(set(zip(labels, truth, strict=True))) == 4  # the same partition up to names
    assert (kmeans_modules(loadings.T, 4, seed=0) == membership).all()


def test_kmeans_takes_genes_without_loading():
    loadings = np.random.default_rng(0).normal(size=(3, 20))
    loadings[:, 5] = 0
    assert (kmeans_modules(loadings, 4).sum(0) == 1).all()


def test_kmeans_refuses_bad_input():
    with pytest.raises(ValueError, match="n_modules=9 is more than the 5 genes"):
        kmeans_modules(np.ones((2, 5)), 9)
    with pytest.raises(ValueError, match="expected finite numbers"):
        kmeans_modules(np.full((2, 5), np.nan), 2)
