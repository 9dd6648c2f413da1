"""Comparing tokens: the same bits, or the same within a tolerance of each row's largest magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Tokens

FLOAT32_TOLERANCE = 1e-5


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bytes, so that NaN equals NaN and 0 differs from -0."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def same_tokens(a: Tokens, b: Tokens) -> bool:
    """The same bits in every row that is no padding."""
    return len(a.mask) == len(b.mask) and all(same_bits(x, y) for x, y in zip(a.rows(), b.rows(), strict=True))


def difference(row: Tensor, other: Tensor) -> float:
    """Largest difference of two rows `[T, D]` over the first one's largest magnitude; infinite for other shapes."""
    if row.shape != other.shape:
        return float("inf")
    a, b = row.detach().cpu().double(), other.detach().cpu().double()
    if not len(a):
        return 0.0
    largest = float((a - b).abs().max() / a.abs().max().clamp(min=1e-6))
    return largest if largest == largest else float("inf")


def _bytes(x: Tensor) -> Tensor:
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
