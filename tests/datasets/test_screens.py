"""Public screens: downloads from a server on this machine, the cache, errors, and labels that read the same everywhere."""

from __future__ import annotations

import builtins
import hashlib
import socket
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa import PerturbJEPA, datasets
from scjepa.datasets import _screens
from scjepa.datasets._download import Source, cache_folder, fetch
from scjepa.datasets._screens import SCREENS

pytest.importorskip("pooch")


def closed_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def raw_screen(name: str) -> ad.AnnData:
    """A few cells whose columns and labels are written as in the public file."""
    obs = {
        "norman2019": {"perturbation": ["control", "KLF1", "CEBPE_RUNX1T1", "control"], "gemgroup": [1, 2, 1, 2]},
        "adamson2016": {
            "perturbation": ["63(mod)_pBA580", "DDIT3_pDS263", "*", None, "Gal4-4(mod)_pBA582", "C7orf26_pDS004"]
        },
        "replogle2022_k562_essential": {"perturbation": ["control", "HSPA5", "GATA1"], "batch": [1, 1, 2]},
        "replogle2022_rpe1": {"perturbation": ["control", "HSPA5", "GATA1"], "batch": [1, 1, 2]},
        "kang2018": {
            "label": ["ctrl", "stim", "ctrl"],
            "cell_type": ["B cells", "B cells", "CD14+ Monocytes"],
            "replicate": ["patient_101", "patient_101", "patient_1015"],
        },
    }[name]
    frame = pd.DataFrame(obs)
    frame.index = [f"cell{i}" for i in range(len(frame))]
    counts = np.random.default_rng(0).poisson(3.0, (len(frame), 4)).astype(np.float32)
    return ad.AnnData(counts, obs=frame.astype("category"), var=pd.DataFrame(index=["a", "b", "c", "d"]))


def serve(server, name: str, monkeypatch) -> Path:
    """Put a small file where the screen is looked for, with its checksum."""
    source = SCREENS[name].source
    path = server.folder / source.file_name
    raw_screen(name).write_h5ad(path)
    kind = source.checksum.split(":")[0]
    digest = hashlib.new(kind, path.read_bytes()).hexdigest()
    source = source._replace(url=server.url + source.file_name, checksum=f"{kind}:{digest}")
    monkeypatch.setitem(SCREENS, name, SCREENS[name]._replace(source=source))
    return path


LABELS = {
    "norman2019": (["control", "KLF1", "CEBPE+RUNX1T1", "control"], ["K562"] * 4, ["1", "2", "1", "2"]),
    "adamson2016": (["control", "DDIT3", "control", "C7orf26"], ["K562"] * 4, None),
    "replogle2022_k562_essential": (["control", "HSPA5", "GATA1"], ["K562"] * 3, ["1", "1", "2"]),
    "replogle2022_rpe1": (["control", "HSPA5", "GATA1"], ["RPE1"] * 3, ["1", "1", "2"]),
    "kang2018": (
        ["control", "IFN-beta", "control"],
        ["B cells", "B cells", "CD14+ Monocytes"],
        ["patient_101", "patient_101", "patient_1015"],
    ),
}


@pytest.mark.parametrize("name", list(SCREENS))
def test_download_gives_the_same_columns_for_every_screen(server, monkeypatch, tmp_path, name):
    serve(server, name, monkeypatch)
    cells = datasets.load_perturbseq_data(name, cache_dir=tmp_path / "cache", progressbar=False)
    perturbation, context, batch = LABELS[name]
    assert cells.obs["perturbation"].tolist() == perturbation
    assert cells.obs["context"].tolist() == context
    assert batch is None or cells.obs["batch"].tolist() == batch
    original = raw_screen(name)
    np.testing.assert_array_equal(cells.X, original[cells.obs_names].X)
    if name == "norman2019":
        assert cells.obs["perturbation_original"].tolist() == original.obs["perturbation"].tolist()
    if name.startswith("replogle"):
        assert "perturbation_original" not in cells.obs
    assert len(server.requests) == 1


