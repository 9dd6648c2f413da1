"""Inputs of any width as one tensor: what the fusions that add or compare inputs begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtool.api import Tokens, UsageError

LARGEST = 256
"""Inputs of different widths meet in the largest of them, but no more than this, unless told."""


class CommonWidth(nn.Module):
    """Pools each input and projects it to one width; without a parameter where all have that width already.

    `always`: with a layer each, whatever their widths; `ones`: its bias begins at 1, as suits products of inputs.
    """

    def __init__(self, dims: dict[str, int], dim: int | None, *, always: bool = False, ones: bool = False) -> None:
        super().__init__()
        self.names = sorted(dims)
        if dim is not None and dim < 1:
            raise UsageError(f"dim={dim} is no width of a fusion", "give at least 1")
        widths = set(dims.values())
        self.dim = dim or (max(widths) if len(widths) == 1 else min(LARGEST, max(widths)))
        same = widths == {self.dim} and not always
        linear = linear_from_ones if ones else nn.Linear
        self.layers = nn.ModuleList(nn.Identity() if same else linear(dims[n], self.dim) for n in self.names)

    def forward(self, inputs: dict[str, Tokens]) -> tuple[Tensor, Tensor]:
        """Tokens of every input -> `x [B, M, dim]`, zero where an input is missing, and `present [B, M]`."""
        present = torch.stack([inputs[n].present for n in self.names], 1)  # [B, M]
        x = torch.stack([layer(inputs[n].mean()) for n, layer in zip(self.names, self.layers, strict=True)], 1)
        return x.masked_fill(~present.unsqueeze(-1), 0), present


def linear_from_ones(width: int, dim: int) -> nn.Linear:
    """A layer whose biases begin at 1: what multiplies such outputs sees its factors singly, too, (1 + a)(1 + b), at first."""
    layer = nn.Linear(width, dim)
    nn.init.ones_(layer.bias)
    return layer


def product(x: Tensor, there: Tensor) -> Tensor:
    """`x [B, M, dim]` multiplied over the inputs that are `there` (of a shape that x's can be masked by): `[B, dim]`.

    Factor by factor: the gradient of `Tensor.prod` looks for zeros, which is slow, above all of many networks at once.
    """
    first, *rest = x.masked_fill(~there, 1).unbind(1)
    for factor in rest:
        first = first * factor
    return first
