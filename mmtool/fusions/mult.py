"""Crossmodal Transformers: every input as each of the others sees it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.attend import AttentionPool, Block, Embed, masked_mean
from mmtool.fusions.options import attention_within, within


class Mult(Fusion):
    """For each ordered pair of inputs, `layers` in which the tokens of one attend to those of the other.

    What an input learned from the others that are there is averaged, goes through `self_layers` of self-attention and is
    pooled by attention; the inputs' results stand side by side, `dim` each, zeros where one is missing. Unlike the paper,
    it averages over the others where that concatenates them, so that a missing one leaves no gap, and adds no positions.
    Weights grow with the square of the number of inputs. Raises UsageError for options out of range.
    Paper: MulT (Tsai et al., 2019, arXiv:1906.00295).
    """

    api = 1
    takes = "tokens"

    def __init__(self, dims: dict[str, int], *, dim: int = 64, layers: int = 2, self_layers: int = 1, heads: int = 4,
                 ff: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        attention_within("mult", dim=dim, layers=layers, heads=heads, ff=ff, dropout=dropout)
        within("mult", "self_layers", self_layers, 0, 12)
        inputs = range(len(dims))
        self.dim = dim * len(dims)
        self.embed = Embed(dims, dim, dropout)
        self.pairs = [(i, j) for i in inputs for j in inputs if i != j]
        self.cross = nn.ModuleList(_Stack(layers, dim, heads, ff, dropout, cross=True) for _ in self.pairs)
        self.own = nn.ModuleList(_Stack(self_layers, dim, heads, ff, dropout) for _ in inputs)
        self.pools = nn.ModuleList(AttentionPool(dim) for _ in inputs)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts, masks = self.embed(inputs)
        present = torch.stack([m.any(1) for m in masks], 1)  # [B, M]
        seen: list[list[tuple[int, Tensor]]] = [[] for _ in parts]
        for (i, j), stack in zip(self.pairs, self.cross, strict=True):
            seen[i].append((j, stack(parts[i], masks[j], parts[j])))
        pooled = []
        for i, (x, own, pool) in enumerate(zip(parts, self.own, self.pools, strict=True)):
            if seen[i]:
                there = present[:, [j for j, _ in seen[i]]]  # [B, M - 1]
                heard = masked_mean(torch.stack([y for _, y in seen[i]], 1), there)  # [B, T_i, dim]
                x = torch.where(there.any(1).view(-1, 1, 1), heard, x)  # an input alone is left as it is
            pooled.append(pool(own(x, masks[i]), masks[i]))
        return Tokens.pooled(torch.cat(pooled, -1), present.any(1))


class _Stack(nn.Module):
    def __init__(self, count: int, dim: int, heads: int, ff: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, ff, dropout, cross=cross) for _ in range(count))

    def forward(self, x: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask, context)
        return x
