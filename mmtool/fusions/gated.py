"""Gated multimodal units."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens, UsageError


class Gated(Fusion):
    """h = Σ z_i ∘ tanh(W_i x_i) with gates z_i = σ(V_i [x_1, ..., x_M]) (Arevalo et al., 2017, arXiv:1702.01992)."""

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int = 128) -> None:
        super().__init__(dims)
        if dim < 1:
            raise UsageError(f"dim={dim} is no width of a fusion", "give at least 1")
        self.dim = dim
        self.values = nn.ModuleList(nn.Linear(d, dim) for d in self.dims.values())
        self.gates = nn.Linear(sum(dims.values()), dim * len(dims))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        pooled = [inputs[name].mean() for name in self.dims]  # each [B, D_i], zero where missing
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [B, M]
        h = torch.stack([torch.tanh(layer(x)) for layer, x in zip(self.values, pooled, strict=True)], 1)  # [B, M, dim]
        z = torch.sigmoid(self.gates(torch.cat(pooled, -1))).reshape(h.shape)  # [B, M, dim]
        return Tokens.pooled((z * h * present.unsqueeze(-1)).sum(1), present.any(1))
