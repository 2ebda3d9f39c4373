"""The encoder of cells: a linear skip that starts as PCA, plus an MLP or gene-module tokens that start silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from scjepa._checks import require_member, require_positive_int
from scjepa.nn._gene_tokens import GeneTokens

ArrayLike = Tensor | npt.NDArray | Sequence


class GeneExpressionEncoder(nn.Module):
    r"""Embed cells: :math:`z = \mathrm{BatchNorm}(W (x - \mu) + \mathrm{head}(\mathrm{body}(x - \mu)))`.

    ``x`` is log-normalised expression, centred by the buffer ``mean`` but not z-scored. The head starts at zero and
    :meth:`initialize` makes W whitened PCA, so that at step 0 the encoder is PCA and training starts from there. The
    batch norm has no affine part: regularisers against collapse see what users get.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_latent
        Dimensions of the embedding, at most ``n_genes``.
    kind
        Body: ``"mlp"`` (fast) or ``"modules"`` (one token for each gene module and attention between them: slower, and
        gives tokens).
    gene_modules
        ``(n_modules, n_genes)`` bool, which genes make up each module; modules may overlap. By default ``n_modules``
        runs of neighbouring genes, until :meth:`set_modules` is called. Both kinds mask by module.
    n_modules
        Number of modules when ``gene_modules`` is None.
    n_hidden
        Width of the MLP.
    n_layers
        Number of hidden layers, or of attention blocks.
    d_token
        Width of a module token.
    n_batch
        Number of batches. If positive, a learned offset of each batch (zero at the start) is subtracted from expression.

    Raises
    ------
    ValueError
        For sizes that don't fit (more latents or modules than genes, modules of another number of genes).

    References
    ----------
    Assran et al. I-JEPA. arXiv:2301.08243: tokens that can be hidden, there image patches, here gene modules.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import GeneExpressionEncoder
    >>> encoder = GeneExpressionEncoder(100, n_latent=8, n_modules=10)
    >>> x = torch.rand(5, 100)
    >>> encoder(x).shape
    torch.Size([5, 8])
    >>> hidden = torch.rand(5, 10) < 0.3  # hides about 3 of 10 modules
    >>> encoder(x, hidden).shape
    torch.Size([5, 8])
    """

    mean: Tensor
    membership: Tensor

    def __init__(
        self,
        n_genes: int,
        n_latent: int = 32,
        *,
        kind: Literal["mlp", "modules"] = "mlp",
        gene_modules: ArrayLike | None = None,
        n_modules: int = 32,
        n_hidden: int = 256,
        n_layers: int = 2,
        d_token: int = 64,
        n_batch: int = 0,
    ) -> None:
        super().__init__()
        require_member(kind, ("mlp", "modules"), "kind")
        self.kind = kind
        self.n_genes = require_positive_int(n_genes, "n_genes")
        self.n_latent = require_positive_int(n_latent, "n_latent")
        self.n_batch = require_positive_int(n_batch, "n_batch", minimum=0)
        require_positive_int(n_layers, "n_layers")
        require_positive_int(n_hidden, "n_hidden")
        require_positive_int(d_token, "d_token")
        if n_latent > n_genes:
            raise ValueError(f"n_latent={n_latent} is more than the {n_genes} genes. Use n_latent <= {n_genes}.")
        if gene_modules is None:
            require_positive_int(n_modules, "n_modules")
            if n_modules > n_genes:
                raise ValueError(f"n_modules={n_modules} is more than the {n_genes} genes. Use fewer modules.")
            membership = torch.arange(n_genes) * n_modules // n_genes == torch.arange(n_modules)[:, None]
        else:
            membership = self._checked_membership(gene_modules)
        self.n_modules = len(membership)
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("membership", membership)

        self.skip = nn.Linear(n_genes, n_latent, bias=False)
        self.body: GeneTokens | nn.Sequential
        if kind == "modules":
            self.body = GeneTokens(n_genes, self.n_modules, d_token, n_layers)
        else:
            widths = [n_genes] + [n_hidden] * n_layers
            self.body = nn.Sequential(
                *(
                    layer
                    for i, o in zip(widths[:-1], widths[1:], strict=True)
                    for layer in (nn.Linear(i, o), nn.LayerNorm(o), nn.GELU())
                )
            )
        self.head = nn.Linear(d_token if kind == "modules" else n_hidden, n_latent)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.offset = nn.Embedding(n_batch, n_genes) if n_batch else None
        if self.offset is not None:
            nn.init.zeros_(self.offset.weight)
        self.norm = nn.BatchNorm1d(n_latent, affine=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        batch: Tensor | None = None,
        normalize: bool = True,
        give_tokens: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embed cells.

        Parameters
        ----------
        x
            ``(n, n_genes)`` log-normalised expression.
        mask
            ``(n, n_modules)`` bool, True hides a module: all its genes take their mean value, also those that are in
            another module too.
        batch
            ``(n,)`` batch codes; None subtracts the mean of all batch offsets, for cells of an unknown batch.
        normalize
            Apply the final batch norm.
        give_tokens
            Return the module tokens as well; only for ``kind="modules"``.

        Returns
        -------
        ``(n, n_latent)`` embeddings; with ``give_tokens`` a pair of them and ``(n, n_modules, d_token)`` tokens.

        Raises
        ------
        ValueError
            For wrong shapes, unknown batch codes, tokens asked of an MLP, or a single cell in training mode.
        """
        if give_tokens and self.kind != "modules":
            raise ValueError("give_tokens=True: this encoder has no tokens. Make it with kind='modules'.")
        if normalize and self.training and len(x) == 1:
            raise ValueError("one cell can't be batch-normalised in training. Call .eval() or use larger batches.")
        x = self.center(x, mask, batch=batch)
        if isinstance(self.body, GeneTokens):
            tokens = self.body(x, self.membership)
            features = tokens.mean(1)
        else:
            tokens, features = None, self.body(x)
        z = self.skip(x) + self.head(features)
        z = self.norm(z) if normalize else z
        return (z, tokens) if give_tokens else z

    @torch.no_grad()
    def initialize(self, loadings: ArrayLike, std: ArrayLike, mean: ArrayLike) -> None:
        """Make the encoder equal to whitened PCA.

        Sets the skip and the mean; resets head, batch offsets and batch-norm statistics to where they start.

        Parameters
        ----------
        loadings
            ``(n_latent, n_genes)`` PCA axes (unit rows).
        std
            ``(n_latent,)`` standard deviation of the scores along each axis.
        mean
            ``(n_genes,)`` mean expression.

        Raises
        ------
        ValueError
            For wrong shapes, numbers that are not finite, or a standard deviation of zero.
        """
        loadings = self._array(loadings, "loadings", (self.n_latent, self.n_genes))
        std = self._array(std, "std", (self.n_latent,))
        if (std <= 0).any():
            raise ValueError(
                f"std: {int((std <= 0).sum())} of {self.n_latent} axes have no variance. "
                "Use a smaller n_latent, at most the rank of the data."
            )
        self.mean.copy_(self._array(mean, "mean", (self.n_genes,)))
        self.skip.weight.copy_(loadings / std[:, None])
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if self.offset is not None:
            nn.init.zeros_(self.offset.weight)
        self.norm.reset_running_stats()

    @torch.no_grad()
    def set_modules(self, membership: ArrayLike) -> None:
        """Replace the gene modules by ``(n_modules, n_genes)`` bool; their number is fixed when the encoder is made."""
        new = self._checked_membership(membership)
        if len(new) != self.n_modules:
            raise ValueError(
                f"membership has {len(new)} modules, the encoder has {self.n_modules}. "
                "Make the encoder with gene_modules=membership or with that n_modules."
            )
        self.membership.copy_(new)

    @torch.no_grad()
    def set_statistics(self, mean: ArrayLike, var: ArrayLike) -> None:
        """Put exact statistics of the embedding before the batch norm (``normalize=False``) in place of running ones.

        Parameters
        ----------
        mean, var
            ``(n_latent,)`` mean and variance over all training cells.
        """
        mean = self._array(mean, "mean", (self.n_latent,))
        var = self._array(var, "var", (self.n_latent,))
        if (var < 0).any():
            raise ValueError(f"var has negative values (smallest {var.min().item():.4g}).")
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(var)

    def center(self, x: Tensor, mask: Tensor | None = None, *, batch: Tensor | None = None) -> Tensor:
        """Return what skip and body read: expression minus mean and batch offset, zero where masked."""
        if x.ndim != 2 or x.shape[1] != self.n_genes:
            raise ValueError(f"x has shape {tuple(x.shape)}: expected (n_cells, {self.n_genes}) expression values.")
        x = x.to(self.mean.dtype) - self.mean
        if self.offset is not None:
            x = x - (self.offset.weight.mean(0) if batch is None else self.offset(self._checked_batch(batch, len(x))))
        elif batch is not None:
            raise ValueError("batch was given, but the encoder was made with n_batch=0.")
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != (len(x), self.n_modules):
                raise ValueError(
                    f"mask is {mask.dtype} of shape {tuple(mask.shape)}: expected bool ({len(x)}, {self.n_modules})."
                )
            hidden = mask.to(x.dtype) @ self.membership.to(x.dtype) > 0
            x = x.masked_fill(hidden, 0.0)
        return x

    def _checked_batch(self, batch: Tensor, n: int) -> Tensor:
        if batch.is_floating_point() or batch.shape != (n,):
            raise ValueError(f"batch is {batch.dtype} of shape {tuple(batch.shape)}: expected whole codes ({n},).")
        if n and not (0 <= int(batch.min()) and int(batch.max()) < self.n_batch):  # a GPU would die without a message
            raise ValueError(
                f"batch codes run from {int(batch.min())} to {int(batch.max())}: expected 0 to {self.n_batch - 1}. "
                "Use batch=None for cells of an unknown batch."
            )
        return batch.long()

    def _checked_membership(self, membership: ArrayLike) -> Tensor:
        new = torch.as_tensor(np.asarray(membership) if not isinstance(membership, Tensor) else membership)
        if new.dtype != torch.bool or new.ndim != 2 or new.shape[1] != self.n_genes:
            raise ValueError(
                f"gene modules are {new.dtype} of shape {tuple(new.shape)}: expected bool (n_modules, {self.n_genes})."
            )
        if not new.any():
            raise ValueError("gene modules are empty: no gene is in any module.")
        return new.detach().clone()

    def _array(self, values: ArrayLike, name: str, shape: tuple[int, ...]) -> Tensor:
        new = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).to(self.mean)
        if new.shape != shape:
            raise ValueError(f"{name} has shape {tuple(new.shape)}: expected {shape}.")
        if not torch.isfinite(new).all():
            raise ValueError(f"{name} has {int((~torch.isfinite(new)).sum())} NaN or infinite values.")
        return new
