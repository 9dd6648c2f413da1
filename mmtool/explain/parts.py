"""A cell cut into parts that can be taken away: the one shape in which every kind of cell is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Kept = Sequence[bool]
"""Which of the P parts are still there."""


@dataclass(frozen=True)
class Parts:
    """P parts of one decoded cell.

    `keep` makes the cell that is left where only some parts are kept, None where nothing is; `describe` turns a score for
    each part into what the JSON says of it.
    """

    count: int
    keep: Callable[[Kept], Any]
    describe: Callable[[Sequence[float]], dict[str, Any]]


def rounded(score: float) -> float:
    """A score as the JSON has it."""
    return float(f"{score:.6g}")
