"""What a row is made of, and how any value becomes a cell."""

from __future__ import annotations

import json
from collections import Counter
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

MOST_DIGITS = 4000
"""Of an integer; Python itself refuses a little more."""


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
    if isinstance(value, dict | list | bool | int | float):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # dates, decimals


def json_value(text: str | bytes) -> Any:
    """A JSON value. Raises ValueError also for a key that an object has twice; a very long number is kept as text."""
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for k, times in Counter(k for k, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def text_of(value: object) -> str | None:
    """A cell as rows.parquet holds it: text, for bytes their name; half a UTF-16 pair becomes its escape."""
    if value is None or (type(value) is str and value.isascii()):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
