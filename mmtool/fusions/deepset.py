"""Deep sets: inputs as a set, of any size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.attend import Embed, masked_mean
from mmtool.fusions.options import within


class DeepSet(Fusion):
    """ρ(Σ_i mean_t φ(W_i x_it + e_i)): one network φ for all tokens, a sum over the inputs that are there, and ρ.

    e_i is a learned vector of the input, without which the set would not know its members. Within an input tokens are
    averaged, so that a long one is not heard more than others; `pool` says what becomes of the inputs.
    Raises UsageError for options out of range.
    Paper: deep sets (Zaheer et al., 2017, arXiv:1703.06114).
    """

    api = 1
    takes = "tokens"

    def __init__(self, dims: dict[str, int], *, pool: Literal["sum", "mean", "max"] = "sum", dim: int = 128,
                 hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        within("deepset", "dim", dim, 1, 1024)
        within("deepset", "hidden", hidden, 1, 1024)
        within("deepset", "dropout", dropout, 0, 0.99)
        self.dim, self.pool = dim, pool
        self.embed = Embed(dims, hidden, dropout)
        self.phi = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts, masks = self.embed(inputs)
        x = torch.stack([masked_mean(self.phi(part), mask) for part, mask in zip(parts, masks, strict=True)], 1)
        present = torch.stack([mask.any(1) for mask in masks], 1)  # [B, M]; x is [B, M, hidden], zero where missing
        # φ ends in a ReLU, so that a missing input's zero is never above what is there
        pooled = {"sum": x.sum(1), "mean": masked_mean(x, present), "max": x.amax(1)}[self.pool]
        return Tokens.pooled(self.rho(pooled), present.any(1))
