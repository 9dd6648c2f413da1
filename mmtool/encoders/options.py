"""Sizes and rates that an encoder takes as options, held within bounds."""

from __future__ import annotations

from mmtool.api import UsageError


def within(encoder: str, option: str, value: float, low: float, high: float) -> None:
    """Raises UsageError where `low <= value <= high` does not hold, as for NaN."""
    if not low <= value <= high:
        raise UsageError(f"{encoder}: {option}={value} is not between {low:g} and {high:g}")
