"""The parts of a JEPA with an encoder for each modality as one torch module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from scjepa.module._composed import ComposedModule
from scjepa.module._objective import Objective


class ModalityModule(ComposedModule):
    """Encoders of the modalities of a cell in one space, and predictors whose action is the modality asked for.

    Parameters
    ----------
    encoders
        Modality -> encoder; all of one ``n_latent``.
    objectives
        Name -> objective, see :class:`ModalityAgreement`.
    decoders
        Modality -> features from an embedding; not every modality needs one.
    predictors
        Ensemble of :class:`ActionPredictor` with as many items as there are modalities, in their order.

    Raises
    ------
    ValueError
        With fewer than two modalities, embeddings of different sizes, or a decoder of something else.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import MODALITIES, ModalityAgreement, ModalityModule, Regularizer, action_predictors
    >>> from scjepa.nn import ActionEncoder, GeneExpressionEncoder
    >>> encoders = {"rna": GeneExpressionEncoder(40, 4), "protein": GeneExpressionEncoder(6, 4, n_modules=2)}
    >>> predictors = action_predictors(lambda: ActionEncoder(2), n_state=4, n_out=4)
    >>> objectives = {MODALITIES: ModalityAgreement(Regularizer())}
    >>> module = ModalityModule(encoders, objectives, predictors=predictors).eval()
    >>> z = module.embed(torch.rand(3, 40), "rna")
    >>> bool((module.predict(z, "protein") == z).all())  # before training
    True
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        objectives: Mapping[str, Objective],
        *,
        decoders: Mapping[str, nn.Module] | None = None,
        predictors: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        sizes = {name: encoder.n_latent for name, encoder in encoders.items()}
        if len(encoders) < 2 or len(set(sizes.values())) > 1:
            raise ValueError(f"encoders of {sizes} dimensions: expected two or more modalities of one n_latent.")
        other = sorted(set(decoders or {}) - set(encoders))
        if other:
            raise ValueError(f"decoders of {other}: expected some of the modalities {list(encoders)}.")
        self.encoders = nn.ModuleDict(encoders)
        self.decoders = nn.ModuleDict(decoders or {})
        self._compose(predictors, objectives)

    def told(self, target: str) -> torch.Tensor:
        """Return the action ``(1, modalities)`` that asks for ``target``; :class:`ValueError` if it is not known."""
        names = list(self.encoders)
        if target not in names:
            raise ValueError(f"target={target!r}: expected one of the modalities {names}.")
        place = torch.tensor([names.index(target)], device=next(self.parameters()).device)
        return nn.functional.one_hot(place, len(names)).float()

    @torch.inference_mode()
    def embed(self, x: torch.Tensor, modality: str, *, batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return embeddings ``(n, latent)`` of the features ``(n, features)`` of one modality."""
        return self.encoders[modality](x, batch=batch)

    @torch.inference_mode()
    def predict(self, z: torch.Tensor, target: str) -> torch.Tensor:
        """Return the embeddings ``(n, latent)`` that cells at ``z`` have in another modality."""
        return z + self.shift(z[None], self.told(target))[0]
