"""What DrugJEPA reads of drugs: fingerprints of any kind, descriptors, the user's features, joined; what can't be read is named."""

from __future__ import annotations

import json
import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.model.test_drug_support import QUIET, SMILES, screen

from scjepa import DrugJEPA
from scjepa.model._drug_structures import WIDTH, Structures

pytest.importorskip("rdkit")
TARGETS = pd.DataFrame({"HDAC": [500.0, 0.0, 20.0], "dose form": [-1.0, 1.0, 0.0]}, index=["a1", "r1", "r2"])


def made(adata: ad.AnnData | None = None, **options) -> DrugJEPA:
    adata = screen() if adata is None else adata
    DrugJEPA.setup_anndata(
        adata, "drug", smiles_key="smiles", dose_key="dose", context_key="line", input_scale="lognorm"
    )
    return DrugJEPA(adata, n_latent=4, n_pcs=6, residual=False, **options)


@pytest.mark.parametrize(
    ("options", "columns", "highest"),
    [
        ({}, 2048, 5),
        ({"fingerprint": "feature_morgan", "fingerprint_radius": 3, "fingerprint_size": 128}, 128, 7),
        ({"fingerprint": "atom_pair", "fingerprint_size": 256}, 256, 99),
        ({"fingerprint": "topological_torsion"}, 2048, 99),
        ({"fingerprint": "rdkit", "fingerprint_size": 64}, 64, 99),
        ({"fingerprint": "maccs"}, 167, 1),
    ],
)
def test_every_kind_of_fingerprint(options: dict, columns: int, highest: int) -> None:
    table = made(**options).anchors_.wanted.structure.parts["structure"]
    assert table.values.shape == (6, columns) and 1 <= table.values.max() <= highest and set(table.names) == set(SMILES)


def test_stereo_is_told_apart_when_asked_for_and_salts_never() -> None:
    pair = {"l": "C[C@H](N)C(=O)O", "d": "C[C@@H](N)C(=O)O", "salt": "C[C@H](N)C(=O)O.Cl"}
    known = Structures(pair, chirality=True)
    assert known.smiles["l"] != known.smiles["d"] and known.smiles["l"] == known.smiles["salt"]
    prints = known.tables()["structure"]
    assert (prints.loc["l"] != prints.loc["d"]).any() and (prints.loc["l"] == prints.loc["salt"]).all()
    assert (Structures(pair).tables()["structure"].nunique() == 1).all()


def test_descriptors_have_the_scale_of_the_first_drugs() -> None:
    known = Structures(SMILES, descriptors=True)
    table = known.tables()["descriptors"]
    varied = table.loc[:, table.std() > 0]
    np.testing.assert_allclose(varied.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(varied.std(ddof=0), 1 / np.sqrt(varied.shape[1]), rtol=1e-5)
    heavy = known.of({"heavy": "C" * 30}).tables()["descriptors"]
    assert heavy.loc["heavy", "MolWt"] > 5 * table["MolWt"].max()
    assert Structures(SMILES, descriptors=True).of_network(["a1"]).shape == (1, WIDTH + table.shape[1])


def test_features_and_structures_are_joined_and_new_molecules_need_the_latter_only() -> None:
    model = made(drug_features=TARGETS, descriptors=True)
    assert list(model.anchors_.wanted.structure.parts) == ["structure", "features", "descriptors"]
    read = model.module.predictors[0].action_encoder.features.numpy()
    own = read[:, WIDTH : WIDTH + 2]
    np.testing.assert_allclose(own[[1, 2, 5]], 0, atol=1e-6)  # nothing is known of a2, a3 and r3: the mean
    assert np.abs(own).max() < 2  # the network reads them on one scale
    model.train(holdout=["a2"], **QUIET)
    found = model.predict_drug_response("new", smiles={"new": "CCCCO"}, dose=10.0, context="x", n_cells=3)
    told = found.uns["jepa"]["prediction"]["conditions"]
    assert told["nearest_drug"].tolist() != [""] and told["similarity"][0] > 0.5
    assert np.isfinite(found.X).all()


def test_what_is_known_of_drugs_is_plain_data(tmp_path) -> None:
    known = Structures(SMILES, TARGETS, "atom_pair", size=64, descriptors=True)
    state = known.state()
    again = Structures.from_state(state)
    np.testing.assert_array_equal(again.of_network(["a1", "r1", "x"]), known.of_network(["a1", "r1", "x"]))
    plain = lambda v: v.tolist() if isinstance(v, np.ndarray) else v.to_dict() if isinstance(v, pd.DataFrame) else v
    assert json.loads(json.dumps(state, default=plain))["print"]["size"] == 64
    model = made(drug_features=TARGETS, descriptors=True, fingerprint="maccs")
    model.train(**QUIET)
    model.save(tmp_path / "m", save_anndata=True)
    loaded = DrugJEPA.load(tmp_path / "m")
    one, other = (
        m.predict_drug_response("new", smiles={"new": "CCCCCCO"}, context="x", dose=4.0, n_cells=5).X
        for m in (model, loaded)
    )  # fmt: skip
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_smiles_that_cant_be_read_are_named_counted_and_left_out(caplog) -> None:
    adata = screen()
    adata.obs["smiles"] = adata.obs["smiles"].replace({SMILES["r3"]: "no molecule", SMILES["a3"]: "C(C"})
    with caplog.at_level(logging.INFO, logger="scjepa"):
        model = made(adata)
    assert "2 of 6 SMILES can't be read and are left out: 'a3 (C(C)', 'r3 (no molecule)'" in caplog.text
    assert set(model.anchors_.wanted.structure.names) == set(SMILES) - {"a3", "r3"}
    model.train(holdout=["a2"], **QUIET)
    found = model.predict_drug_response(["r3", "a2"], dose=10.0, context="x", n_cells=2)  # seen, and known by structure
    assert found.obs["drug"].tolist() == ["r3"] * 2 + ["a2"] * 2
    known = model.predict_effect("r3", dose=10.0, context="x")
    assert set(known["support"]) == {"trained"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"drug_features": [1, 2]}, TypeError, "drug_features is list: expected a DataFrame, drugs x features"),
        (
            {"drug_features": TARGETS.set_axis(["u", "v", "w"])},
            ValueError,
            "no row is a drug of the data; rows are 'u', 'v', 'w', drugs 'a1'",
        ),
        ({"drug_features": TARGETS.replace(20.0, np.nan)}, ValueError, r"1 missing or infinite values.*r2"),
        ({"drug_features": pd.concat([TARGETS, TARGETS[:1]])}, ValueError, "1 drugs more than once: 'a1'"),
        ({"fingerprint": "morgann"}, ValueError, "kind='morgann' is not among the fingerprints.*'morgan'"),
        ({"fingerprint_radius": -1}, ValueError, "radius=-1"),
        ({"fingerprint_size": 1}, ValueError, "size=1"),
    ],
)
def test_at_the_door(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        made(**options)


def test_drugs_without_a_row_of_features_are_counted(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="scjepa"):
        made(drug_features=TARGETS)
    assert "3 of 6 drugs have no row in drug_features: 'a2', 'a3', 'r3'" in caplog.text
