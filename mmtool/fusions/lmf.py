"""Low-rank multimodal fusion: the tensor of all products, never written out."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth, product


class Lmf(Fusion):
    """h = Σ_r w_r Π_i W_i^r [x_i; 1]: a product over inputs in each of `rank` ranks, and their weighted sum.

    A missing input is left out of the product. What the 1s are multiplied with begins at 1, so that inputs are heard
    singly, too, from the start. Weights grow with the sum of the widths, not with their product as in `tensor`.
    Raises UsageError for options out of range.
    Paper: LMF (Liu et al., 2018, arXiv:1806.00064).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, rank: int = 4, dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        within("lmf", "rank", rank, 1, 64)
        within("lmf", "dim", dim, 1, 1024)
        within("lmf", "dropout", dropout, 0, 0.99)
        self.dim, self.rank = dim, rank
        self.factors = CommonWidth(dims, rank * dim, always=True, ones=True)
        self.weight = nn.Parameter(torch.full((rank, 1), rank**-0.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.factors(inputs)  # [B, M, rank * dim]
        h = product(x, present.unsqueeze(-1))  # [B, rank * dim]
        h = self.dropout(h).view(-1, self.rank, self.dim)
        return Tokens.pooled((self.weight * h).sum(1), present.any(1))
