"""Modalities of one cell: terms by hand, cells that lack one, gradients, collapse, and a toy that learns to translate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scjepa.losses import VISRegLoss, energy_distance
from scjepa.module import MODALITIES, ModalityAgreement, ModalityModule, Regularizer, action_predictors
from scjepa.nn import ActionEncoder, GeneExpressionEncoder

SIZES = {"rna": 12, "protein": 5, "atac": 8}
LATENT = 4


def module(names=("rna", "protein"), *, decoders=True, n_ensemble=1, encoder=None, **options) -> ModalityModule:
    torch.manual_seed(0)
    encoder = encoder or (lambda n: GeneExpressionEncoder(n, LATENT, n_hidden=8, n_layers=1, n_modules=2))
    encoders = {name: encoder(SIZES[name]) for name in names}
    for made in encoders.values():
        if isinstance(made, GeneExpressionEncoder):
            nn.init.normal_(made.head.weight, std=0.3)
    objective = ModalityAgreement(Regularizer("visreg", options.pop("weight", 1.0)), **options)
    return ModalityModule(
        encoders,
        {MODALITIES: objective},
        decoders={name: nn.Linear(LATENT, SIZES[name]) for name in names} if decoders else None,
        predictors=action_predictors(
            lambda: ActionEncoder(len(names)), LATENT, LATENT, n_ensemble=n_ensemble, n_hidden=8
        ),
    )


def cells(n: int = 10, names=("rna", "protein"), **has: list[int]) -> dict[str, torch.Tensor]:
    """Features of ``n`` cells; ``has_<modality>`` lists the cells that have it."""
    generator = torch.Generator().manual_seed(1)
    batch = {f"x_{name}": torch.rand(n, SIZES[name], generator=generator) for name in names}
    return batch | {name: torch.isin(torch.arange(n), torch.tensor(rows)) for name, rows in has.items()}


def wake(made: ModalityModule) -> None:
    """Predictors that do something."""
    for member in made.predictors:
        for layer in (member.predictor.output, *member.predictor.modulation):
            nn.init.normal_(layer.weight, std=0.3)


class Plain(nn.Module):
    """The features are the embedding."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes, self.n_latent = n_genes, n_genes
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x

    def center(self, x: torch.Tensor) -> torch.Tensor:
        return x


def plain(**options) -> ModalityModule:
    """Two modalities that are their own embedding."""
    torch.manual_seed(0)
    encoders = {"a": Plain(LATENT), "b": Plain(LATENT)}
    decoders = {name: nn.Linear(LATENT, LATENT) for name in encoders}
    for decoder in decoders.values():
        nn.init.eye_(decoder.weight)
        nn.init.zeros_(decoder.bias)
    predictors = action_predictors(lambda: ActionEncoder(2), LATENT, LATENT, n_ensemble=2, n_hidden=8)
    objective = ModalityAgreement(Regularizer("visreg"), **options)
    return ModalityModule(encoders, {MODALITIES: objective}, decoders=decoders, predictors=predictors)


# ---------------------------------------------------------------- values
def test_a_perfect_prediction_costs_only_its_regularizer() -> None:
    made, x = plain(set_loss="energy"), torch.randn(20, LATENT)
    metrics = made({"x_a": x, "x_b": x.clone()}, MODALITIES).extra_metrics
    assert {k: v.item() for k, v in metrics.items() if k != "regularization"} == dict.fromkeys(
        ("agreement", "prediction", "reconstruction", "set_loss"), 0.0
    )
    assert metrics["regularization"] > 0


def test_constant_difference_by_hand() -> None:
    """Embeddings differ by 2 in each dimension: agreement 4 / 2, prediction 4, three of four decodings are 0 or 4."""
    made, x = plain(invariance=0.5, reconstruction=0.1), torch.randn(20, LATENT)
    out = made({"x_a": x, "x_b": x + 2}, MODALITIES)
    got = {k: v.item() for k, v in out.extra_metrics.items()}
    assert got["agreement"] == pytest.approx(2) and got["prediction"] == pytest.approx(4)
    # two modalities decode themselves (0 each); two directions, each by two predictors, are off by 4
    assert got["reconstruction"] == pytest.approx(4 * 4 / 6)
    assert out.loss.item() == pytest.approx(0.5 * 2 + 4 + got["regularization"] + 0.1 * got["reconstruction"], rel=1e-5)


