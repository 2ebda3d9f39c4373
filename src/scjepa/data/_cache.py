"""Cells encoded once: what stage 2 reads instead of genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scjepa._types import FloatArray
from scjepa.data._matrix import aligned


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings of all cells, in ``obs`` order.

    Attributes
    ----------
    z
        ``(n, d)`` expression-faithful coordinates: where sets are compared and effects are read out.
    h
        ``(n, latent)`` JEPA embedding (which state is this cell in?), or None when the predictor does not read it.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import EmbeddingCache
    >>> EmbeddingCache(np.eye(3, dtype=np.float32)).gather(np.array([[0, 2]]))["z"].shape
    torch.Size([1, 2, 3])
    """

    z: FloatArray
    h: FloatArray | None = None

    def gather(self, cells: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the embeddings of an index array of any shape as tensors ``(*cells.shape, d)``."""
        out = {"z": aligned(self.z[cells])}
        if self.h is not None:
            out["h"] = aligned(self.h[cells])
        return out
