"""The objectives by hand on small modules, and the two claims they stand on: matching learns, random pairs collapse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scjepa.losses import SIGRegLoss, VICRegLoss, VISRegLoss, energy_distance, mean_distance, mmd
from scjepa.module import JOINT, SETS, VIEWS, ActionSpec, JEPAModule, JointPrediction, Regularizer, SetMatching

GENES, LATENT = 8, 6


def module(**options) -> JEPAModule:
    torch.manual_seed(0)
    small = {"n_latent": LATENT, "n_hidden": 8, "n_layers": 1, "n_modules": 2, "n_pcs": 2, "predictor_hidden": 16}
    made = JEPAModule(GENES, **{**small, **options})
    with torch.no_grad():  # a head of zeros would hide half of the encoder
        made.encoder.head.weight.normal_(0, 0.3)
    return made


def views(n: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(n, GENES, generator=generator) for name in ("first", "second")}


# ---------------------------------------------------------------- regularizers
@pytest.mark.parametrize(
    ("name", "weight", "loss"), [("visreg", 1.0, VISRegLoss), ("sigreg", 2.0, SIGRegLoss), ("vicreg", 0.04, VICRegLoss)]
)
def test_regularizer_is_the_weighted_loss(name: str, weight: float, loss: type[nn.Module]) -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for given, used in ((None, weight), (0.5, 0.5)):
        torch.manual_seed(3)
        got = Regularizer(name, given)(z)
        torch.manual_seed(3)
        want = loss().regularize(z)["loss"] if name == "vicreg" else loss()(z)["loss"]
        torch.testing.assert_close(got, used * want)


def test_no_regularizer() -> None:
    z = torch.zeros(5, 2)
    assert Regularizer("ema")(z).item() == 0
    assert Regularizer("visreg", 0.0)(z).item() == 0
    with pytest.raises(ValueError, match="regularizer='visreq': expected one of"):
        Regularizer("visreq")


def test_vicreg_keeps_the_ratio_of_the_paper() -> None:
    """Agreement and regularization of two views are the classic loss, 25/25/1, divided by 50."""
    made, batch = module(regularizer="vicreg", mask_rate=0.0, reconstruction=0.0), views()
    got = made(batch, VIEWS).loss
    classic = VICRegLoss()(made.encoder(batch["first"]), made.encoder(batch["second"]))["loss"]
    torch.testing.assert_close(got, classic / 50)


# ---------------------------------------------------------------- views
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


# ---------------------------------------------------------------- sets
def sets(k: int = 2, m: int = 12, d: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(k, m, d, generator=generator)
    return {"source_z": z, "target_z": z.clone(), "actions": torch.eye(2)[:k]}


@pytest.mark.parametrize("set_loss", ["mmd", "energy"])
def test_equal_sets_cost_nothing_at_the_start(set_loss: str) -> None:
    made, batch = module(actions=ActionSpec(2), set_loss=set_loss), sets()
    assert made(batch, SETS).loss.item() == pytest.approx(0, abs=1e-4)
    shifted = {**batch, "target_z": batch["target_z"] + 1.5}
    assert made(shifted, SETS).loss.item() > 0.5
    anchored = {**shifted, "shift": torch.full((2, 2), 1.5)}  # at the start the prediction is the anchor's
    assert made(anchored, SETS).loss.item() == pytest.approx(0, abs=1e-4)


def test_set_matching_by_hand() -> None:
    made, batch = module(actions=ActionSpec(2), n_ensemble=2, mean_weight=0.4).eval(), sets()
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
    made, batch = module(actions=ActionSpec(2), noise=5.0), sets()
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    assert made(batch, SETS).loss.item() != made(batch, SETS).loss.item()
    made.eval()
    assert made(batch, SETS).loss.item() == made(batch, SETS).loss.item()


@pytest.mark.parametrize("reads", ["h", "both"])
def test_predictor_reads_what_it_is_told(reads: str) -> None:
    made, batch = module(actions=ActionSpec(2), predictor_input=reads).eval(), sets()
    batch["target_z"] = batch["target_z"] + 1
    for member in made.predictors:
        nn.init.normal_(member.predictor.output.weight)
    one, two = (made({**batch, "source_h": torch.full((2, 12, LATENT), v)}, SETS).loss for v in (0.0, 2.0))
    assert one.item() != pytest.approx(two.item())
    with pytest.raises(ValueError, match=f"predictor_input='{reads}' needs the JEPA embedding h"):
        made(batch, SETS)


def toy(generator: torch.Generator, m: int = 48) -> dict[str, torch.Tensor]:
    """Unpaired sets: the action moves cells by 2 along the first axis and leaves the spread (1, 1) as it is."""
    source, target = torch.randn(1, m, 2, generator=generator), torch.randn(1, m, 2, generator=generator)
    return {"source_z": source, "target_z": target + torch.tensor([2.0, 0.0]), "actions": torch.ones(1, 1)}


def trained(set_loss: str) -> tuple[float, float, torch.Tensor]:
    """First and last loss, and cells predicted from fresh controls, after 250 steps on the toy."""
    made = module(actions=ActionSpec(1), set_loss=set_loss, n_ensemble=1, noise=0.0, predictor_hidden=32)
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


# ---------------------------------------------------------------- joint
def raw(k: int = 2, m: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    source, target = (torch.rand(k, m, GENES, generator=generator) for _ in range(2))
    return {"source_x": source, "target_x": target + 0.5, "actions": torch.eye(2)[:k]}


def test_joint_prediction_by_hand() -> None:
    made = module(actions=ActionSpec(2), joint=True, set_loss="energy", regularizer="vicreg", n_ensemble=1)
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
    made = module(
        actions=ActionSpec(2), joint=True, set_loss="random_pair", regularizer="vicreg", target_encoder=target_encoder
    )
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
    made = module(actions=ActionSpec(2), joint=True, set_loss="energy", regularizer="vicreg", target_encoder="ema")
    with torch.no_grad():
        made.target_encoder.module.skip.weight.mul_(-1)
        made.target_encoder.module.head.weight.mul_(-1)
    batch = raw()
    out = made(batch, JOINT)
    h = made.encoder(torch.cat([batch["source_x"], batch["target_x"]]).view(-1, GENES))
    aim = made.target_encoder.module(batch["target_x"].view(-1, GENES)).view(2, 8, LATENT)
    want = 2 * energy_distance(h[:16].view(2, 8, LATENT), aim).mean()  # two members
    torch.testing.assert_close(out.extra_metrics["set_loss"], want)
