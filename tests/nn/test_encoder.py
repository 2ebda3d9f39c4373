"""GeneExpressionEncoder: PCA at step 0, masking, batches, statistics, checkpoints."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from scjepa.nn import EMATarget, GeneExpressionEncoder
from scjepa.nn._gene_tokens import GeneTokens, padded_blocks

KINDS = ["mlp", "modules"]
N, G, D, M = 60, 30, 5, 6


def expression(n=N, g=G, seed=0):
    rng = np.random.default_rng(seed)
    return np.log1p(rng.poisson(np.exp(rng.normal(size=(n, 4)) @ rng.normal(size=(4, g)) * 0.5))).astype(np.float32)


def overlapping(seed=0):
    membership = np.random.default_rng(seed).random((M, G)) < 0.3
    membership[np.arange(M), np.arange(M)] = True
    membership[:, G - 1] = False  # a gene in no module
    return membership


def make(kind="mlp", trained=False, **kwargs):
    torch.manual_seed(0)
    encoder = GeneExpressionEncoder(G, D, kind=kind, n_hidden=16, d_token=8, **{"n_modules": M, **kwargs})
    if trained:
        torch.nn.init.normal_(encoder.head.weight)
        encoder.norm.running_mean.normal_()
        encoder.norm.running_var.uniform_(0.5, 2)
        encoder.mean.uniform_()
        if encoder.offset is not None:
            encoder.offset.weight.data.normal_()
    return encoder


def pca(x):
    mean = x.mean(0)
    u, s, v = np.linalg.svd(x - mean, full_matrices=False)
    return v[:D], s[:D] / np.sqrt(len(x)), mean, u[:, :D] * np.sqrt(len(x))


@pytest.mark.parametrize("kind", KINDS)
def test_is_whitened_pca_at_step_zero(kind):
    x = expression()
    loadings, std, mean, scores = pca(x)
    encoder = make(kind, trained=True, n_batch=2)
    encoder.initialize(loadings, std, mean)
    out = encoder.eval()(torch.from_numpy(x))
    np.testing.assert_allclose(out.detach().numpy(), scores, atol=2e-4)
    # in training the batch is normalised by its own statistics, which are those of whitened scores
    np.testing.assert_allclose(encoder.train()(torch.from_numpy(x)).detach().numpy(), scores, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_every_part(kind):
    encoder, x = make(kind, n_batch=2), torch.from_numpy(expression())
    batch = torch.arange(N) % 2
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    before = {k: v.clone() for k, v in encoder.named_parameters()}
    for _ in range(3):  # a zero head passes gradient on to the body from the second step
        optimizer.zero_grad()
        encoder(x, batch=batch).pow(3).mean().backward()
        optimizer.step()
    still = [k for k, v in encoder.named_parameters() if torch.equal(v, before[k])]
    assert still == []


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_modules_take_the_mean_also_where_they_overlap(kind):
    encoder = make(kind, trained=True, gene_modules=overlapping()).eval()
    x = torch.from_numpy(expression())
    mask = torch.rand(N, M, generator=torch.Generator().manual_seed(0)) < 0.4
    hidden = (mask.numpy()[:, :, None] & overlapping()[None]).any(1)
    assert 0.2 < hidden.mean() < 0.95
    by_hand = torch.from_numpy(np.where(hidden, encoder.mean.numpy(), x.numpy()))
    torch.testing.assert_close(encoder(x, mask), encoder(by_hand), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(x, torch.zeros_like(mask)), encoder(x))
    # hidden values can't leak
    noisy = x + torch.from_numpy(hidden.astype(np.float32)) * 5
    torch.testing.assert_close(encoder(noisy, mask), encoder(x, mask))
    assert (encoder(noisy) - encoder(x)).abs().max() > 0.1


def test_everything_hidden_gives_the_embedding_of_the_mean_cell():
    encoder = make(trained=True).eval()
    x = torch.from_numpy(expression())
    out = encoder(x, torch.ones(N, M, dtype=torch.bool))
    torch.testing.assert_close(out, encoder(encoder.mean[None]).expand_as(out))


def test_default_modules_partition_the_genes():
    membership = GeneExpressionEncoder(10, 2, n_modules=4).membership
    assert membership.sum(0).tolist() == [1] * 10
    assert membership.sum(1).min() >= 2


def test_batch_offset_is_subtracted_from_expression():
    encoder = make(trained=True, n_batch=3).eval()
    x, codes = torch.from_numpy(expression()), torch.arange(N) % 3
    offsets = encoder.offset.weight.detach()
    plain = make(trained=False)
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("offset")})
    plain.eval()
    torch.testing.assert_close(encoder(x, batch=codes), plain(x - offsets[codes]))
    torch.testing.assert_close(encoder(x), plain(x - offsets.mean(0)))
    torch.testing.assert_close(encoder(x, batch=codes.int()), encoder(x, batch=codes))
    assert (make(n_batch=3).offset.weight == 0).all()


def test_statistics_and_normalize():
    encoder, x = make(trained=True).eval(), torch.from_numpy(expression())
    raw = encoder(x, normalize=False).detach()
    encoder.set_statistics(raw.mean(0), raw.var(0, unbiased=False))
    out = encoder(x).detach()
    torch.testing.assert_close(out, (raw - raw.mean(0)) / raw.var(0, unbiased=False).add(1e-5).sqrt())
    torch.testing.assert_close(out.mean(0), torch.zeros(D), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(D), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_independent_in_eval_and_one_cell_works(kind):
    encoder, x = make(kind, trained=True, n_batch=2).eval(), torch.from_numpy(expression())
    whole = encoder(x)
    torch.testing.assert_close(encoder(x[7:8]), whole[7:8], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(x.flip(0)), whole.flip(0), atol=1e-5, rtol=1e-4)
    assert encoder(x[:1], torch.ones(1, M, dtype=torch.bool), batch=torch.tensor([1])).shape == (1, D)
    assert encoder(x[:0]).shape == (0, D)
    assert make(kind)(x[:1], normalize=False).shape == (1, D)  # training mode, no batch norm


def test_double_precision_input_is_taken():
    encoder, x = make(trained=True).eval(), expression()
    torch.testing.assert_close(encoder(torch.from_numpy(x.astype(np.float64))), encoder(torch.from_numpy(x)))


# ---------- gene-module tokens


def test_raw_tokens_are_scaled_sums_over_the_module():
    membership = torch.from_numpy(overlapping())
    torch.manual_seed(0)
    tokens = GeneTokens(G, M, 8)
    x = torch.from_numpy(expression())
    dense = np.einsum("ng,mg,gd->nmd", x.numpy(), membership.float().numpy(), tokens.gene.detach().numpy())
    expected = tokens.position.detach().numpy() + dense / np.sqrt(membership.sum(1).numpy())[:, None]
    np.testing.assert_allclose(tokens.raw_tokens(x, membership).detach().numpy(), expected, atol=1e-4)


def test_padded_blocks_cover_every_membership_once():
    membership = torch.zeros(5, 200, dtype=torch.bool)
    membership[0, :3] = True
    membership[1, 2:5] = True
    membership[2, 10:] = True  # a large remainder; module 3 stays empty
    membership[4, 7] = True
    index, weight, module = padded_blocks(membership)
    rebuilt = torch.zeros(5, 200)
    rebuilt.index_put_((module[:, None].expand_as(index), index), weight, accumulate=True)
    size = membership.sum(1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(rebuilt, membership / size.sqrt())
    assert index.numel() <= 2 * membership.sum() + 2 * index.shape[1]  # padding is bounded, not 5 x 190
    assert (module == 3).sum() == 0


def test_an_empty_module_is_its_position():
    membership = overlapping()
    membership[2] = False
    encoder = make("modules", trained=True, gene_modules=membership).eval()
    raw = encoder.body.raw_tokens(torch.from_numpy(expression()), encoder.membership)
    torch.testing.assert_close(raw[:, 2], encoder.body.position[2].expand(N, -1))


def test_give_tokens():
    encoder, x = make("modules", trained=True).eval(), torch.from_numpy(expression())
    z, tokens = encoder(x, give_tokens=True)
    assert tokens.shape == (N, M, 8)
    torch.testing.assert_close(z, encoder(x))
    torch.testing.assert_close(
        encoder(x, normalize=False), encoder.skip(x - encoder.mean) + encoder.head(tokens.mean(1))
    )
    # attention lets a module see the others
    changed = x.clone()
    changed[:, :5] += 3  # genes of module 0
    assert (encoder(changed, give_tokens=True)[1] - tokens)[:, 1:].abs().max() > 1e-3


def test_modules_can_be_replaced_and_travel_with_checkpoints():
    x = torch.from_numpy(expression())
    encoder = make("modules", trained=True).eval()
    before = encoder(x)
    encoder.set_modules(overlapping())
    after = encoder(x)
    assert (after - before).abs().max() > 1e-3
    fresh = make("modules").eval()
    fresh(x)  # fills the cache of blocks with the default modules
    fresh.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(fresh(x), after)
    assigned = make("modules").eval()
    assigned(x)
    assigned.load_state_dict(encoder.state_dict(), assign=True)
    torch.testing.assert_close(assigned(x), after)
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), encoder.double().float()):
        torch.testing.assert_close(twin(x), after)
    other = make("modules", trained=True, gene_modules=overlapping(2)).eval()
    replaced = make("modules", trained=True, gene_modules=overlapping(1)).eval()
    assert (replaced(x) - other(x)).abs().max() > 1e-3
    replaced.load_state_dict(other.state_dict(), assign=True)
    torch.testing.assert_close(replaced(x), other(x))
    target = EMATarget(make("modules").eval(), decay=0.0)
    target(x)
    target.update(encoder)
    torch.testing.assert_close(target(x), after)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_the_state_do_not_depend_on_the_modules(kind):
    shapes = [
        {k: v.shape for k, v in make(kind, **kwargs).state_dict().items()}
        for kwargs in ({}, {"gene_modules": overlapping()}, {"gene_modules": overlapping(1)})
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_runs_in_inference_mode():
    encoder, x = make("modules", trained=True).eval(), torch.from_numpy(expression())
    expected = encoder(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(encoder(x), expected, atol=1e-5, rtol=1e-4)
        inside = make("modules", trained=False).eval()
        assert inside(x).shape == (N, D)


# ---------- what bad input gets


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_latent": 31}, "n_latent=31 is more than the 30 genes. Use n_latent <= 30"),
        ({"n_modules": 31}, "n_modules=31 is more than the 30 genes"),
        ({"kind": "transformer"}, "kind='transformer' is not among"),
        ({"gene_modules": np.ones((2, 29), bool)}, r"shape \(2, 29\): expected bool \(n_modules, 30\)"),
        ({"gene_modules": np.ones((2, 30))}, r"torch.float64 of shape \(2, 30\): expected bool"),
        ({"gene_modules": np.zeros((2, 30), bool)}, "no gene is in any module"),
        ({"n_layers": 0}, "n_layers=0: expected a whole number of at least 1"),
        ({"n_batch": -1}, "n_batch=-1"),
    ],
)
def test_refuses_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GeneExpressionEncoder(30, **{"n_latent": 4, "n_modules": 4, **kwargs})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, x: e(x[:, :-1]), r"x has shape \(60, 29\): expected \(n_cells, 30\)"),
        (lambda e, x: e(x[:1]), r"one cell can't be batch-normalised in training. Call .eval\(\)"),
        (lambda e, x: e(x, give_tokens=True), "this encoder has no tokens. Make it with kind='modules'"),
        (lambda e, x: e(x, torch.ones(N, M)), r"mask is torch.float32 .*: expected bool \(60, 6\)"),
        (lambda e, x: e(x, torch.ones(N, 2, dtype=torch.bool)), r"shape \(60, 2\): expected bool \(60, 6\)"),
        (lambda e, x: e(x, batch=torch.full((N,), 2)), "batch codes run from 2 to 2: expected 0 to 1"),
        (lambda e, x: e(x, batch=torch.full((N,), -1)), "Use batch=None for cells of an unknown batch"),
        (lambda e, x: e(x, batch=torch.zeros(N)), "batch is torch.float32 .*: expected whole codes"),
        (lambda e, x: make()(x, batch=torch.zeros(N).long()), "the encoder was made with n_batch=0"),
        (lambda e, x: e.set_modules(np.ones((5, G), bool)), "membership has 5 modules, the encoder has 6"),
        (lambda e, x: e.initialize(np.ones((D, 3)), np.ones(D), np.ones(G)), r"loadings has shape \(5, 3\)"),
        (lambda e, x: e.initialize(np.ones((D, G)), np.zeros(D), np.ones(G)), "std: 5 of 5 axes have no variance"),
        (lambda e, x: e.initialize(np.full((D, G), np.nan), np.ones(D), np.ones(G)), "150 NaN or infinite"),
        (lambda e, x: e.set_statistics(np.zeros(D), -np.ones(D)), "var has negative values"),
        (lambda e, x: e.set_statistics(np.zeros(3), np.ones(D)), r"mean has shape \(3,\): expected \(5,\)"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(make(n_batch=2), torch.from_numpy(expression()))
