"""The loop without a trainer: it learns, repeats itself, and leaves alone what its objective does not train."""

from __future__ import annotations

import numpy as np
import torch

from scjepa.data import ConditionSampler, EmbeddingCache, SetBatches, group_cells
from scjepa.module import SETS, ActionSpec, JEPAModule
from scjepa.train import PlanConfig, seeded, train_plainly


def trained(epochs: int) -> tuple[JEPAModule, SetBatches]:
    labels = np.repeat(["control", "A", "B"], 40)
    z = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    z[40:80] += 3  # what A does
    groups = group_cells(labels, control="control", separator="+")
    actions = np.array([[name in action for name in "AB"] for action in groups.actions], dtype=np.float32)
    batches = SetBatches(ConditionSampler(groups, n_sets=2, set_size=16), EmbeddingCache(z), actions, steps=10)
    with seeded(0):
        module = JEPAModule(6, actions=ActionSpec(2), n_latent=3, n_modules=2, n_pcs=4, n_ensemble=1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with seeded(1):
        train_plainly(module, SETS, PlanConfig(lr=5e-3, gradient_clip=1.0), batches, epochs)
    changed = {k.split(".")[0] for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"predictors"}
    assert not module.training
    return module, batches


def test_it_learns_and_repeats_itself() -> None:
    module, _ = trained(15)
    shift = module.shift(torch.zeros(2, 20, 4), torch.eye(2)).mean(1)
    assert float((shift[0] - 3).abs().max()) < 0.8
    assert float(shift[1].abs().max()) < 0.8
    again, _ = trained(15)
    assert torch.equal(again.shift(torch.zeros(2, 20, 4), torch.eye(2)).mean(1), shift)
