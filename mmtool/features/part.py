"""The rows of a shard or a block, as text, on their way into rows.parquet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Part:
    """The rows of one shard: ids, the manifest's cells, and each input's statuses, which the counts come from."""

    ids: list[str] = field(default_factory=list)
    rows: list[dict[str, str | None]] = field(default_factory=list)
    statuses: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
