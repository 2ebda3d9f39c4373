"""Exported folders: the same numbers without pickle, and refusals that say what to do."""

from __future__ import annotations

import builtins
import json
import pickle
import pickletools
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scjepa
from scjepa import ExpressionJEPA, PerturbJEPA
from scjepa._compat import text_as_objects
from scjepa.baselines import BASELINES, KernelEffect, MeanEffect
from scjepa.data import ConditionTable
from scjepa.model.core._plain import Packer, unpack

pytest.importorskip("safetensors")
QUIET = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 60, "n_regulators": 8, "n_single": 5, "n_double": 4, "n_cells": 30, "n_control": 60, **options}
    )


def fitted(adata: ad.AnnData, **init) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context", batch_key="batch", kind_key="kind")
    model = PerturbJEPA(adata, **{"n_pcs": 10, "n_latent": 6, **init})
    model.train(**QUIET)
    return model


@pytest.fixture(scope="module")
def model() -> PerturbJEPA:
    return fitted(screen())


# ---------------------------------------------------------------- values as JSON
def test_plain_values_come_back_with_their_types() -> None:
    frame = pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan], "s": ["a", None]}, index=pd.Index(["i", "j"], name="rows"))
    values = {
        "none": None,
        "numbers": [1, 2.5, True, np.float32(0.1), np.int64(3), float("-inf")],
        "tuple": (("A",), ()),
        "keys": {("A", "B"): "KO", (): "OE"},
        "dollar": {"$array": 1},
        "strings": np.array([["a", "b"]]),
        "objects": np.array(["a", None, 3], dtype=object),
        "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
        "swapped": np.arange(3, dtype=">i4"),
        "flags": np.array([True, False]),
        "scalar": np.array(2.0),
        "nothing": np.zeros((0, 3)),
        "frame": frame,
        "features": pd.DataFrame(np.eye(2, dtype=np.float32), index=["g1", "g2"], columns=[0, 1]),
        "text": pd.DataFrame({"p": ["A", None, "A+B"], "c": pd.Series(["x", "y", "x"], dtype=object)}),
        "history": pd.DataFrame({"loss": [2.0, 1.0]}, index=pd.Index([0, 1], name="epoch"), dtype=object),
    }
    packer = Packer()
    text = json.dumps(packer.pack(values, "v"), allow_nan=False)
    again = unpack(json.loads(text), packer.arrays)
    assert again.keys() == values.keys()
    for name in ("none", "tuple", "keys", "dollar"):
        assert again[name] == values[name], name
    assert again["numbers"] == [1, 2.5, True, float(np.float32(0.1)), 3, float("-inf")]
    assert again["numbers"][2] is True
    for name in ("strings", "objects", "floats", "swapped", "flags", "scalar", "nothing"):
        np.testing.assert_array_equal(again[name], values[name])
        assert again[name].dtype == values[name].dtype.newbyteorder("="), name
    for name in ("frame", "text", "features", "history"):
        pd.testing.assert_frame_equal(again[name], values[name])


def test_text_is_read_as_what_this_pandas_makes_of_it() -> None:
    """Folders written with pandas 3, which has a type of its own for text, are read by pandas 2, and the reverse."""
    frame = pd.DataFrame({"p": pd.Series(["A", None], dtype="string")})
    packed = Packer().pack(frame, "x")
    assert packed["$frame"]["columns"] == [["A", None]] and packed["$frame"]["dtypes"] == ["str"]
    again = unpack(packed, {})
    assert again["p"].dtype == pd.Series(["A", None]).dtype
    assert again["p"].isna().tolist() == [False, True] and again["p"][0] == "A"
    written_before = {"$frame": {**packed["$frame"], "dtypes": ["object"]}}
    assert unpack(written_before, {})["p"].tolist() == ["A", None]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_can_be_written(name: str) -> None:
    rng = np.random.default_rng(0)
    actions = (("A",), ("B",), ("A", "B"), ("C",), ("A",), ("B",))
    control = np.abs(rng.normal(1, 0.2, (6, 7)))
    table = ConditionTable(
        actions, np.array(["x", "x", "x", "x", "y", "y"], dtype=object), control, control + rng.random((6, 7)),
        n_cells=np.full(6, 9), genes=tuple("abcdefg"),
    )  # fmt: skip
    fitted_one = BASELINES[name]().fit(table)
    packer = Packer()
    again = unpack(json.loads(json.dumps(packer.pack([fitted_one, fitted_one], "a"))), packer.arrays)
    assert again[0] is again[1]  # two anchors that are one stay one
    np.testing.assert_array_equal(again[0].effects(table), fitted_one.effects(table))


