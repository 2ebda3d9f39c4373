"""Two views of one cell: they must agree, and each must tell what the other saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from scjepa.module._objective import CellEncoder, Objective, Parts, squared_error
from scjepa.module._regularizer import Regularizer

VIEWS = "views"


class ViewParts(Protocol):
    """What is read off the module."""

    encoder: CellEncoder
    decoder: Callable[[torch.Tensor], torch.Tensor] | None
    target_encoder: Callable[..., torch.Tensor] | None
    view_predictor: Callable[[torch.Tensor], torch.Tensor] | None


class ViewAgreement(Objective):
    """Stage 1: two views of a cell agree, each predicts the other's expression, and embeddings stay spread.

    ``loss = mean (z_view - mean_views z)^2 + regularizer + reconstruction * |decoder(z_a) - x_b|^2 / latent``.
    With an EMA target, agreement is between the predicted embedding of one view and the slow embedding of the other.

    Parameters
    ----------
    regularizer
        The anti-collapse term.
    mask_rate
        Share of the gene modules hidden in each view.
    reconstruction
        Weight of the cross-view reconstruction; without a decoder there is none.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import VIEWS, JEPAModule, view_parts
    >>> from scjepa.nn import GeneExpressionEncoder
    >>> encoder = GeneExpressionEncoder(40, n_latent=4)
    >>> module = JEPAModule(encoder, **view_parts(encoder))
    >>> list(module({"first": torch.rand(9, 40), "second": torch.rand(9, 40)}, VIEWS).extra_metrics)
    ['agreement', 'regularization', 'reconstruction']
    """

    trains = ("encoder.", "decoder.", "view_predictor.")

    def __init__(self, regularizer: Regularizer, *, mask_rate: float = 0.15, reconstruction: float = 0.3) -> None:
        super().__init__()
        self.regularizer, self.mask_rate, self.reconstruction = regularizer, mask_rate, reconstruction

    def forward(self, parts: ViewParts, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of ``first`` and ``second`` views."""
        first, second, codes = batch["first"], batch["second"], batch.get("batch")
        encode = parts.encoder
        hide = lambda n: torch.rand(n, encode.n_modules, device=first.device) < self.mask_rate
        za = encode(first, hide(len(first)), batch=codes)
        zb = encode(second, hide(len(second)), batch=codes)
        if parts.target_encoder is not None and parts.view_predictor is not None:
            ta = parts.target_encoder(first, batch=codes).detach()
            tb = parts.target_encoder(second, batch=codes).detach()
            agreement = ((parts.view_predictor(za) - tb) ** 2 + (parts.view_predictor(zb) - ta) ** 2).mean() / 2
        else:
            agreement = ((za - zb) ** 2).mean() / 2  # = sum over both views of the squared distance to their mean
        regularization = (self.regularizer(za) + self.regularizer(zb)) / 2
        out = {"agreement": agreement, "regularization": regularization}
        loss = agreement + regularization
        if parts.decoder is not None:
            aim = encode.center(second, batch=codes)
            out["reconstruction"] = squared_error(parts.decoder(za), aim, za.shape[1])
            loss = loss + self.reconstruction * out["reconstruction"]
        return {"loss": loss, **out}

    def count(self, batch: Parts) -> int:
        """Return the number of cells."""
        return batch["first"].shape[0]
