"""Labels as tensors, and cells of several values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def labels_to_tensor(labels: Sequence[str]) -> Tensor:
    """Labels as the bytes of a JSON list, uint8."""
    return torch.tensor(list(json.dumps(list(labels)).encode()), dtype=torch.uint8)


def labels_from_tensor(tensor: Tensor) -> list[str]:
    """The inverse of `labels_to_tensor`."""
    labels: list[str] = json.loads(bytes(tensor.tolist()))
    assert all(isinstance(label, str) for label in labels)
    return labels


def split_cell(cell: str) -> list[Any]:
    """`a|b|c`, or a JSON list -> its values, blanks left out."""
    text = cell.strip()
    if text.startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):  # a cell of ten thousand brackets
            values = None
        if isinstance(values, list):
            return [v for v in values if str(v).strip()]
    return [part.strip() for part in text.split("|") if part.strip()]
