"""core on MuData: a model of one modality, for tests only, embeds, is kept and grows as models of AnnData do."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import MuDataLayerField

import scjepa
from scjepa.model._expression import ExpressionJEPA
from scjepa.model.core._data import in_order, is_backed, modalities, registered_features

QUIET = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


class ModalityJEPA(ExpressionJEPA):
    """ExpressionJEPA of the RNA in a MuData."""

    @classmethod
    def setup_mudata(cls, mdata: MuData, *, layer=None, input_scale="counts", target_sum=1e4, **kwargs) -> None:
        """Tell the model where to find what."""
        batch_key = None
        setup_method_args = cls._get_setup_method_args(**locals())
        fields = [MuDataLayerField(REGISTRY_KEYS.X_KEY, layer, mod_key="rna", is_count_data=False, mod_required=True)]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)


def cells() -> MuData:
    rna = scjepa.datasets.simulate_perturbseq(40, 6, 4, 2, n_cells=20, n_control=40)
    protein = ad.AnnData(np.random.default_rng(0).poisson(3.0, (rna.n_obs, 5)).astype(np.float32))
    protein.obs_names, protein.var_names = rna.obs_names, [f"p{i}" for i in range(5)]
    return MuData({"rna": rna, "protein": protein})


def made(mdata: MuData) -> ModalityJEPA:
    ModalityJEPA.setup_mudata(mdata)
    return ModalityJEPA(mdata, n_latent=5)


@pytest.fixture(scope="module")
def model() -> ModalityJEPA:
    model = made(cells())
    model.train(**QUIET)
    return model


def test_it_is_the_model_of_the_modality(model: ModalityJEPA) -> None:
    rna = cells()["rna"].copy()
    ExpressionJEPA.setup_anndata(rna)
    alone = ExpressionJEPA(rna, n_latent=5)
    alone.train(**QUIET)
    np.testing.assert_array_equal(model.get_latent(), alone.get_latent())
    np.testing.assert_array_equal(model.get_latent(cells(), indices=[3, 1]), alone.get_latent(indices=[3, 1]))


def test_it_is_saved_and_exported(model: ModalityJEPA, tmp_path) -> None:
    pytest.importorskip("safetensors")
    model.save(str(tmp_path / "saved"))
    model.export(tmp_path / "exported")
    mixed = cells()
    order = np.random.default_rng(1).permutation(40)
    mixed = MuData({"rna": mixed["rna"][:, order].copy(), "protein": mixed["protein"].copy()})
    for folder in ("saved", "exported"):
        for data in (mixed, False):
            again = ModalityJEPA.load(str(tmp_path / folder), data)
            np.testing.assert_array_equal(again.get_latent(cells()), model.get_latent())


def test_it_goes_on_with_query_data(model: ModalityJEPA) -> None:
    new = cells()[::2].copy()
    query = ModalityJEPA.load_query_data(new, model)
    query.train(**QUIET)
    np.testing.assert_array_equal(query.get_latent(), model.get_latent(new))


def test_other_data_are_refused(model: ModalityJEPA) -> None:
    with pytest.raises(TypeError, match="expected a MuData, got AnnData"):
        model.get_latent(cells()["rna"])
    with pytest.raises(KeyError, match="set up with modality 'rna'; found: \\['protein'\\]"):
        model.get_latent(MuData({"protein": cells()["protein"]}))
    with pytest.raises(KeyError, match="set up with modality 'rna'"):
        in_order(MuData({"protein": cells()["protein"]}), model.registry_)
    rna = cells()["rna"].copy()
    ExpressionJEPA.setup_anndata(rna)
    untrained = ExpressionJEPA(rna)
    untrained.is_trained_ = True
    with pytest.raises(TypeError, match="expected an AnnData, got MuData"):
        untrained.get_latent(cells())


def test_features_are_known_by_modality(model: ModalityJEPA) -> None:
    assert {name: len(f) for name, f in registered_features(model.registry_).items()} == {"rna": 40}
    assert set(modalities(cells())) == {"rna", "protein"} and not is_backed(cells())
    mdata = cells()
    mdata.obs["donor"] = "d1"
    assert in_order(mdata, model.registry_) is mdata
    mixed = MuData({"rna": mdata["rna"][:, ::-1].copy(), "protein": mdata["protein"]})
    mixed.obs["donor"] = "d1"
    back = in_order(mixed, model.registry_)
    assert list(back["rna"].var_names) == list(mdata["rna"].var_names)
    assert (back.obs["donor"] == "d1").all() and back["protein"].shape == mdata["protein"].shape
