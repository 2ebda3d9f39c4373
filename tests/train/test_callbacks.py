"""The collapse monitor warns, once, on each kind of collapse; the best weights are those of the lowest loss."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from scjepa.nn import GeneExpressionEncoder
from scjepa.train import BestWeights, CollapseMonitor

GENES, LATENT, CELLS = 20, 8, 64


def encoder() -> GeneExpressionEncoder:
    torch.manual_seed(0)
    made = GeneExpressionEncoder(GENES, LATENT, n_hidden=8, n_modules=4)
    made.initialize(torch.linalg.qr(torch.randn(GENES, LATENT))[0].T, torch.ones(LATENT), torch.zeros(GENES))
    return made


def look(made: GeneExpressionEncoder, monitor: CollapseMonitor | None = None) -> dict[str, float]:
    """What the monitor logs after an epoch."""
    logged: dict[str, float] = {}
    stub = SimpleNamespace(
        module=SimpleNamespace(encoder=made),
        device=torch.device("cpu"),
        log=lambda name, value, **_: logged.update({name: value}),
    )
    (monitor or CollapseMonitor(probe())).on_train_epoch_end(None, stub)
    return logged


def probe() -> torch.Tensor:
    return torch.randn(CELLS, GENES, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [1.0, 1e3, 3e-2])
def test_healthy_encoder_at_any_scale(scale: float) -> None:
    """The batch norm takes out the scale before it, so that scale is no sign of collapse."""
    made = encoder()
    with torch.no_grad():
        made.skip.weight.mul_(scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logged = look(made)
    assert logged["embedding_std"] == pytest.approx(1, abs=0.01)
    assert 0.9 * LATENT < logged["rankme"] < 1.01 * LATENT


def test_all_cells_in_one_point() -> None:
    made = encoder()
    with torch.no_grad():
        made.skip.weight.mul_(1e-6)
    with pytest.warns(UserWarning, match="the embedding is collapsing.*largest standard deviation.*visreg"):
        logged = look(made)
    assert logged["embedding_std"] < 0.01


def test_all_dimensions_copies_of_one() -> None:
    made = encoder()
    with torch.no_grad():
        made.skip.weight.copy_(made.skip.weight[:1].expand(LATENT, -1) * torch.arange(1, LATENT + 1)[:, None])
    with pytest.warns(UserWarning, match="the embedding is collapsing: effective rank 1 of 8"):
        logged = look(made)
    assert logged["embedding_std"] == pytest.approx(1, abs=0.01)  # the standard deviation does not see it


def test_warns_once() -> None:
    made = encoder()
    with torch.no_grad():
        made.skip.weight.zero_()
    monitor = CollapseMonitor(probe())
    with pytest.warns(UserWarning, match="collapsing"):
        look(made, monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(made, monitor)


def test_axes_without_variance_are_no_collapse() -> None:
    """Data of low rank leave dimensions at zero from the start."""
    made = encoder()
    with torch.no_grad():
        made.skip.weight[2:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert look(made)["rankme"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_cells_say_nothing(n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(encoder(), CollapseMonitor(probe()[:n]))


def test_looking_changes_nothing() -> None:
    made = encoder().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    state = torch.get_rng_state()
    look(made)
    assert made.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])


def test_batch_codes_are_used() -> None:
    torch.manual_seed(0)
    made = GeneExpressionEncoder(GENES, LATENT, n_hidden=8, n_modules=4, n_batch=2)
    with torch.no_grad():
        made.offset.weight[1] = 50.0  # cells of batch 1 are far away unless their offset is subtracted
    codes = torch.arange(CELLS) % 2
    shifted = probe() + 50.0 * codes[:, None]
    aware = look(made, CollapseMonitor(shifted, codes))["rankme"]
    blind = look(made, CollapseMonitor(shifted))["rankme"]
    assert aware > blind + 1


# ---------------------------------------------------------------- best weights
@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 1.0, 2.0], 0),  # the first of equals
        ([float("nan"), 2.0, float("nan")], 1),
        ([float("nan"), float("inf")], None),
        ([], None),
    ],
)
def test_best_weights(losses: list[float], kept: int | None) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    keeper = BestWeights([weight])
    trainer = SimpleNamespace(callback_metrics={"validation_loss": torch.tensor(-1.0)}, sanity_checking=True)
    keeper.on_validation_end(trainer, None)  # Lightning's trial run before training does not count
    trainer.sanity_checking = False
    for epoch, loss in enumerate(losses):
        trainer.current_epoch, trainer.callback_metrics["validation_loss"] = epoch, torch.tensor(loss)
        weight.data.fill_(epoch)
        keeper.on_validation_end(trainer, None)
    weight.data.fill_(9)
    keeper.on_train_end(trainer, None)
    assert keeper.epoch == kept
    assert weight.tolist() == [9 if kept is None else kept] * 2 and weight.requires_grad