def test_terms_by_hand() -> None:
    made, batch = module(weight=0.7), cells()
    wake(made)
    torch.manual_seed(5)
    out = made(batch, MODALITIES).extra_metrics
    z = {name: made.encoders[name](batch[f"x_{name}"]) for name in made.encoders}
    to = {
        t: z[s] + made.predictors[0](z[s][None], made.told(t))[0] for s, t in (("rna", "protein"), ("protein", "rna"))
    }
    torch.manual_seed(5)
    regular = [0.7 * VISRegLoss()(value)["loss"] for value in z.values()]
    aim = {name: batch[f"x_{name}"] - made.encoders[name].mean for name in z}
    off = lambda name, h: ((made.decoders[name](h) - aim[name]) ** 2).sum() / (10 * LATENT)
    torch.testing.assert_close(out["regularization"], sum(regular) / 2)
    torch.testing.assert_close(out["agreement"], ((z["rna"] - z["protein"]) ** 2).mean() / 2)
    torch.testing.assert_close(out["prediction"], sum(((to[t] - z[t]) ** 2).mean() for t in z) / 2)
    torch.testing.assert_close(out["reconstruction"], sum(off(t, h[t]) for t in z for h in (z, to)) / 4)


def test_unpaired_cells_match_as_sets() -> None:
    """Cells 0-3 have only the first modality, 4-9 only the second; nothing is paired."""
    batch = cells(has_rna=[0, 1, 2, 3], has_protein=[4, 5, 6, 7, 8, 9])
    made = module(decoders=False, set_loss="energy", set_weight=0.4)
    wake(made)
    out = made(batch, MODALITIES)
    z = {"rna": made.encoders["rna"](batch["x_rna"][:4]), "protein": made.encoders["protein"](batch["x_protein"][4:])}
    moved = {
        t: z[s] + made.predictors[0](z[s][None], made.told(t))[0] for s, t in (("rna", "protein"), ("protein", "rna"))
    }
    want = (energy_distance(moved["protein"], z["protein"]) + energy_distance(moved["rna"], z["rna"])) / 2
    torch.testing.assert_close(out.extra_metrics["set_loss"], want)
    assert out.extra_metrics["agreement"].item() == out.extra_metrics["prediction"].item() == 0
    torch.testing.assert_close(out.loss, 0.4 * want + out.extra_metrics["regularization"])
    assert "set_loss" not in module(decoders=False)(batch, MODALITIES).extra_metrics


# ---------------------------------------------------------------- cells that lack a modality
@pytest.mark.parametrize("value", [100.0, float("nan")])
def test_rows_of_cells_that_lack_a_modality_are_not_looked_at(value: float) -> None:
    batch = cells(has_rna=[0, 1, 2, 3, 4, 5, 6], has_protein=[3, 4, 5, 6, 7, 8, 9])
    other = {k: v.clone() for k, v in batch.items()}
    other["x_rna"][7:], other["x_protein"][:3] = value, value
    results = []
    for given in (batch, other):
        made = module(set_loss="mmd")
        wake(made)
        torch.manual_seed(3)
        out = made(given, MODALITIES)
        out.loss.backward()
        results.append((out, [p.grad for _, p in made.trained_by(MODALITIES)]))
    (one, one_grads), (two, two_grads) = results
    assert torch.equal(one.loss, two.loss) and torch.isfinite(one.loss)
    assert all(torch.equal(a, b) for a, b in zip(one_grads, two_grads, strict=True) if a is not None)
    assert one.n_obs_minibatch == 10


def test_without_masks_every_cell_has_everything() -> None:
    made, batch = module().eval(), cells()
    torch.manual_seed(0)
    bare = made(batch, MODALITIES).loss
    torch.manual_seed(0)
    everyone = {f"has_{name}": torch.ones(10, dtype=torch.bool) for name in ("rna", "protein")}
    assert torch.equal(bare, made(batch | everyone, MODALITIES).loss)


def test_three_modalities_of_which_a_batch_has_two() -> None:
    names = ("rna", "protein", "atac")
    made, batch = module(names), cells(names=names, has_atac=[4])  # one cell can't be normalised: left out
    out = made(batch, MODALITIES)
    out.loss.backward()
    grads = {name: p.grad for name, p in made.named_parameters()}
    assert grads["encoders.atac.skip.weight"] is None and grads["encoders.protein.skip.weight"].abs().sum() > 0
    del batch["x_atac"], batch["has_atac"]
    assert set(made(batch, MODALITIES).extra_metrics) == set(out.extra_metrics)


