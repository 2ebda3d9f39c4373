"""Public drug screens: downloads from a server on this machine, and columns that read the same everywhere."""

from __future__ import annotations

import hashlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import datasets
from scjepa.datasets import _drugs
from scjepa.datasets._download import Source, fetch

pytest.importorskip("pooch")

OBS = {
    "sciplex3": {
        "perturbation": ["control", "(+)-JQ1", "Belinostat", None, "Belinostat"],
        "dose_value": [np.nan, 10000.0, 10.0, np.nan, 100.0],
        "dose_unit": ["nM", "nM", "nM", None, "nM"],
        "time": [24.0, 24.0, 72.0, np.nan, 24.0],
        "cell_line": ["A549", "A549", "K562", "MCF7", "A549"],
        "replicate": ["rep1", "rep1", "rep2", None, "rep2"],
    },
    "op3": {
        "sm_name": ["Dimethyl Sulfoxide", "Belinostat", "Dabrafenib"],
        "dose_uM": [14.1, 0.1, 1.0],
        "timepoint_hr": [24, 24, 24],
        "cell_type": ["NK cells", "NK cells", "B cells"],
        "donor_id": ["Donor 1", "Donor 1", "Donor 2"],
        "SMILES": ["C[S+](C)[O-]", "ONC(=O)C=Cc1cccc(c1)S(=O)(=O)Nc1ccccc1", "CC"],
    },
}


def raw(name: str) -> ad.AnnData:
    obs = pd.DataFrame(OBS[name])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    counts = np.random.default_rng(0).poisson(3.0, (len(obs), 4)).astype(np.float32)
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=["a", "b", "c", "d"]))


def serve(server, monkeypatch, name: str, adata: ad.AnnData) -> None:
    source = getattr(_drugs, name.upper())
    path = server.folder / source.file_name
    adata.write_h5ad(path)
    checksum = "md5:" + hashlib.md5(path.read_bytes()).hexdigest() if source.checksum else ""
    served = source._replace(url=server.url + source.file_name, checksum=checksum)
    monkeypatch.setattr(_drugs, name.upper(), served)


def test_sciplex3(server, monkeypatch, tmp_path, caplog):
    serve(server, monkeypatch, "sciplex3", raw("sciplex3"))
    with caplog.at_level("INFO", logger="scjepa"):
        cells = datasets.sciplex3(cache_dir=tmp_path, progressbar=False, smiles={"Belinostat": "ONC=O"})
    assert "1 of 5 cells have no known drug, dose and time and are left out" in caplog.text
    assert cells.obs["drug"].tolist() == ["DMSO", "(plus)-JQ1", "Belinostat", "Belinostat"]
    np.testing.assert_allclose(cells.obs["dose"], [0.0, 10.0, 0.01, 0.1])
    assert cells.obs["time"].tolist() == [24.0, 24.0, 72.0, 24.0]
    assert cells.obs["context"].tolist() == ["A549", "A549", "K562", "A549"]
    assert cells.obs["batch"].tolist() == ["rep1", "rep1", "rep2", "rep2"]
    assert cells.obs["smiles"].tolist() == ["", "", "ONC=O", "ONC=O"]
    assert "time_original" not in cells.obs and not cells.is_view
    np.testing.assert_array_equal(cells.X, raw("sciplex3")[cells.obs_names].X)
    again = datasets.sciplex3(cache_dir=tmp_path, progressbar=False)
    assert len(server.requests) == 1 and "smiles" not in again.obs


def test_a_header_among_the_genes_is_named(server, monkeypatch, tmp_path):
    adata = raw("sciplex3")
    adata.var["ensembl_id"] = ["id gene_short_name", "ENSG1", "ENSG2", "ENSG3"]
    serve(server, monkeypatch, "sciplex3", adata)
    with pytest.warns(UserWarning, match="one row too early"):
        datasets.sciplex3(cache_dir=tmp_path, progressbar=False)


def test_op3(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, "op3", raw("op3"))
    cells = datasets.op3(cache_dir=tmp_path, progressbar=False)
    assert cells.obs["drug"].tolist() == ["DMSO", "Belinostat", "Dabrafenib"]
    assert cells.obs["dose"].tolist() == [0.0, 0.1, 1.0] and cells.obs["time"].tolist() == [24.0] * 3
    assert cells.obs["context"].tolist() == ["NK cells", "NK cells", "B cells"]
    assert cells.obs["smiles"].tolist() == ["", *OBS["op3"]["SMILES"][1:]]
    assert cells.obs["batch"].tolist() == ["Donor 1", "Donor 1", "Donor 2"]


