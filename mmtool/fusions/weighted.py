"""Weighted means of the inputs: by one learned weight each, or by attention to what they hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtool.api import Fusion, Tokens, UsageError
from mmtool.fusions.width import CommonWidth


def masked_softmax(e: Tensor, present: Tensor) -> Tensor:
    """Softmax of `e [B, M]` over the inputs that are `present [B, M]`; zeros where none is."""
    lowest = torch.finfo(e.dtype).min
    return e.masked_fill(~present, lowest).softmax(1) * present


class Weighted(Fusion):
    """Mean with one learned weight an input, shared out among the inputs that are there."""

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int | None = None) -> None:
        super().__init__(dims)
        self.common = CommonWidth(dims, dim)
        self.dim = self.common.dim
        self.weight = nn.Parameter(torch.zeros(len(dims)))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.common(inputs)  # [B, M, dim], [B, M]
        w = masked_softmax(self.weight.expand(present.shape), present)
        return Tokens.pooled((w.unsqueeze(-1) * x).sum(1), present.any(1))


class Attention(Fusion):
    """Mean with weights α_i = exp e_i / Σ exp e_j, where e_i = v · tanh(W x_i) is learned."""

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int | None = None, hidden: int = 128) -> None:
        super().__init__(dims)
        if hidden < 1:
            raise UsageError(f"hidden={hidden} is no width of a layer", "give at least 1")
        self.common = CommonWidth(dims, dim)
        self.dim = self.common.dim
        self.score = nn.Sequential(nn.Linear(self.dim, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.common(inputs)  # [B, M, dim], [B, M]
        w = masked_softmax(self.score(x).squeeze(-1), present)
        return Tokens.pooled((w.unsqueeze(-1) * x).sum(1), present.any(1))
