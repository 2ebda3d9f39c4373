"""PerturbationEncoder: sets of actions, features, dose, kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scjepa.nn import PerturbationEncoder
from scjepa.nn._perturbation import DoseGate

A = 6


def multi_hot(*sets):
    out = torch.zeros(len(sets), A)
    for row, names in zip(out, sets, strict=True):
        for i in names:
            row[i] += 1  # an action listed twice is a 2
    return out


def make(**kwargs):
    torch.manual_seed(0)
    return PerturbationEncoder(A, 8, **kwargs)


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


def test_leading_dimensions():
    encoder, rows = make(n_kinds=2, dose_gate=True), multi_hot([1], [2, 3], [0], [5])
    dose, kind = torch.tensor([0.5, 1.0, 2.0, 3.0]), torch.tensor([0, 1, 0, 1])
    flat = encoder(rows, dose=dose, kind=kind)
    deep = encoder(rows.view(2, 2, A), dose=dose.view(2, 2), kind=kind.view(2, 2))
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
    ],
)
def test_refuses_bad_input(kwargs, call, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)(call.pop("actions", multi_hot([1], [2])), **call)
