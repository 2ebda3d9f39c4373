"""Many small networks trained side by side, without trainer, logs and checkpoints: networks that only judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.func import functional_call

from scjepa.data import SeededBatches
from scjepa.module import ComposedModule
from scjepa.train._plan import PlanConfig, make_optimizer
from scjepa.train._threads import pinned_threads


def train_side_by_side(
    module: ComposedModule, objective: str, config: PlanConfig, batches: Sequence[SeededBatches], epochs: int
) -> list[dict[str, torch.Tensor]]:
    """Train copies of what ``objective`` trains of a module, each on its own batches.

    A step of a small network is mostly the overhead of its operations; here an operation works on all copies at once
    (:func:`torch.vmap`), so that five take hardly longer than one.

    Parameters
    ----------
    module
        Where the copies start; left as it is, in evaluation mode.
    objective
        One of its ``objectives``.
    config
        Optimizer and schedule.
    batches
        Training batches of each copy; equally many an epoch, of equal shapes.
    epochs
        Passes over them.

    Returns
    -------
    Name of a parameter -> trained values, for each copy.

    Raises
    ------
    ValueError
        When epochs differ in length, or there are no batches.
    """
    lengths = sorted({len(b) for b in batches})
    if len(lengths) != 1:
        raise ValueError(f"epochs of {lengths} batches: expected one or more streams of batches, all of one length.")
    copies = len(batches)
    trained = {
        name: p.detach().expand(copies, *p.shape).clone().requires_grad_() for name, p in module.trained_by(objective)
    }
    device = next(iter(trained.values())).device
    optimizer, schedule = make_optimizer(trained.items(), config, epochs * lengths[0])

    def loss(weights: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(module, weights, (batch,), {"objective": objective}).loss

    losses = torch.vmap(loss, randomness="different")
    checking = [part for part in module.modules() if getattr(part, "check_values", False)]
    for part in checking:  # the values were looked at when the module itself was trained
        part.check_values = False
    module.train()
    try:
        with pinned_threads(config.threads):
            for _ in range(epochs):
                for parts in zip(*batches, strict=True):
                    together = {name: torch.stack([part[name] for part in parts]).to(device) for name in parts[0]}
                    optimizer.zero_grad(set_to_none=True)
                    losses(trained, together).sum().backward()
                    if config.gradient_clip:
                        clip_each(list(trained.values()), config.gradient_clip)
                    optimizer.step()
                    schedule.step()
    finally:
        module.eval()
        for part in checking:
            part.check_values = True
    return [{name: values[i].detach() for name, values in trained.items()} for i in range(copies)]


@torch.no_grad()
def clip_each(parameters: Sequence[torch.Tensor], largest: float) -> None:
    """Scale the gradients of each network (first dimension) down to a norm of at most ``largest``.

    Examples
    --------
    >>> import torch
    >>> from scjepa.train._plain import clip_each
    >>> weights = torch.zeros(2, 2, requires_grad=True)
    >>> weights.grad = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> clip_each([weights], 1.0)
    >>> weights.grad.round(decimals=3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.30000001192092896, 0.4000000059604645]]
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (largest / norm.clamp_min(1e-12)).clamp_max(1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
