"""Target encoder: a frozen copy that follows the online encoder by an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scjepa._checks import some


class EMATarget(nn.Module):
    """A slowly following copy of a module, whose outputs carry no gradient.

    Parameters are averaged, ``target = decay * target + (1 - decay) * online``; buffers (batch-norm statistics, gene
    means) are copied. The copy takes part in ``.train()`` / ``.eval()`` like any submodule.

    Parameters
    ----------
    module
        The online module; copied, not kept.
    decay
        Share of the old target kept at each update, in [0, 1]. May be changed at any time (I-JEPA: .996 rising to 1).

    Raises
    ------
    ValueError
        When ``decay`` is outside [0, 1].

    References
    ----------
    Grill et al. BYOL. arXiv:2006.07733; Assran et al. I-JEPA. arXiv:2301.08243.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import EMATarget
    >>> online = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(online.weight)
    >>> target = EMATarget(online, decay=0.75)
    >>> _ = torch.nn.init.ones_(online.weight)
    >>> target.update(online)
    >>> target(torch.ones(1, 1)).item()
    0.25
    """

    def __init__(self, module: nn.Module, decay: float = 0.996) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @property
    def decay(self) -> float:
        """Share of the old target that an update keeps."""
        return self._decay

    @decay.setter
    def decay(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"decay={value!r}: expected a number from 0 (copy) to 1 (never change).")
        self._decay = float(value)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards ``module``; raise :class:`ValueError` unless it is built like the copy."""
        own, new = dict(self.module.named_parameters()), dict(module.named_parameters())
        own_buffers, new_buffers = dict(self.module.named_buffers()), dict(module.named_buffers())
        pairs: list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = [(own, new), (own_buffers, new_buffers)]
        odd = sorted(
            name
            for ours, theirs in pairs
            for name in ours.keys() | theirs.keys()
            if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
        )
        if odd:
            raise ValueError(f"module differs from the target in {some(odd)}. Update with the module it was made from.")
        for name, parameter in own.items():
            parameter.lerp_(new[name].to(parameter), 1 - self.decay)
        for name, buffer in own_buffers.items():
            buffer.copy_(new_buffers[name])

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the copy, without gradient."""
        return self.module(*args, **kwargs)
