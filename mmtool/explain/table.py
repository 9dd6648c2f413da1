"""Which columns: a row of a table, whose values can be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmtool.explain.parts import Kept, Parts, rounded


def parts(cell: Mapping[str, Any]) -> Parts:
    """A dict of column to value -> the columns that have one; `columns` in the JSON is {column: score}."""
    there = [name for name, value in cell.items() if value is not None]

    def keep(kept: Kept) -> dict[str, Any] | None:
        left = {name for name, k in zip(there, kept, strict=True) if k}
        return {name: value if name in left else None for name, value in cell.items()} if left else None

    def describe(scores: Sequence[float]) -> dict[str, Any]:
        return {"columns": {name: rounded(s) for name, s in zip(there, scores, strict=True)}}

    return Parts(len(there), keep, describe)