def tahoe(server, monkeypatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(_drugs, "TAHOE", server.url)
    for folder in ("data", "metadata"):
        (server.folder / folder).mkdir()
    tables = {
        "metadata/gene_metadata": {
            "gene_symbol": ["B", "A", "A"],
            "ensembl_id": ["E2", "E1", "E3"],
            "token_id": [9, 3, 12],
        },
        "metadata/sample_metadata": {
            "sample": ["s1", "s2", "s3"],
            "drugname_drugconc": ["[('DMSO_TF', 0.0, 'uM')]", "[('Bestatin (hydrochloride)', 0.05, 'uM')]", "?"],
        },
        "metadata/cell_line_metadata": {"Cell_ID_Cellosaur": ["CVCL_1", "CVCL_1"], "cell_name": ["A549", "A549"]},
    }
    for i in (0, 7):
        tables[f"data/train-{i:05d}-of-03388"] = {
            "genes": [[1, 3, 12], [1, 9], [1]],
            "expressions": [[-2.0, 5.0, 2.0 + i], [-2.0, 1.0], [-2.0]],
            "drug": ["DMSO_TF", "Bestatin (hydrochloride)", "Trametinib (DMSO_TF solvate)"],
            "sample": ["s1", "s2", "s3"],
            "BARCODE_SUB_LIB_ID": [f"{i}a", f"{i}b", f"{i}c"],
            "cell_line_id": ["CVCL_1", "CVCL_2", "CVCL_1"],
            "canonical_smiles": [None, "CCO", "CC"],
            "plate": ["plate3"] * 3,
        }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(server.folder / f"{name}.parquet")


def test_tahoe_subset(server, monkeypatch, tmp_path):
    tahoe(server, monkeypatch)
    cells = datasets.tahoe_subset([0, 7], cache_dir=tmp_path, progressbar=False)
    assert len(server.requests) == 5
    assert cells.obs_names.tolist() == ["0a", "0b", "7a", "7b"], "no dose is known of the third sample"
    assert cells.var_names.tolist() == ["A", "B", "A-1"] and cells.var["ensembl_id"].tolist() == ["E1", "E2", "E3"]
    np.testing.assert_array_equal(cells.X.toarray(), [[5, 0, 2], [0, 1, 0], [5, 0, 9], [0, 1, 0]])
    assert cells.obs["drug"].tolist()[:2] == ["DMSO", "Bestatin (hydrochloride)"]
    assert cells.obs["dose"].tolist()[:2] == [0.0, 0.05] and set(cells.obs["time"]) == {24.0}
    assert cells.obs["context"].tolist()[:2] == ["A549", "CVCL_2"] and set(cells.obs["batch"]) == {"plate3"}
    assert cells.obs["smiles"].tolist()[:2] == ["", "CCO"]
    datasets.tahoe_subset(cache_dir=tmp_path, progressbar=False)
    assert len(server.requests) == 5, "what is in the cache folder is not fetched again"


@pytest.mark.parametrize("shards", [[], [3388]])
def test_shards_that_do_not_exist(shards):
    with pytest.raises(ValueError, match="expected numbers of files, 0 to 3387"):
        datasets.tahoe_subset(shards)


def test_a_file_without_a_published_checksum_is_taken_as_it_is(server, tmp_path):
    (server.folder / "x").write_bytes(b"first")
    source = Source(server.url + "x", "x", "", "5 B")
    assert fetch(source, tmp_path, progressbar=False).read_bytes() == b"first"
    (server.folder / "x").write_bytes(b"second")
    assert fetch(source, tmp_path, progressbar=False).read_bytes() == b"first"
    gone = Source(server.url + "gone", "gone", "", "5 B")
    with pytest.raises(ConnectionError, match=r"save it as .*gone, or name the folder"):
        fetch(gone, tmp_path, progressbar=False)


def test_sources_are_complete():
    for source in (_drugs.SCIPLEX3, _drugs.OP3):
        assert source.url.startswith("https://") and source.url.endswith(source.file_name)
    assert _drugs.TAHOE.startswith("https://") and len(_drugs.TAHOE.strip("/").split("/")[-1]) == 40
