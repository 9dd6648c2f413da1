"""What a row is made of, and how any value becomes a cell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Blob:
    """A cell whose bytes are in the manifest itself (a tar member, a Parquet binary); `error`: why they are not."""

    name: str
    data: bytes
    error: str = ""

    def __str__(self) -> str:
        return self.name


Cell = str | Blob | None
"""None is a missing cell; an empty or blank text is missing too."""

Row = dict[str, Cell]


def to_cell(value: Any, name: str = "") -> Cell:
    """A value of JSON or Parquet as a cell: text as it is, other values as JSON, bytes as a Blob."""
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or value != value:  # NaN is how tables write a missing number
        return None
    if isinstance(value, bytes):
        return Blob(name, value) if value else None
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:  # how Hugging Face stores media in Parquet
        return to_cell(value["bytes"], value["path"] or name) or to_cell(value["path"])
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # dates, decimals
        return str(value)


def text_of(value: object) -> str | None:
    """A cell as rows.parquet holds it: text, for bytes their name; half a UTF-16 pair becomes its escape."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()
