"""A column of a features folder as a sequence of texts: it stays in Arrow's buffers, a fifth of what Python's objects take."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, overload


class Texts(Sequence[str | None]):
    """The cells of a pyarrow column of strings, None where there is none."""

    def __init__(self, column: Any) -> None:
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = [0, *accumulate(map(len, self._chunks))]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> str | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[str | None]: ...
    def __getitem__(self, row: int | slice) -> str | list[str | None] | None:
        if isinstance(row, slice):
            return [self[r] for r in range(*row.indices(len(self)))]
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(row)
        at = bisect_right(self._starts, row) - 1
        found: str | None = self._chunks[at][row - self._starts[at]].as_py()
        return found

    def __iter__(self) -> Iterator[str | None]:
        """Every cell; those of a chunk that are alike are one object."""
        for chunk in self._chunks:
            found = chunk.dictionary_encode()
            words: list[str | None] = [*found.dictionary.to_pylist(), None]
            for i in found.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False).tolist():
                yield words[i]


class Named(Sequence[str]):
    """The ids of some rows; empty where there is none."""

    def __init__(self, column: Texts, rows: Sequence[int]) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self._column[r] or "" for r in self._rows[at]]
        return self._column[self._rows[at]] or ""
