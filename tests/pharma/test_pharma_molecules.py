"""Molecules: cleaned structures, fingerprints equal to RDKit's, scaffolds, features on one scale."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from scjepa.pharma import DrugFeatures, descriptors, fingerprints, parse_smiles, scaffolds
from scjepa.pharma._molecules import canonical

DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "metformin": "CN(C)C(=N)N=C(N)N.Cl",
}


# ---------------------------------------------------------------- structures


def test_salts_go_and_stereo_stays():
    got = parse_smiles(
        {"base": "CCN(CC)CC", "salt": "CC[NH+](CC)CC.[Cl-]", "l": "N[C@@H](C)C(=O)O", "d": "N[C@H](C)C(=O)O"}
    )
    assert got["base"] == got["salt"]
    assert got["l"] != got["d"] and "@" in got["l"]


def test_the_fragment_with_most_heavy_atoms_is_the_drug():
    assert parse_smiles({"cisplatin": "N.N.Cl[Pt]Cl"})["cisplatin"] == "[Cl][Pt][Cl]"


def test_one_molecule_written_twice_is_one_and_parsing_again_changes_nothing():
    once = parse_smiles({"a": "OCC", "b": "CCO"})
    assert once["a"] == once["b"]
    assert parse_smiles(once).equals(once)


def test_what_cannot_be_read_is_named_counted_and_left_out(caplog):
    with caplog.at_level(logging.INFO, logger="scjepa"):
        got = parse_smiles({"good": "CCO", "bad": "C1CC", "none": None, "nan": float("nan"), "empty": " "})
    assert list(got.index) == ["good"]
    (line,) = caplog.messages
    assert line.startswith("4 of 5 SMILES can't be read and are left out: 'bad (C1CC)', 'none (None)'")


def test_repeated_entries_of_a_list_are_taken_once_and_counted(caplog):
    with caplog.at_level(logging.INFO, logger="scjepa"):
        assert list(parse_smiles(["CCO", "CCN", "CCO"]).index) == ["CCO", "CCN"]
    assert caplog.messages == ["1 SMILES occur before in the list and are taken once."]


@pytest.mark.parametrize(
    ("smiles", "error", "message"),
    [
        ({"a": "CCO", "b": "C1CC"}, ValueError, r"1 of 2 SMILES can't be read: 'b \(C1CC\)'.*strict=False"),
        ([], ValueError, "smiles is empty"),
        ("CCO", TypeError, r"give a list, \['CCO'\]"),
        (pd.DataFrame({"smiles": ["CCO"]}), TypeError, "Give one column"),
        (pd.Series(["CCO", "CCN"], index=["a", "a"]), ValueError, "1 names of smiles occur more than once: 'a'"),
    ],
)
def test_wrong_structures_are_refused(smiles, error, message):
    with pytest.raises(error, match=message):
        parse_smiles(smiles, strict=True)


def test_nothing_left_is_refused_also_when_not_strict():
    with pytest.raises(ValueError, match="2 of 2 SMILES can't be read"):
        parse_smiles(["C1CC", "nonsense"])


def test_without_rdkit_the_error_says_how_to_install_it(monkeypatch):
    canonical.cache_clear()
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match=r"pip install 'scjepa\[drugs\]'"):
        parse_smiles(["CCO"])


# ---------------------------------------------------------------- fingerprints


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize(
    ("kind", "generator"),
    [
        ("morgan", lambda: rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=512)),
        (
            "feature_morgan",
            lambda: rdFingerprintGenerator.GetMorganGenerator(
                radius=3, fpSize=512, atomInvariantsGenerator=rdFingerprintGenerator.GetMorganFeatureAtomInvGen()
            ),
        ),
        ("atom_pair", lambda: rdFingerprintGenerator.GetAtomPairGenerator(fpSize=512)),
        ("topological_torsion", lambda: rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=512)),
        ("rdkit", lambda: rdFingerprintGenerator.GetRDKitFPGenerator(fpSize=512)),
    ],
)
def test_fingerprints_are_those_of_the_generators(kind, generator, counts):
    table = fingerprints(DRUGS, kind, radius=3, size=512, counts=counts)
    made = generator()
    ask = made.GetCountFingerprintAsNumPy if counts else made.GetFingerprintAsNumPy
    expected = np.array([ask(Chem.MolFromSmiles(s)) for s in parse_smiles(DRUGS)])
    np.testing.assert_array_equal(table, expected)
    assert (table.dtypes == (np.uint16 if counts else np.uint8)).all()
    assert list(table.index) == list(DRUGS) and table.columns[1] == f"{kind}_1"


def test_maccs_keys():
    expected = [list(rdMolDescriptors.GetMACCSKeysFingerprint(Chem.MolFromSmiles(s))) for s in parse_smiles(DRUGS)]
    np.testing.assert_array_equal(fingerprints(DRUGS, "maccs"), expected)


def test_chirality_tells_isomers_apart_only_when_asked():
    isomers = {"l": "N[C@@H](C)C(=O)O", "d": "N[C@H](C)C(=O)O"}
    flat, chiral = fingerprints(isomers), fingerprints(isomers, chirality=True)
    assert (flat.loc["l"] == flat.loc["d"]).all()
    assert (chiral.loc["l"] != chiral.loc["d"]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "morgn"}, "kind='morgn' is not among the fingerprints. Did you mean 'morgan'"),
        ({"radius": -1}, "radius=-1: expected a whole number of at least 0"),
        ({"size": 0}, "size=0: expected a whole number of at least 8"),
        ({"kind": "maccs", "counts": True}, "MACCS keys are yes or no"),
    ],
)
def test_wrong_fingerprints_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fingerprints(DRUGS, **options)


# ---------------------------------------------------------------- descriptors and scaffolds


def test_descriptors_of_aspirin():
    row = descriptors(DRUGS).loc["aspirin"]
    assert row["MolWt"] == pytest.approx(180.159)
    assert (row["NumHDonors"], row["RingCount"], row["HeavyAtomCount"]) == (1, 1, 13)


def test_an_unknown_descriptor_is_refused():
    with pytest.raises(ValueError, match="names='MolWeight' is not among RDKit's descriptors. Did you mean"):
        descriptors(DRUGS, ["MolWeight"])


def test_scaffolds_group_relatives_and_leave_acyclic_molecules_alone():
    got = scaffolds(DRUGS | {"toluene": "Cc1ccccc1", "ethanol": "CCO", "l": "N[C@@H](C)C(=O)O", "d": "N[C@H](C)C(=O)O"})
    assert got["aspirin"] == got["ibuprofen"] == got["toluene"] == "c1ccccc1"
    assert got["ethanol"] == "CCO" != got["metformin"]
    assert got["l"] == got["d"], "isomers share a scaffold"


# ---------------------------------------------------------------- features


def targets() -> pd.DataFrame:
    return pd.DataFrame(
        {"COX": [1.0, 0.0, 1.0], "ADORA": [0.0, 5.0, 0.0], "same": [2.0, 2.0, 2.0]},
        index=["aspirin", "caffeine", "ibuprofen"],
    )


def test_blocks_are_on_one_scale():
    smiles = {k: DRUGS[k] for k in targets().index}
    both = DrugFeatures(size=256).fit(smiles, targets()).transform(smiles, targets())
    for block in (both.iloc[:, :256], both.iloc[:, 256:]):
        assert np.sqrt((block.to_numpy() ** 2).sum(1).mean()) == pytest.approx(1, abs=1e-6)
    assert (both["same"] == 0).all(), "a constant column says nothing"


def test_what_is_not_known_is_the_mean_and_is_told(caplog):
    made = DrugFeatures(size=256).fit(DRUGS, targets())
    with caplog.at_level(logging.INFO, logger="scjepa"):
        got = made.transform(
            {"new": "CCO"}, pd.DataFrame([[1.0, 0.0, 2.0]], index=["other"], columns=targets().columns)
        )
    assert list(got.index) == ["new", "other"]
    assert (got.loc["new", ["COX", "ADORA"]] == 0).all()
    expected = fingerprints(DRUGS, size=256).mean() / made.print_norm_
    np.testing.assert_allclose(got.loc["other"].iloc[:256], expected, rtol=1e-6)
    assert caplog.messages == [
        "1 of 2 drugs have no structure and get the mean: 'other'.",
        "1 of 2 drugs have no features of yours and get the mean: 'new'.",
    ]


def test_columns_are_found_by_name_and_a_new_batch_keeps_the_scale():
    made = DrugFeatures().fit(features=targets())
    whole = made.transform(features=targets())
    part = made.transform(features=targets()[["same", "ADORA", "COX"]].iloc[[1]])
    pd.testing.assert_frame_equal(part, whole.iloc[[1]])


def test_state_makes_the_same_object():
    made = DrugFeatures(size=64, counts=True).fit(DRUGS, targets())
    again = DrugFeatures.from_state(made.state())
    pd.testing.assert_frame_equal(again.transform(DRUGS, targets()), made.transform(DRUGS, targets()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DrugFeatures().fit(), "neither smiles nor features is given"),
        (lambda: DrugFeatures().transform(DRUGS), "were not fitted"),
        (lambda: DrugFeatures().fit(DRUGS).transform(), "neither smiles nor features is given"),
        (lambda: DrugFeatures().fit(DRUGS).transform(DRUGS, targets()), "features is given, but"),
        (lambda: DrugFeatures().fit(DRUGS, targets()).transform(DRUGS, targets()[["COX"]]), "lacks 2 of the 3 columns"),
        (
            lambda: DrugFeatures().fit(features=targets().replace(5.0, np.nan)),
            r"1 missing or infinite values, in 1 drugs \('caffeine'\)",
        ),
        (lambda: DrugFeatures().fit(features=targets().assign(COX="yes")), "no numbers: 'COX'"),
        (lambda: DrugFeatures().fit(features=targets().iloc[[0, 0]]), "1 drugs more than once: 'aspirin'"),
        (lambda: DrugFeatures().fit(features=targets().to_numpy()), r"features is \(3, 3\): expected a DataFrame"),
    ],
)
def test_wrong_features_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_needs_no_cleaning_is_what_cleaning_leaves(monkeypatch):
    from scjepa.pharma import _molecules

    structures = [
        "OCC", "c1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "N#Cc1ccc(cc1)F", "CC(=O)Nc1ccc(O)cc1", "C/C=C/C", "[2H]OC", "c1cc[nH]c1",
        "[nH]1cccc1", "C[C@@H]1CCCO1", "O=c1[nH]cnc2[nH]cnc12", "CS(=O)(=O)N", "[13CH4]", "C1=CC=CC=C1", "B(O)(O)c1ccccc1",
    ]  # fmt: skip
    short = [_molecules.canonical.__wrapped__(s) for s in structures]
    monkeypatch.setattr(_molecules, "UNCLEAN", frozenset("CcNnOoSB[]12"))  # all of them are cleaned
    assert short == [_molecules.canonical.__wrapped__(s) for s in structures] and None not in short
