"""The encoder stage without a model: PCA at the start, exact statistics and a ridge readout at the end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from tests.modules import jepa

from scjepa.data import ExpressionMatrix, Split
from scjepa.model.core import _encoder
from scjepa.model.core._encoder import ENCODER_STEPS, EncoderStage, at_depth, encode
from scjepa.module import VIEWS, JEPAModule

GENES, CELLS = 20, 120


def matrix(n: int = CELLS, genes: int = GENES, seed: int = 0) -> ExpressionMatrix:
    """Counts with five factors; as sparse as cells are."""
    rng = np.random.default_rng(seed)
    rate = np.exp(0.7 * rng.normal(size=(n, 5)) @ rng.normal(size=(5, genes)) / 2) * 2
    return ExpressionMatrix(sp.csr_matrix(rng.poisson(rate)), "counts", target_sum=100)


def started(stage: EncoderStage, train: np.ndarray, **options) -> JEPAModule:
    module = jepa(GENES, **options).eval()
    stage.start(module, train)
    return module


@pytest.fixture
def train() -> np.ndarray:
    return np.random.default_rng(1).permutation(CELLS)[:90]


# ---------------------------------------------------------------- start
def test_start_is_whitened_pca_of_the_training_cells(train: np.ndarray) -> None:
    cells, unit = matrix(), 2.5
    module = started(EncoderStage(cells, unit), train)
    x = cells.rows(train, unit).astype(np.float64)
    pca = PCA(4, svd_solver="full", whiten=True).fit(x)
    with torch.no_grad():
        z = module.encoder(torch.tensor(cells.rows(slice(None), unit)), normalize=False).numpy()
    wanted = pca.transform(cells.rows(slice(None), unit).astype(np.float64))
    sign = np.sign((z * wanted).sum(0))
    np.testing.assert_allclose(z, wanted * sign, atol=2e-3)  # also of cells that were not trained on
    np.testing.assert_allclose(module.encoder.mean, x.mean(0), rtol=1e-5)


def test_the_decoder_starts_as_its_inverse(train: np.ndarray) -> None:
    cells = matrix()
    module = started(EncoderStage(cells), train)
    x = cells.rows(train).astype(np.float64)
    best = PCA(4, svd_solver="full").fit(x)
    with torch.no_grad():
        z = module.encoder(torch.tensor(cells.rows(train)), normalize=False)
        back = module.decoder(z).numpy() + module.encoder.mean.numpy()
    np.testing.assert_allclose(back, best.inverse_transform(best.transform(x)), atol=1e-3)


def test_the_order_of_cells_does_not_matter(train: np.ndarray) -> None:
    cells = matrix()
    one, other = (started(EncoderStage(cells), t) for t in (train, train[::-1]))
    sign = torch.sign((one.encoder.skip.weight * other.encoder.skip.weight).sum(1, keepdim=True))
    torch.testing.assert_close(one.encoder.skip.weight, sign * other.encoder.skip.weight, atol=1e-4, rtol=1e-3)


def test_other_cells_are_not_looked_at(train: np.ndarray) -> None:
    cells = matrix()
    spoiled = matrix()
    out = np.setdiff1d(np.arange(CELLS), train)
    values = spoiled.values.toarray()
    values[out] = 9.0
    spoiled.values = sp.csr_matrix(values)
    weights = [started(EncoderStage(m), train).state_dict() for m in (cells, spoiled)]
    assert all(torch.equal(w, weights[1][name]) for name, w in weights[0].items())


def test_axes_beyond_the_rank_are_silent() -> None:
    cells = matrix()
    module = started(EncoderStage(cells), np.arange(3))  # rank 2
    assert torch.isfinite(module.encoder.skip.weight).all()
    assert (module.encoder.skip.weight[2:] == 0).all() and (module.decoder.weight[:, 2:] == 0).all()


def test_modules_are_found_or_left_as_they_were_given(train: np.ndarray) -> None:
    module = jepa(GENES)
    given = module.encoder.membership.clone()
    EncoderStage(matrix()).start(module, train, find_modules=False)
    assert torch.equal(module.encoder.membership, given)
    EncoderStage(matrix()).start(module, train)
    assert not torch.equal(module.encoder.membership, given)
    assert (module.encoder.membership.sum(0) == 1).all()  # each gene in one


def test_the_slow_encoder_starts_where_the_encoder_does(train: np.ndarray) -> None:
    module = started(EncoderStage(matrix()), train, target_encoder="ema")
    slow = module.target_encoder.module.state_dict()
    assert all(torch.equal(w, slow[name]) for name, w in module.encoder.state_dict().items())


# ---------------------------------------------------------------- batches
def test_offsets_of_batches_are_means_shrunken_by_twenty_cells(train: np.ndarray) -> None:
    cells = matrix()
    codes = np.zeros(CELLS, int)
    codes[train[:70]] = 1
    codes[train[70:75]] = 2  # 5 cells; 15 are left for 0, none for 3
    module = started(EncoderStage(cells, codes=codes), train, n_batch=4)
    x, offset = cells.rows(slice(None)), module.encoder.offset.weight.detach().numpy()
    mean = x[train].mean(0)
    for code, n in ((0, 15), (1, 70), (2, 5)):
        mine = train[codes[train] == code]
        np.testing.assert_allclose(offset[code], (x[mine].mean(0) - mean) * n / (n + 20), atol=1e-5)
    assert (offset[3] == 0).all()


def test_only_the_batches_named_are_moved(train: np.ndarray) -> None:
    cells, codes = matrix(), np.arange(CELLS) % 3
    stage = EncoderStage(cells, codes=codes)
    module = started(stage, train, n_batch=3)
    module.encoder.offset.weight.data.fill_(7.0)
    stage.center_batches(module, cells.at_depth(1.0, train), train, np.array([1]))
    moved = (module.encoder.offset.weight != 7).all(1).tolist()
    assert moved == [False, True, False]


def test_an_encoder_without_batches_has_none_to_move(train: np.ndarray) -> None:
    module = started(EncoderStage(matrix(), codes=None), train)
    assert module.encoder.offset is None


# ---------------------------------------------------------------- finish
@pytest.mark.parametrize("block", [_encoder.BLOCK, 32])
def test_finish_gives_exact_statistics_and_the_ridge_of_scikit_learn(
    train: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_encoder, "BLOCK", block)
    cells, unit = matrix(), 2.5
    stage = EncoderStage(cells, unit)
    module = started(stage, train)
    torch.nn.init.normal_(module.encoder.head.weight)  # as if it had been trained: no longer PCA
    stage.finish(module, train)
    h = np.concatenate(list(encode(module, cells, unit)))
    np.testing.assert_allclose(h[train].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(h[train].var(0), 1, rtol=1e-3)
    x = cells.rows(slice(None))  # the readout tells expression on its own scale, not at the encoder's depth
    ridge = Ridge(alpha=1.0).fit(h[train].astype(np.float64), x[train].astype(np.float64))
    with torch.no_grad():
        found = module.readout(torch.tensor(h)).numpy()
    np.testing.assert_allclose(found, ridge.predict(h), atol=1e-3)


def test_finish_can_keep_the_statistics_of_another_model(train: np.ndarray) -> None:
    stage = EncoderStage(matrix())
    module = started(stage, train)
    module.encoder.set_statistics(torch.full((4,), 0.5), torch.full((4,), 4.0))
    stage.finish(module, train, keep_statistics=True)
    assert module.encoder.norm.running_mean.tolist() == [0.5] * 4
    assert module.encoder.norm.running_var.tolist() == [4.0] * 4
    assert module.readout.weight.abs().sum() > 0


def test_finish_reads_each_cell_in_its_batch(train: np.ndarray) -> None:
    """A batch effect on all genes that the offsets take out altogether: the statistics are those without it."""
    rng = np.random.default_rng(0)
    x = rng.random((CELLS, GENES)).astype(np.float32) + 2
    codes = np.arange(CELLS) % 2
    plain, moved = (ExpressionMatrix(x + s * codes[:, None], "lognorm") for s in (0.0, 3.0))
    found = []
    for cells, size in ((plain, 0.0), (moved, 3.0)):
        module = jepa(GENES, n_batch=2).eval()
        stage = EncoderStage(cells, codes=codes)
        module.encoder.offset.weight.data[1] = size
        torch.manual_seed(0)
        torch.nn.init.normal_(module.encoder.skip.weight)
        stage.finish(module, train)
        found.append(module.encoder.norm.running_mean.clone())
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- encode
def test_at_depth_is_log1p_of_counts_divided_by_what_one_is_worth() -> None:
    x = torch.log1p(torch.tensor([[0.0, 5.0, 10.0]]))
    torch.testing.assert_close(at_depth(x, 2.5), torch.log1p(torch.tensor([[0.0, 2.0, 4.0]])))
    assert at_depth(x, 1.0) is x
    cells = matrix()
    there = at_depth(torch.tensor(cells.rows(slice(None))), 2.5)
    torch.testing.assert_close(there, torch.tensor(cells.rows(slice(None), 2.5)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 119, 500])
def test_embeddings_do_not_depend_on_how_many_are_encoded_at_a_time(train: np.ndarray, size: int) -> None:
    cells, codes = matrix(), np.arange(CELLS) % 3
    stage = EncoderStage(cells, 2.0, codes)
    module = started(stage, train, n_batch=3)
    stage.finish(module, train)
    whole = np.concatenate(list(encode(module, cells, 2.0, codes)))
    parts = list(encode(module, cells, 2.0, codes, size=size))
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_tokens_are_encoded_too(train: np.ndarray) -> None:
    module = jepa(GENES, kind="modules", d_token=8).eval()
    tokens = np.concatenate(list(encode(module, matrix(), 1.0, size=50, give_tokens=True)))
    assert tokens.shape == (CELLS, 2, 8)


# ---------------------------------------------------------------- what is handed to the trainer
def test_the_stage_has_as_many_epochs_as_make_its_steps(train: np.ndarray) -> None:
    split = Split(np.sort(train), np.setdiff1d(np.arange(CELLS), train), np.zeros(0, int))
    options = {"batch_size": 20, "plan_kwargs": None, "rows": None}
    stage = EncoderStage(matrix()).stage(split, max_epochs=None, **options)
    assert (stage.name, stage.objective, len(stage.train)) == ("encoder", VIEWS, 9)  # 90 cells, 10 a step
    assert stage.max_epochs == int(np.ceil(ENCODER_STEPS / 9))
    assert EncoderStage(matrix()).stage(split, max_epochs=3, **options).max_epochs == 3
    assert stage.validation is not None
    alone = split._replace(validation=split.validation[:1])
    assert EncoderStage(matrix()).stage(alone, max_epochs=1, **options).validation is None  # one cell has no spread


def test_the_monitor_watches_training_cells_at_depth(train: np.ndarray) -> None:
    cells = matrix()
    monitor = EncoderStage(cells, 2.0, np.arange(CELLS) % 3).monitor(train)
    np.testing.assert_array_equal(monitor.probe.numpy(), cells.rows(np.sort(train), 2.0))
    np.testing.assert_array_equal(monitor.batch.numpy(), np.sort(train) % 3)
