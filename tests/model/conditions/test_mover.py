"""How far controls move, without a model: between anchor and network, for what is known and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.modules import jepa

from scjepa.data import ExpressionMatrix
from scjepa.model.conditions import _mover
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._mover import Mover
from scjepa.model.conditions._network import Vocabulary
from scjepa.model.core import at_depth
from scjepa.module import JEPAModule
from scjepa.nn import ActionEncoder

GENES = 12
A, B, AB, C = (Question("+".join(action), action, "x") for action in (("A",), ("B",), ("A", "B"), ("C",)))


def module(*, told: dict[str, Any] | None = None, **options: Any) -> JEPAModule:
    """A module whose predictors say something: their last layers do not start at zero."""
    made = jepa(GENES, actions=lambda: ActionEncoder(2, **(told or {})), **options).eval()
    torch.manual_seed(1)
    for name, parameter in made.named_parameters():
        if name.startswith("predictors."):
            torch.nn.init.normal_(parameter, std=0.3)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(GENES, 5)))[0].T
    made.space.set_axes(torch.linspace(0, 1, GENES), torch.tensor(axes, dtype=torch.float32), 2.5)
    made.encoder.skip.weight.data.normal_()
    made.readout.weight.copy_(torch.randn(GENES, 4))
    made.readout.bias.copy_(torch.randn(GENES))
    return made


def mover(made: JEPAModule | None = None, known: str = "AB", **options: Any) -> Mover:
    return Mover(module() if made is None else made, Vocabulary(("A", "B"), ("KO", "OE")), frozenset(known), **options)


X = torch.tensor(np.random.default_rng(2).random((7, GENES)), dtype=torch.float32)
FULL, BASE = np.random.default_rng(3).normal(size=(2, GENES))


def shift(of: Mover, question: Question = A, network: float = 1.0, full=FULL, base=BASE) -> np.ndarray:
    with torch.inference_mode():
        return of.shift(X, question, full, base, network).numpy()


# ---------------------------------------------------------------- anchor and network
def test_without_the_network_all_cells_move_as_the_anchor_says() -> None:
    np.testing.assert_allclose(shift(mover(), network=0.0), FULL[None], rtol=1e-6)


def test_the_network_in_full_corrects_the_other_anchor_inside_the_coordinates() -> None:
    made = module()
    found, space = shift(mover(made), network=1.0), made.space
    with torch.inference_mode():
        move = made.shift(space.project(X)[None], actions=torch.tensor([[1.0, 0.0]]))[0]
        full, base = (torch.tensor(e[None], dtype=torch.float32) for e in (FULL, BASE))
        inside, outside = space.project_shift(base) + move, full - space.lift_shift(space.project_shift(full))
        wanted = space.lift_shift(inside) + outside
        np.testing.assert_allclose(space.project_shift(torch.tensor(found)), inside, atol=1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01  # cell by cell


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_shares_in_between_are_linear(share: float) -> None:
    of = mover()
    wanted = (1 - share) * shift(of, network=0.0) + share * shift(of, network=1.0)
    np.testing.assert_allclose(shift(of, network=share), wanted, atol=1e-5)


@pytest.mark.parametrize("reads", ["h", "both"])
def test_what_reads_the_embedding_is_given_that_of_cells_at_depth(reads: str) -> None:
    made = module(reads=reads)
    one, other = (shift(mover(made, unit=unit)) for unit in (1.0, 4.0))
    assert not np.allclose(one, other, atol=1e-3)
    with torch.inference_mode():
        state = made.state(made.space.project(X), made.embed(at_depth(X, 4.0)))
        move = made.shift(state[None], actions=torch.tensor([[1.0, 0.0]]))[0]
        wanted = made.space.lift_shift(move).numpy()
    found = shift(mover(made, unit=4.0), full=np.zeros(GENES), base=np.zeros(GENES))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_cells_are_moved_one_by_one_and_in_any_order() -> None:
    of, order = mover(), torch.randperm(7)
    whole = shift(of)
    with torch.inference_mode():
        np.testing.assert_allclose(of.shift(X[order], A, FULL, BASE, 1.0), whole[order], atol=1e-5)
        np.testing.assert_allclose(of.shift(X[:1], A, FULL, BASE, 1.0), whole[:1], atol=1e-5)


# ---------------------------------------------------------------- what is told
def test_a_dose_of_zero_does_nothing_whatever_was_learned() -> None:
    of = mover(module(told={"dose_gate": True}))
    asked = [Question("A", ("A",), "x", dose=dose) for dose in (0.0, 1.0)]
    assert (shift(of, asked[0]) == 0).all() and shift(of, asked[0]).shape == (1, GENES)
    assert np.abs(shift(of, asked[1])).max() > 0.01


def test_items_that_were_never_trained_on_are_not_told() -> None:
    of = mover(known="A")
    np.testing.assert_array_equal(shift(of, AB), shift(of, A))  # B has a vector, but it says nothing
    np.testing.assert_allclose(shift(of, B), FULL[None], rtol=1e-6)  # nothing is known: the network is not asked
    np.testing.assert_allclose(shift(of, C), FULL[None], rtol=1e-6)
    assert not np.allclose(shift(mover(known="AB"), AB), shift(of, A), atol=1e-3)


@pytest.mark.parametrize(
    ("told", "values"),
    [({"dose_gate": True}, ("dose", 1.0, 8.0)), ({"time": True}, ("time", 6.0, 24.0)), ({"n_kinds": 2}, ("kind", "KO", "OE"))],
)  # fmt: skip
def test_doses_times_and_kinds_reach_the_network(told: dict, values: tuple) -> None:
    of, (name, one, other) = mover(module(told=told)), values
    here, there = (shift(of, Question("A", ("A",), "x", **{name: value})) for value in (one, other))
    assert not np.allclose(here, there, atol=1e-3)


# ---------------------------------------------------------------- joint
def test_joint_predictors_move_in_the_embedding() -> None:
    made = module(joint=True)
    of = mover(made, joint=True, unit=2.0)
    with torch.inference_mode():
        start = made.embed(at_depth(X, 2.0))
        move = made.shift(start[None], actions=torch.tensor([[1.0, 0.0]]))[0]
    np.testing.assert_allclose(shift(of), move @ made.readout.weight.T, atol=1e-4)  # no bias, no anchor
    np.testing.assert_array_equal(shift(of), shift(of, base=BASE + 1, full=FULL))


# ---------------------------------------------------------------- means
@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("network", [0.0, 0.4, 1.0])
def test_the_mean_shift_is_the_mean_of_shifts(block: int, network: float, monkeypatch: pytest.MonkeyPatch) -> None:
    of = mover()
    wanted = np.broadcast_to(shift(of, network=network), X.shape).mean(0)
    monkeypatch.setattr(_mover, "BLOCK", block)
    found = of.mean_shift(ExpressionMatrix(X.numpy(), "lognorm"), A, FULL, BASE, network)
    assert found.shape == (GENES,) and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("block", [2, 100])
def test_embeddings_of_expression(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module()
    wanted = made.embed(at_depth(X, 2.0)).numpy()
    monkeypatch.setattr(_mover, "BLOCK", block)
    found = mover(made, unit=2.0).embed(X.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
