"""Tanimoto: equal to RDKit's for bits and counts, in any form and block size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from scjepa.pharma import fingerprints, nearest, parse_smiles, tanimoto

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CCCCCCCCCCCCCCCC(=O)O", "CCO", "C"]


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("kind", ["morgan", "atom_pair"])
def test_equals_rdkit(kind, counts):
    made = {
        "morgan": rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048),
        "atom_pair": rdFingerprintGenerator.GetAtomPairGenerator(fpSize=2048),
    }[kind]
    mols = [Chem.MolFromSmiles(s) for s in parse_smiles(SMILES)]
    prints = [made.GetCountFingerprint(m) if counts else made.GetFingerprint(m) for m in mols]
    expected = [[DataStructs.TanimotoSimilarity(x, y) for y in prints] for x in prints]
    got = tanimoto(fingerprints(SMILES, kind, counts=counts))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)


@pytest.fixture
def counts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.poisson(0.3, (n, 50)) * rng.choice([1, 7, 900], (n, 50)) for n in (7, 23))


def test_counts_are_sums_of_minima_over_sums_of_maxima(counts):
    a, b = counts
    expected = np.minimum(a[:, None], b).sum(-1) / np.maximum(a[:, None], b).sum(-1)
    np.testing.assert_allclose(tanimoto(a, b), expected, rtol=1e-14)


@pytest.mark.parametrize("block_size", [1, 5, 1000])
def test_form_and_block_size_do_not_matter(counts, block_size):
    a, b = counts
    expected = tanimoto(a, b)
    for form in (sp.csr_matrix, sp.csc_array, pd.DataFrame, lambda x: x.astype(np.uint16), lambda x: x.astype(float)):
        np.testing.assert_array_equal(tanimoto(form(a), form(b), block_size=block_size), expected)
    found = nearest(sp.csr_matrix(a), b, block_size=block_size)
    np.testing.assert_array_equal(found.row, expected.argmax(1))
    np.testing.assert_array_equal(found.similarity, expected.max(1))


def test_empty_fingerprints_and_ties():
    assert tanimoto([[0, 0]], [[0, 0], [1, 0]]).tolist() == [[0, 0]]
    assert nearest([[1, 0], [0, 0]], [[1, 1], [1, 1], [1, 0], [1, 0]], block_size=1).row.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [[1, 0]], r"a has shape \(2,\): expected fingerprints"),
        (np.zeros((0, 3)), [[1, 0, 0]], r"a has shape \(0, 3\)"),
        ([[1, 0]], [[1, 0, 0]], "a has 2 bits and b has 3"),
        ([[1, 0.5]], [[1, 0]], "a has 1 values that are negative or no whole numbers, for example 0.5"),
        ([[1, 0]], [[1, -1]], "b has 1 values that are negative"),
        ([["x", "y"]], [[1, 0]], "a has values of type <U1"),
    ],
)
def test_wrong_fingerprints_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        tanimoto(a, b)


def test_a_wrong_block_size_is_refused():
    with pytest.raises(ValueError, match="block_size=0"):
        nearest([[1]], [[1]], block_size=0)