def test_named_loaders_are_the_same_thing(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SCJEPA_CACHE", str(tmp_path / "cache"))
    for name, load in {
        "norman2019": datasets.norman2019,
        "adamson2016": datasets.adamson2016,
        "replogle2022_k562_essential": datasets.replogle2022,
        "replogle2022_rpe1": partial(datasets.replogle2022, "rpe1"),
        "kang2018": datasets.kang2018,
    }.items():
        serve(server, name, monkeypatch)
        assert load(progressbar=False).obs["perturbation"].tolist() == LABELS[name][0]
        assert (tmp_path / "cache" / SCREENS[name].source.file_name).is_file()


def test_loaded_cells_go_into_the_model(server, monkeypatch, tmp_path):
    serve(server, "norman2019", monkeypatch)
    cells = datasets.norman2019(cache_dir=tmp_path, progressbar=False)
    PerturbJEPA.setup_anndata(cells, "perturbation", batch_key="batch")


def test_second_time_needs_no_network(server, monkeypatch, tmp_path):
    serve(server, "kang2018", monkeypatch)
    first = datasets.kang2018(cache_dir=tmp_path, progressbar=False)
    assert len(server.requests) == 1
    nowhere = SCREENS["kang2018"].source._replace(url=f"http://127.0.0.1:{closed_port()}/kang_2018.h5ad")
    monkeypatch.setitem(SCREENS, "kang2018", SCREENS["kang2018"]._replace(source=nowhere))
    again = datasets.kang2018(cache_dir=tmp_path, progressbar=False)
    assert len(server.requests) == 1
    pd.testing.assert_frame_equal(first.obs, again.obs)


def test_file_placed_by_hand_is_used(server, monkeypatch, tmp_path):
    path = serve(server, "kang2018", monkeypatch)
    (tmp_path / "mine").mkdir()
    path.rename(tmp_path / "mine" / path.name)
    assert datasets.kang2018(cache_dir=tmp_path / "mine", progressbar=False).n_obs == 3
    assert server.requests == []


def test_wrong_download_is_refused_and_not_kept(server, monkeypatch, tmp_path):
    path = serve(server, "norman2019", monkeypatch)
    path.write_bytes(b"an error page")
    with pytest.raises(ValueError, match=r"what http://127.* sent is not the expected file: its md5 differs"):
        datasets.norman2019(cache_dir=tmp_path / "cache", progressbar=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_wrong_file_in_the_cache_is_named_and_kept(server, monkeypatch, tmp_path):
    path = serve(server, "norman2019", monkeypatch)
    wrong = tmp_path / path.name
    wrong.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"is not the expected file: its md5 is .* Delete it to download it again"):
        datasets.norman2019(cache_dir=tmp_path, progressbar=False)
    assert wrong.read_bytes() == b"something else" and server.requests == []


def test_offline_error_is_one_line_that_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{closed_port()}/x.h5ad"
    source = Source(url, "x.h5ad", "md5:" + "0" * 32, "0.7 GB")
    with pytest.raises(ConnectionError) as caught:
        fetch(source, tmp_path / "cache", progressbar=False)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"could not download {url} (0.7 GB): ")
    assert f"save it as {tmp_path / 'cache' / 'x.h5ad'} (md5 {'0' * 32})" in message
    assert "cache_dir=" in message


def test_address_that_is_gone(server, tmp_path):
    source = Source(server.url + "gone.h5ad", "gone.h5ad", "md5:" + "0" * 32, "1 MB")
    with pytest.raises(ConnectionError, match=r"could not download .*gone.h5ad \(1 MB\): 404 Client Error"):
        fetch(source, tmp_path, progressbar=False)
    assert not (tmp_path / "gone.h5ad").exists()


def test_progress_bar_is_shown_only_when_asked_for(server, tmp_path, capfd):
    (server.folder / "x").write_bytes(b"x" * 5000)
    checksum = "sha256:" + hashlib.sha256(b"x" * 5000).hexdigest()
    for shown in (False, True):
        fetch(Source(server.url + "x", "x", checksum, "5 kB"), tmp_path / str(shown), progressbar=shown)
        assert ("5.00k" in capfd.readouterr().err) == shown


def test_without_pooch_the_extra_is_named(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pooch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'scjepa\[datasets\]'"):
        datasets.kang2018(cache_dir=tmp_path)


def test_unknown_names():
    with pytest.raises(ValueError, match="name='norman' is not among the public screens.*Did you mean 'norman2019'"):
        datasets.load_perturbseq_data("norman")
    with pytest.raises(ValueError, match="cell_line='RPE1' is not among.*Did you mean 'rpe1'"):
        datasets.replogle2022("RPE1")


def test_cells_without_a_known_perturbation_are_counted(caplog):
    with caplog.at_level("INFO", logger="scjepa"):
        cells = _screens._standardise(raw_screen("adamson2016"), SCREENS["adamson2016"])
    assert "2 of 6 cells have no known perturbation and are left out" in caplog.text
    assert cells.obs["perturbation"].notna().all() and not cells.is_view
    assert set(cells.obs["perturbation"].cat.categories) == {"control", "DDIT3", "C7orf26"}


def test_missing_contexts_and_batches_are_a_group_of_their_own_and_columns_alike_are_not_kept_twice():
    raw = raw_screen("kang2018")
    raw.obs["context"] = raw.obs["cell_type"] = pd.Categorical(["B cells", None, "B cells"])
    raw.obs["replicate"] = pd.Categorical([None, "x", "x"])
    cells = _screens._standardise(raw, SCREENS["kang2018"])
    assert list(cells.obs["context"]) == ["B cells", "nan", "B cells"]
    assert list(cells.obs["batch"]) == ["nan", "x", "x"]
    assert "context_original" not in cells.obs


def test_cache_folder_by_argument_variable_or_system(monkeypatch, tmp_path):
    monkeypatch.setenv("SCJEPA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path and cache_folder("here") == Path("here")
    monkeypatch.delenv("SCJEPA_CACHE")
    assert cache_folder().name == "scjepa"


def test_sources_are_complete():
    names = [screen.source.file_name for screen in SCREENS.values()]
    assert len(set(names)) == len(names)
    for screen in SCREENS.values():
        kind, digest = screen.source.checksum.split(":")
        assert len(digest) == {"md5": 32, "sha256": 64}[kind] and set(digest) <= set("0123456789abcdef")
        assert screen.source.url.startswith("https://") and screen.source.url.endswith(screen.source.file_name)
