"""A training loop without trainer, logs and checkpoints, for small networks that only judge."""

from __future__ import annotations

import torch

from scjepa.data import SetBatches
from scjepa.module import JEPAModule
from scjepa.train._plan import JEPATrainingPlan, PlanConfig


def train_plainly(module: JEPAModule, objective: str, config: PlanConfig, batches: SetBatches, epochs: int) -> None:
    """Train what ``objective`` trains of ``module``, in place, with the plan's optimizer and schedule.

    Parameters
    ----------
    module
        The module; it is left in evaluation mode.
    objective
        One of ``module.objectives``.
    config
        Optimizer and schedule.
    batches
        Training batches.
    epochs
        Passes over them.
    """
    plan = JEPATrainingPlan(module, objective, config, epochs * len(batches))
    made = plan.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    trained = [p for _, p in module.trained_by(objective)]
    device = trained[0].device
    module.train()
    for _ in range(epochs):
        for batch in batches:
            loss = module({k: v.to(device) for k, v in batch.items()}, objective=objective).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.gradient_clip:
                torch.nn.utils.clip_grad_norm_(trained, config.gradient_clip)
            optimizer.step()
            schedule.step()
    module.eval()
