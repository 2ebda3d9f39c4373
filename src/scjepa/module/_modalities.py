"""Several modalities of one cell: each must be predictable from the others; cells may lack some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations, permutations
from typing import Any, Protocol

import torch

from scjepa.module._objective import SET_LOSSES, Objective, Parts, check_set_loss, squared_error
from scjepa.module._regularizer import Regularizer

MODALITIES = "modalities"


class ModalityParts(Protocol):
    """What is read off the module."""

    @property
    def encoders(self) -> Any:
        """Modality -> encoder of cells, like a dict."""

    @property
    def decoders(self) -> Any:
        """Modality -> features from an embedding; modalities without one are not decoded."""

    @property
    def predictors(self) -> Iterable[Callable[..., torch.Tensor]]:
        """Ensemble of shifts under an action; the action is the modality that is asked for."""

    def told(self, target: str) -> torch.Tensor:
        """Return the action ``(1, modalities)`` that asks for ``target``."""


class ModalityAgreement(Objective):
    r"""Modalities of a cell agree in one space, each predicts the others, and embeddings stay spread.

    .. math::

        L = \overline{\tfrac12 |h_a - h_b|^2 / d} + \overline{|h_s + f(h_s, t) - h_t|^2 / d}
          + \overline{R(h_m)} + \rho\, \overline{|D_t(\hat h_{st}) - x_t|^2 / d}
          + \beta\, \overline{S(\hat h_{s}, h_{t})}

    with bars for means over (pairs of) modalities, predictors, and the cells that have both, d dimensions, the prediction
    :math:`\hat h_{st} = h_s + f(h_s, t)` (:math:`\hat h_{tt} = h_t`) of a network that is told the target modality, the
    regularizer R, decoders D, and, between cells that have only s and cells that have only t, a distance S of sets:
    they are unpaired, so that only their distributions can match.

    A batch holds the features of each modality as ``"x_<modality>"`` ``(n, features)``; ``"has_<modality>"`` ``(n,)``
    bool tells which cells have it (absent: all), rows of other cells are not looked at. ``"batch"`` holds batch codes.
    A modality that fewer than two cells of a batch have is left out of that batch.

    Parameters
    ----------
    regularizer
        The anti-collapse term. A slow target encoder can't stand in for it: ``"ema"`` is refused.
    invariance
        Weight of the agreement of paired embeddings.
    reconstruction
        Weight of the decoders' squared error.
    set_loss
        ``"mmd"`` or ``"energy"`` between unpaired cells; None leaves those to the regularizer and their own decoder.
    set_weight
        Its weight.

    Raises
    ------
    ValueError
        For a regularizer or set loss that does not fit.

    References
    ----------
    Bardes, Ponce, LeCun. VICReg. arXiv:2105.04906, whose branches may differ in encoder and modality.

    Examples
    --------
    >>> import torch
    >>> from scjepa.module import MODALITIES, ModalityAgreement, ModalityModule, Regularizer, action_predictors
    >>> from scjepa.nn import ActionEncoder, GeneExpressionEncoder
    >>> encoders = {"rna": GeneExpressionEncoder(40, 4), "protein": GeneExpressionEncoder(6, 4, n_modules=2)}
    >>> predictors = action_predictors(lambda: ActionEncoder(2), 4, 4)
    >>> module = ModalityModule(encoders, {MODALITIES: ModalityAgreement(Regularizer())}, predictors=predictors)
    >>> batch = {"x_rna": torch.rand(9, 40), "x_protein": torch.rand(9, 6), "has_protein": torch.arange(9) < 7}
    >>> sorted(module(batch, MODALITIES).extra_metrics)
    ['agreement', 'prediction', 'regularization']
    """

    trains = ("encoders.", "decoders.", "predictors.")

    def __init__(
        self,
        regularizer: Regularizer,
        *,
        invariance: float = 1.0,
        reconstruction: float = 0.3,
        set_loss: str | None = None,
        set_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if regularizer.name == "ema":
            raise ValueError("regularizer='ema' forbids no collapse between modalities. Use 'visreg', for example.")
        self.regularizer, self.invariance, self.reconstruction = regularizer, invariance, reconstruction
        self.set_loss, self.set_weight = None if set_loss is None else check_set_loss(set_loss), set_weight

    def forward(self, parts: ModalityParts, batch: Parts) -> Parts:
        """Return the loss and its parts for a batch of cells."""
        cells = _Cells(parts, batch)
        has, h = cells.has, cells.embeddings
        terms: dict[str, list[torch.Tensor]] = {"agreement": [], "prediction": [], "regularization": []}
        terms |= {} if self.set_loss is None else {"set_loss": []}
        terms |= {"reconstruction": []} if len(parts.decoders) else {}
        for t in has:
            terms["regularization"].append(self.regularizer(h[t][has[t]]))
            cells.decode(t, h[t], has[t], terms)
        for a, b in combinations(has, 2):
            _add(terms["agreement"], (h[a] - h[b]) ** 2 / 2, has[a] & has[b])
        for s, t in permutations(has, 2):
            both, alone, aims = has[s] & has[t], has[s] & ~has[t], has[t] & ~has[s]
            for member in parts.predictors:
                predicted = h[s] + member(h[s][None], actions=parts.told(t))[0]
                _add(terms["prediction"], (predicted - h[t]) ** 2, both)
                cells.decode(t, predicted, both, terms)
                if self.set_loss is not None and bool(alone.any()) and bool(aims.any()):
                    terms["set_loss"].append(SET_LOSSES[self.set_loss](predicted[alone], h[t][aims]))
        # terms are the same in every batch, whatever its cells lack: processes that train together log alike
        nothing = next(iter(h.values())).new_zeros(())
        out = {name: torch.stack(values).mean() if values else nothing for name, values in terms.items()}
        weights = {"agreement": self.invariance, "reconstruction": self.reconstruction, "set_loss": self.set_weight}
        return {"loss": torch.stack([weights.get(name, 1.0) * value for name, value in out.items()]).sum(), **out}

    def count(self, batch: Parts) -> int:
        """Return the number of cells."""
        return next(len(values) for name, values in batch.items() if name.startswith("x_"))


class _Cells:
    """The cells of a batch: which have what, and their embeddings (zero where a cell lacks the modality)."""

    def __init__(self, parts: ModalityParts, batch: Parts) -> None:
        self.parts, self.batch = parts, batch
        self.has: Parts = {}
        for name in parts.encoders:
            here = batch.get(f"has_{name}")
            if here is None and f"x_{name}" in batch:
                here = torch.ones(len(batch[f"x_{name}"]), dtype=torch.bool, device=batch[f"x_{name}"].device)
            if here is not None and int(here.sum()) > 1:
                self.has[name] = here
        if not self.has:
            raise ValueError("no modality has two cells in this batch. Use a larger batch_size.")
        self.embeddings = {name: self._embed(name, here) for name, here in self.has.items()}

    def _read(self, name: str, rows: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        """Return features of some cells, and their batch codes as the encoder takes them."""
        codes = self.batch.get("batch")
        return self.batch[f"x_{name}"][rows], {} if codes is None else {"batch": codes[rows]}

    def _embed(self, name: str, here: torch.Tensor) -> torch.Tensor:
        x, codes = self._read(name, here)
        embedded = self.parts.encoders[name](x, **codes)
        return embedded.new_zeros(len(here), embedded.shape[1]).index_put((here,), embedded)

    def decode(self, name: str, embedding: torch.Tensor, rows: torch.Tensor, terms: dict[str, list]) -> None:
        """Add the squared error of the decoder of ``name``, if there is one, on some cells."""
        if name in self.parts.decoders and bool(rows.any()):
            x, codes = self._read(name, rows)
            decoded, aim = self.parts.decoders[name](embedding[rows]), self.parts.encoders[name].center(x, **codes)
            terms["reconstruction"].append(squared_error(decoded, aim, embedding.shape[1]))


def _add(values: list[torch.Tensor], squares: torch.Tensor, rows: torch.Tensor) -> None:
    """Append the mean over some cells, if there are any."""
    if bool(rows.any()):
        values.append(squares[rows].mean())
