"""Late fusion: a head for each input, and the mean of what they say."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Fusion, Tokens


class Late(Fusion):
    """Probabilities (or numbers) of one head an input, averaged over the inputs that are there."""

    api = 1
    returns = "towers"

    def forward(self, inputs: dict[str, Tokens]) -> dict[str, Tokens]:
        return {name: inputs[name] for name in self.dims}

    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        s = torch.stack([scores[name] for name in self.dims], 1)  # [B, M, K]
        there = torch.stack([present[name] for name in self.dims], 1).unsqueeze(-1)  # [B, M, 1]
        return s.masked_fill(~there, 0).sum(1) / there.sum(1).clamp(min=1).to(s.dtype)