# ---------------------------------------------------------------- a folder
def test_the_folder_holds_no_pickle_and_no_cells(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["scjepa.json", "scjepa.safetensors"]
    record = json.loads((tmp_path / "m" / "scjepa.json").read_text())
    assert record["class"] == "PerturbJEPA" and record["format"] == 1
    assert record["attributes"]["var_names_"] == list(model.var_names)
    assert record["attributes"]["registry_"]["setup_args"]["context_key"] == "context"
    assert not zipfile.is_zipfile(tmp_path / "m" / "scjepa.safetensors")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "m" / "scjepa.safetensors").read_bytes())
    assert (tmp_path / "m" / "scjepa.safetensors").stat().st_size < model.adata.X.nnz * 4 + 2e6


def test_everything_a_model_keeps_comes_back(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    again = PerturbJEPA.load(str(tmp_path / "m"))
    assert again.adata is None and again.is_trained
    pd.testing.assert_frame_equal(again.trained_on_, model.trained_on_)
    assert again.usual_kind_ == model.usual_kind_ and again.actions_ == model.actions_
    assert (again.base_anchor_ is again.anchor_) == (model.base_anchor_ is model.anchor_)
    assert again.history.keys() == model.history.keys()
    for name, frame in model.history.items():
        pd.testing.assert_frame_equal(again.history[name], frame)
    for name, tensor in model.module.state_dict().items():
        assert tensor.equal(again.module.state_dict()[name]), name
    label = model.trained_on_["perturbation"].iloc[-1]
    shuffled = model.adata[:, np.random.default_rng(0).permutation(60)].copy()
    for adata in (model.adata.copy(), shuffled):
        np.testing.assert_array_equal(
            again.predict_perturbation(label, adata).X, model.predict_perturbation(label, model.adata.copy()).X
        )
        np.testing.assert_array_equal(again.get_latent(adata), model.get_latent())


def test_an_exported_model_can_be_given_its_data_and_trained_on(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    shuffled = model.adata[:, np.random.default_rng(0).permutation(60)].copy()
    again = PerturbJEPA.load(str(tmp_path / "m"), shuffled)
    assert list(again.adata.var_names) == list(model.var_names)
    np.testing.assert_array_equal(again.get_latent(), model.get_latent())
    again.train(**QUIET)
    assert len(again.history["predictor_train_loss"]) == 2  # it went on: the same training cells
    again.export(tmp_path / "m", overwrite=True)
    third = PerturbJEPA.load(str(tmp_path / "m"), False)
    np.testing.assert_array_equal(third.get_latent(shuffled), again.get_latent())


def test_gene_embeddings_and_gene_sets_travel(tmp_path: Path) -> None:
    adata = screen()
    names = [*adata.var_names, "outside"]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(61, 4)).astype(np.float32), index=names)
    sets = {"first": list(adata.var_names[:20]), "second": list(adata.var_names[15:40])}
    model = fitted(adata, gene_embeddings=table, encoder="modules", gene_sets=sets, anchor=KernelEffect(n_components=4))
    model.export(tmp_path / "m")
    again = PerturbJEPA.load(str(tmp_path / "m"), False)
    kept = again.init_params_["non_kwargs"]
    pd.testing.assert_frame_equal(kept["gene_embeddings"], table)
    assert kept["gene_sets"] == sets and again.module_names_ == ["first", "second", "remainder"]
    assert kept["anchor"].n_components == 4
    np.testing.assert_array_equal(again.get_latent(adata, give_tokens=True), model.get_latent(give_tokens=True))
    np.testing.assert_array_equal(
        again.predict_perturbation("outside", adata.copy()).X, model.predict_perturbation("outside").X
    )


def test_plain_saving_keeps_working_with_fewer_cells_than_coordinates(model: PerturbJEPA, tmp_path: Path) -> None:
    """The size of the coordinates is the model's own, not that of the data it is loaded with."""
    few = model.adata[model.adata.obs["perturbation"] == "control"][:8].copy()
    model.save(str(tmp_path / "s"))
    model.export(tmp_path / "e")
    for folder in ("s", "e"):
        again = PerturbJEPA.load(str(tmp_path / folder), few)
        assert again.module.space.loadings.shape == (10, 60)
        np.testing.assert_allclose(again.get_latent(), model.get_latent(few), atol=1e-6)


