"""The body of the module encoder: one token for each gene module, then attention between modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeneTokens(nn.Module):
    r"""Tokens of gene modules, refined by pre-LN attention blocks.

    The raw token of module m is :math:`p_m + |m|^{-1/2} \sum_{g \in m} x_g E_g`. One vector :math:`E_g` a gene, whatever
    the modules, so that parameters keep their shapes when modules change; for modules that don't overlap this is as
    expressive as one weight matrix a module.

    Parameters
    ----------
    n_genes, n_modules
        Shape of the membership matrix that :meth:`forward` takes.
    d_token
        Width of a token.
    n_layers
        Number of attention blocks.
    """

    def __init__(self, n_genes: int, n_modules: int, d_token: int = 64, n_layers: int = 2) -> None:
        super().__init__()
        self.gene = nn.Parameter(torch.randn(n_genes, d_token))
        self.position = nn.Parameter(0.02 * torch.randn(n_modules, d_token))
        heads = next(h for h in (4, 2, 1) if d_token % h == 0)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                d_token, heads, 2 * d_token, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_token)
        self._cache: tuple[Tensor, int, tuple[Tensor, Tensor, Tensor]] | None = None

    def forward(self, x: Tensor, membership: Tensor) -> Tensor:
        """Return tokens ``(n, n_modules, d_token)`` of centred expression ``(n, n_genes)``."""
        tokens = self.raw_tokens(x, membership)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def raw_tokens(self, x: Tensor, membership: Tensor) -> Tensor:
        """Return the tokens before attention: one batched matrix product over padded blocks of genes."""
        index, weight, module = self._blocks_of(membership)
        values = x.index_select(1, index.flatten()).view(len(x), *index.shape).transpose(0, 1)
        vectors = self.gene.index_select(0, index.flatten()).view(*index.shape, -1) * weight[..., None]
        summed = torch.bmm(values, vectors).transpose(0, 1)
        return self.position.expand(len(x), -1, -1).to(summed.dtype).index_add(1, module, summed)

    def _blocks_of(self, membership: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Padded blocks, derived again whenever the membership buffer was replaced, moved or written to."""
        version = -1 if membership.is_inference() else membership._version
        if self._cache is None or self._cache[0] is not membership or self._cache[1] != version:
            self._cache = (membership, version, padded_blocks(membership))
        return self._cache[2]


def padded_blocks(membership: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut modules into blocks of equal length.

    Blocks are as long as the mean module; a larger module gets several. So one module of thousands of genes (the
    remainder of small gene sets) does not pad all others to its size: at most half of all slots are padding.

    Parameters
    ----------
    membership
        ``(n_modules, n_genes)`` bool.

    Returns
    -------
    index
        ``(n_blocks, length)`` genes of each block; padding points to gene 0.
    weight
        ``(n_blocks, length)``: ``size ** -0.5`` of the block's module, 0 in padding.
    module
        ``(n_blocks,)`` module of each block.
    """
    module, gene = membership.nonzero(as_tuple=True)  # sorted by module
    size = membership.sum(1)
    length = max(1, -(-len(gene) // max(1, int((size > 0).sum()))))
    n_blocks = (size + length - 1) // length
    rank = torch.arange(len(gene), device=gene.device) - (size.cumsum(0) - size)[module]
    block = (n_blocks.cumsum(0) - n_blocks)[module] + rank // length
    total = int(n_blocks.sum())
    index = torch.zeros(total, length, dtype=torch.long, device=gene.device)
    weight = torch.zeros(total, length, device=gene.device)
    index[block, rank % length] = gene
    weight[block, rank % length] = size[module].to(weight.dtype).rsqrt()
    return index, weight, torch.arange(len(size), device=gene.device).repeat_interleave(n_blocks)
