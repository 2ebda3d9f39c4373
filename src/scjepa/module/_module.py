"""The parts of a JEPA with one encoder of cells as one torch module; the readout and the coordinates beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn

from scjepa.module._composed import ComposedModule
from scjepa.module._objective import Objective
from scjepa.module._space import ExpressionSpace, LinearReadout
from scjepa.nn import EMATarget, GeneExpressionEncoder, InverseDynamicsHead


class JEPAModule(ComposedModule):
    """Encoder, predictors that are told an action, and objectives; in torch only.

    Parts are made by who knows what they are for (:func:`view_parts` and :func:`action_predictors` make the usual ones)
    and handed in. Which of them an objective needs is written beside it.

    Parameters
    ----------
    encoder
        Encoder of cells.
    objectives
        Name -> objective.
    decoder
        Expression from an embedding, trained with the encoder.
    target_encoder, view_predictor
        Slow copy of the encoder, and what predicts its embedding of the other view.
    readout
        Expression from an embedding, fitted afterwards; by default a :class:`LinearReadout`.
    space
        Expression-faithful coordinates.
    predictors
        Ensemble of :class:`ActionPredictor`; their predictions are averaged.
    inverse_dynamics
        Head that reads the action off the shift of the embedding.
    reads
        What predictors read: ``"z"`` (coordinates), ``"h"`` (JEPA embedding) or ``"both"``.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import SETS, ExpressionSpace, JEPAModule, SetMatching, action_predictors, view_parts
    >>> from scjepa.nn import ActionEncoder, GeneExpressionEncoder
    >>> encoder = GeneExpressionEncoder(40, n_latent=4)
    >>> parts = view_parts(encoder)
    >>> parts["objectives"][SETS] = SetMatching()
    >>> predictors = action_predictors(lambda: ActionEncoder(3), n_state=5, n_out=5)
    >>> module = JEPAModule(encoder, space=ExpressionSpace(40, 5), predictors=predictors, **parts).eval()
    >>> module.embed(torch.rand(3, 40)).shape
    torch.Size([3, 4])
    >>> module.shift(torch.rand(2, 7, 5), actions=torch.eye(3)[:2]).shape
    torch.Size([2, 7, 5])
    """

    # parts that were not handed in are None; they are typed as present for those who handed them in
    decoder: nn.Linear
    space: ExpressionSpace

    def __init__(
        self,
        encoder: GeneExpressionEncoder,
        objectives: Mapping[str, Objective],
        *,
        decoder: nn.Linear | None = None,
        target_encoder: EMATarget | None = None,
        view_predictor: nn.Module | None = None,
        readout: LinearReadout | None = None,
        space: ExpressionSpace | None = None,
        predictors: Iterable[nn.Module] = (),
        inverse_dynamics: InverseDynamicsHead | None = None,
        reads: Literal["z", "h", "both"] = "z",
    ) -> None:
        super().__init__()
        if reads not in ("z", "h", "both"):
            raise ValueError(f"reads={reads!r}: expected 'z', 'h' or 'both'.")
        self.predictor_input = reads
        self.encoder = encoder
        self.target_encoder = target_encoder
        self.view_predictor = view_predictor
        self.decoder = decoder  # type: ignore[assignment]
        self.readout = LinearReadout(encoder.n_latent, encoder.n_genes) if readout is None else readout
        self.space = space  # type: ignore[assignment]
        self._compose(predictors, objectives)
        self.inverse_dynamics = inverse_dynamics

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
