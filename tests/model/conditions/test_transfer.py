"""Pretrained encoders and query data: what is taken over is the same, what is new is learned, nothing is forgotten."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch

import scjepa
from scjepa import ExpressionJEPA, PerturbJEPA
from scjepa.data import ConditionTable, condition_means, group_cells
from scjepa.model.conditions._growth import joined
from scjepa.train import OnlyRows

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 80, "n_regulators": 8, "n_single": 6, "n_double": 4, "n_cells": 40, "n_control": 80, **options}
    )


def encoder_of(adata: ad.AnnData, *, setup: dict | None = None, epochs: int = 3, **init) -> ExpressionJEPA:
    adata = adata.copy()
    ExpressionJEPA.setup_anndata(adata, **(setup or {}))
    model = ExpressionJEPA(adata, **{"n_latent": 8, **init})
    model.train(max_epochs=epochs, **QUIET)
    return model


def set_up(adata: ad.AnnData, **setup) -> ad.AnnData:
    PerturbJEPA.setup_anndata(adata, **{"perturbation_key": "perturbation", "context_key": "context", **setup})
    return adata


@pytest.fixture(scope="module")
def encoder() -> ExpressionJEPA:
    return encoder_of(screen())


# ---------------------------------------------------------------- pretrained encoder
def test_the_embedding_is_the_pretrained_one(encoder: ExpressionJEPA) -> None:
    adata = set_up(screen())
    model = PerturbJEPA.from_pretrained(encoder, adata, n_pcs=10)
    assert not model.is_trained
    model.train(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(model.get_latent(), encoder.get_latent(adata))
    shuffled = adata[:, np.random.default_rng(0).permutation(80)].copy()
    np.testing.assert_allclose(model.get_latent(shuffled), encoder.get_latent(adata), atol=1e-5)
    assert not any(name.startswith("encoder") for name in model.history)
    assert len(model.history["predictor_train_loss"]) == 2
    assert model.pretrained_["n_cells"] == adata.n_obs and model.pretrained_["n_common"] == 80
    label = model.trained_on_["perturbation"].iloc[0]
    assert model.predict_perturbation(label).n_vars == 80
    assert model.get_diagnostics().loc["probe R2", "value"] > 0.02  # the readout is this model's own


@pytest.mark.parametrize("kind", ["mlp", "modules"])
def test_the_embedding_is_the_pretrained_one_whatever_the_order_of_genes(kind: str) -> None:
    source = encoder_of(screen(), encoder=kind, n_modules=4, epochs=1)
    adata = set_up(screen()[:, np.random.default_rng(0).permutation(80)].copy())
    model = PerturbJEPA.from_pretrained(source, adata, n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    np.testing.assert_allclose(model.get_latent(), source.get_latent(adata), atol=1e-5)
    assert model.is_trained and list(model.train_indices) == list(range(adata.n_obs))


@pytest.mark.parametrize("kind", ["mlp", "modules"])
def test_absent_genes_add_nothing_and_depth_is_matched(kind: str) -> None:
    """On a part of the genes the embedding is that of the full cell with the other genes at their mean."""
    source = encoder_of(screen(), encoder=kind, n_modules=4)
    kept = np.sort(np.random.default_rng(1).choice(80, 50, replace=False))
    adata = set_up(screen()[:, kept].copy())
    model = PerturbJEPA.from_pretrained(source, adata, n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    assert model.pretrained_["n_common"] == 50
    encoder, own = source.module.encoder, model.module.encoder
    x = torch.rand(7, 50)
    full = encoder.mean.repeat(7, 1)
    full[:, kept] = x
    torch.testing.assert_close(own(x), encoder(full), atol=1e-5, rtol=1e-4)
    z, wanted = model.get_latent(), source.get_latent(screen())
    agreement = [np.corrcoef(z[:, j], wanted[:, j])[0, 1] for j in range(8)]
    assert np.mean(agreement) > 0.6
    # without matching depth over the genes in common the values would be about 80 / 50 of what the encoder knows
    totals = np.asarray(adata.X.sum(1)).ravel()
    assert model.reference_unit_ == pytest.approx(np.median(1e4 / totals), rel=0.05)


def test_genes_that_the_encoder_does_not_know_are_not_read() -> None:
    source = encoder_of(screen()[:, :60].copy())
    adata = set_up(screen())
    model = PerturbJEPA.from_pretrained(source, adata, n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    assert model.pretrained_["n_common"] == 60
    x, other = torch.rand(5, 80), torch.rand(5, 80)
    other[:, :60] = x[:, :60]
    own = model.module.encoder
    torch.testing.assert_close(own(x), own(other))
    assert model.predict_perturbation(model.trained_on_["perturbation"].iloc[0]).n_vars == 80
    before = own.skip.weight.detach().clone()
    model.train(max_epochs=1, fine_tune=True, **QUIET)
    after = model.module.encoder.skip.weight.detach()
    assert (after[:, 60:] != 0).any() and not torch.equal(after[:, :60], before[:, :60])
    z = model.get_latent()
    np.testing.assert_allclose(z.std(0), 1, atol=5e-2)  # now it is this model's embedding


def test_lognormalized_data_get_the_same_embedding(encoder: ExpressionJEPA) -> None:
    adata = screen()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    model = PerturbJEPA.from_pretrained(encoder, set_up(adata), n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    np.testing.assert_allclose(model.get_latent(), encoder.get_latent(screen()), atol=1e-3)


def test_a_batch_aware_encoder_encodes_with_its_mean_batch() -> None:
    source = encoder_of(screen(batch_effect=0.5), setup={"batch_key": "batch"}, batch_aware=True)
    adata = set_up(screen(batch_effect=0.5))
    model = PerturbJEPA.from_pretrained(source, adata, n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    bare = screen(batch_effect=0.5)
    del bare.obs["batch"]
    np.testing.assert_allclose(model.get_latent(), source.get_latent(bare), atol=1e-4)


def test_it_is_saved_exported_and_trained_from_the_start_again(encoder: ExpressionJEPA, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    encoder.export(tmp_path / "encoder")
    adata = set_up(screen())
    model = PerturbJEPA.from_pretrained(str(tmp_path / "encoder"), adata, n_pcs=10, residual=False)
    model.train(max_epochs=1, **QUIET)
    model.save(str(tmp_path / "s"))
    model.export(tmp_path / "e")
    for folder in ("s", "e"):
        again = PerturbJEPA.load(str(tmp_path / folder), adata)
        np.testing.assert_array_equal(again.get_latent(), model.get_latent())
        again.train(max_epochs=1, fine_tune=True, **QUIET)
        again.train(max_epochs=1, holdout=["state B"], **QUIET)  # other cells: from the pretrained encoder again
        np.testing.assert_array_equal(again.get_latent(), encoder.get_latent(adata))


def test_what_the_encoder_saw_of_held_out_cells_is_said(
    encoder: ExpressionJEPA, caplog: pytest.LogCaptureFixture
) -> None:
    adata = set_up(screen())
    held = sorted(p for p in adata.obs["perturbation"].unique() if "+" in p)[0]
    n = int((adata.obs["perturbation"] == held).sum())
    model = PerturbJEPA.from_pretrained(encoder, adata, n_pcs=10, residual=False)
    with caplog.at_level(logging.WARNING):
        model.train(max_epochs=1, holdout=[held], **QUIET)
    assert f"the pretrained encoder saw {n} of the {n} held-out cells" in caplog.text
    caplog.clear()
    apart = encoder_of(screen()[(screen().obs["perturbation"] != held).to_numpy()].copy(), epochs=1)
    model = PerturbJEPA.from_pretrained(apart, adata, n_pcs=10, residual=False)
    with caplog.at_level(logging.WARNING):
        model.train(max_epochs=1, holdout=[held], **QUIET)
    assert "pretrained encoder saw" not in caplog.text


def test_refusals_of_from_pretrained(encoder: ExpressionJEPA) -> None:
    adata = set_up(screen())
    with pytest.raises(TypeError, match="expression_jepa: expected an ExpressionJEPA or its folder, got ndarray"):
        PerturbJEPA.from_pretrained(np.ones(3), adata)
    with pytest.raises(ValueError, match=r"'n_latent' can't be chosen: the encoder is the pretrained one"):
        PerturbJEPA.from_pretrained(encoder, adata, n_latent=4)
    untrained = screen()
    ExpressionJEPA.setup_anndata(untrained)
    with pytest.raises(RuntimeError, match="from_pretrained needs a trained ExpressionJEPA"):
        PerturbJEPA.from_pretrained(ExpressionJEPA(untrained), adata)
    other = screen()
    other.var_names = [g if i < 30 else f"other{i}" for i, g in enumerate(other.var_names)]
    with pytest.raises(ValueError, match=r"30 of adata's 80 genes are among the 80 .* expected at least 40"):
        PerturbJEPA.from_pretrained(encoder, set_up(other))
    model = PerturbJEPA(adata, n_pcs=10)
    with pytest.raises(ValueError, match=r"fine_tune=True: there is no pretrained encoder"):
        model.train(fine_tune=True, **QUIET)
    model = PerturbJEPA.from_pretrained(encoder, adata, n_pcs=10)
    with pytest.raises(ValueError, match=r"joint=True trains the pretrained encoder on. Say so with fine_tune=True"):
        model.train(joint=True, **QUIET)


# ---------------------------------------------------------------- query data
def parts(**options) -> tuple[ad.AnnData, ad.AnnData, list[str]]:
    """A screen cut in two: the query has two singles that the reference never saw, and a context of its own."""
    adata = screen(contexts=("state A", "state B", "state C"), **options)
    singles = sorted(p for p in adata.obs["perturbation"].unique() if "+" not in p and p != "control")
    new = singles[:2]
    label = adata.obs["perturbation"].astype(str)
    involved = label.str.split("+").map(lambda names: bool(set(names) & set(new)))
    third = adata.obs["context"] == "state C"
    reference = adata[(~involved & ~third).to_numpy()].copy()
    query = adata[((involved & ~label.str.contains("+", regex=False)) | (label == "control") | third).to_numpy()].copy()
    query.obs_names = [f"q{i}" for i in range(query.n_obs)]
    return reference, query, new


@pytest.fixture(scope="module")
def reference() -> PerturbJEPA:
    old = set_up(parts()[0], kind_key="kind", batch_key="batch")
    model = PerturbJEPA(old, n_latent=8, n_pcs=10)
    model.train(max_epochs=5, **QUIET)
    return model


@pytest.fixture(scope="module")
def query(reference: PerturbJEPA) -> PerturbJEPA:
    cells = parts()[1]
    cells.obs["kind"] = cells.obs["kind"].astype(str).replace({"OE": "CRISPRa"})
    cells.obs["batch"] = "new batch"
    model = PerturbJEPA.load_query_data(cells, reference)
    model.train(max_epochs=5, **QUIET)
    return model


def effect(model: PerturbJEPA, label: str, context: str, adata: ad.AnnData | None = None) -> np.ndarray:
    out = model.predict_perturbation(label, adata, context=context, include_control=True)
    control = (out.obs["jepa_prediction"] == "control").to_numpy()
    return out.X[~control].mean(0) - out.X[control].mean(0)


def true_effect(adata: ad.AnnData, model: PerturbJEPA, label: str, context: str) -> np.ndarray:
    x = model._read(adata).rows(slice(None))
    here = (adata.obs["context"] == context).to_numpy()
    mean = lambda name: x[here & (adata.obs["perturbation"] == name).to_numpy()].mean(0)
    return mean(label) - mean("control")


def test_before_training_known_perturbations_are_predicted_in_a_new_context(reference: PerturbJEPA) -> None:
    cells = parts()[1]
    model = PerturbJEPA.load_query_data(cells, reference)
    assert model.adata is cells and model.is_trained
    np.testing.assert_array_equal(model.get_latent(), reference.get_latent(cells))
    label = reference.trained_on_["perturbation"].iloc[0]
    mine = model.predict_perturbation(label, context="state C")
    theirs = reference.predict_perturbation(label, cells, context="state C")
    np.testing.assert_array_equal(mine.X, theirs.X)
    assert set(mine.obs["context"]) == {"state C"}


def test_names_are_added_behind_the_known_ones(reference: PerturbJEPA, query: PerturbJEPA) -> None:
    new = parts()[2]
    n = len(reference.actions_)
    assert query.actions_[:n] == reference.actions_ and query.actions_[n:] == tuple(new)
    assert [*query._vocabulary.kinds] == [
        *[*reference._vocabulary.kinds],
        *[k for k in [*query._vocabulary.kinds] if k not in [*reference._vocabulary.kinds]],
    ]
    assert set(new) <= set(query.trained_actions_) and set(reference.trained_actions_) <= set(query.trained_actions_)
    assert len(query.trained_on_) > len(reference.trained_on_)


def test_nothing_old_is_touched_and_everything_new_moves(reference: PerturbJEPA, query: PerturbJEPA) -> None:
    old, now = reference.module.state_dict(), query.module.state_dict()
    n, k = len(reference.actions_), len([*reference._vocabulary.kinds])
    for name, tensor in old.items():
        held = now[name]
        if name.endswith("action_encoder.embedding.weight"):
            assert torch.equal(held[:, :n], tensor)
            assert ((held[:, n:] - query.start_[name][:, n:]).abs() > 1e-4).any(0).all()
        elif name.endswith("action_encoder.kind.weight"):
            assert torch.equal(held[:k], tensor)
        else:
            assert torch.equal(held, tensor), name
    np.testing.assert_array_equal(query.get_latent(), reference.get_latent(query.adata))


def test_what_is_known_is_not_forgotten() -> None:
    """The anchor is fitted anew with what is new: known effects move by less than 5 %, and not away from the truth."""
    old, cells, _ = parts(n_regulators=16, n_single=12, n_double=8, n_cells=100, n_control=200)
    before = PerturbJEPA(set_up(old), n_latent=8, n_pcs=10)
    before.train(max_epochs=2, **QUIET)
    after = PerturbJEPA.load_query_data(cells, before)
    after.train(max_epochs=2, **QUIET)
    truth = scjepa.datasets.true_effects(old)
    change, error = [], []
    for label, context in zip(*(before.trained_on_[c] for c in ("perturbation", "context")), strict=True):
        first, second = (effect(m, label, context, old) for m in (before, after))
        change.append(np.linalg.norm(second - first) / np.linalg.norm(first))
        real = truth.loc[(label, context)].to_numpy()
        error.append([np.linalg.norm(first - real), np.linalg.norm(second - real)])
    assert np.mean(change) < 0.05
    assert np.mean(error, axis=0)[1] < 1.02 * np.mean(error, axis=0)[0]
    labels = list(before.trained_on_["perturbation"].unique())
    first, second = (m.predict_perturbation(labels, old).X for m in (before, after))
    assert np.linalg.norm(second - first) < 0.01 * np.linalg.norm(first)


def test_new_perturbations_are_predicted_better_than_no_change(query: PerturbJEPA) -> None:
    for label in parts()[2]:
        for context in ("state A", "state C"):
            truth = true_effect(query.adata, query, label, context)
            assert np.linalg.norm(effect(query, label, context) - truth) < 0.7 * np.linalg.norm(truth)


def test_new_genes_combine_with_known_ones(reference: PerturbJEPA, query: PerturbJEPA) -> None:
    new, known = parts()[2][0], reference.trained_actions_[0]
    both = effect(query, f"{known}+{new}", "state A")
    alone = effect(query, known, "state A")
    assert np.linalg.norm(both - alone) > 0.1 * np.linalg.norm(effect(query, new, "state A"))


def test_query_models_are_saved_exported_and_are_references_themselves(query: PerturbJEPA, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    query.save(str(tmp_path / "s"))
    query.export(tmp_path / "e")
    label = parts()[2][0]
    for folder in ("s", "e"):
        again = PerturbJEPA.load(str(tmp_path / folder), query.adata)
        np.testing.assert_array_equal(again.predict_perturbation(label).X, query.predict_perturbation(label).X)
    third = PerturbJEPA.load_query_data(parts()[1], str(tmp_path / "e"))
    assert third.actions_ == query.actions_
    np.testing.assert_array_equal(third.get_latent(), query.get_latent())
    again.train(max_epochs=1, **QUIET)  # goes on, still only with what is new
    n = len(query.actions_) - 2
    name = "predictors.0.action_encoder.embedding.weight"
    assert torch.equal(again.module.state_dict()[name][:, :n], query.module.state_dict()[name][:, :n])


def test_without_freezing_everything_trains(reference: PerturbJEPA) -> None:
    model = PerturbJEPA.load_query_data(parts()[1], reference, freeze=False)
    model.train(max_epochs=1, **QUIET)
    old, now = reference.module.state_dict(), model.module.state_dict()
    for name in ("encoder.skip.weight", "predictors.0.predictor.blocks.0.weight"):
        if name in old:
            assert not torch.equal(old[name], now[name]), name
    assert torch.equal(old["space.loadings"], now["space.loadings"])  # coordinates stay: weights mean something there


def test_only_new_contexts_leave_the_network_alone(reference: PerturbJEPA, caplog: pytest.LogCaptureFixture) -> None:
    cells = parts()[1]
    known = cells.obs["perturbation"].isin([*reference.trained_on_["perturbation"], "control"])
    cells = cells[(known & (cells.obs["context"] == "state C")).to_numpy()].copy()
    model = PerturbJEPA.load_query_data(cells, reference)
    with caplog.at_level(logging.INFO):
        model.train(max_epochs=1, **QUIET)
    assert "no new perturbation or kind to learn" in caplog.text
    assert model.residual_ and model.is_trained
    label = reference.trained_on_["perturbation"].iloc[0]
    truth = true_effect(cells, model, label, "state C")
    before = effect(PerturbJEPA.load_query_data(cells.copy(), reference), label, "state C")
    after = effect(model, label, "state C")
    assert np.linalg.norm(after - truth) < np.linalg.norm(before - truth)  # the anchor has seen it now


def test_new_batches_of_a_batch_aware_encoder_are_aligned() -> None:
    adata = screen(batch_effect=0.6, n_control=160)
    first = (adata.obs["batch"] == adata.obs["batch"].iloc[0]).to_numpy()
    source = encoder_of(adata[~first].copy(), setup={"batch_key": "batch"}, batch_aware=True, epochs=10)
    cells = adata[first].copy()
    cells.obs["batch"] = cells.obs["batch"].cat.remove_unused_categories()
    model = ExpressionJEPA.load_query_data(cells, source)
    n = source.module.encoder.n_batch
    assert model.module.encoder.n_batch == n + 1
    untrained = model.get_latent()
    model.train(max_epochs=10, **QUIET)
    trained = model.get_latent()
    old, now = source.module.state_dict(), model.module.state_dict()
    for name, tensor in old.items():
        if "offset" not in name:
            assert torch.equal(now[name], tensor), name
    assert torch.equal(now["encoder.offset.weight"][:n], old["encoder.offset.weight"])
    context = cells.obs["context"].to_numpy()
    theirs, place = source.get_latent(), source.adata.obs["context"].to_numpy()
    gap = lambda z: np.mean(
        [np.linalg.norm(z[context == c].mean(0) - theirs[place == c].mean(0)) for c in set(context)]
    )
    assert gap(trained) < 0.5 * gap(untrained)
    np.testing.assert_array_equal(model.get_latent(source.adata), source.get_latent())


def test_an_encoder_without_batches_has_nothing_to_train(encoder: ExpressionJEPA) -> None:
    cells = screen(seed=1)
    model = ExpressionJEPA.load_query_data(cells, encoder)
    np.testing.assert_array_equal(model.get_latent(), encoder.get_latent(cells))
    model.train(max_epochs=1, **QUIET)
    np.testing.assert_array_equal(model.get_latent(), encoder.get_latent(cells))
    assert list(model.train_indices) == list(range(cells.n_obs))


def test_refusals_of_load_query_data(encoder: ExpressionJEPA, reference: PerturbJEPA) -> None:
    with pytest.raises(TypeError, match="reference_model: expected a ExpressionJEPA or its folder, got PerturbJEPA"):
        ExpressionJEPA.load_query_data(screen(), reference)
    with pytest.raises(TypeError, match="adata: expected an AnnData, got ndarray"):
        ExpressionJEPA.load_query_data(np.ones((3, 80)), encoder)
    untrained = screen()
    ExpressionJEPA.setup_anndata(untrained)
    with pytest.raises(RuntimeError, match="load_query_data needs a trained reference model"):
        ExpressionJEPA.load_query_data(screen(), ExpressionJEPA(untrained))
    with pytest.raises(ValueError, match="10 of the model's 80 genes are missing"):
        ExpressionJEPA.load_query_data(screen()[:, :70].copy(), encoder)
    cells = parts()[1]
    del cells.obs["kind"]
    with pytest.raises(KeyError, match="kind_key='kind' is not a column"):
        PerturbJEPA.load_query_data(cells, reference)
    model = PerturbJEPA.load_query_data(parts()[1], reference)
    with pytest.raises(ValueError, match="the reference of these query data was trained with joint=False: do the same"):
        model.train(joint=True, **QUIET)


def test_only_rows_masks_gradients_and_undoes_decay() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    mask = torch.tensor([False, True, False])
    callback = OnlyRows([parameter], [mask])
    holder = type("Plan", (), {"module": type("M", (), {"encoder": torch.nn.BatchNorm1d(2)})()})()
    callback.on_train_start(None, holder)
    callback.on_train_epoch_start(None, holder)
    assert not holder.module.encoder.training
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    (parameter * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    callback.on_before_optimizer_step(None, holder, optimizer)
    assert parameter.grad.tolist() == [0.0, 2.0, 0.0]
    optimizer.step()
    assert parameter[0] < 1  # weight decay moved it
    callback.on_train_batch_end(None, holder)
    assert parameter[[0, 2]].tolist() == [1.0, 1.0] and parameter[1] < 1


# ---------------------------------------------------------------- conditions of both
def conditions(labels: str, n: list[int], **columns) -> ConditionTable:
    m = len(labels)
    return ConditionTable(
        tuple((label,) for label in labels),
        np.array(["x"] * m, dtype=object),
        np.zeros((m, 2)),
        np.ones((m, 2)),
        np.array(n),
        **columns,
    )


def test_joined_conditions_pool_their_noise_by_cells() -> None:
    first = conditions("AB", [10, 20], variance=np.array([1.0, 4.0]), n_controls=np.array([5.0, 6.0]))
    second = conditions("BC", [60, 30], variance=np.array([3.0, 0.0]), n_controls=np.array([7.0, 8.0]))
    both = joined(first, second)
    assert both.actions == (("A",), ("B",), ("C",)) and both.n_cells.tolist() == [10, 80, 30]
    np.testing.assert_allclose(both.variance, [0.25 * 1 + 0.75 * 3, 0.25 * 4])  # 30 of 120 cells and 90
    assert both.n_controls.tolist() == [5, 6 + 7, 8]
    assert first.variance.tolist() == [1, 4] and first.n_controls.tolist() == [5, 6]  # not written into
    other = joined(second, first)
    np.testing.assert_allclose(other.variance, both.variance)
    assert dict(zip(other.actions, other.n_controls, strict=True)) == dict(
        zip(both.actions, both.n_controls, strict=True)
    )


@pytest.mark.parametrize("lacks", [0, 1])
def test_noise_that_one_of_both_does_not_know_is_unknown(lacks: int) -> None:
    parts = [
        conditions("AB", [10, 20], variance=np.ones(2), n_controls=np.array([5.0, 6.0])),
        conditions("BC", [60, 30], variance=np.ones(2), n_controls=np.array([5.0, 6.0])),
    ]
    parts[lacks] = conditions(("AB", "BC")[lacks], [10, 20])
    both = joined(*parts)
    assert both.variance is None and both.n_controls is None
    assert both.perturbed.shape == (3, 2)


def test_joined_halves_of_a_screen_are_the_screen() -> None:
    """Cells of every group dealt to two halves: means and counts are those of all cells, the variance nearly."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "A", "B"], 400)
    x, half = rng.gamma(1.0, 1.0, (1200, 6)), np.arange(1200) % 2 == 0
    whole = condition_means(x, group_cells(labels))
    both = joined(*(condition_means(x[part], group_cells(labels[part])) for part in (half, ~half)))
    for name in ("control", "perturbed", "n_cells", "n_controls"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name), rtol=1e-10)
    np.testing.assert_allclose(both.variance, whole.variance, rtol=0.01)
