"""The same list for every model class: setup, training, latents, saving, bad input, determinism, distribution."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from lightning.pytorch.callbacks import LambdaCallback

from tests.conformance.cases import CASES, TRAIN, screen

pytestmark = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bit for bit the same needs the same number of threads, which scanpy's compiled functions set for all OpenMP."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> dict:
    """Trained models, made once per class and shared by the tests that do not change them."""
    return {}


def model_of(trained: dict, name: str):
    if name not in trained:
        trained[name] = CASES[name].make(screen())
    return trained[name]


def test_latent_shape_order_and_dtype(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    z = model.get_latent_representation()
    assert z.shape == (model.adata.n_obs, 6)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    shuffled = np.random.default_rng(0).permutation(model.adata.n_obs)
    np.testing.assert_allclose(model.get_latent_representation(indices=shuffled), z[shuffled], atol=1e-5)
    np.testing.assert_allclose(model.get_latent(batch_size=17), z, atol=1e-5)
    mask = np.arange(model.adata.n_obs) < 5
    np.testing.assert_allclose(model.get_latent(indices=mask), z[:5], atol=1e-5)


def test_latent_is_standardized_over_training_cells(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    z = model.get_latent(indices=model.train_indices)
    np.testing.assert_allclose(z.mean(0), 0, atol=2e-2)
    np.testing.assert_allclose(z.std(0), 1, atol=5e-2)


def test_one_cell(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    one = model.get_latent(model.adata[[3]].copy())
    np.testing.assert_allclose(one, model.get_latent(indices=[3]), atol=1e-5)


def test_tokens(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    if model.module.encoder.kind == "modules":
        assert model.get_latent(give_tokens=True).shape == (model.adata.n_obs, 4, 64)
    else:
        with pytest.raises(ValueError, match="needs encoder='modules'"):
            model.get_latent(give_tokens=True)


def test_save_load_equality(trained: dict, name: str, tmp_path: Path) -> None:
    model = model_of(trained, name)
    model.save(str(tmp_path / "m"))
    again = type(model).load(str(tmp_path / "m"), model.adata)
    np.testing.assert_array_equal(again.get_latent(), model.get_latent())
    if CASES[name].asks:
        np.testing.assert_array_equal(CASES[name].predict(again), CASES[name].predict(model))


def test_load_without_data(trained: dict, name: str, tmp_path: Path) -> None:
    model = model_of(trained, name)
    model.save(str(tmp_path / "m"))
    again = type(model).load(str(tmp_path / "m"), adata=False)
    assert again.adata is None
    np.testing.assert_array_equal(again.get_latent(model.adata.copy()), model.get_latent())
    with pytest.raises(ValueError, match="holds no AnnData"):
        again.get_latent()
    if CASES[name].predicts:
        case, seen = CASES[name], model.trained_on_["perturbation"].iloc[0]
        np.testing.assert_allclose(case.ask(again, seen, model.adata.copy()), case.ask(model, seen), atol=1e-5)


def test_export_round_trip(trained: dict, name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = model_of(trained, name)
    model.export(tmp_path / "m")
    again = type(model).load(str(tmp_path / "m"))
    assert again.adata is None
    permuted = model.adata[:, np.random.default_rng(1).permutation(model.adata.n_vars)].copy()
    np.testing.assert_array_equal(again.get_latent(permuted), model.get_latent())
    with_data = type(model).load(str(tmp_path / "m"), permuted)
    np.testing.assert_array_equal(with_data.get_latent(), model.get_latent())
    if CASES[name].asks:
        np.testing.assert_array_equal(CASES[name].predict(with_data), CASES[name].predict(model))


def test_query_data_are_embedded_as_the_reference_does_before_and_after_training(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    new = model.adata[::2].copy()
    new.obs["batch"] = np.where(np.arange(new.n_obs) % 2, new.obs["batch"].astype(str), "new batch")
    new.obs["perturbation"] = new.obs["perturbation"].astype(str).replace("R04", "another")
    query = type(model).load_query_data(new, model)
    aware = model.module.encoder.n_batch
    known = np.flatnonzero(new.obs["batch"] != "new batch") if aware else np.arange(new.n_obs)
    wanted = model.get_latent(new, indices=known)
    np.testing.assert_array_equal(query.get_latent(indices=known), wanted)
    query.train(**{**TRAIN, **CASES[name].train})
    np.testing.assert_array_equal(query.get_latent(indices=known), wanted)
    np.testing.assert_array_equal(query.get_latent(model.adata.copy()), model.get_latent())
    assert np.isfinite(query.get_latent()).all()
    if CASES[name].asks:
        assert np.isfinite(CASES[name].predict(query)).all()


def test_an_interrupted_training_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    def stop(trainer, *_) -> None:
        if trainer.current_epoch == 1:
            raise InterruptedError

    for last in (False, True):  # the second call goes on, the third finds a finished training
        model = CASES[name].make(screen(), train=False)
        breaks = [] if last else [LambdaCallback(on_train_epoch_end=stop)]
        options = {**TRAIN, **CASES[name].train, "max_epochs": 2, "checkpoint_dir": tmp_path, "callbacks": breaks}
        if last:
            model.train(**options)
        else:
            with pytest.raises(InterruptedError):
                model.train(**options)
    whole = CASES[name].make(screen(), max_epochs=2)
    again = CASES[name].make(screen(), max_epochs=2, checkpoint_dir=tmp_path)
    for result in (model, again):
        np.testing.assert_array_equal(result.get_latent(), whole.get_latent())
        assert len(result.history["train_loss"]) == 2
        if CASES[name].asks:
            np.testing.assert_array_equal(CASES[name].predict(result), CASES[name].predict(whole))


def test_genes_are_matched_by_name(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    order = np.random.default_rng(1).permutation(model.adata.n_vars)
    permuted = model.adata[:, order].copy()
    np.testing.assert_allclose(model.get_latent(permuted), model.get_latent(), atol=1e-5)


def test_missing_genes_are_named_and_counted(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    gene = model.adata.var_names[2]
    with pytest.raises(ValueError, match=f"2 of the model's 60 genes are missing.*'{gene}'"):
        model.get_latent(model.adata[:, np.delete(np.arange(60), [2, 5])].copy())


def test_unknown_and_missing_labels_do_not_matter_for_latents(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    bare = ad.AnnData(model.adata.X.copy(), var=model.adata.var[[]].copy())
    if model.module.encoder.n_batch:
        bare.obs["batch"] = model.adata.obs["batch"].to_numpy()
    np.testing.assert_allclose(model.get_latent(bare), model.get_latent(), atol=1e-5)
    bare.obs["perturbation"] = "never heard of"
    np.testing.assert_allclose(model.get_latent(bare), model.get_latent(), atol=1e-5)


def test_unknown_batch(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    query = model.adata[:5].copy()
    query.obs["batch"] = "new batch"
    if model.module.encoder.n_batch:
        with pytest.raises(ValueError, match="batches that the model does not know: 'new batch'"):
            model.get_latent(query)
    else:
        assert model.get_latent(query).shape == (5, 6)


def test_view_works(name: str) -> None:
    adata = screen()
    view = adata[np.arange(0, adata.n_obs, 2)]
    assert view.is_view
    assert CASES[name].make(view).get_latent().shape[0] == len(np.arange(0, adata.n_obs, 2))


def test_sparse_is_dense_and_counts_are_normalized(trained: dict, name: str) -> None:
    counts = screen()
    dense, normalized = counts.copy(), counts.copy()
    dense.X = dense.X.toarray()
    sc.pp.normalize_total(normalized, target_sum=1e4)
    sc.pp.log1p(normalized)
    reference = model_of(trained, name).get_latent()
    np.testing.assert_allclose(CASES[name].make(dense).get_latent(), reference, atol=1e-4)
    np.testing.assert_allclose(CASES[name].make(normalized).get_latent(), reference, atol=2e-2)
    model = model_of(trained, name)
    np.testing.assert_allclose(model.get_latent(dense), reference, atol=1e-5)
    np.testing.assert_allclose(model.get_latent(normalized), reference, atol=1e-3)


def test_same_seed_same_numbers(trained: dict, name: str) -> None:
    np.random.seed(5)  # the global generators must not matter
    again = CASES[name].make(screen())
    np.testing.assert_array_equal(again.get_latent(), model_of(trained, name).get_latent())
    other = CASES[name].make(screen(), seed=1)
    assert np.abs(other.get_latent() - again.get_latent()).max() > 1e-4


def test_neighbors_and_umap_run_on_the_latent(trained: dict, name: str) -> None:
    adata = model_of(trained, name).adata.copy()
    adata.obsm["X_jepa"] = model_of(trained, name).get_latent()
    sc.pp.neighbors(adata, use_rep="X_jepa", n_neighbors=5)
    sc.tl.umap(adata, maxiter=5)
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2)


def test_normalized_expression_reads_out_cells(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    frame = model.get_normalized_expression()
    assert frame.shape == model.adata.shape
    assert (frame.to_numpy() >= 0).all()
    truth = model._read(model.adata).rows(slice(None))
    baseline = ((truth - truth.mean(0)) ** 2).sum()
    assert ((truth - frame.to_numpy()) ** 2).sum() < 0.95 * baseline
    genes = list(model.var_names[[3, 1]])
    part = model.get_normalized_expression(indices=[4, 2], gene_list=genes)
    pd.testing.assert_frame_equal(part, frame.iloc[[4, 2]][genes], atol=1e-5)
    with pytest.raises(ValueError, match="gene_list: 1 genes are not among the model's: 'nogene'"):
        model.get_normalized_expression(gene_list=["nogene"])


def test_diagnostics(trained: dict, name: str) -> None:
    table = model_of(trained, name).get_diagnostics()
    assert {"mean std", "RankMe", "LiDAR", "probe R2"} <= set(table.index)
    assert set(table["verdict"]) <= {"ok", "check"}
    assert abs(table.loc["mean std", "value"] - 1) < 0.1


def test_history(trained: dict, name: str) -> None:
    history = model_of(trained, name).history
    assert len(history["train_loss"]) == 1
    assert np.isfinite(history["train_loss"].to_numpy(dtype=float)).all()
    assert any(key.endswith("rankme") for key in history)


def test_validation_and_early_stopping(name: str) -> None:
    model = CASES[name].make(
        screen(), train_size=0.8, max_epochs=30, early_stopping_patience=1, early_stopping_min_delta=1e9
    )
    assert 0 < len(model.validation_indices) < 0.25 * model.adata.n_obs
    assert len(model.history["validation_loss"]) < 30


def test_holdout_is_never_touched(name: str) -> None:
    """Whatever the held-out cells hold, the trained model is the same."""
    case = CASES[name]
    adata, changed = screen(), screen()
    if case.label_key is None:
        cells, options = changed.obs["context"] == "state B", {"split_by": "context", "holdout": ["state B"]}
    else:
        label = sorted(x for x in changed.obs["perturbation"].unique() if "+" in x)[0]
        cells, options = changed.obs["perturbation"] == label, {"holdout": [label]}
    x = changed.X.toarray()
    x[cells.to_numpy()] = np.random.default_rng(0).poisson(5, (int(cells.sum()), x.shape[1]))
    changed.X = sp.csr_matrix(x.astype(np.float32))
    a, b = case.make(adata, **options), case.make(changed, **options)
    assert set(a.test_indices) == set(np.flatnonzero(cells))
    kept = np.flatnonzero(~cells)
    np.testing.assert_array_equal(a.get_latent(indices=kept), b.get_latent(indices=kept))
    if case.predicts:
        np.testing.assert_array_equal(case.ask(a, label), case.ask(b, label))


def test_predictions_stay_within_what_training_cells_show(name: str) -> None:
    case = CASES[name]
    if not case.predicts:
        pytest.skip("this class does not predict cells")
    label = sorted(x for x in screen().obs["perturbation"].unique() if "+" in x)[0]
    model = case.make(screen(), holdout=[label])
    most = model._read(model.adata, model.train_indices).values.max(0).toarray().ravel()
    predicted = case.ask(model, [label, "+".join(model.actions_)])
    assert (predicted >= 0).all() and (predicted <= most).all()


@pytest.mark.filterwarnings("ignore:No training condition could be left out")
@pytest.mark.filterwarnings("ignore:The model abstains on")
def test_effects_and_reliability(trained: dict, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if not case.predicts:
        pytest.skip("this class does not predict cells")
    model = model_of(trained, name)
    covariates = list(model._design.covariates.values())
    seen, pair = model.trained_on_["perturbation"].iloc[0], "+".join(model.actions_[:3])
    model.save(str(tmp_path / "m"))
    again = type(model).load(str(tmp_path / "m"), model.adata)

    known = model.get_reliability()
    groups = model._design.groups(model.adata.obs)
    columns = ["n_cells", "n_controls", "effect_size", "noise", "measured", "reliability", "p_value", "trained"]
    assert list(known) == ["perturbation", *covariates, *columns]
    assert len(known) == len(groups) == len(known.drop_duplicates(["perturbation", *covariates]))
    assert known["trained"].all() and known["n_cells"].sum() == sum(map(len, groups.cells))
    assert np.isfinite(known[columns].to_numpy(dtype=float)).all()
    pd.testing.assert_frame_equal(again.get_reliability(), known)

    if case.train.get("joint"):
        for which in (model, again):
            with pytest.raises(ValueError, match="the model was trained with joint=True: intervals come from"):
                which.predict_effect(seen)
        return
    effects = model.predict_effect([seen, pair])
    rest = ["gene", "effect", "lower", "upper", "distance", "support", "abstain"]
    assert list(effects) == ["perturbation", *covariates, *rest]
    assert len(effects) == 2 * 2 * model.adata.n_vars  # two labels in two contexts
    assert not effects.duplicated(["perturbation", *covariates, "gene"]).any()
    values = effects[["lower", "effect", "upper", "distance"]]
    assert np.isfinite(values).all(axis=None) and values["distance"].between(0, 1).all()
    assert (values["lower"] <= values["effect"]).all() and (values["effect"] <= values["upper"]).all()
    assert (values["upper"] > values["lower"]).all() and effects["abstain"].dtype == bool
    assert set(effects["support"]) <= {"trained", "near", "far"}
    pd.testing.assert_frame_equal(again.predict_effect([seen, pair]), effects)


def test_predictions_do_not_need_the_embedding(name: str, tmp_path: Path) -> None:
    """Where predictions do not read it, a model without it predicts the same, and can be given it later."""
    case = CASES[name]
    if not case.asks:
        pytest.skip("this class is its embedding")
    reads = case.train.get("joint") or case.init.get("predictor_input", "z") != "z"
    if reads:
        with pytest.raises(ValueError, match="embed=False leaves the"):
            case.make(screen(), embed=False)
        with pytest.raises(ValueError, match="predictions of this model read its embedding"):
            case.make(screen()).train_embedding(**TRAIN)
        return
    whole, bare = case.make(screen()), case.make(screen(), embed=False, checkpoint_dir=tmp_path / "c")
    np.testing.assert_array_equal(case.predict(bare), case.predict(whole))
    for ask in (bare.get_latent, bare.get_latent_representation, bare.get_normalized_expression):
        with pytest.raises(RuntimeError, match=r"needs the embedding, which training left out \(embed=False\)"):
            ask()
    bare.save(str(tmp_path / "m"))
    again = type(bare).load(str(tmp_path / "m"), bare.adata)
    assert not again.embedded_
    again.train_embedding(**TRAIN)
    np.testing.assert_array_equal(again.get_latent(), whole.get_latent())
    np.testing.assert_array_equal(case.predict(again), case.predict(whole))


def test_untrained_model_says_so(name: str) -> None:
    model = CASES[name].make(screen(), train=False)
    with pytest.raises(RuntimeError, match=r"needs a trained model. Run model.train\(\) first."):
        model.get_latent()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: -x, "negative values"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x), "1 NaN or infinite"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, np.inf, x), "1 NaN or infinite"),
        (lambda x: x * 37.5 + 0.25, "normalised but not logged"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 3, 0, x), "1 cells have no counts at all"),
        (lambda x: x * 0, "no counts at all|no values other than zero"),
    ],
)
def test_bad_matrices(name: str, spoil, message: str) -> None:
    adata = screen()
    adata.X = spoil(adata.X.toarray().astype(np.float64))
    with pytest.raises(ValueError, match=message):
        CASES[name].make(adata, train=False)


def test_scale_contradictions(name: str) -> None:
    case, counts = CASES[name], screen()
    with pytest.raises(ValueError, match="these look like counts"):
        case.cls.setup_anndata(counts, **case.setup, input_scale="lognorm")
    sc.pp.normalize_total(counts)
    sc.pp.log1p(counts)
    with pytest.raises(ValueError, match="these are not counts"):
        case.cls.setup_anndata(counts, **case.setup, input_scale="counts")


def test_zero_genes_are_kept_and_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    adata = screen()
    x = adata.X.toarray()
    x[:, 4] = 0
    adata.X = x
    with caplog.at_level(logging.WARNING):
        model = CASES[name].make(adata)
    assert any("zero in all cells" in record.message for record in caplog.records)
    assert np.isfinite(model.get_latent()).all()


def test_bad_columns_and_layers(name: str) -> None:
    case = CASES[name]
    with pytest.raises(KeyError, match="layer='conts' is not in adata.layers"):
        case.cls.setup_anndata(screen(), **case.setup, layer="conts")
    adata = screen()
    setup = {**case.setup, "batch_key": "batsch"}
    with pytest.raises(KeyError, match="batch_key='batsch' is not a column.*Did you mean 'batch'"):
        case.cls.setup_anndata(adata, **setup)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) < 10, None, "x")
    with pytest.raises(ValueError, match=f"batch_key='half': 10 of {adata.n_obs} cells have a missing value"):
        case.cls.setup_anndata(adata, **{**case.setup, "batch_key": "half"})
    adata.obs["none"] = np.nan
    with pytest.raises(ValueError, match="batch_key='none': all"):
        case.cls.setup_anndata(adata, **{**case.setup, "batch_key": "none"})


def test_layer_is_used(trained: dict, name: str) -> None:
    adata = screen()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.random.default_rng(0).random(adata.shape)
    case = CASES[name]
    case.cls.setup_anndata(adata, **case.setup, layer="counts")
    model = case.cls(adata, **case.init)
    model.train(**{**TRAIN, **case.train})
    np.testing.assert_allclose(model.get_latent(), model_of(trained, name).get_latent(), atol=1e-5)


def test_backed_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    screen().write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="to_memory"):
        CASES[name].make(backed, train=False)


def test_bad_arguments(trained: dict, name: str) -> None:
    model = model_of(trained, name)
    with pytest.raises(ValueError, match="no cells selected"):
        model.get_latent(indices=[])
    with pytest.raises(IndexError, match="indices run from 0 to 100000"):
        model.get_latent(indices=[0, 100000])
    with pytest.raises(ValueError, match="boolean mask has 3 entries"):
        model.get_latent(indices=np.array([True, False, True]))
    with pytest.raises(ValueError, match="expected integers or a boolean mask"):
        model.get_latent(indices=["cell 1"])
    with pytest.raises(TypeError, match="expected an AnnData, got ndarray"):
        model.get_latent(np.ones((3, 60)))
    fresh = CASES[name].make(screen(), train=False)
    for options, message in [
        ({"batch_size": 1}, "batch_size=1: expected a whole number of at least 2"),
        ({"max_epochs": 0}, "max_epochs=0"),
        ({"plan_kwargs": {"lrr": 1}}, "plan_kwargs has no option 'lrr'. Did you mean 'lr'"),
        ({"train_size": 1.5}, "train_size=1.5"),
        ({"holdout": ["nobody"]}, "holdout"),
        ({"split_by": "nocolumn"}, "split_by='nocolumn' is not a column"),
    ]:
        with pytest.raises((ValueError, KeyError), match=message):
            fresh.train(**{**TRAIN, **CASES[name].train, **options})


def test_view_anndata_setup_prints(trained: dict, name: str, capsys: pytest.CaptureFixture) -> None:
    model_of(trained, name).view_anndata_setup()
    assert "scvi-tools" in capsys.readouterr().out


def test_two_process_ddp_trains(name: str, tmp_path: Path) -> None:
    """Two processes on CPU (gloo) train and agree on the weights."""
    if name not in ("ExpressionJEPA", "PerturbJEPA", "PerturbJEPA joint", "third model", "DrugJEPA"):
        pytest.skip("distribution does not depend on the encoder's options; four cases stand for all")
    script = tmp_path / "ddp.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, sys, torch, numpy as np
            torch.set_num_threads(1)
            sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
            from tests.conformance.cases import CASES, screen
            if __name__ == "__main__":
                model = CASES[{name!r}].make(screen(), devices=2, strategy="ddp", max_epochs=2)
                rank = os.environ.get("LOCAL_RANK", "0")
                np.save(os.path.join({str(tmp_path)!r}, "z" + rank + ".npy"), model.get_latent())
            """
        )
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LOCAL_", "MASTER_", "WORLD_", "NODE_"))}
    run = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (np.load(tmp_path / f"z{rank}.npy") for rank in "01")
    np.testing.assert_allclose(first, second, atol=1e-5)
