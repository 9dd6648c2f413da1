"""Multi-modal factorized bilinear pooling."""

from __future__ import annotations

from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth, product

SMALL = 1e-2
"""Keeps the slope of the root at 0 to 10: with a steeper one, last bits grow until runs with equal data differ."""


class Mfb(Fusion):
    """z = SumPool_k(U x ∘ V y), its signed square root, and that scaled to length √dim (length 1 in the paper).

    `factors` is the paper's k. More than two inputs: the product runs over all of them, which makes it a sum of `factors`
    multilinear forms; a missing one is left out of the product. Biases begin at 1, so that inputs are heard singly, too,
    from the start. Raises UsageError for options out of range.
    Paper: MFB (Yu et al., 2017, arXiv:1708.01471).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, factors: int = 5, dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        within("mfb", "factors", factors, 1, 64)
        within("mfb", "dim", dim, 1, 1024)
        within("mfb", "dropout", dropout, 0, 0.99)
        self.dim, self.factors = dim, factors
        self.project = CommonWidth(dims, dim * factors, always=True, ones=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)  # [B, M, dim * factors]
        h = self.dropout(product(x, present.unsqueeze(-1)))
        z = h.view(-1, self.dim, self.factors).sum(-1)  # [B, dim]
        z = z / (z.abs() + SMALL).sqrt()
        return Tokens.pooled(nn.functional.normalize(z, dim=-1, eps=1e-4) * self.dim**0.5, present.any(1))
