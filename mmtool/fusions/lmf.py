"""Low-rank multimodal fusion: the tensor of all products, never written out."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth


class Lmf(Fusion):
    """h = Σ_r w_r Π_i W_i^r [x_i; 1]: a product over inputs in each of `rank` ranks, and their weighted sum.

    A missing input leaves what its 1 contributes. These constants begin at 1, so that the inputs are heard singly and in
    products from the start. Weights grow with the sum of the widths, not with their product as in `tensor`.
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
        self.factors = CommonWidth(dims, rank * dim, always=True, bias=False)
        self.ones = nn.Parameter(torch.ones(len(dims) * rank * dim))  # flat, as biases are: weight decay leaves those alone
        self.weight = nn.Parameter(torch.full((rank, 1), rank**-0.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.factors(inputs)  # [B, M, rank * dim], zero where missing
        h = (self.dropout(x) + self.ones.view(x.shape[1:])).prod(1).view(-1, self.rank, self.dim)  # [B, rank, dim]
        return Tokens.pooled((self.weight * h).sum(1), present.any(1))
