"""Unpaired snapshots of a course: cells that are moved to another time must match the cells measured then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch

from scjepa.losses import mean_distance
from scjepa.module._objective import SET_LOSSES, Objective, Parts, check_set_loss
from scjepa.nn import ElapsedPredictor

COURSES = "courses"


class CourseParts(Protocol):
    """What is read off the module."""

    @property
    def predictors(self) -> Iterable[ElapsedPredictor]:
        """Ensemble of shifts over an elapsed time."""


class CourseMatching(Objective):
    r"""Moved cells match the snapshot of the time that they are moved to; what is moved in two steps is as if moved in one.

    With the anchor's shifts A of a first and (for a roll-out) a second step, and :math:`f` the network,

    .. math::

        x_1 = z + A_1 + f(z, t, a), \qquad x_2 = x_1 + A_2 + f(x_1, t + a, b),

    the loss is the distance of sets :math:`\{x_2\}` and the snapshot at :math:`t + a + b`, plus that of their means, plus
    the consistency of steps, :math:`|f(z, t, ua) + f(z + uA_1 + f(z, t, ua), t + ua, (1 - u)a) - f(z, t, a)|^2` at a random u. With
    :math:`b = 0` nothing happens in the second step.

    Parameters
    ----------
    set_loss
        ``"energy"`` or ``"mmd"``.
    mean_weight, consistency
        Weights of the means and of the consistency.
    noise
        Standard deviation of the noise on the predictor's input.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import COURSES, CourseMatching, JEPAModule
    >>> from scjepa.nn import ElapsedPredictor, GeneExpressionEncoder
    >>> module = JEPAModule(GeneExpressionEncoder(40, 4), {COURSES: CourseMatching()}, predictors=[ElapsedPredictor(5)])
    >>> cells = {name: torch.rand(2, 9, 5) for name in ("source_z", "target_z", "shift", "next_shift")}
    >>> times = {name: torch.rand(2, 9) for name in ("start", "elapsed", "next_elapsed", "part")}
    >>> list(module({**cells, **times, "kind": torch.zeros(2, 9, dtype=torch.long)}, COURSES).extra_metrics)
    ['set_loss', 'mean_loss', 'consistency']
    """

    trains = ("predictors.",)

    def __init__(
        self, set_loss: str = "energy", *, mean_weight: float = 0.2, consistency: float = 0.1, noise: float = 0.3
    ) -> None:
        super().__init__()
        self.set_loss, self.mean_weight = check_set_loss(set_loss), mean_weight
        self.consistency, self.noise = consistency, noise

    def forward(self, parts: CourseParts, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of sets."""
        z, first, kind = batch["source_z"], batch["shift"], batch["kind"]
        start, elapsed, u = batch["start"], batch["elapsed"], batch["part"]
        set_loss, mean_loss, consistency = (z.new_zeros(()) for _ in range(3))
        for member in parts.predictors:
            noisy = z + self.noise * torch.randn_like(z) if self.training else z
            there = z + first + member(noisy, start, elapsed, kind)
            there = there + batch["next_shift"] + member(there, start + elapsed, batch["next_elapsed"], kind)
            set_loss = set_loss + SET_LOSSES[self.set_loss](there, batch["target_z"]).mean()
            mean_loss = mean_loss + mean_distance(there, batch["target_z"]).mean()
            part = member(z, start, u * elapsed, kind)
            rest = member(z + u[..., None] * first + part, start + u * elapsed, (1 - u) * elapsed, kind)
            consistency = consistency + (part + rest - member(z, start, elapsed, kind)).square().sum(-1).mean()
        loss = set_loss + self.mean_weight * mean_loss + self.consistency * consistency
        return {"loss": loss, "set_loss": set_loss, "mean_loss": mean_loss, "consistency": consistency}

    def count(self, batch: Parts) -> int:
        """Return the number of pairs of sets."""
        return batch["source_z"].shape[0]
