"""The four parts of a JEPA as one torch module: encoder, action encoder, predictor, objective; plus the readout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import nn

from scjepa.module._objectives import JointPrediction, Regularizer, SetMatching, ViewAgreement
from scjepa.module._predictor import ActionPredictor
from scjepa.module._space import ExpressionSpace, LinearReadout
from scjepa.nn import EMATarget, GeneExpressionEncoder, InverseDynamicsHead, JEPAPredictor

VIEWS, SETS, JOINT = "views", "sets", "joint"


@dataclass(frozen=True)
class ActionSpec:
    """What the predictor is told of actions.

    Attributes
    ----------
    n_actions
        Number of things that can be perturbed.
    n_kinds
        Number of kinds of perturbation (0: not told).
    dose_gate, dose_ref
        Whether doses gate the action, and the dose at which the gate starts at one.
    """

    n_actions: int
    n_kinds: int = 0
    dose_gate: bool = False
    dose_ref: float = 1.0


class JEPAModule(BaseModuleClass):
    """Encoder + action encoder + predictor + objective + readout, in torch only.

    Parameters
    ----------
    n_genes
        Number of genes.
    actions
        What the predictor is told of actions; None for a module that only encodes.
    n_latent, encoder, n_hidden, n_layers, n_modules, gene_modules, d_token, n_batch
        See :class:`scjepa.nn.GeneExpressionEncoder` (``encoder`` is its ``kind``).
    regularizer, regularizer_weight
        See :class:`Regularizer`.
    target_encoder
        ``"shared"`` or ``"ema"`` (slow copy); the regularizer ``"ema"`` implies the latter.
    mask_rate, reconstruction
        See :class:`ViewAgreement`.
    n_pcs
        Dimension of the :class:`ExpressionSpace`.
    predictor_input
        What the predictor reads: ``"z"`` (coordinates), ``"h"`` (JEPA embedding) or ``"both"``.
    joint
        Whether the predictor lives in the embedding and is trained together with the encoder.
    n_ensemble
        Predictors trained side by side; their predictions are averaged.
    set_loss, mean_weight, noise
        See :class:`SetMatching`.
    inverse_dynamics
        Weight of the head that reads the action off the shift, in joint training; 0 switches it off.
    predictor_hidden, predictor_layers
        Size of the predictor.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import JEPAModule
    >>> module = JEPAModule(40, n_latent=4).eval()
    >>> module.embed(torch.rand(3, 40)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        n_genes: int,
        *,
        actions: ActionSpec | None = None,
        n_latent: int = 32,
        encoder: Literal["mlp", "modules"] = "mlp",
        n_hidden: int = 256,
        n_layers: int = 2,
        n_modules: int = 32,
        gene_modules: torch.Tensor | None = None,
        d_token: int = 64,
        n_batch: int = 0,
        regularizer: str = "visreg",
        regularizer_weight: float | None = None,
        target_encoder: str = "shared",
        mask_rate: float = 0.15,
        reconstruction: float = 0.3,
        n_pcs: int = 50,
        predictor_input: str = "z",
        joint: bool = False,
        n_ensemble: int = 2,
        set_loss: str = "mmd",
        mean_weight: float = 0.2,
        noise: float = 0.3,
        inverse_dynamics: float = 1.0,
        predictor_hidden: int = 128,
        predictor_layers: int = 2,
    ) -> None:
        super().__init__()
        if target_encoder not in ("shared", "ema"):
            raise ValueError(f"target_encoder={target_encoder!r}: expected 'shared' or 'ema'.")
        if predictor_input not in ("z", "h", "both"):
            raise ValueError(f"predictor_input={predictor_input!r}: expected 'z', 'h' or 'both'.")
        self.predictor_input = predictor_input
        self.encoder = GeneExpressionEncoder(
            n_genes,
            n_latent,
            kind=encoder,
            gene_modules=gene_modules,
            n_modules=n_modules,
            n_hidden=n_hidden,
            n_layers=n_layers,
            d_token=d_token,
            n_batch=n_batch,
        )
        slow = target_encoder == "ema" or regularizer == "ema"
        self.target_encoder = EMATarget(self.encoder) if slow else None
        self.view_predictor = JEPAPredictor(n_latent) if slow else None
        self.decoder = nn.Linear(n_latent, n_genes)
        self.readout = LinearReadout(n_latent, n_genes)
        self.space = ExpressionSpace(n_genes, n_pcs)
        self.predictors = nn.ModuleList()
        self.inverse_dynamics = None
        term = Regularizer(regularizer, regularizer_weight)
        self.objectives = nn.ModuleDict(
            {VIEWS: ViewAgreement(term, mask_rate=mask_rate, reconstruction=reconstruction)}
        )
        if actions is not None:
            size = n_latent if joint else {"z": n_pcs, "h": n_latent, "both": n_pcs + n_latent}[predictor_input]
            self.predictors.extend(
                ActionPredictor(
                    size,
                    n_latent if joint else n_pcs,
                    actions.n_actions,
                    n_kinds=actions.n_kinds,
                    dose_gate=actions.dose_gate,
                    dose_ref=actions.dose_ref,
                    n_hidden=predictor_hidden,
                    n_layers=predictor_layers,
                )
                for _ in range(n_ensemble)
            )
            self.objectives[SETS] = SetMatching(set_loss, mean_weight=mean_weight, noise=noise)
            if joint:
                self.inverse_dynamics = InverseDynamicsHead(n_latent, actions.n_actions)
                self.objectives[JOINT] = JointPrediction(
                    term,
                    set_loss,
                    mean_weight=mean_weight,
                    inverse_dynamics=inverse_dynamics,
                    reconstruction=reconstruction,
                )

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Give ``model``, before its weights are loaded, the module that training made (joint or not, reference dose)."""
        model.module = model._build_module()

    def trained_by(self, objective: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield names and parameters that ``objective`` trains; all others stay as they are."""
        rooms = {
            VIEWS: ("encoder.", "decoder.", "view_predictor."),
            SETS: ("predictors.",),
            JOINT: ("encoder.", "decoder.", "predictors.", "inverse_dynamics."),
        }[objective]
        for name, parameter in self.named_parameters():
            if name.startswith(rooms):
                yield name, parameter

    def forward(self, batch: dict[str, torch.Tensor], objective: str = VIEWS) -> LossOutput:
        """Return the loss of one batch under ``objective``, with its parts as metrics."""
        parts = self.objectives[objective](self, batch)
        size = batch["first"].shape[0] if objective == VIEWS else batch["actions"].shape[0]
        metrics = {k: v.detach() for k, v in parts.items() if k != "loss"}
        return LossOutput(loss=parts["loss"], n_obs_minibatch=size, extra_metrics=metrics)

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the slow target encoder (if there is one) a step toward the encoder."""
        if self.target_encoder is not None:
            self.target_encoder.update(self.encoder)

    @torch.inference_mode()
    def embed(self, x: torch.Tensor, *, batch: torch.Tensor | None = None, give_tokens: bool = False) -> torch.Tensor:
        """Return JEPA embeddings ``(n, latent)``, or module tokens ``(n, modules, d_token)``, of expression."""
        if give_tokens:
            return self.encoder(x, batch=batch, give_tokens=True)[1]
        return self.encoder(x, batch=batch)

    def state(self, z: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the predictor reads: coordinates, embedding, or both."""
        if self.predictor_input == "z":
            return z
        if h is None:
            raise ValueError(f"predictor_input={self.predictor_input!r} needs the JEPA embedding h of the cells.")
        return h if self.predictor_input == "h" else torch.cat([z, h], -1)

    @torch.inference_mode()
    def shift(
        self,
        state: torch.Tensor,
        actions: torch.Tensor,
        dose: torch.Tensor | None = None,
        kind: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the ensemble's mean shift ``(K, M, d)`` of states ``(K, M, ...)`` under actions ``(K, n_actions)``."""
        return torch.stack([member(state, actions, dose, kind) for member in self.predictors]).mean(0)
