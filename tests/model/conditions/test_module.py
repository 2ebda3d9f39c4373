"""The module of models of conditions: the names of its weights, which saved models are read by, and its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from scjepa.model.conditions._module import MODULE, condition_module
from scjepa.module import JOINT, SETS, VIEWS, JEPAModule
from scjepa.nn import ActionEncoder, GeneExpressionEncoder

ENCODER = [
    "encoder.mean",
    "encoder.membership",
    "encoder.skip.weight",
    "encoder.body.0.weight",
    "encoder.body.0.bias",
    "encoder.body.1.weight",
    "encoder.body.1.bias",
    "encoder.body.3.weight",
    "encoder.body.3.bias",
    "encoder.body.4.weight",
    "encoder.body.4.bias",
    "encoder.head.weight",
    "encoder.head.bias",
    "encoder.norm.running_mean",
    "encoder.norm.running_var",
    "encoder.norm.num_batches_tracked",
]
FITTED = [
    "decoder.weight",
    "decoder.bias",
    "readout.weight",
    "readout.bias",
    "space.mean",
    "space.loadings",
    "space.scale",
]
PREDICTOR = [
    f"{layer}.{part}"
    for layer in (
        "input",
        "modulation.0",
        "modulation.1",
        "blocks.0.0",
        "blocks.0.2",
        "blocks.1.0",
        "blocks.1.2",
        "output",
    )
    for part in ("weight", "bias")
]
TOLD = ["kind.weight", "gate.log_center", "gate.log_height", "time.weight"]
"""Saved and exported models are read by these names: one that changes here makes them unreadable."""


def made(*, joint: bool = False, told: dict[str, Any] | None = None, **changes: Any) -> JEPAModule:
    torch.manual_seed(0)
    of = {**MODULE, "n_hidden": 16, "n_latent": 4, "n_pcs": 5, "predictor_input": "z", "n_ensemble": 2, **changes}
    encoder = GeneExpressionEncoder(20, of["n_latent"], n_modules=3, n_hidden=of["n_hidden"], n_layers=of["n_layers"])
    return condition_module(encoder, 3, lambda: ActionEncoder(3, **(told or {})), of, joint=joint)


def names(module: JEPAModule) -> list[str]:
    return list(module.state_dict())


def predictor(number: int, *further: str) -> list[str]:
    action = [f"predictors.{number}.action_encoder.{part}" for part in ("embedding.weight", *further)]
    own = [n for n in names(made()) if n.startswith(f"predictors.{number}.predictor.")]
    return action + own


def test_names_of_the_weights_are_those_of_saved_models() -> None:
    found = names(made())
    assert found[: len(ENCODER)] == ENCODER
    assert found[len(ENCODER) : len(ENCODER) + len(FITTED)] == FITTED
    assert found[len(ENCODER) + len(FITTED) :] == predictor(0) + predictor(1)
    own = [n.removeprefix("predictors.0.predictor.") for n in predictor(0)[1:]]
    assert own == PREDICTOR


def test_joint_training_adds_its_head_behind_everything() -> None:
    alone, joint = names(made()), names(made(joint=True))
    assert joint[: len(alone)] == alone
    assert joint[len(alone) :] == ["inverse_dynamics.linear.weight", "inverse_dynamics.linear.bias"]


def test_a_slow_encoder_stands_between_encoder_and_decoder() -> None:
    found = names(made(target_encoder="ema"))
    slow = [f"target_encoder.module.{n.removeprefix('encoder.')}" for n in ENCODER]
    assert found[len(ENCODER) : 2 * len(ENCODER)] == slow
    between = [n for n in found if n.startswith("view_predictor.")]
    assert between and found[2 * len(ENCODER) :][: len(between)] == between
    assert found[2 * len(ENCODER) + len(between) :] == names(made())[len(ENCODER) :]
    assert names(made(regularizer="ema")) == found


def test_what_the_action_encoder_is_told_has_its_own_weights() -> None:
    told = {"n_kinds": 2, "dose_gate": True, "time": True}
    further = [
        n.removeprefix("predictors.1.action_encoder.")
        for n in names(made(told=told))
        if n.startswith("predictors.1.action_encoder.")
    ]
    assert further == ["embedding.weight", *TOLD]


@pytest.mark.parametrize(
    ("joint", "reads", "n_state", "n_out"),
    [(False, "z", 5, 5), (False, "h", 4, 5), (False, "both", 9, 5), (True, "z", 4, 4), (True, "both", 4, 4)],
)
def test_predictors_live_in_coordinates_or_in_the_embedding(joint: bool, reads: str, n_state: int, n_out: int) -> None:
    module = made(joint=joint, predictor_input=reads, n_ensemble=3)
    assert len(module.predictors) == 3 and module.predictor_input == reads
    out = module.shift(torch.randn(2, 7, n_state), actions=torch.eye(3)[:2])
    assert out.shape == (2, 7, n_out) and (out == 0).all()  # nothing moves before training
    assert list(module.objectives) == [VIEWS, SETS, JOINT][: 2 + joint]
    assert (module.inverse_dynamics is not None) == joint


def test_arguments_reach_their_parts() -> None:
    module = made(
        joint=True, set_loss="energy", mean_weight=0.7, noise=0.1, inverse_dynamics=2.0, mask_rate=0.4,
        regularizer="vicreg",
    )  # fmt: skip
    sets, joint, views = module.objectives[SETS], module.objectives[JOINT], module.objectives[VIEWS]
    assert (sets.set_loss, sets.mean_weight, sets.noise) == ("energy", 0.7, 0.1)
    assert (joint.set_loss, joint.mean_weight, joint.inverse_dynamics) == ("energy", 0.7, 2.0)
    assert views.mask_rate == 0.4 and joint.regularizer is views.regularizer
    hidden = made(predictor_hidden=24, predictor_layers=3)
    count = lambda m: sum(n.startswith("predictors.0.predictor.") for n in names(m))
    assert count(hidden) > count(made())


def test_members_of_the_ensemble_share_nothing() -> None:
    module = made()
    one, other = (m.action_encoder.embedding.weight for m in module.predictors)
    assert one is not other and not torch.equal(one, other)


def test_the_same_seed_makes_the_same_module() -> None:
    one, other = made().state_dict(), made().state_dict()
    assert all(torch.equal(w, other[n]) for n, w in one.items())
