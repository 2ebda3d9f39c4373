"""What every module is: parts that were handed in, an ensemble of predictors, and the objectives that train them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import nn

from scjepa.module._objective import Objective


class ComposedModule(BaseModuleClass):
    """Base of :class:`JEPAModule` (one encoder) and :class:`ModalityModule` (one for each modality).

    Subclasses register their encoders first and call :meth:`_compose` last: the order in which parts are registered is
    the order of their parameters.
    """

    predictors: nn.ModuleList
    objectives: nn.ModuleDict

    def _compose(self, predictors: Iterable[nn.Module], objectives: Mapping[str, Objective]) -> None:
        """Register predictors and objectives."""
        self.predictors = nn.ModuleList(predictors)
        self.objectives = nn.ModuleDict(objectives)

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Let ``model``, before its weights are loaded, make the module that training made (joint or not, ...)."""
        if hasattr(model, "_loaded"):
            model._loaded()
        else:
            model.module = model._build_module()

    def trained_by(self, objective: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield names and parameters that ``objective`` trains; all others stay as they are."""
        wanted: Any = self.objectives[objective].trains
        for name, parameter in self.named_parameters():
            if name.startswith(wanted):
                yield name, parameter

    def forward(self, batch: dict[str, torch.Tensor], objective: str) -> LossOutput:
        """Return the loss of one batch under ``objective``, with its parts as metrics."""
        asked: Any = self.objectives[objective]
        parts = asked(self, batch)
        metrics = {k: v.detach() for k, v in parts.items() if k != "loss"}
        return LossOutput(loss=parts["loss"], n_obs_minibatch=asked.count(batch), extra_metrics=metrics)

    def update_target(self) -> None:
        """Let what follows the trained parts slowly take a step; by default there is nothing of the kind."""

    @torch.inference_mode()
    def shift(
        self, state: torch.Tensor, actions: torch.Tensor | None = None, **told: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the ensemble's mean shift of states under an action.

        Parameters
        ----------
        state
            ``(K, M, ...)`` sets of states, see :meth:`JEPAModule.state`.
        actions, **told
            What the action encoder takes, one row a set: ``actions`` ``(K, n_actions)``, ``dose``, ``kind``, ``time``.

        Returns
        -------
        ``(K, M, d)``.
        """
        return torch.stack([member(state, actions=actions, **told) for member in self.predictors]).mean(0)
