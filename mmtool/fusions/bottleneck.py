"""Attention bottlenecks: inputs exchange what fits through a few shared tokens."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens, UsageError
from mmtool.fusions.attend import Block, Embed, masked_mean
from mmtool.fusions.options import attention_within, within


class Bottleneck(Fusion):
    """A Transformer for each input, which sees the others only through `bottlenecks` tokens that all of them update.

    The first `separate` of `layers` are without bottlenecks. After each later layer a bottleneck becomes the mean of what
    the inputs that are there made of it. Every input has a classification token; their mean is the result.
    Raises UsageError for options out of range, and for fewer than two layers with bottlenecks: the first fills them.
    Paper: MBT (Nagrani et al., 2021, arXiv:2107.00135).
    """

    api = 1
    takes = "tokens"

    def __init__(self, dims: dict[str, int], *, dim: int = 64, bottlenecks: int = 4, layers: int = 2, separate: int = 0,
                 heads: int = 4, ff: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        attention_within("bottleneck", dim=dim, layers=layers, heads=heads, ff=ff, dropout=dropout)
        within("bottleneck", "bottlenecks", bottlenecks, 1, 256)
        within("bottleneck", "separate", separate, 0, 10)
        if layers - separate < 2:
            raise UsageError(f"bottleneck: layers={layers} leaves {max(0, layers - separate)} after separate={separate}",
                             "inputs hear of each other from the second on: give more layers")
        self.dim, self.separate = dim, separate
        self.embed = Embed(dims, dim, dropout)
        self.classes = nn.Parameter(torch.randn(len(dims), 1, dim) * 0.02)
        self.shared = nn.Parameter(torch.randn(bottlenecks, dim) * 0.02)
        self.layers = nn.ModuleList(nn.ModuleList(Block(dim, heads, ff, dropout) for _ in dims) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts, masks = self.embed(inputs)
        rows = len(parts[0])
        present = torch.stack([m.any(1) for m in masks], 1)  # [B, M]
        streams = [torch.cat([c.expand(rows, 1, self.dim), x], 1) for c, x in zip(self.classes, parts, strict=True)]
        masks = [torch.cat([torch.ones_like(m[:, :1]), m], 1) for m in masks]  # [B, 1 + T_i]
        between = self.shared.expand(rows, *self.shared.shape)  # [B, N, dim]
        open_ = torch.ones(between.shape[:2], dtype=torch.bool, device=between.device)  # [B, N]
        for number, blocks in enumerate(self.layers):
            assert isinstance(blocks, nn.ModuleList)
            if number < self.separate:
                streams = [block(x, m) for block, x, m in zip(blocks, streams, masks, strict=True)]
                continue
            both = [block(torch.cat([x, between], 1), torch.cat([m, open_], 1))
                    for block, x, m in zip(blocks, streams, masks, strict=True)]
            streams = [x[:, : m.shape[1]] for x, m in zip(both, masks, strict=True)]
            made = torch.stack([x[:, m.shape[1] :] for x, m in zip(both, masks, strict=True)], 1)  # [B, M, N, dim]
            between = masked_mean(made, present)
        firsts = torch.stack([self.norm(x[:, 0]) for x in streams], 1)  # [B, M, dim]
        return Tokens.pooled(masked_mean(firsts, present), present.any(1))
