"""How far control cells move under one question: the anchors' effects, and the network's share of the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.data import ExpressionMatrix, aligned
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._network import Vocabulary
from scjepa.model.core import BLOCK, at_depth
from scjepa.module import JEPAModule


class Answers(NamedTuple):
    """What is added to controls, one row a question.

    Attributes
    ----------
    full, base
        ``(m, genes)`` effects of the anchor that predicts and of the one that the network corrects.
    network
        ``(m,)`` the share that the corrected anchor, and so the network, has; the anchor that predicts has the rest.
    """

    full: FloatArray
    base: FloatArray
    network: FloatArray


@dataclass(frozen=True)
class Mover:
    """Moves control cells.

    Attributes
    ----------
    module
        The trained module.
    vocabulary
        What the network can be told.
    known
        Items that it was trained on; others have vectors that were never trained.
    joint
        Whether the network lives in the embedding, without an anchor.
    unit
        Depth of the encoder.
    """

    module: JEPAModule
    vocabulary: Vocabulary
    known: frozenset[str]
    joint: bool = False
    unit: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where cells are moved."""
        return self.module.device

    def shift(
        self, x: torch.Tensor, question: Question, full: FloatArray, base: FloatArray, network: float
    ) -> torch.Tensor:
        """Return the shift ``(cells, genes)`` (or ``(1, genes)``: of all) of control cells ``x`` under one question.

        The other arguments are a row of :class:`Answers`.
        """
        module, space = self.module, self.module.space
        full_t, base_t = (torch.as_tensor(e, dtype=torch.float32, device=self.device)[None] for e in (full, base))
        if question.dose == 0:  # nothing was done
            return torch.zeros_like(x[:1])
        if not network or not set(question.action) & self.known:
            return full_t
        told = self.vocabulary.tell(question, self.known, self.device)
        if self.joint:
            start = module.embed(at_depth(x, self.unit))
            end = start + module.shift(start[None], **told)[0]
            return module.readout(end) - module.readout(start)
        h = None if module.predictor_input == "z" else module.embed(at_depth(x, self.unit))
        move = module.shift(module.state(space.project(x), h)[None], **told)[0]
        inside = space.project_shift(full_t)
        return full_t + space.lift_shift(network * (space.project_shift(base_t) + move - inside))

    def mean_shift(
        self, cells: ExpressionMatrix, question: Question, full: FloatArray, base: FloatArray, network: float
    ) -> FloatArray:
        """Return the mean shift ``(genes,)`` of many control cells, block by block."""
        n = cells.shape[0]
        total = np.zeros(cells.shape[1])
        with torch.inference_mode():
            for start in range(0, n, BLOCK):
                x = aligned(cells.rows(slice(start, start + BLOCK))).to(self.device)
                shift = self.shift(x, question, full, base, network)
                if len(shift) < len(x):  # the same for every cell
                    return shift[0].cpu().numpy().astype(np.float64)
                total += shift.sum(0).cpu().numpy()
        return total / n

    def embed(self, x: FloatArray) -> FloatArray:
        """Return JEPA embeddings ``(n, n_latent)`` of expression."""
        h = np.empty((len(x), self.module.encoder.n_latent), np.float32)
        for start in range(0, len(x), BLOCK):
            block = aligned(x[start : start + BLOCK]).to(self.device)
            h[start : start + BLOCK] = self.module.embed(at_depth(block, self.unit)).cpu().numpy()
        return h
