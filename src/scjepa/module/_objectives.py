"""What training asks for: views of a cell agree, sets of cells match, or both at once. Each forbids collapse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from scjepa.losses import (
    SIGRegLoss,
    VICRegLoss,
    VISRegLoss,
    energy_distance,
    mean_distance,
    mmd,
    random_pair_mse,
)

if TYPE_CHECKING:
    from scjepa.module._module import JEPAModule

Parts = dict[str, torch.Tensor]

REGULARIZER_WEIGHTS = {"visreg": 1.0, "sigreg": 2.0, "vicreg": 0.04, "ema": 0.0}
"""Default weights: VISReg and SIGReg as measured, VICReg's 25/25/1 relative to an agreement of weight 1, EMA none."""

SET_LOSSES = {"mmd": mmd, "energy": energy_distance, "random_pair": random_pair_mse}


class Regularizer(nn.Module):
    """The anti-collapse term of one batch of embeddings, by name.

    Parameters
    ----------
    name
        ``"visreg"``, ``"sigreg"``, ``"vicreg"``, or ``"ema"`` (no term: the slow target encoder does the work).
    weight
        Multiplies the term; by default :data:`REGULARIZER_WEIGHTS`.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import Regularizer
    >>> collapsed, spread = torch.zeros(64, 4), torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> bool(Regularizer("visreg")(collapsed) > Regularizer("visreg")(spread))
    True
    """

    def __init__(self, name: str = "visreg", weight: float | None = None) -> None:
        super().__init__()
        if name not in REGULARIZER_WEIGHTS:
            raise ValueError(f"regularizer={name!r}: expected one of {sorted(REGULARIZER_WEIGHTS)}.")
        self.name = name
        self.weight = REGULARIZER_WEIGHTS[name] if weight is None else float(weight)
        self.term = {"visreg": VISRegLoss, "sigreg": SIGRegLoss, "vicreg": VICRegLoss}.get(name, nn.Identity)()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the weighted term of ``z`` ``(n, latent)``."""
        if self.name == "ema" or self.weight == 0:
            return z.new_zeros(())
        parts = self.term.regularize(z) if self.name == "vicreg" else self.term(z)
        return self.weight * parts["loss"]


class ViewAgreement(nn.Module):
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
        Weight of the cross-view reconstruction.
    """

    def __init__(self, regularizer: Regularizer, *, mask_rate: float = 0.15, reconstruction: float = 0.3) -> None:
        super().__init__()
        self.regularizer, self.mask_rate, self.reconstruction = regularizer, mask_rate, reconstruction

    def forward(self, module: JEPAModule, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of ``first`` and ``second`` views."""
        first, second, codes = batch["first"], batch["second"], batch.get("batch")
        encode = module.encoder
        hide = lambda n: torch.rand(n, encode.n_modules, device=first.device) < self.mask_rate
        za = encode(first, hide(len(first)), batch=codes)
        zb = encode(second, hide(len(second)), batch=codes)
        if module.target_encoder is not None and module.view_predictor is not None:
            ta = module.target_encoder(first, batch=codes).detach()
            tb = module.target_encoder(second, batch=codes).detach()
            agreement = ((module.view_predictor(za) - tb) ** 2 + (module.view_predictor(zb) - ta) ** 2).mean() / 2
        else:
            agreement = ((za - zb) ** 2).mean() / 2  # = sum over both views of the squared distance to their mean
        regularization = (self.regularizer(za) + self.regularizer(zb)) / 2
        aim = encode.center(second, batch=codes)
        reconstruction = ((module.decoder(za) - aim) ** 2).sum(1).mean() / za.shape[1]
        return {
            "loss": agreement + regularization + self.reconstruction * reconstruction,
            "agreement": agreement,
            "regularization": regularization,
            "reconstruction": reconstruction,
        }


class SetMatching(nn.Module):
    """Stage 2: predicted sets match the sets of perturbed cells, in frozen expression-faithful coordinates.

    ``predicted = z_control + anchor shift + f(z_control + noise, action)``; controls and perturbed cells are
    unpaired, so only distributions are compared. Members of the ensemble are trained side by side on the same sets.

    Parameters
    ----------
    set_loss
        ``"mmd"``, ``"energy"`` or ``"random_pair"`` (the ablation that shrinks effects).
    mean_weight
        Weight of the squared distance of set means.
    noise
        Standard deviation of the noise on the predictor's input.
    """

    def __init__(self, set_loss: str = "mmd", *, mean_weight: float = 0.2, noise: float = 0.3) -> None:
        super().__init__()
        if set_loss not in SET_LOSSES:
            raise ValueError(f"set_loss={set_loss!r}: expected one of {sorted(SET_LOSSES)}.")
        self.set_loss, self.mean_weight, self.noise = set_loss, mean_weight, noise

    def forward(self, module: JEPAModule, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of sets."""
        source, target = batch["source_z"], batch["target_z"]
        state = module.state(source, batch.get("source_h"))
        base = source + batch["shift"][:, None] if "shift" in batch else source
        set_loss, mean_loss = source.new_zeros(()), source.new_zeros(())
        for member in module.predictors:
            noisy = state + self.noise * torch.randn_like(state) if self.training else state
            predicted = base + member(noisy, batch["actions"], batch.get("dose"), batch.get("kind"))
            set_loss = set_loss + SET_LOSSES[self.set_loss](predicted, target).mean()
            mean_loss = mean_loss + mean_distance(predicted, target).mean()
        return {"loss": set_loss + self.mean_weight * mean_loss, "set_loss": set_loss, "mean_loss": mean_loss}


class JointPrediction(nn.Module):
    """The classic formulation: encode source and target, predict one from the other, all trained together.

    ``loss = set_loss(h_source + f(h_source, a), h_target) + mean term + regularizer(h_source, h_target)
    + inverse dynamics + reconstruction``. With ``set_loss="random_pair"`` and ``regularizer="vicreg"`` this is the
    VICReg joint embedding of (randomly) paired cells; a slow target encoder takes the place of the shared one when
    the module has it.

    Parameters
    ----------
    regularizer, set_loss, mean_weight
        As in the two stages.
    inverse_dynamics
        Weight of the linear head that must read the action off the shift of set means.
    reconstruction
        Weight of the decoder's squared error.
    """

    def __init__(
        self,
        regularizer: Regularizer,
        set_loss: str = "energy",
        *,
        mean_weight: float = 0.2,
        inverse_dynamics: float = 1.0,
        reconstruction: float = 0.3,
    ) -> None:
        super().__init__()
        if set_loss not in SET_LOSSES:
            raise ValueError(f"set_loss={set_loss!r}: expected one of {sorted(SET_LOSSES)}.")
        self.regularizer, self.set_loss, self.mean_weight = regularizer, set_loss, mean_weight
        self.inverse_dynamics, self.reconstruction = inverse_dynamics, reconstruction

    def forward(self, module: JEPAModule, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of sets of raw cells."""
        x, y = batch["source_x"], batch["target_x"]
        sets, cells, genes = x.shape
        both = module.encoder(torch.cat([x, y]).view(-1, genes))
        hx, hy = both.view(2, sets, cells, -1)
        aim = hy
        if module.target_encoder is not None:
            aim = module.target_encoder(y.view(-1, genes)).view(sets, cells, -1).detach()
        set_loss, mean_loss = hx.new_zeros(()), hx.new_zeros(())
        for member in module.predictors:
            predicted = hx + member(hx, batch["actions"], batch.get("dose"), batch.get("kind"))
            set_loss = set_loss + SET_LOSSES[self.set_loss](predicted, aim).mean()
            mean_loss = mean_loss + mean_distance(predicted, aim).mean()
        regularization = self.regularizer(both)
        assert module.inverse_dynamics is not None  # made together with this objective
        inverse = module.inverse_dynamics.loss(hx, hy, batch["actions"])
        flat = torch.cat([x, y]).view(-1, genes)
        reconstruction = ((module.decoder(both) - module.encoder.center(flat)) ** 2).sum(1).mean() / both.shape[1]
        return {
            "loss": set_loss
            + self.mean_weight * mean_loss
            + regularization
            + self.inverse_dynamics * inverse
            + self.reconstruction * reconstruction,
            "set_loss": set_loss,
            "mean_loss": mean_loss,
            "regularization": regularization,
            "inverse_dynamics": inverse,
            "reconstruction": reconstruction,
        }
