"""Tucker fusion: a bilinear form whose core has slices of low rank."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth, linear_from_ones, product


class Mutan(Fusion):
    """z = Σ_r Π_i M_i^r tanh(W_i x_i): inputs in `width`, then products over inputs in `dim`, summed over `rank` of them.

    The paper's last matrix is the head. More than two inputs: the product runs over all of them, that is a Tucker core of
    as many modes, with slices of the same rank; a missing one is left out of the product. Biases of M begin at 1, so that
    inputs are heard singly, too, from the start. Raises UsageError for options out of range.
    Paper: MUTAN (Ben-younes et al., 2017, arXiv:1705.06676).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, rank: int = 5, width: int = 64, dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        within("mutan", "rank", rank, 1, 64)
        within("mutan", "width", width, 1, 1024)
        within("mutan", "dim", dim, 1, 1024)
        within("mutan", "dropout", dropout, 0, 0.99)
        self.dim, self.rank = dim, rank
        self.project = CommonWidth(dims, width, always=True)
        self.slices = nn.ModuleList(linear_from_ones(width, rank * dim) for _ in dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)  # [B, M, width]
        x = self.dropout(torch.tanh(x))
        parts = torch.stack([part(x[:, i]) for i, part in enumerate(self.slices)], 1)  # [B, M, rank * dim]
        h = product(parts, present.unsqueeze(-1))  # [B, rank * dim]
        return Tokens.pooled(h.view(-1, self.rank, self.dim).sum(1), present.any(1))
