"""A few latent vectors that read the tokens of all inputs."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.attend import Block, Embed
from mmtool.fusions.options import attention_within, within


class Perceiver(Fusion):
    """`latents` learned vectors attend to all tokens, then to each other, `layers` times; their mean is the result.

    Time and memory grow with the tokens, not with their square. Unlike the paper, no layers share weights, and no Fourier
    features of positions are added. Raises UsageError for options out of range.
    Paper: Perceiver (Jaegle et al., 2021, arXiv:2103.03206).
    """

    api = 1
    takes = "tokens"

    def __init__(self, dims: dict[str, int], *, dim: int = 64, latents: int = 8, layers: int = 2, heads: int = 4,
                 ff: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        attention_within("perceiver", dim=dim, layers=layers, heads=heads, ff=ff, dropout=dropout)
        within("perceiver", "latents", latents, 1, 1024)
        self.dim = dim
        self.embed = Embed(dims, dim, dropout)
        self.latents = nn.Parameter(torch.randn(latents, dim) * 0.02)
        self.reads = nn.ModuleList(Block(dim, heads, ff, dropout, cross=True) for _ in range(layers))
        self.thinks = nn.ModuleList(Block(dim, heads, ff, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts, masks = self.embed(inputs)
        tokens, mask = torch.cat(parts, 1), torch.cat(masks, 1)  # [B, ΣT, dim], [B, ΣT]
        x = self.latents.expand(len(tokens), *self.latents.shape)  # [B, N, dim]
        every = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)  # [B, N]
        for read, think in zip(self.reads, self.thinks, strict=True):
            x = think(read(x, mask, tokens), every)
        return Tokens.pooled(self.norm(x).mean(1), mask.any(1))
