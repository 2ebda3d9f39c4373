"""Stage 1: an encoder that starts as PCA, is trained on views of cells, and ends standardised with a readout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from scjepa.data import ExpressionMatrix, Split, ViewBatches, aligned, fit_components
from scjepa.module import VIEWS, JEPAModule
from scjepa.nn import kmeans_modules
from scjepa.train import CollapseMonitor, PlanConfig, Stage, epochs_for

ENCODER_STEPS = 400
"""Steps of the encoder stage when ``max_epochs`` is not given."""
BLOCK = 2048
"""Cells encoded at a time."""


@dataclass(frozen=True)
class EncoderStage:
    """Stage 1 of any model: what it does to a module, given the cells.

    Attributes
    ----------
    matrix
        All cells, in the model's genes.
    unit
        Depth that cells are brought to, see :meth:`scjepa.data.ExpressionMatrix.reference_unit`.
    codes
        ``(n,)`` batch codes of all cells for a batch-aware encoder, or None.
    seed
        Of everything drawn.
    """

    matrix: ExpressionMatrix
    unit: float = 1.0
    codes: np.ndarray | None = None
    seed: int = 0

    def start(self, module: JEPAModule, train: np.ndarray, *, find_modules: bool = True) -> None:
        """Start the encoder as PCA of the training cells, and cut the genes into modules (unless they were given)."""
        encoder = module.encoder
        cells = self.matrix.at_depth(self.unit, train)
        axes = fit_components(cells, encoder.n_latent, seed=self.seed)
        std = np.where(axes.std > 0, axes.std, 1.0)  # axes beyond the rank of the data are zero and stay zero
        encoder.initialize(axes.loadings, std, axes.mean)
        if find_modules:
            encoder.set_modules(kmeans_modules(axes.loadings * axes.std[:, None], encoder.n_modules, self.seed))
        self.center_batches(module, cells, train, np.arange(encoder.n_batch))
        with torch.no_grad():
            module.decoder.weight.copy_(aligned((axes.loadings * axes.std[:, None]).T))
            module.decoder.bias.zero_()
            if module.target_encoder is not None:
                module.target_encoder.module.load_state_dict(encoder.state_dict())

    def center_batches(self, module: JEPAModule, cells: sp.csr_matrix, train: np.ndarray, which: np.ndarray) -> None:
        """Start the offsets of some batches of a batch-aware encoder at their means, shrunken: small ones move less.

        Parameters
        ----------
        module
            Whose encoder.
        cells
            ``(len(train), genes)`` at depth.
        train
            Positions of ``cells``.
        which
            Codes of the batches.
        """
        encoder = module.encoder
        codes = None if self.codes is None else self.codes[train]
        for code in which:
            rows = np.flatnonzero(codes == code)
            if len(rows) and encoder.offset is not None:
                mean = np.asarray(cells[rows].mean(0)).ravel() - encoder.mean.cpu().numpy()
                shrunk = (mean * len(rows) / (len(rows) + 20)).astype(np.float32)
                encoder.offset.weight.data[code] = aligned(shrunk).to(encoder.mean.device)

    def monitor(self, train: np.ndarray) -> CollapseMonitor:
        """Return the callback that watches some training cells for collapse."""
        probe = np.sort(np.random.default_rng([self.seed, 3]).choice(train, min(256, len(train)), replace=False))
        rows = aligned(self.matrix.rows(probe, self.unit))
        return CollapseMonitor(rows, None if self.codes is None else torch.from_numpy(self.codes[probe]))

    def stage(
        self,
        split: Split,
        *,
        max_epochs: int | None,
        batch_size: int,
        plan_kwargs: dict | None,
        rows: dict[str, torch.Tensor] | None,
    ) -> Stage:
        """Return what the trainer runs; two views of each cell make a batch."""
        views = partial(
            ViewBatches,
            self.matrix,
            batch_size=max(batch_size // 2, 2),
            reference=self.unit,
            batch_codes=self.codes,
            seed=self.seed,
        )
        train = views(split.train)
        return Stage(
            "encoder",
            VIEWS,
            PlanConfig.from_kwargs(PlanConfig(), plan_kwargs),
            train,
            max_epochs or epochs_for(ENCODER_STEPS, len(train)),
            views(split.validation, fixed=True) if len(split.validation) >= 2 else None,
            [self.monitor(split.train)],
            rows,
        )

    @torch.no_grad()
    def finish(self, module: JEPAModule, train: np.ndarray, *, keep_statistics: bool = False) -> None:
        """Give the embedding exact training mean 0 and variance 1, and fit the readout, in two passes.

        ``keep_statistics``: the embedding is another model's; only the readout is this one's.
        """
        encoder = module.encoder
        device = encoder.mean.device

        def blocks(normalize: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for start in range(0, len(train), BLOCK):
                cells = train[start : start + BLOCK]
                x = aligned(self.matrix.rows(cells))
                batch = None if self.codes is None else torch.from_numpy(self.codes[cells]).to(device)
                yield encoder(at_depth(x, self.unit).to(device), batch=batch, normalize=normalize), x

        if not keep_statistics:
            n, total = 0, torch.zeros(encoder.n_latent, dtype=torch.float64, device=device)
            square = torch.zeros_like(total)
            for h, _ in blocks(normalize=False):
                n, total, square = n + len(h), total + h.double().sum(0), square + (h.double() ** 2).sum(0)
            mean = total / n
            encoder.set_statistics(mean.float(), (square / n - mean**2).clamp_min(1e-8).float())
        module.readout.fit(blocks(normalize=True))


def at_depth(x: torch.Tensor, unit: float) -> torch.Tensor:
    """Bring log-normalised expression to the depth that an encoder reads.

    Examples
    --------
    >>> import torch
    >>> from scjepa.model.core._encoder import at_depth
    >>> at_depth(torch.log1p(torch.tensor([4.0])), 2.0).expm1().round().tolist()
    [2.0]
    """
    return x if unit == 1.0 else torch.log1p(torch.expm1(x) / unit)


def encode(
    module: JEPAModule, matrix: ExpressionMatrix, unit: float, codes: np.ndarray | None = None, **options: Any
) -> Iterator[np.ndarray]:
    """Yield embeddings of the rows of ``matrix``, ``options["size"]`` at a time (default :data:`BLOCK`)."""
    size = options.pop("size", BLOCK)
    device = module.encoder.mean.device
    for start in range(0, matrix.values.shape[0], size):
        rows = slice(start, start + size)
        x = aligned(matrix.rows(rows, unit)).to(device)
        batch = None if codes is None else torch.from_numpy(codes[rows]).to(device)
        yield module.embed(x, batch=batch, **options).cpu().numpy()