def test_batch_codes_reach_the_encoders() -> None:
    made = module(encoder=lambda n: GeneExpressionEncoder(n, LATENT, n_hidden=8, n_modules=2, n_batch=2)).eval()
    for encoder in made.encoders.values():
        nn.init.normal_(encoder.offset.weight)
    batch = cells(has_protein=[0, 1, 2, 3, 4])
    zero, mixed = (made({**batch, "batch": c}, MODALITIES).loss for c in (torch.zeros(10).long(), torch.arange(10) % 2))
    assert zero.item() != pytest.approx(mixed.item())


# ---------------------------------------------------------------- what it does
def test_gradients_reach_every_part() -> None:
    made = module(n_ensemble=2)
    wake(made)
    made(cells(), MODALITIES).loss.backward()
    trained = dict(made.trained_by(MODALITIES))
    assert set(trained) == dict(made.named_parameters()).keys()
    for name, parameter in trained.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_collapse_is_punished() -> None:
    """All cells at one point agree and predict perfectly, and cost more than cells that are spread."""
    made, x = plain(reconstruction=0.0), torch.randn(200, LATENT, generator=torch.Generator().manual_seed(0))
    spread = made({"x_a": x, "x_b": x}, MODALITIES)
    collapsed = made({"x_a": 0 * x, "x_b": 0 * x}, MODALITIES)
    assert collapsed.extra_metrics["prediction"].item() == collapsed.extra_metrics["agreement"].item() == 0
    assert collapsed.loss.item() > 10 * spread.loss.item()


def test_paired_cells_teach_to_translate() -> None:
    """Both modalities are linear in two hidden numbers: the embedding of one tells the other's of new cells."""
    generator = torch.Generator().manual_seed(0)
    mixing = [torch.randn(2, SIZES[name], generator=generator) for name in ("rna", "protein")]

    def draw(n: int) -> dict[str, torch.Tensor]:
        hidden = torch.randn(n, 2, generator=generator)
        return {f"x_{name}": hidden @ m for name, m in zip(("rna", "protein"), mixing, strict=True)}

    made = module(encoder=lambda n: GeneExpressionEncoder(n, 4, n_hidden=16, n_layers=1, n_modules=2))
    optimizer = torch.optim.AdamW([p for _, p in made.trained_by(MODALITIES)], lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        made(draw(64), MODALITIES).loss.backward()
        optimizer.step()
    made.eval()
    new = draw(300)
    z = {name: made.embed(new[f"x_{name}"], name) for name in made.encoders}
    predicted = made.predict(z["rna"], "protein")
    assert ((predicted - z["protein"]) ** 2).mean() < 0.1 * z["protein"].var(0).mean()
    with torch.inference_mode():
        decoded = made.decoders["protein"](predicted)
    assert ((decoded - new["x_protein"]) ** 2).mean() < 0.2 * new["x_protein"].var(0).mean()


# ---------------------------------------------------------------- the module
def test_before_training_the_other_modality_is_where_the_cell_is() -> None:
    made = module(n_ensemble=2).eval()
    z = made.embed(torch.rand(3, 12), "rna")
    assert torch.equal(made.predict(z, "protein"), z)
    assert made.told("protein").tolist() == [[0.0, 1.0]]


def test_errors() -> None:
    with pytest.raises(ValueError, match="regularizer='ema' forbids no collapse between modalities"):
        ModalityAgreement(Regularizer("ema"))
    with pytest.raises(ValueError, match="set_loss='mse': expected one of"):
        ModalityAgreement(Regularizer(), set_loss="mse")
    with pytest.raises(ValueError, match="no modality has two cells in this batch"):
        module()(cells(has_rna=[0], has_protein=[5]), MODALITIES)
    with pytest.raises(ValueError, match=r"target='adt': expected one of the modalities \['rna', 'protein'\]"):
        module().told("adt")
    encoder = GeneExpressionEncoder(12, 4, n_modules=2)
    with pytest.raises(ValueError, match="encoders of {'rna': 4} dimensions: expected two or more modalities"):
        ModalityModule({"rna": encoder}, {})
    with pytest.raises(ValueError, match="encoders of {'rna': 4, 'atac': 3} dimensions: expected two or more"):
        ModalityModule({"rna": encoder, "atac": GeneExpressionEncoder(12, 3, n_modules=2)}, {})
    with pytest.raises(ValueError, match=r"decoders of \['adt'\]: expected some of the modalities \['rna', 'atac'\]"):
        ModalityModule({"rna": encoder, "atac": encoder}, {}, decoders={"adt": nn.Linear(4, 2)})
