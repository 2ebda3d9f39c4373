"""Two views of a cell, by hand on small modules."""

from __future__ import annotations

import pytest
import torch
from tests.modules import jepa

from scjepa.losses import VICRegLoss, VISRegLoss
from scjepa.module import VIEWS, JEPAModule

GENES, LATENT = 8, 6


def module(**options) -> JEPAModule:
    made = jepa(GENES, **{"n_latent": LATENT, "n_pcs": 2, "predictor_hidden": 16, **options})
    with torch.no_grad():  # a head of zeros would hide half of the encoder
        made.encoder.head.weight.normal_(0, 0.3)
    return made


def views(n: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(n, GENES, generator=generator) for name in ("first", "second")}


def test_vicreg_keeps_the_ratio_of_the_paper() -> None:
    """Agreement and regularization of two views are the classic loss, 25/25/1, divided by 50."""
    made, batch = module(regularizer="vicreg", mask_rate=0.0, reconstruction=0.0), views()
    got = made(batch, VIEWS).loss
    classic = VICRegLoss()(made.encoder(batch["first"]), made.encoder(batch["second"]))["loss"]
    torch.testing.assert_close(got, classic / 50)


def test_view_agreement_by_hand() -> None:
    made, batch = module(mask_rate=0.0, reconstruction=0.3, regularizer_weight=0.7), views()
    torch.manual_seed(5)
    out = made(batch, VIEWS)
    za, zb = made.encoder(batch["first"]), made.encoder(batch["second"])
    agreement = ((za - zb) ** 2).sum() / (2 * 6 * LATENT)
    reconstruction = ((made.decoder(za) - (batch["second"] - made.encoder.mean)) ** 2).sum() / (6 * LATENT)
    torch.manual_seed(5)
    torch.rand(6, 2), torch.rand(6, 2)  # the masks are drawn first
    term = VISRegLoss()
    regularization = 0.7 * (term(za)["loss"] + term(zb)["loss"]) / 2
    torch.testing.assert_close(out.extra_metrics["agreement"], agreement)
    torch.testing.assert_close(out.extra_metrics["reconstruction"], reconstruction)
    torch.testing.assert_close(out.extra_metrics["regularization"], regularization)
    torch.testing.assert_close(out.loss, agreement + regularization + 0.3 * reconstruction)
    assert out.n_obs_minibatch == 6


def test_masking_hides_modules() -> None:
    """With all modules hidden all cells look the same: the batch norm gives zero, and views agree."""
    out = module(mask_rate=1.0, regularizer="ema", target_encoder="shared")(views(), VIEWS)
    assert out.extra_metrics["regularization"].item() == 0
    hidden = module(mask_rate=1.0)(views(), VIEWS)
    assert hidden.extra_metrics["agreement"].item() == pytest.approx(0, abs=1e-10)
    assert module(mask_rate=0.0)(views(), VIEWS).extra_metrics["agreement"].item() > 0.1


def test_slow_target_agreement_by_hand() -> None:
    made, batch = module(regularizer="ema", mask_rate=0.0, reconstruction=0.0), views()
    with torch.no_grad():
        made.target_encoder.module.skip.weight.add_(0.1)  # the slow copy is elsewhere
    out = made(batch, VIEWS)
    a, b = batch["first"], batch["second"]
    predict, slow = made.view_predictor, made.target_encoder.module
    one = ((predict(made.encoder(a)) - slow(b)) ** 2).mean()
    two = ((predict(made.encoder(b)) - slow(a)) ** 2).mean()
    torch.testing.assert_close(out.loss, (one + two) / 2)
    out.loss.backward()
    assert all(p.grad is None for p in made.target_encoder.parameters())
    assert made.view_predictor.input.weight.grad.abs().sum() > 0


def test_batch_codes_reach_the_encoder() -> None:
    made, batch = module(n_batch=2, mask_rate=0.0), views()
    with torch.no_grad():
        made.encoder.offset.weight[1] = torch.linspace(-3, 3, GENES)
    codes = torch.tensor([0, 0, 0, 1, 1, 1])
    zero, mixed = (made({**batch, "batch": c}, VIEWS).loss for c in (torch.zeros(6, dtype=torch.long), codes))
    assert zero.item() != pytest.approx(mixed.item())
