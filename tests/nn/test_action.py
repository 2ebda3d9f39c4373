"""ActionEncoder: sets of items, features, dose, kind, time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scjepa.nn import ActionEncoder, PerturbationEncoder
from scjepa.nn._action import TIME_DIMS, DoseGate, TimeEmbedding

A = 6


def multi_hot(*sets):
    out = torch.zeros(len(sets), A)
    for row, names in zip(out, sets, strict=True):
        for i in names:
            row[i] += 1  # an action listed twice is a 2
    return out


def make(**kwargs):
    torch.manual_seed(0)
    return ActionEncoder(**{"n_actions": A, "n_cond": 8, **kwargs})


def test_is_the_sum_of_learned_vectors():
    encoder = make()
    vectors = encoder.embedding.weight.detach().T
    out = encoder(multi_hot([1], [1, 4], [0, 2, 3, 5], []))
    expected = torch.stack([vectors[1], vectors[1] + vectors[4], vectors[[0, 2, 3, 5]].sum(0), torch.zeros(8)])
    torch.testing.assert_close(out, expected)


def test_order_and_repetition_do_not_matter():
    encoder = make(features=np.random.default_rng(0).normal(size=(A, 3)))
    torch.nn.init.normal_(encoder.embedding.weight)
    torch.testing.assert_close(encoder(multi_hot([4, 1, 2], [1, 1, 4])), encoder(multi_hot([2, 4, 1], [4, 1])))
    rows = multi_hot([0], [1, 2], [3])
    torch.testing.assert_close(encoder(rows[[2, 0, 1, 1]]), encoder(rows)[[2, 0, 1, 1]])  # rows don't see each other


def test_features_describe_unseen_actions():
    features = torch.randn(A, 3, generator=torch.Generator().manual_seed(1))
    encoder = make(features=features)
    torch.testing.assert_close(encoder(multi_hot([2, 5])), encoder.projection(features[2] + features[5])[None])
    torch.nn.init.normal_(encoder.embedding.weight)
    both = encoder.embedding.weight[:, 3] + encoder.projection(features[3])
    torch.testing.assert_close(encoder(multi_hot([3]))[0], both)
    assert "features" in encoder.state_dict()
    assert "features" not in make().state_dict()


@pytest.mark.parametrize("dose_ref", [0.01, 1.0, 250.0])
def test_dose_gate_at_zero_and_reference(dose_ref):
    gate = DoseGate(dose_ref)
    torch.testing.assert_close(gate(torch.tensor([0.0, dose_ref])), torch.tensor([0.0, 1.0]))
    encoder = make(dose_gate=True, dose_ref=dose_ref)
    rows = multi_hot([1, 4], [1, 4])
    out = encoder(rows, dose=torch.tensor([dose_ref, 0.0]))
    torch.testing.assert_close(out[0], make()(rows)[0])
    assert (out[1] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_dose_gate_is_monotone_whatever_is_learned(seed):
    gate = DoseGate(2.0)
    torch.manual_seed(seed)
    for p in gate.parameters():
        p.data += torch.randn_like(p)
    dose = torch.cat([torch.zeros(1), torch.logspace(-4, 3, 200)]).double()
    values = gate.double()(dose).detach()
    assert values[0] == 0
    assert (values.diff() > 0).all()


def test_dose_gate_learns_a_curve_from_finite_gradients():
    gate = DoseGate(1.0)
    dose = torch.tensor([0.0, 0.1, 1.0, 10.0, 100.0])
    true = dose**2 / (dose**2 + 25)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    first = None
    for _ in range(400):
        optimizer.zero_grad()
        error = (gate(dose) - true).square().mean()
        error.backward()
        assert all(torch.isfinite(p.grad).all() for p in gate.parameters())
        optimizer.step()
        first = error.item() if first is None else first
    assert error.item() < 0.02 * first


def test_one_dose_for_each_action():
    encoder = make(dose_gate=True)
    vectors = encoder.embedding.weight.detach().T
    dose = torch.zeros(1, A)
    dose[0, 1], dose[0, 4] = 1.0, 3.0
    gate = encoder.gate(torch.tensor(3.0)).detach()
    assert gate > 1
    torch.testing.assert_close(encoder(multi_hot([1, 4]), dose=dose)[0], vectors[1] + gate * vectors[4])
    torch.testing.assert_close(
        encoder(multi_hot([1, 4]), dose=torch.tensor([3.0])), encoder(multi_hot([1, 4]), dose=torch.full((1, A), 3.0))
    )


def test_kind_scales_each_dimension_and_starts_at_one():
    encoder, rows = make(n_kinds=2), multi_hot([1], [1])
    torch.testing.assert_close(encoder(rows, kind=torch.tensor([0, 1])), make()(rows))
    encoder.kind.weight.data[1] = torch.arange(8.0)
    out = encoder(rows, kind=torch.tensor([0, 1]))
    torch.testing.assert_close(out[1], out[0] * torch.arange(8.0))


def test_features_alone() -> None:
    features = torch.randn(A, 3, generator=torch.Generator().manual_seed(1))
    encoder = make(learned=False, features=features)
    assert {name for name, _ in encoder.named_parameters()} == {"projection.weight"}
    torch.testing.assert_close(
        encoder(multi_hot([2, 5], [])), torch.stack([encoder.projection(features[2] + features[5]), torch.zeros(8)])
    )


def test_absent_parts_leave_the_numbers_of_the_others() -> None:
    """Seeded builds: what is made later does not change what was made before."""
    features = np.eye(A)
    bare, full = make().state_dict(), make(n_kinds=2, dose_gate=True, time=8).state_dict()
    assert torch.equal(bare["embedding.weight"], full["embedding.weight"])
    one, two = make(features=features).state_dict(), make(features=features, time=8).state_dict()
    assert torch.equal(one["projection.weight"], two["projection.weight"])


def test_names_in_saved_models_stay() -> None:
    full = make(features=np.eye(A), n_kinds=2, dose_gate=True, time=True)
    names = ["embedding.weight", "features", "gate.log_center", "gate.log_height", "kind.weight", "projection.weight"]
    assert sorted(full.state_dict()) == [*names, "time.weight"]
    assert full.time.in_features == TIME_DIMS
    assert PerturbationEncoder is ActionEncoder


# ---------------------------------------------------------------- time
def test_training_starts_as_if_time_were_not_told() -> None:
    rows = multi_hot([1], [2, 3], [])
    torch.testing.assert_close(make(time=8)(rows, time=torch.tensor([0.0, 1.0, 50.0])), make()(rows))


def test_time_modulates_and_no_action_stays_zero() -> None:
    encoder, rows = make(time=8, time_ref=24.0), multi_hot([1], [1], [], [])
    torch.nn.init.normal_(encoder.time.weight)
    time = torch.tensor([6.0, 24.0, 6.0, 24.0])
    out = encoder(rows, time=time)
    factor = 1 + encoder.time(encoder.clock(time))
    torch.testing.assert_close(out, make()(rows) * factor)
    assert not torch.allclose(out[0], out[1])
    assert (out[2:] == 0).all()


def test_time_alone_is_an_action_that_is_nothing_at_time_zero() -> None:
    encoder = make(n_actions=0, time=8, time_ref=10.0)
    assert {name for name, _ in encoder.named_parameters()} == {"time.weight"}
    out = encoder(time=torch.tensor([[0.0, 2.0], [10.0, 300.0]]))
    assert out.shape == (2, 2, 8)
    assert (out[0, 0] == 0).all()
    assert all(row.abs().max() > 0.1 for row in (out[0, 1], out[1, 0], out[1, 1]))
    kinds = make(n_actions=0, n_kinds=2, time=8)
    assert (kinds(time=torch.zeros(2), kind=torch.tensor([0, 1])) == 0).all()


def test_time_embedding_is_sines_of_the_log_and_does_not_repeat() -> None:
    clock = TimeEmbedding(6, time_ref=24.0)
    angle = 2 * torch.pi * torch.log1p(torch.tensor(6.0)) / torch.log1p(torch.tensor(24.0))
    want = torch.cat([f(angle * 16.0 ** (-torch.arange(3) / 3)) for f in (torch.sin, torch.cos)])
    torch.testing.assert_close(clock(torch.tensor(6.0)), want)
    many = clock(torch.linspace(0, 1000, 2001))
    assert torch.pdist(many).min() > 0  # periods up to 16 in log units: no two times are alike
    near, far = ((clock(torch.tensor(a)) - clock(torch.tensor(24.0))).norm() for a in (23.0, 12.0))
    assert near < far  # close by is alike


def test_gradients_reach_every_part() -> None:
    encoder = make(features=np.eye(A), n_kinds=2, dose_gate=True, time=8)
    out = encoder(multi_hot([1], [2, 3]), dose=torch.tensor([0.5, 2.0]), kind=torch.tensor([0, 1]), time=torch.ones(2))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_values_are_not_looked_at_under_vmap() -> None:
    encoder = make(n_kinds=2, dose_gate=True, time=8)
    encoder.check_values = False
    tell = lambda dose, kind, time: encoder(multi_hot([1], [2]), dose=dose, kind=kind, time=time)
    dose, kind, time = torch.rand(3, 2), torch.tensor([[0, 1]] * 3), torch.rand(3, 2)
    want = torch.stack([tell(*row) for row in zip(dose, kind, time, strict=True)])
    torch.testing.assert_close(torch.vmap(tell)(dose, kind, time), want)


def test_leading_dimensions():
    encoder, rows = make(n_kinds=2, dose_gate=True, time=8), multi_hot([1], [2, 3], [0], [5])
    torch.nn.init.normal_(encoder.time.weight)
    dose, kind, time = torch.tensor([0.5, 1.0, 2.0, 3.0]), torch.tensor([0, 1, 0, 1]), torch.arange(4.0)
    flat = encoder(rows, dose=dose, kind=kind, time=time)
    deep = encoder(rows.view(2, 2, A), dose=dose.view(2, 2), kind=kind.view(2, 2), time=time.view(2, 2))
    torch.testing.assert_close(deep, flat.view(2, 2, 8))


@pytest.mark.parametrize(
    ("kwargs", "call", "message"),
    [
        ({}, {"actions": torch.ones(2, 5)}, r"actions have shape \(2, 5\): expected \(..., 6\) multi-hot"),
        ({}, {"dose": torch.ones(2)}, "made without dose_gate=True"),
        ({}, {"kind": torch.zeros(2).long()}, "made with n_kinds=0"),
        ({"dose_gate": True}, {}, "dose is missing: this encoder has a dose gate"),
        ({"dose_gate": True}, {"dose": torch.tensor([1.0, -2.0])}, "1 doses are negative or not finite, .* -2"),
        ({"dose_gate": True}, {"dose": torch.tensor([1.0, torch.nan])}, "1 doses are negative or not finite"),
        ({"dose_gate": True}, {"dose": torch.ones(3)}, r"dose has shape \(3,\): expected \(2,\) or \(2, 6\)"),
        ({"n_kinds": 2}, {}, "kind is missing: this encoder has 2 kinds"),
        ({"n_kinds": 2}, {"kind": torch.tensor([0, 2])}, "kind codes run from 0 to 2: expected 0 to 1"),
        ({"n_kinds": 2}, {"kind": torch.zeros(2)}, "kind is torch.float32"),
        ({"features": np.ones((5, 2))}, {}, r"features of shape \(5, 2\): expected finite numbers, .* 6 actions"),
        ({"features": np.full((6, 2), np.nan)}, {}, "expected finite numbers"),
        ({"dose_gate": True, "dose_ref": 0.0}, {}, "dose_ref=0.0: expected a positive number"),
        ({}, {"actions": None}, "actions are missing: this encoder has 6 items"),
        ({}, {"time": torch.ones(2)}, "made with time=False"),
        ({"time": 8}, {}, "time is missing: this encoder is told how long"),
        ({"time": 8}, {"time": torch.ones(3)}, r"time has shape \(3,\): expected \(2,\), one time a row"),
        ({"time": 8}, {"time": torch.tensor([1.0, -3.0])}, "1 times are negative or not finite, for example -3"),
        ({"time": 8}, {"time": torch.tensor([torch.inf, 1.0])}, "1 times are negative or not finite"),
        ({"time": 8, "time_ref": -1.0}, {}, "time_ref=-1.0: expected a positive number"),
        ({"time": -1}, {}, "time"),
        ({"learned": False}, {}, "learned=False without features: nothing would tell the items apart"),
        ({"n_actions": 0}, {}, "n_actions=0 and time=False: there is no action"),
        ({"n_actions": 0, "time": 8, "dose_gate": True}, {}, "no items that features or dose_gate could belong to"),
        ({"n_actions": 0, "time": 8, "features": np.ones((0, 2))}, {}, "no items that features or dose_gate could"),
        ({"n_actions": 0, "time": 8}, {"time": torch.ones(2)}, "but the encoder was made with n_actions=0"),
        ({"n_actions": 0, "time": 8}, {"actions": None}, "time is missing"),
    ],
)
def test_refuses_bad_input(kwargs, call, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)(call.pop("actions", multi_hot([1], [2])), **call)
