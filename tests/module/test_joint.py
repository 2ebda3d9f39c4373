"""Encoder and predictor trained together, by hand on small modules."""

from __future__ import annotations

import pytest
import torch
from tests.modules import jepa

from scjepa.losses import VICRegLoss, energy_distance, mean_distance
from scjepa.module import JOINT, JEPAModule

GENES, LATENT = 8, 6


def module(**options) -> JEPAModule:
    made = jepa(GENES, **{"n_latent": LATENT, "n_pcs": 2, "predictor_hidden": 16, **options})
    with torch.no_grad():  # a head of zeros would hide half of the encoder
        made.encoder.head.weight.normal_(0, 0.3)
    return made


def raw(k: int = 2, m: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    source, target = (torch.rand(k, m, GENES, generator=generator) for _ in range(2))
    return {"source_x": source, "target_x": target + 0.5, "actions": torch.eye(2)[:k]}


def test_joint_prediction_by_hand() -> None:
    made = module(actions=2, joint=True, set_loss="energy", regularizer="vicreg", n_ensemble=1)
    batch = raw()
    out = made(batch, JOINT)
    x, y = batch["source_x"], batch["target_x"]
    flat = torch.cat([x, y]).reshape(-1, GENES)
    h = made.encoder(flat)
    hx, hy = h[:16].view(2, 8, LATENT), h[16:].view(2, 8, LATENT)
    parts = {
        "set_loss": energy_distance(hx, hy).mean(),  # the predictor starts at zero
        "regularization": 0.04 * VICRegLoss().regularize(h)["loss"],
        "inverse_dynamics": made.inverse_dynamics.loss(hx, hy, batch["actions"]),
        "reconstruction": ((made.decoder(h) - flat) ** 2).sum() / (32 * LATENT),
    }
    for name, want in parts.items():
        torch.testing.assert_close(out.extra_metrics[name], want)
    total = parts["set_loss"] + parts["regularization"] + parts["inverse_dynamics"] + 0.3 * parts["reconstruction"]
    torch.testing.assert_close(out.loss, total + 0.2 * mean_distance(hx, hy).mean())


@pytest.mark.parametrize("target_encoder", ["shared", "ema"])
def test_classic_formulation_trains(target_encoder: str) -> None:
    """VICReg and random pairs, with a shared or a slow target encoder."""
    made = module(actions=2, joint=True, set_loss="random_pair", regularizer="vicreg", target_encoder=target_encoder)
    trained_ones = dict(made.trained_by(JOINT))
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    optimizer = torch.optim.SGD(trained_ones.values(), lr=0.1)
    for _ in range(2):  # the predictor's first layers move only after its head has
        optimizer.zero_grad()
        made(raw(), JOINT).loss.backward()
        optimizer.step()
    moved = {name for name, p in made.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(trained_ones)
    assert {"encoder.skip.weight", "decoder.weight", "inverse_dynamics.linear.weight"} <= moved
    assert any(name.startswith("predictors.1.") for name in moved)
    if target_encoder == "ema":
        slow = made.target_encoder.module.skip.weight
        torch.testing.assert_close(slow, before["encoder.skip.weight"])
        made.update_target()
        want = torch.lerp(before["encoder.skip.weight"], made.encoder.skip.weight, 1 - made.target_encoder.decay)
        torch.testing.assert_close(slow, want)


def test_slow_target_is_what_is_aimed_at() -> None:
    made = module(actions=2, joint=True, set_loss="energy", regularizer="vicreg", target_encoder="ema")
    with torch.no_grad():
        made.target_encoder.module.skip.weight.mul_(-1)
        made.target_encoder.module.head.weight.mul_(-1)
    batch = raw()
    out = made(batch, JOINT)
    h = made.encoder(torch.cat([batch["source_x"], batch["target_x"]]).view(-1, GENES))
    aim = made.target_encoder.module(batch["target_x"].view(-1, GENES)).view(2, 8, LATENT)
    want = 2 * energy_distance(h[:16].view(2, 8, LATENT), aim).mean()  # two members
    torch.testing.assert_close(out.extra_metrics["set_loss"], want)


def test_parts_that_are_absent_have_no_term() -> None:
    """Without a decoder nothing is reconstructed, and elapsed time has no items that could be read off a shift."""
    made = module(actions=2, joint=True, set_loss="energy")
    made.decoder = made.inverse_dynamics = None
    metrics = made(raw(), JOINT).extra_metrics
    assert set(metrics) == {"set_loss", "mean_loss", "regularization"}
