"""The training plan: one objective, AdamW, a step-wise schedule. None of scvi-tools' ELBO defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import lightning.pytorch as pl
import torch
from scvi.module.base import LossOutput
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from scjepa._checks import closest, require_positive_int
from scjepa.module import ComposedModule
from scjepa.train._threads import THREADS


@dataclass(frozen=True)
class PlanConfig:
    """Optimizer and schedule of one stage.

    Attributes
    ----------
    lr, weight_decay, betas, eps
        Of :class:`torch.optim.AdamW`. The encoder's linear skip is never decayed: zero is not its resting place.
    schedule
        ``"cosine"`` (linear warm-up over ``warmup_steps``, then cosine to 1 %) or ``"onecycle"``
        (:class:`torch.optim.lr_scheduler.OneCycleLR`, which also cycles the first of ``betas`` between 0.85 and 0.95:
        the value given is not used).
    warmup_steps
        Steps of warm-up of ``"cosine"``.
    gradient_clip
        Largest gradient norm; 0 switches clipping off.
    threads
        Threads of torch on the CPU, whatever is set outside (:func:`scjepa.train.pinned_threads`). More pay for networks
        much larger than the default ones on an idle machine, and change the last digits.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    schedule: str = "cosine"
    warmup_steps: int = 50
    gradient_clip: float = 5.0
    threads: int = THREADS

    @classmethod
    def from_kwargs(cls, defaults: PlanConfig, kwargs: dict | None) -> PlanConfig:
        """Return ``defaults`` with ``kwargs`` (the user's ``plan_kwargs``) put over them; unknown names raise."""
        known = {f.name for f in fields(cls)}
        for name in kwargs or {}:
            if name not in known:
                raise ValueError(
                    f"plan_kwargs has no option {name!r}.{closest(name, known)} Options: {', '.join(sorted(known))}."
                )
        config = cls(**{**{f.name: getattr(defaults, f.name) for f in fields(cls)}, **(kwargs or {})})
        if config.schedule not in ("cosine", "onecycle"):
            raise ValueError(f"schedule={config.schedule!r}: expected 'cosine' or 'onecycle'.")
        require_positive_int(config.threads, "threads")
        return config


class JEPATrainingPlan(pl.LightningModule):
    """Trains one objective of a :class:`~scjepa.module.ComposedModule`.

    Logs ``train_loss``, ``validation_loss`` and every part of the loss under ``<part>_train`` and
    ``<part>_validation``.

    Parameters
    ----------
    module
        The module.
    objective
        One of ``module.objectives``.
    config
        Optimizer and schedule.
    total_steps
        Steps the schedule is laid out for.

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.
    """

    def __init__(self, module: ComposedModule, objective: str, config: PlanConfig, total_steps: int) -> None:
        super().__init__()
        self.module = module
        self.objective, self.config, self.total_steps = objective, config, max(total_steps, 1)

    def _log(self, out: LossOutput, mode: str) -> None:
        n = out.n_obs_minibatch
        self.log(f"{mode}_loss", out.loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=n, sync_dist=True)
        for name, value in out.extra_metrics.items():
            self.log(f"{name}_{mode}", value, on_step=False, on_epoch=True, batch_size=n, sync_dist=True)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a training batch."""
        out = self.module(batch, objective=self.objective)
        if not torch.isfinite(out.loss):
            raise FloatingPointError(
                f"the {self.objective} loss became {out.loss.item()} at step {self.global_step}. "
                f"Lower the learning rate: plan_kwargs={{'lr': {self.config.lr / 10:g}}}."
            )
        self._log(out, "train")
        return out.loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Log the loss of a validation batch."""
        self._log(self.module(batch, objective=self.objective), "validation")

    def on_train_batch_end(self, *args) -> None:
        """Let the slow target encoder follow."""
        self.module.update_target()

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        named = [(name, p) for name, p in self.module.trained_by(self.objective) if p.requires_grad]
        total = self.total_steps
        if self._trainer is not None:  # several processes share the cells: fewer steps each than were counted before
            total = max(int(min(total, self.trainer.estimated_stepping_batches)), 1)
        optimizer, schedule = make_optimizer(named, self.config, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(
    named: Iterable[tuple[str, torch.Tensor]], config: PlanConfig, total: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Return AdamW for named parameters and its schedule over ``total`` steps."""
    c, named = config, list(named)
    is_skip = lambda name: name.startswith(("encoder.", "encoders.")) and ".skip." in name
    anchored = [p for name, p in named if is_skip(name)]
    free = [p for name, p in named if not is_skip(name)]
    groups: list[dict[str, Any]] = [{"params": free}, {"params": anchored, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=c.lr,
        weight_decay=c.weight_decay,
        betas=c.betas,
        eps=c.eps,
        # one pass over all parameters; on a GPU it would not go with clipping under mixed precision
        fused=all(p.device.type == "cpu" for _, p in named) or None,
    )
    if c.schedule == "onecycle":
        # total + 1: the scheduler is stepped once more after the last batch
        return optimizer, OneCycleLR(optimizer, c.lr, total_steps=total + 1)
    warmup = max(min(c.warmup_steps, total // 4), 1)

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
        return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * cosine)

    return optimizer, LambdaLR(optimizer, factor)
