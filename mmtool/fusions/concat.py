"""Concatenation: nothing is lost, and a linear head on it sees every input."""

from __future__ import annotations

import torch

from mmtool.api import Fusion, Tokens


class Concat(Fusion):
    """Pooled inputs side by side, zeros where one is missing, and a presence flag for each."""

    api = 1

    def __init__(self, dims: dict[str, int], *, flags: bool = True) -> None:
        super().__init__(dims)
        self.flags = flags
        self.dim = sum(dims.values()) + flags * len(dims)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts = [inputs[name].mean() for name in self.dims]  # each [B, D_i]
        if self.flags:
            parts += [inputs[name].present.to(parts[0].dtype).unsqueeze(-1) for name in self.dims]  # each [B, 1]
        return Tokens.pooled(torch.cat(parts, -1), _any(inputs))


def _any(inputs: dict[str, Tokens]) -> torch.Tensor:
    return torch.stack([t.present for t in inputs.values()], 1).any(1)  # [B]
