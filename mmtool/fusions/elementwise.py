"""Sum, mean, maximum and product over the inputs that are there; without a parameter where widths are equal."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Fusion, Tokens
from mmtool.fusions.width import CommonWidth, product


class _Elementwise(Fusion):
    def __init__(self, dims: dict[str, int], *, dim: int | None = None) -> None:
        super().__init__(dims)
        self.common = CommonWidth(dims, dim)
        self.dim = self.common.dim

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.common(inputs)
        return Tokens.pooled(self.reduce(x, present.unsqueeze(-1)), present.any(1))

    def reduce(self, x: Tensor, there: Tensor) -> Tensor:
        """`x [B, M, dim]`, `there [B, M, 1]` -> `[B, dim]`, zero where nothing is there."""
        raise NotImplementedError


class Sum(_Elementwise):
    """Sum of the inputs that are there."""

    api = 1

    def reduce(self, x: Tensor, there: Tensor) -> Tensor:
        return x.sum(1)


class Mean(_Elementwise):
    """Mean of the inputs that are there."""

    api = 1

    def reduce(self, x: Tensor, there: Tensor) -> Tensor:
        return x.sum(1) / there.sum(1).clamp(min=1).to(x.dtype)


class Max(_Elementwise):
    """Elementwise maximum of the inputs that are there."""

    api = 1

    def reduce(self, x: Tensor, there: Tensor) -> Tensor:
        return torch.where(there.any(1), x.masked_fill(~there, torch.finfo(x.dtype).min).amax(1), 0)


class Product(_Elementwise):
    """Elementwise product of the inputs that are there."""

    api = 1

    def reduce(self, x: Tensor, there: Tensor) -> Tensor:
        return torch.where(there.any(1), product(x, there), 0)