def test_a_saved_model_holds_no_text_type_of_pandas(model: PerturbJEPA, tmp_path: Path) -> None:
    """That of pandas 3 is pickled as pyarrow's, so that the folder would need what was installed where it was written."""
    frame = pd.DataFrame({"x": pd.Series(["a", None], dtype="string"), "n": [1, 2]}).set_axis(["i", "j"])
    plain = text_as_objects({"deep": {"frame": frame}, "n": 1})
    assert plain["deep"]["frame"].dtypes.tolist() == [object, np.int64] and plain["n"] == 1
    assert plain["deep"]["frame"].index.dtype == object and plain["deep"]["frame"].columns.dtype == object
    assert plain["deep"]["frame"].loc["i", "x"] == "a" and frame["x"].dtype == "string"
    model.save(str(tmp_path / "m"))
    with zipfile.ZipFile(tmp_path / "m" / "model.pt") as folder:
        (name,) = [n for n in folder.namelist() if n.endswith("data.pkl")]
        held = [str(argument) for _, argument, _ in pickletools.genops(folder.read(name)) if argument is not None]
    assert any("DataFrame" in h for h in held)
    assert not [h for h in held if "pyarrow" in h or "StringDtype" in h or "StringArray" in h]
    again = PerturbJEPA.load(str(tmp_path / "m"), False)
    assert again.trained_on_.astype(str).equals(model.trained_on_.astype(str))


# ---------------------------------------------------------------- refusals
def test_a_folder_that_is_not_empty_is_refused(model: PerturbJEPA, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty. Give a new folder, or pass overwrite=True"):
        model.export(tmp_path)
    model.export(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_class_is_refused(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    with pytest.raises(ValueError, match=r"holds a PerturbJEPA, not a ExpressionJEPA. Load it with scjepa.PerturbJEPA"):
        ExpressionJEPA.load(str(tmp_path / "m"))


def test_a_newer_format_is_refused(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "scjepa.json").read_text())
    (tmp_path / "m" / "scjepa.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(ValueError, match=r"in format 2; this scjepa reads format 1. Update it"):
        PerturbJEPA.load(str(tmp_path / "m"))
    with pytest.raises(ValueError, match=r"'\$new' is not known to this scjepa. Update it"):
        unpack({"$new": 1}, {})


def test_saved_and_exported_in_one_folder_is_refused(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    model.save(str(tmp_path / "m"), overwrite=True)
    with pytest.raises(ValueError, match=r"holds an exported model .* and a saved one .* Remove one of them"):
        PerturbJEPA.load(str(tmp_path / "m"))


def test_an_untrained_model_is_refused(tmp_path: Path) -> None:
    adata = screen()
    ExpressionJEPA.setup_anndata(adata)
    with pytest.raises(RuntimeError, match=r"export needs a trained model. Run model.train\(\) first"):
        ExpressionJEPA(adata).export(tmp_path)


def test_what_has_no_name_is_refused(model: PerturbJEPA) -> None:
    class Mine(MeanEffect):
        name = "mine"

    with pytest.raises(TypeError, match=r"anchor_ is a Mine, not one of the baselines"):
        Packer().pack({"anchor_": Mine()}, "model")
    assert Packer(strict=False).pack(Mine(), "x")["$baseline"]["name"] == "mine"  # enough to compare
    with pytest.raises(TypeError, match=r"model.x is a set, which can't be written without pickle. Use model.save"):
        Packer().pack({"x": {1}}, "model")


def test_without_safetensors_the_error_says_what_to_install(
    model: PerturbJEPA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'scjepa\[export\]'"):
        model.export(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_labels_that_the_model_does_not_know_say_how_to_go_on(model: PerturbJEPA, tmp_path: Path) -> None:
    model.export(tmp_path / "m")
    new = model.adata.copy()
    new.obs["context"] = "elsewhere"
    with pytest.raises(ValueError, match=r"elsewhere.* load it with adata=False"):
        PerturbJEPA.load(str(tmp_path / "m"), new)
