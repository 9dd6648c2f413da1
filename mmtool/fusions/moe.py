"""A gated mixture of experts."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.fusions.options import within
from mmtool.fusions.weighted import masked_softmax


class Moe(Fusion):
    """h = Σ_e g_e E_e(x): a small network for each input and, with `joint`, one for all together, mixed by a softmax gate.

    The gate sees all inputs and which are there; experts of missing inputs get none of it. The gate's weights tell how
    much each input counted in a row. `hidden` is the width inside the experts. Raises UsageError for options out of range.
    Paper: adaptive mixtures of local experts (Jacobs et al., 1991).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int = 128, hidden: int = 128, joint: bool = True,
                 dropout: float = 0.1) -> None:
        super().__init__(dims)
        within("moe", "dim", dim, 1, 1024)
        within("moe", "hidden", hidden, 1, 1024)
        within("moe", "dropout", dropout, 0, 0.99)
        self.dim, self.joint = dim, joint
        together = sum(dims.values()) + len(dims)
        widths = [*self.dims.values(), *([together] if joint else [])]
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim)) for width in widths)
        self.gate = nn.Linear(together, len(widths))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        pooled = [inputs[name].mean() for name in self.dims]  # each [B, D_i], zero where missing
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [B, M]
        everything = torch.cat([*pooled, present.to(pooled[0].dtype)], -1)  # [B, ΣD_i + M]
        seen, there = pooled, present
        if self.joint:
            seen, there = [*pooled, everything], torch.cat([present, present.any(1, keepdim=True)], 1)
        h = torch.stack([expert(x) for expert, x in zip(self.experts, seen, strict=True)], 1)  # [B, E, dim]
        g = masked_softmax(self.gate(everything), there)  # [B, E]
        return Tokens.pooled((g.unsqueeze(-1) * h).sum(1), present.any(1))
