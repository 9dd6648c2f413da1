"""One Transformer over the tokens of all inputs."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.attend import AttentionPool, Block, Embed
from mmtool.fusions.options import attention_within


class Transformer(Fusion):
    """All tokens, with a vector of their input added, in one sequence through shared self-attention; pooled by attention.

    `experts`: each input has feed-forward parts of its own, while attention is shared; `ff` is the width inside them.
    Raises UsageError for options out of range.
    Papers: one sequence of all modalities as in M6 (Lin et al., 2021, arXiv:2103.00823); an expert for each modality as in
    VLMo (Bao et al., 2022, arXiv:2111.02358).
    """

    api = 1
    takes = "tokens"

    def __init__(self, dims: dict[str, int], *, dim: int = 64, layers: int = 2, heads: int = 4, ff: int = 128,
                 experts: bool = False, dropout: float = 0.1) -> None:
        super().__init__(dims)
        attention_within("transformer", dim=dim, layers=layers, heads=heads, ff=ff, dropout=dropout)
        self.dim = dim
        self.embed = Embed(dims, dim, dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, ff, dropout, experts=len(dims) if experts else 1)
                                    for _ in range(layers))
        self.pool = AttentionPool(dim)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts, masks = self.embed(inputs)
        x, mask = torch.cat(parts, 1), torch.cat(masks, 1)  # [B, ΣT, dim], [B, ΣT]
        for block in self.blocks:
            x = block(x, mask, sizes=[m.shape[1] for m in masks])
        return Tokens.pooled(self.pool(x, mask), mask.any(1))
