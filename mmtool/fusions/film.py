"""Feature-wise linear modulation: what one input says scales and shifts what another one says."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens, UsageError
from mmtool.fusions.attend import masked_mean
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth


class Film(Fusion):
    """h_i = ReLU((1 + γ_i) ∘ W_i x_i + β_i), where γ_i and β_i are linear in the mean of the other inputs' W_j x_j.

    By default every input is modulated by the others, and the result is the mean of the h_i that are there. With
    `modulated` one input alone is, so that the others only condition it: the result is its h, of which β is left where it
    is missing. Without others γ = β = 0. Raises UsageError for an unknown input or options out of range.
    Paper: FiLM (Perez et al., 2018, arXiv:1709.07871).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, modulated: str | None = None, dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        if modulated is not None and modulated not in dims:
            raise UsageError(f"film: modulated={modulated!r} is no input", f"inputs: {', '.join(self.dims)}")
        within("film", "dim", dim, 1, 1024)
        within("film", "dropout", dropout, 0, 0.99)
        self.dim = dim
        self.targets = [i for i, name in enumerate(self.dims) if modulated in (None, name)]
        self.project = CommonWidth(dims, dim, always=True)
        # of one input alone there is nothing to condition on, and these would never be trained
        self.conditions = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in (self.targets if len(dims) > 1 else ()))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)  # [B, M, dim], [B, M]
        x = self.dropout(x)
        found = []
        for i, condition in zip(self.targets, self.conditions, strict=False):
            others = [j for j in range(x.shape[1]) if j != i]
            told = condition(masked_mean(x[:, others], present[:, others]))  # [B, 2 dim]
            gamma, beta = told.masked_fill(~present[:, others].any(1, keepdim=True), 0).chunk(2, -1)
            found.append(torch.relu((1 + gamma) * x[:, i] + beta))
        h = torch.stack(found, 1) if found else torch.relu(x)  # [B, targets, dim]
        fused = h[:, 0] if len(self.targets) == 1 else masked_mean(h, present[:, self.targets])
        return Tokens.pooled(fused, present.any(1))
