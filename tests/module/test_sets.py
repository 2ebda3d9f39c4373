"""Sets of cells by hand on small modules, and the two claims: matching learns, random pairs collapse."""

from __future__ import annotations

import pytest
import torch
from tests.modules import jepa
from torch import nn

from scjepa.losses import mean_distance, mmd
from scjepa.module import SETS, JEPAModule, JointPrediction, Regularizer, SetMatching
from scjepa.nn import ActionEncoder

GENES, LATENT = 8, 6


def module(**options) -> JEPAModule:
    made = jepa(GENES, **{"n_latent": LATENT, "n_pcs": 2, "predictor_hidden": 16, **options})
    with torch.no_grad():  # a head of zeros would hide half of the encoder
        made.encoder.head.weight.normal_(0, 0.3)
    return made


def sets(k: int = 2, m: int = 12, d: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(k, m, d, generator=generator)
    return {"source_z": z, "target_z": z.clone(), "actions": torch.eye(2)[:k]}


@pytest.mark.parametrize("set_loss", ["mmd", "energy"])
def test_equal_sets_cost_nothing_at_the_start(set_loss: str) -> None:
    made, batch = module(actions=2, set_loss=set_loss), sets()
    assert made(batch, SETS).loss.item() == pytest.approx(0, abs=1e-4)
    shifted = {**batch, "target_z": batch["target_z"] + 1.5}
    assert made(shifted, SETS).loss.item() > 0.5
    anchored = {**shifted, "shift": torch.full((2, 2), 1.5)}  # at the start the prediction is the anchor's
    assert made(anchored, SETS).loss.item() == pytest.approx(0, abs=1e-4)


def test_set_matching_by_hand() -> None:
    made, batch = module(actions=2, n_ensemble=2, mean_weight=0.4).eval(), sets()
    batch["target_z"] = torch.randn(2, 9, 2)
    batch["shift"] = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    moved = [
        batch["source_z"] + batch["shift"][:, None] + f(batch["source_z"], batch["actions"]) for f in made.predictors
    ]
    want_set = sum(mmd(p, batch["target_z"]).mean() for p in moved)
    want_mean = sum(mean_distance(p, batch["target_z"]).mean() for p in moved)
    out = made(batch, SETS)
    torch.testing.assert_close(out.extra_metrics["set_loss"], want_set)
    torch.testing.assert_close(out.extra_metrics["mean_loss"], want_mean)
    torch.testing.assert_close(out.loss, want_set + 0.4 * want_mean)


def test_noise_is_for_training_only() -> None:
    made, batch = module(actions=2, noise=5.0), sets()
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    assert made(batch, SETS).loss.item() != made(batch, SETS).loss.item()
    made.eval()
    assert made(batch, SETS).loss.item() == made(batch, SETS).loss.item()


@pytest.mark.parametrize("reads", ["h", "both"])
def test_predictor_reads_what_it_is_told(reads: str) -> None:
    made, batch = module(actions=2, reads=reads).eval(), sets()
    batch["target_z"] = batch["target_z"] + 1
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    one, two = (made({**batch, "source_h": torch.full((2, 12, LATENT), v)}, SETS).loss for v in (0.0, 2.0))
    assert one.item() != pytest.approx(two.item())
    with pytest.raises(ValueError, match=f"predictor_input='{reads}' needs the JEPA embedding h"):
        made(batch, SETS)


def test_what_a_batch_tells_reaches_the_predictors() -> None:
    told = lambda: ActionEncoder(2, n_kinds=2, dose_gate=True, time=4)
    made = module(actions=told).eval()
    batch = sets() | {"dose": torch.ones(2), "kind": torch.tensor([0, 1]), "time": torch.tensor([6.0, 24.0])}
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
        nn.init.normal_(member.action_encoder.time.weight)
        nn.init.normal_(member.action_encoder.kind.weight)
        for layer in member.predictor.modulation:
            nn.init.normal_(layer.weight)
    before = made(batch, SETS).loss.item()
    for name, other in {"dose": torch.zeros(2), "kind": torch.ones(2).long(), "time": torch.zeros(2)}.items():
        assert made({**batch, name: other}, SETS).loss.item() != pytest.approx(before), name
        with pytest.raises(ValueError, match=f"{name} is missing"):
            made({k: v for k, v in batch.items() if k != name}, SETS)


def test_time_can_be_all_there_is() -> None:
    made, batch = module(actions=lambda: ActionEncoder(0, time=4)), sets()
    del batch["actions"]
    out = made(batch | {"time": torch.tensor([1.0, 2.0])}, SETS)
    assert out.n_obs_minibatch == 2 and out.loss.item() == pytest.approx(0, abs=1e-4)


def toy(generator: torch.Generator, m: int = 48) -> dict[str, torch.Tensor]:
    """Unpaired sets: the action moves cells by 2 along the first axis and leaves the spread (1, 1) as it is."""
    source, target = torch.randn(1, m, 2, generator=generator), torch.randn(1, m, 2, generator=generator)
    return {"source_z": source, "target_z": target + torch.tensor([2.0, 0.0]), "actions": torch.ones(1, 1)}


def trained(set_loss: str) -> tuple[float, float, torch.Tensor]:
    """First and last loss, and cells predicted from fresh controls, after 250 steps on the toy."""
    made = module(actions=1, set_loss=set_loss, n_ensemble=1, noise=0.0, predictor_hidden=32)
    optimizer = torch.optim.AdamW([p for _, p in made.trained_by(SETS)], lr=5e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(250):
        loss = made(toy(generator), SETS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    z = torch.randn(1, 500, 2, generator=generator)
    return sum(losses[:5]) / 5, sum(losses[-20:]) / 20, (z + made.shift(z, torch.ones(1, 1)))[0]


@pytest.fixture(scope="module")
def by_matching() -> tuple[float, float, torch.Tensor]:
    return trained("mmd")


def test_training_reduces_the_loss_and_finds_the_shift(by_matching) -> None:
    first, last, predicted = by_matching
    assert last < 0.3 * first
    torch.testing.assert_close(predicted.mean(0), torch.tensor([2.0, 0.0]), atol=0.4, rtol=0)


def test_random_pairs_collapse_the_variance_and_matching_does_not(by_matching) -> None:
    matched = by_matching[2].var(0).mean().item()
    paired = trained("random_pair")[2].var(0).mean().item()
    assert 0.6 < matched < 1.5
    assert paired < 0.25


def test_unknown_set_loss() -> None:
    for objective in (lambda: SetMatching("mse"), lambda: JointPrediction(Regularizer(), "mse")):
        with pytest.raises(ValueError, match=r"set_loss='mse': expected one of \['energy', 'mmd', 'random_pair'\]"):
            objective()
