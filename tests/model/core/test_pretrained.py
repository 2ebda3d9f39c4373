"""The encoder of another model, cut to other genes: known answers for permuted, absent and further genes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.modules import jepa

from scjepa.data import ExpressionMatrix, Split
from scjepa.model.core._pretrained import cut, fit_depth, note_leaks
from scjepa.module import JEPAModule

GENES = 12
KINDS = [{}, {"kind": "modules", "d_token": 8}]


def encoder(seed: int = 0, **options) -> JEPAModule:
    """A module with weights everywhere: nothing that starts silent is silent."""
    module = jepa(GENES, seed=seed, n_modules=3, **options).eval()
    torch.manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            tensor.copy_(torch.randn(tensor.shape))
    return module


def given_to(module: JEPAModule, place: np.ndarray, **options) -> JEPAModule:
    """Return a module of other genes with the weights of ``module``."""
    weights = cut(module.state_dict(), module.encoder.membership, place)
    new = jepa(len(place), gene_modules=weights["encoder.membership"], **options).eval()
    new.load_state_dict(weights, strict=False)
    return new


@pytest.mark.parametrize("options", KINDS)
def test_permuted_genes_give_the_same_embedding(options: dict) -> None:
    module, x = encoder(**options), torch.rand(5, GENES)
    place = np.random.default_rng(0).permutation(GENES)
    new = given_to(module, place, **options)
    torch.testing.assert_close(new.encoder(x[:, place]), module.encoder(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(new.decoder(torch.ones(1, 4)), module.decoder(torch.ones(1, 4))[:, place])


def test_an_absent_gene_counts_as_its_mean() -> None:
    module, x = encoder(), torch.rand(5, GENES)
    place = np.delete(np.arange(GENES), [2, 7])
    new = given_to(module, place)
    filled = x.clone()
    filled[:, [2, 7]] = module.encoder.mean[[2, 7]]
    torch.testing.assert_close(new.encoder(x[:, place]), module.encoder(filled), atol=1e-4, rtol=1e-4)


def test_a_gene_that_the_encoder_does_not_know_is_not_read() -> None:
    module, x = encoder(), torch.rand(5, GENES)
    place = np.r_[np.arange(GENES), -1, -1]
    new = given_to(module, place)
    for further in (torch.zeros(5, 2), 9 * torch.rand(5, 2)):
        torch.testing.assert_close(new.encoder(torch.cat([x, further], 1)), module.encoder(x), atol=1e-4, rtol=1e-4)
    assert not new.encoder.membership[:, -2:].any()


def test_tokens_keep_the_size_of_their_module() -> None:
    """Half of a module's genes, each counting for as much as before: other modules are not touched."""
    module = encoder(kind="modules", d_token=8)
    before = module.encoder.membership.clone()
    place = np.setdiff1d(np.arange(GENES), np.flatnonzero(before[0])[:2])  # 2 of 4 genes of the first module go
    weights = cut(module.state_dict(), before, place)
    gene = module.encoder.body.gene
    inside = before[0, place]
    torch.testing.assert_close(weights["encoder.body.gene"][inside], gene[place][inside] * np.sqrt(0.5))
    torch.testing.assert_close(weights["encoder.body.gene"][~inside], gene[place][~inside])
    x = torch.rand(3, GENES)
    x[:, np.setdiff1d(np.arange(GENES), place)] = module.encoder.mean[np.setdiff1d(np.arange(GENES), place)]
    new = given_to(module, place, kind="modules", d_token=8)
    torch.testing.assert_close(new.encoder(x[:, place]), module.encoder(x), atol=1e-4, rtol=1e-4)


def test_batch_offsets_become_part_of_the_mean() -> None:
    module, x = encoder(n_batch=3), torch.rand(4, GENES)
    weights = cut(module.state_dict(), module.encoder.membership, np.arange(GENES))
    assert "encoder.offset.weight" not in weights
    torch.testing.assert_close(
        given_to(module, np.arange(GENES)).encoder(x), module.encoder(x), atol=1e-4, rtol=1e-4
    )  # without codes the encoder takes the mean batch


def test_only_what_learns_from_views_is_taken() -> None:
    module = encoder(actions=3, target_encoder="ema")
    state = module.state_dict()
    rooms = {name.split(".")[0] for name in cut(state, module.encoder.membership, np.arange(GENES))}
    assert rooms == {"encoder", "decoder", "view_predictor"}
    assert {name.split(".")[0] for name in state} > rooms  # what was given is left as it is


# ---------------------------------------------------------------- depth
def fitted(place: np.ndarray, *, deeper: float = 1.0, **given) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (30, len(place)))
    matrix = ExpressionMatrix(np.log1p(counts * deeper), "lognorm")
    model = SimpleNamespace(
        module=jepa(len(place)),
        device="cpu",
        _setup={"input_scale": "counts", "target_sum": 200.0},
        pretrained_={
            "known": place >= 0,
            "n_genes": GENES,
            "reference_unit": 2.0,
            "target_sum": 100.0,
            "typical_total": 50.0,
            "share": 0.8,
            **given,
        },
    )
    fit_depth(model, matrix, np.arange(20))
    model.total = np.median(counts[:20, place >= 0].sum(1)) * deeper
    model.matrix = matrix
    return model


def test_the_same_genes_are_brought_to_the_depth_of_the_encoder() -> None:
    assert fitted(np.arange(GENES)).reference_unit_ == pytest.approx(2.0 * 200 / 100)
    assert fitted(np.arange(GENES), target_sum=None).reference_unit_ == 2.0  # log-normalised: as they are


@pytest.mark.parametrize("deeper", [1.0, 3.0])
def test_other_genes_are_brought_to_its_typical_total_over_those_in_common(deeper: float) -> None:
    place = np.r_[np.arange(8), -1, -1]
    model = fitted(place, deeper=deeper)
    assert model.reference_unit_ == pytest.approx(2.0 * model.total / (50 * 0.8), rel=1e-5)
    mean = model.matrix.rows(np.arange(20), model.reference_unit_).mean(0)
    np.testing.assert_allclose(model.module.encoder.mean[-2:], mean[-2:], rtol=1e-5)  # so that they are centred later
    assert (model.module.encoder.mean[:8] == 0).all()


# ---------------------------------------------------------------- leaks
def test_cells_that_the_encoder_saw_are_counted_where_they_are_held_out(caplog: pytest.LogCaptureFixture) -> None:
    split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4, 5]))
    note_leaks(None, split)
    note_leaks({"cells_seen": None}, split)
    note_leaks({"cells_seen": np.array([0, 1])}, split)
    assert not caplog.records
    note_leaks({"cells_seen": np.array([0, 3, 5])}, split)
    assert [r.getMessage().split(" (")[0] for r in caplog.records] == [
        "the pretrained encoder saw 2 of the 3 held-out cells"
    ]
