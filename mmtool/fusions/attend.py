"""What the fusions by attention have in common: tokens of one width, a layer of attention under masks, and a pool.

Shapes: B rows, M inputs, T_i tokens of input i, D the common width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmtool.api import Tokens
from mmtool.fusions.weighted import masked_softmax


class Embed(nn.Module):
    """Every input's tokens in one width, plus a learned vector of the input. Positions are the encoders' business."""

    def __init__(self, dims: dict[str, int], dim: int, dropout: float) -> None:
        super().__init__()
        self.names = sorted(dims)
        self.layers = nn.ModuleList(nn.Linear(dims[n], dim) for n in self.names)
        self.modality = nn.Parameter(torch.randn(len(dims), dim) * 0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> tuple[list[Tensor], list[Tensor]]:
        """`[B, T_i, D]` and the mask `[B, T_i]` of each input, by sorted names; finite under a False mask."""
        values = []
        for name, layer, own in zip(self.names, self.layers, self.modality, strict=True):
            t = inputs[name]
            values.append(self.dropout(layer(t.values.masked_fill(~t.mask.unsqueeze(-1), 0)) + own))
        return values, [inputs[name].mask for name in self.names]


class Block(nn.Module):
    """A Transformer's layer with norms in front (Vaswani et al., 2017; Xiong et al., 2020), from x to itself or a context.

    `cross`: it attends to a context; `experts`: feed-forward parts, one for each stretch of the sequence.
    """

    def __init__(self, dim: int, heads: int, ff: int, dropout: float, *, cross: bool = False, experts: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim) if cross else None
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ff), nn.GELU(), nn.Dropout(dropout), nn.Linear(ff, dim))
            for _ in range(experts))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, context: Tensor | None = None, sizes: Sequence[int] = ()) -> Tensor:
        """`x [B, T, D]` -> `[B, T, D]`; `mask [B, S]` is of what is attended to, and a row without any adds nothing.

        `sizes`: where there are several experts, the lengths of their stretches of x.
        """
        y = self.norm(x)
        keys = y if self.norm_context is None else self.norm_context(context)  # [B, S, D]
        nothing = ~mask.any(1, keepdim=True)  # [B, 1]
        # a softmax over nothing is no number: such a row attends to all, and what it finds is thrown away
        seen, _ = self.attention(y, keys, keys, key_padding_mask=~(mask | nothing), need_weights=False)
        x = x + self.dropout(seen.masked_fill(nothing.unsqueeze(-1), 0))
        parts = torch.split_with_sizes(x, list(sizes), 1) if len(self.feed) > 1 else (x,)
        fed: Tensor = self.dropout(torch.cat([feed(p) for feed, p in zip(self.feed, parts, strict=True)], 1))
        return x + fed


class AttentionPool(nn.Module):
    """Normed tokens, averaged with learned weights α_t = exp e_t / Σ exp e_s, where e_t = v · x_t."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, D]`, finite, and `mask [B, T]` -> `[B, D]`, zero where no token is there."""
        x = self.norm(x)
        w = masked_softmax(self.score(x).squeeze(-1), mask)  # [B, T]
        return (w.unsqueeze(-1) * x).sum(1)


def masked_mean(x: Tensor, present: Tensor) -> Tensor:
    """`x [B, M, ...]`, finite, averaged over the inputs that are `present [B, M]`: `[B, ...]`, zero where none is."""
    w = present.reshape(*present.shape, *[1] * (x.ndim - 2)).to(x.dtype)  # [B, M, 1, ...]
    return (w * x).sum(1) / w.sum(1).clamp(min=1)
