"""Training without the embedding: the same predictions, honest refusals, and the embedding later."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from lightning.pytorch.callbacks import LambdaCallback

import scjepa
from scjepa import ExpressionJEPA, PerturbJEPA

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 2}


def screen(seed: int = 0, **options) -> ad.AnnData:
    size = {"n_genes": 60, "n_regulators": 8, "n_single": 5, "n_double": 4, "n_cells": 30, "n_control": 60}
    return scjepa.datasets.simulate_perturbseq(**{**size, **options}, seed=seed)


DOUBLES = sorted(p for p in screen().obs["perturbation"].unique() if "+" in p)


def made(adata: ad.AnnData | None = None, **init) -> PerturbJEPA:
    adata = screen() if adata is None else adata
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    return PerturbJEPA(adata, **{"n_pcs": 10, "n_latent": 6, **init})


def fitted(adata: ad.AnnData | None = None, *, train: dict | None = None, **init) -> PerturbJEPA:
    model = made(adata, **init)
    model.train(**{**QUIET, "holdout": DOUBLES[:1], **(train or {})})
    return model


@pytest.fixture(scope="module")
def whole() -> PerturbJEPA:
    return fitted()


@pytest.fixture(scope="module")
def bare() -> PerturbJEPA:
    return fitted(train={"embed": False})


def same_answers(a: PerturbJEPA, b: PerturbJEPA) -> None:
    np.testing.assert_array_equal(a.predict_perturbation(DOUBLES).X, b.predict_perturbation(DOUBLES).X)
    assert a.predict_effect(DOUBLES).equals(b.predict_effect(DOUBLES))
    assert a.gates_ == b.gates_


def test_predictions_are_the_same_to_the_last_bit(whole: PerturbJEPA, bare: PerturbJEPA) -> None:
    assert whole.embedded_ and not bare.embedded_
    assert whole.residual_ and max(whole.gates_.values()) > 0  # the network has a say
    same_answers(whole, bare)
    assert "X_jepa" in whole.predict_perturbation(DOUBLES).obsm
    assert "X_jepa" not in bare.predict_perturbation(DOUBLES).obsm
    np.testing.assert_array_equal(bare.test_indices, whole.test_indices)


@pytest.mark.parametrize("options", [{"train_size": 0.8}, {"split_by": "condition"}])
def test_validation_draws_do_not_depend_on_the_embedding_either(options: dict) -> None:
    train = {**options, "early_stopping_patience": 1, "max_epochs": 4}
    a, b = (fitted(train={**train, "embed": embed}) for embed in (True, False))
    same_answers(a, b)
    assert a.history["predictor_validation_loss"].equals(b.history["predictor_validation_loss"])


def test_the_encoder_is_neither_started_nor_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_start_encoder", "_train_encoder", "_finish_encoder"):
        monkeypatch.setattr(PerturbJEPA, name, lambda *_, **__: pytest.fail("no time for the encoder"))
    model = fitted(train={"embed": False})
    assert not [name for name in model.history if name.startswith("encoder")]
    assert len(model.history["predictor_train_loss"]) == len(model.history["train_loss"]) == 2


def test_without_network_nothing_but_the_anchor_is_fitted() -> None:
    model = fitted(train={"embed": False}, residual=False)
    assert model.is_trained and model.history == {}
    np.testing.assert_array_equal(np.union1d(model.train_indices, model.test_indices), np.arange(model.adata.n_obs))
    model.train_embedding(**QUIET)
    assert len(model.history["train_loss"]) == 2  # the only stage: names as after train()
    same = fitted(residual=False)
    np.testing.assert_array_equal(model.get_latent(), same.get_latent())
    assert model.history.keys() == same.history.keys()


@pytest.mark.parametrize("ask", ["get_latent", "get_latent_representation", "get_normalized_expression"])
def test_what_needs_the_embedding_says_how_to_get_it(bare: PerturbJEPA, ask: str) -> None:
    message = rf"{ask[:10]}.* needs the embedding, which training left out \(embed=False\).*model.train_embedding\(\)"
    with pytest.raises(RuntimeError, match=message):
        getattr(bare, ask)()


def test_diagnostics_tell_of_predictions_only(bare: PerturbJEPA) -> None:
    assert bare.get_diagnostics().index.tolist()[:2] == ["variance ratio", "shift ratio"]


def test_scores_of_embeddings_say_what_is_missing(bare: PerturbJEPA) -> None:
    predicted = bare.predict_perturbation(DOUBLES[0], include_control=True)
    with pytest.raises(KeyError, match=r"is not in pred.obsm.*pred.obsm\['X_jepa'\] = model.get_latent_representation"):
        scjepa.tl.evaluate(predicted, bare.adata, profile="embedding")
    assert len(scjepa.tl.evaluate(predicted, bare.adata, metrics="l2"))


def test_the_embedding_later_is_the_one_that_training_would_have_made(whole: PerturbJEPA) -> None:
    model = fitted(train={"embed": False})
    model.train_embedding(**QUIET)
    assert model.embedded_
    np.testing.assert_array_equal(model.get_latent(), whole.get_latent())
    np.testing.assert_array_equal(model.get_normalized_expression(), whole.get_normalized_expression())
    same_answers(model, whole)
    for a, b in ((model, whole), (whole, model)):
        assert a.history.keys() <= b.history.keys()
    assert model.history["train_loss"].equals(whole.history["train_loss"])  # the predictor's
    z = model.get_latent()
    model.train_embedding(**{**QUIET, "max_epochs": 1})  # trains it on
    assert np.abs(model.get_latent() - z).max() > 1e-3
    assert model.history["encoder_train_loss"].index.tolist() == [0, 1, 2]
    same_answers(model, whole)


def test_held_out_cells_do_not_reach_a_later_embedding() -> None:
    latents = []
    for noise in (False, True):
        adata = screen()
        held = (adata.obs["perturbation"] == DOUBLES[0]).to_numpy()
        if noise:
            adata.X = adata.X.toarray()
            adata.X[held] = np.random.default_rng(0).poisson(5, (int(held.sum()), adata.n_vars))
        model = fitted(adata, train={"embed": False})
        model.train_embedding(**QUIET)
        latents.append(model.get_latent(indices=~held))
    np.testing.assert_array_equal(*latents)


def test_second_trainings(whole: PerturbJEPA) -> None:
    model = fitted(train={"embed": False})
    model.train(**QUIET, holdout=DOUBLES[:1])  # goes on, and makes up for the embedding
    np.testing.assert_array_equal(model.get_latent(), whole.get_latent())
    assert len(model.history["predictor_train_loss"]) == 4 and len(model.history["encoder_train_loss"]) == 2
    z = model.get_latent()
    model.train(**QUIET, holdout=DOUBLES[:1], embed=False)  # goes on without it: it stays
    np.testing.assert_array_equal(model.get_latent(), z)
    assert len(model.history["predictor_train_loss"]) == 6 and len(model.history["encoder_train_loss"]) == 2
    model.train(**QUIET, holdout=DOUBLES[:2], embed=False)  # other cells: from the start
    assert not model.embedded_ and "encoder_train_loss" not in model.history
    same_answers(model, fitted(train={"embed": False, "holdout": DOUBLES[:2]}))


@pytest.mark.parametrize("how", ["save", "export"])
def test_it_is_kept_on_disk(how: str, whole: PerturbJEPA, bare: PerturbJEPA, tmp_path: Path) -> None:
    if how == "export":
        pytest.importorskip("safetensors")
    getattr(bare, how)(str(tmp_path / "m"))
    again = PerturbJEPA.load(str(tmp_path / "m"), bare.adata.copy())
    assert not again.embedded_
    same_answers(again, whole)
    with pytest.raises(RuntimeError, match="needs the embedding"):
        again.get_latent()
    again.train_embedding(**QUIET)
    np.testing.assert_array_equal(again.get_latent(), whole.get_latent())
    getattr(again, how)(str(tmp_path / "n"))
    np.testing.assert_array_equal(
        PerturbJEPA.load(str(tmp_path / "n"), bare.adata.copy()).get_latent(), whole.get_latent()
    )


def test_models_saved_before_have_their_embedding(whole: PerturbJEPA) -> None:
    attributes = [name for name, _ in whole._get_user_attributes()]
    assert {"embedded_", "cell_names_"} <= set(attributes)
    fresh = made()
    assert fresh.embedded_ and PerturbJEPA.embedded_  # what a model has whose file does not say


def test_checkpoints(whole: PerturbJEPA, tmp_path: Path) -> None:
    def stop(trainer, *_) -> None:
        if trainer.current_epoch == 1:
            raise InterruptedError

    breaks = {"callbacks": [LambdaCallback(on_train_epoch_end=stop)]}
    model, options = made(), {**QUIET, "holdout": DOUBLES[:1], "embed": False, "checkpoint_dir": tmp_path / "p"}
    with pytest.raises(InterruptedError):
        model.train(**options, **breaks)
    model = made()
    model.train(**options)
    same_answers(model, whole)
    with pytest.raises(ValueError, match=r"holds another training; what differs: embed='False' there, None here"):
        made().train(**{**options, "embed": True})
    later = {**QUIET, "checkpoint_dir": tmp_path / "e"}
    with pytest.raises(InterruptedError):
        model.train_embedding(**later, **breaks)
    assert not model.embedded_  # as it was
    same_answers(model, whole)
    for _ in range(2):  # goes on; finds it finished
        model.train_embedding(**later)
        np.testing.assert_array_equal(model.get_latent(), whole.get_latent())
        same_answers(model, whole)
    model.train(**{**QUIET, "holdout": DOUBLES[:2], "embed": False})
    with pytest.raises(ValueError, match="holds another training"):  # its weights would bring the old predictor back
        model.train_embedding(**later)


@pytest.mark.parametrize(
    ("init", "train", "message"),
    [
        ({}, {"joint": True}, "embed=False leaves the encoder as it is, but joint=True trains it"),
        ({"predictor_input": "h"}, {}, r"but predictor_input='h' reads it. Make the model with predictor_input='z'"),
        ({"predictor_input": "both"}, {}, r"but predictor_input='both' reads it"),
    ],
)
def test_refused_where_predictions_read_the_embedding(init: dict, train: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**init).train(**QUIET, embed=False, **train)


def test_train_embedding_refuses_what_would_change_predictions_or_leak(bare: PerturbJEPA, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"train_embedding needs a trained model"):
        made().train_embedding(**QUIET)
    for init, train, why in [
        ({}, {"joint": True}, "joint=True"),
        ({"predictor_input": "h", "residual": False}, {}, "predictor_input='h'"),
    ]:
        with pytest.raises(ValueError, match=rf"predictions of this model read its embedding \({why}\)"):
            fitted(train={**train, "max_epochs": 1}, **init).train_embedding(**QUIET)
    with pytest.raises(ValueError, match="batch_size=1: expected"):
        bare.train_embedding(batch_size=1)
    with pytest.raises(ValueError, match="max_epochs=0: expected"):
        bare.train_embedding(0)
    bare.save(str(tmp_path / "m"))
    order = np.random.default_rng(0).permutation(bare.adata.n_obs)
    for cells, held in [
        (bare.adata[:-1].copy(), f"{bare.adata.n_obs - 1} cells that are not these"),
        (bare.adata[order].copy(), f"{bare.adata.n_obs} cells that are not these"),
        (False, "no AnnData"),
    ]:
        other = PerturbJEPA.load(str(tmp_path / "m"), cells)
        with pytest.raises(ValueError, match=rf"an AnnData of {bare.adata.n_obs} cells; the model holds {held}"):
            other.train_embedding(**QUIET)


def test_a_pretrained_encoder_is_an_embedding() -> None:
    adata = screen()
    ExpressionJEPA.setup_anndata(adata)
    encoder = ExpressionJEPA(adata, n_latent=6)
    encoder.train(**QUIET)
    models = []
    for embed in (True, False):
        PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        model = PerturbJEPA.from_pretrained(encoder, adata, n_pcs=10, predictor_input="both")
        model.train(**QUIET, embed=embed)
        assert model.embedded_
        models.append(model)
    same_answers(*models)
    np.testing.assert_array_equal(models[1].get_latent(), encoder.get_latent(adata))
    np.testing.assert_array_equal(*(m.get_normalized_expression() for m in models))
    with pytest.raises(ValueError, match="but fine_tune=True trains it"):
        models[1].train(**QUIET, fine_tune=True, embed=False)
    plain = PerturbJEPA.from_pretrained(encoder, adata, n_pcs=10, residual=False)
    plain.train(**QUIET)
    with pytest.raises(ValueError, match=r"the pretrained one .*train\(fine_tune=True\) trains it on"):
        plain.train_embedding(**QUIET)


@pytest.mark.parametrize("freeze", [True, False])
def test_query_data_of_a_reference_without_embedding(freeze: bool, bare: PerturbJEPA, whole: PerturbJEPA) -> None:
    new = screen(1)
    query = PerturbJEPA.load_query_data(new, bare, freeze=freeze)
    assert not query.embedded_
    np.testing.assert_array_equal(
        query.predict_perturbation(DOUBLES).X, whole.predict_perturbation(DOUBLES, new.copy()).X
    )
    with pytest.raises(RuntimeError, match="needs the embedding"):
        query.get_latent()
    with pytest.raises(RuntimeError, match=r"there was none on these query data. Run model.train\(\) first"):
        query.train_embedding(**QUIET)
    query.train(**QUIET, embed=False)
    assert not query.embedded_
    answers = query.predict_perturbation(DOUBLES).X
    query.train_embedding(**QUIET)
    np.testing.assert_array_equal(query.predict_perturbation(DOUBLES).X, answers)
    np.testing.assert_allclose(query.get_latent().std(0), 1, atol=5e-2)
    other = PerturbJEPA.load_query_data(screen(1), bare, freeze=freeze)
    other.train(**QUIET)  # with the default there is an embedding, as after every training
    np.testing.assert_array_equal(other.get_latent(), query.get_latent())
    np.testing.assert_array_equal(other.predict_perturbation(DOUBLES).X, answers)


def test_query_data_keep_the_embedding_of_their_reference(whole: PerturbJEPA) -> None:
    query = PerturbJEPA.load_query_data(screen(1), whole)
    query.train(**QUIET, embed=False)
    assert query.embedded_
    np.testing.assert_array_equal(query.get_latent(), whole.get_latent(screen(1)))
    with pytest.raises(ValueError, match=r"is the reference's and stays as it is.*freeze=False"):
        query.train_embedding(**QUIET)
