"""Sizes and rates that a fusion takes as options, held within bounds, and with them the count of its weights."""

from __future__ import annotations

from mmtool.api import UsageError


def within(fusion: str, option: str, value: float, low: float, high: float) -> None:
    """Raises UsageError where `low <= value <= high` does not hold, as for NaN."""
    if not low <= value <= high:
        raise UsageError(f"{fusion}: {option}={value} is not between {low:g} and {high:g}")


def attention_within(fusion: str, *, dim: int, layers: int, heads: int, ff: int, dropout: float) -> None:
    """The options that every fusion by attention has. Raises UsageError."""
    within(fusion, "dim", dim, 1, 1024)
    within(fusion, "layers", layers, 1, 12)
    within(fusion, "heads", heads, 1, 64)
    within(fusion, "ff", ff, 1, 4096)
    within(fusion, "dropout", dropout, 0, 0.99)
    if dim % heads:
        raise UsageError(f"{fusion}: dim={dim} is not a multiple of heads={heads}")
